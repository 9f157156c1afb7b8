"""Baking against copying, and against reading and saving every tensor, on an 8B-shaped checkpoint.

`python benchmarks/bake.py [--runs N] [--layers N] [--directory DIR]` writes a two-shard bfloat16
checkpoint (6 layers: 2.6 GB), then runs each way by turns in child processes with the page cache
warm and a sync in between, drops the first round and prints medians of ratios to `cp -r`, peak
memory, and for --in-place the bytes written per byte of edited tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER = 4096, 32, 8, 128, 14336
SHAPES = {
    "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    },
}
# Runs a command line of yarncli and reports what the process wrote, on stderr's last line.
YARNCLI = """
import sys
from yarncli.cli.app import main
sys.argv = ["yarncli", *sys.argv[1:]]
try:
    main()
finally:
    with open("/proc/self/io") as file:
        counts = dict(line.split(": ") for line in file.read().splitlines())
    print("\\nwchar", counts["wchar"], file=sys.stderr)
"""
READ_AND_SAVE = """
import pathlib, shutil, sys
from safetensors import safe_open
from safetensors.torch import save_file
source, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir()
factor = 1.138629436111989**2
for path in sorted(source.iterdir()):
    if path.suffix != ".safetensors":
        shutil.copy(path, out)
        continue
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for name in tensors:
        if ".k_proj." in name:
            tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)
    save_file(tensors, out / path.name, {"format": "pt"})
"""


# What of a command is not start-up and deciding.
BEYOND = {
    "convert": "convert --dry-run",
    "bake": "bake --dry-run",
    "bake --in-place": "bake --dry-run",
}


def write_checkpoint(directory: Path, layers: int) -> int:
    """Two shards of bfloat16 noise; returns the bytes of all k_proj."""
    directory.mkdir()
    config = {**CONFIG, "num_hidden_layers": layers}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    noise = bytearray(os.urandom(1 << 22))
    noise[1::2] = bytes(63 + (value & 1) for value in noise[1::2])  # numbers around 1
    block, weight_map, edited = bytes(noise), {}, 0
    for shard in range(2):
        name = f"model-{shard + 1:05}-of-00002.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for layer in range(shard * layers // 2, (shard + 1) * layers // 2):
            for part, (rows, columns) in SHAPES.items():
                size = rows * columns * 2
                tensor = f"model.layers.{layer}.{part}.weight"
                header[tensor] = {
                    "dtype": "BF16",
                    "shape": [rows, columns],
                    "data_offsets": [offset, offset + size],
                }
                weight_map[tensor] = name
                offset += size
                edited += size if "k_proj" in part else 0
        text = json.dumps(header).encode()
        with (directory / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for start in range(0, offset, len(block)):
                file.write(block[: min(len(block), offset - start)])
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return edited


def run(arguments: list[str]) -> tuple[float, int, str]:
    """Seconds, peak memory in bytes, and stderr of a child process."""
    os.sync()
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        errors.seek(0)
        text = errors.read()
    if status:
        raise SystemExit(f"{arguments[:4]} failed:\n{text}")
    return seconds, usage.ru_maxrss * 1024, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as scratch:
        measure(Path(scratch), given.runs, given.layers)


def measure(scratch: Path, runs: int, layers: int) -> None:
    source, out = scratch / "source", scratch / "out"
    edited = write_checkpoint(source, layers)
    subprocess.run(["cat", *source.glob("*.safetensors")], stdout=subprocess.DEVNULL, check=True)
    bake = [sys.executable, "-c", YARNCLI, "bake", str(source)]
    rescaled = ["--rescale", "--length", "262144"]
    convert = [sys.executable, "-c", YARNCLI, "convert", str(source), *rescaled]
    # --verify also bakes a small twin; that is a fixed cost and is left out by the library call.
    verify = (
        "import sys; from pathlib import Path; "
        "from yarncli.baking.deciding import decide_bake; "
        "from yarncli.baking.writing import write_copy; "
        "from yarncli.checkpoint.source import open_checkpoint; "
        "write_copy(decide_bake(open_checkpoint(sys.argv[1])), Path(sys.argv[2]), verify=True)"
    )
    ways = {
        "cp -r": ["cp", "-r", str(source), str(out)],
        "bake": [*bake, str(out)],
        "bake, verified": [sys.executable, "-c", verify, str(source), str(out)],
        "read and save": [sys.executable, "-c", READ_AND_SAVE, str(source), str(out)],
        "bake --in-place": [*bake[:-1], str(out), "--in-place"],
        "bake --dry-run": [*bake, str(out), "--dry-run"],
        "convert": [*convert, str(out)],
        "convert --dry-run": [*convert, str(out), "--dry-run"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = dict.fromkeys(ways, 0)
    written = 0.0
    for _ in range(runs + 1):
        for name, arguments in ways.items():
            if name == "bake --in-place":
                shutil.copytree(source, out)
            took, peak, text = run(arguments)
            seconds[name].append(took)
            memory[name] = max(memory[name], peak)
            if name == "bake --in-place":
                written = int(text.rsplit("wchar ", 1)[1]) / edited
            shutil.rmtree(out, ignore_errors=True)
    size = sum(path.stat().st_size for path in source.iterdir())
    print(f"{size / 1e9:.2f} GB in 2 shards, {edited / 1e6:.0f} MB of it edited, {runs} rounds")
    copy = seconds["cp -r"]
    for name, times in seconds.items():
        pairs = list(zip(times, copy, strict=True))[1:]
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"{name:16} {statistics.median(times[1:]):6.2f} s   {ratio:5.2f} × cp -r   "
            f"peak {memory[name] / 1e6:6.0f} MB"
        )
    for name, dry in BEYOND.items():
        triples = list(zip(seconds[name], seconds[dry], copy, strict=True))[1:]
        beyond = statistics.median((a - b) / c for a, b, c in triples)
        print(f"{name}, beyond its dry run: {beyond:.2f} × cp -r")
    pairs = list(zip(seconds["bake"], seconds["read and save"], strict=True))[1:]
    print(f"bake / read and save: {statistics.median(a / b for a, b in pairs):.2f}")
    print(f"in place: {written:.2f} bytes written per byte of edited tensors")


if __name__ == "__main__":
    main()
