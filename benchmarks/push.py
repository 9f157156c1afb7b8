"""`yarncli push` against `hf upload`, over Xet, to the small Hub of the tests.

    python benchmarks/push.py large     2.4 GB of sparse weights in two shards
    python benchmarks/push.py shards    300 small shards

Each pair of runs goes to new repositories with an empty client cache; the first pair is discarded.
Printed are the median of the pairwise ratios of wall time, and the peak memory of each program.
`--layers` makes the large checkpoint smaller or larger, by 436 MB each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from files import layer_shapes, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
TOKEN = "hf_" + "b" * 34


def write_large(directory: Path, layers: int) -> int:
    """Two sparse shards of an 8B-shaped model with few layers. Returns bytes."""
    return _write(directory, layers, 2, hidden=4096, inner=14336, heads=32, kv=1024, vocab=32000)


def write_small_shards(directory: Path) -> int:
    """300 shards of a narrow model of 133 layers. Returns bytes."""
    return _write(directory, 133, 300, hidden=64, inner=128, heads=1, kv=64, vocab=256)


def _write(directory: Path, layers: int, shards: int, **sizes: int) -> int:
    hidden, inner, kv, vocab = (sizes[name] for name in ("hidden", "inner", "kv", "vocab"))
    shapes = {
        f"model.layers.{i}.{name}": shape
        for i in range(layers)
        for name, shape in layer_shapes(hidden, inner, kv).items()
    }
    shapes["model.embed_tokens.weight"] = [vocab, hidden]
    shapes["model.norm.weight"] = [hidden]
    total = write_checkpoint(directory, shapes, shards, sparse=True)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": kv * sizes["heads"] // hidden,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
    }
    path.write_text(json.dumps(config, indent=2))
    return total


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of one command."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            told.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{told.read().decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 1024


def open_hub(directory: Path) -> Any:
    """The small Hub with its writing side and Xet."""
    from support.minihub import MiniHub
    from support.minihub_writing import open_for_writing
    from support.minihub_xet import open_for_xet

    hub = open_for_xet(open_for_writing(MiniHub(directory)))
    hub.trusts_xet = True
    hub.add_user(TOKEN, "me")
    return hub


def main() -> None:
    """Run the pairs in a scratch directory, removed afterwards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", choices=["large", "shards"])
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to write; default: here")
    arguments = parser.parse_args()
    bin_of = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as name:
        scratch, model = Path(name), Path(name) / "model"
        is_large = arguments.which == "large"
        total = write_large(model, arguments.layers) if is_large else write_small_shards(model)
        programs = {
            "yarncli": [sys.executable, "-m", "yarncli", "push", str(model)],
            "hf": [str(bin_of / "hf"), "upload", "--private"],
        }
        seconds: dict[str, list[float]] = {key: [] for key in programs}
        peaks = dict.fromkeys(programs, 0.0)
        with open_hub(scratch / "hub") as hub:
            for number in range(arguments.runs + 1):
                for key, command in programs.items():
                    hub.xorbs.clear()
                    target = f"me/{key}-{number}"
                    more = ["--no-card", target] if key == "yarncli" else [target, str(model)]
                    environment = {
                        **os.environ,
                        "HF_HOME": str(scratch / f"home-{key}-{number}"),
                        "HF_ENDPOINT": hub.url,
                        "HF_TOKEN": TOKEN,
                        "HF_HUB_DISABLE_XET": "0",
                    }
                    took, peak = measured([*command, *more], environment)
                    peaks[key] = max(peaks[key], peak)
                    seconds[key] += [took] if number else []
        ratios = sorted(a / b for a, b in zip(seconds["yarncli"], seconds["hf"], strict=True))
        print(
            f"push / hf upload, {total / 1e9:.1f} GB, {arguments.which}: "
            f"median {statistics.median(ratios):.2f} "
            f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
        )
        for key, times in seconds.items():
            print(f"  {key}: {statistics.median(times):.1f} s, peak {peaks[key]:.0f} MB")


if __name__ == "__main__":
    main()
