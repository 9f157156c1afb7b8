"""inspect and convert on large files, against the plainest way to do the same.

    python benchmarks/files.py inspect     a 191-shard, 405B-shaped checkpoint of sparse files
    python benchmarks/files.py convert     a 2.6 GB, two-shard checkpoint against `cp -r`

`convert` interleaves the two commands, discards the first pair and prints the median of the
pairwise ratios; both write to the same file system, with a sync before each run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

YARNCLI = Path(sys.executable).with_name("yarncli")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16384,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
    "num_hidden_layers": 126,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
}


def layer_shapes(hidden: int, inner: int, kv: int) -> dict[str, list[int]]:
    """Tensor name → shape of one Llama layer."""
    return {
        "self_attn.q_proj.weight": [hidden, hidden],
        "self_attn.k_proj.weight": [kv, hidden],
        "self_attn.v_proj.weight": [kv, hidden],
        "self_attn.o_proj.weight": [hidden, hidden],
        "mlp.gate_proj.weight": [inner, hidden],
        "mlp.up_proj.weight": [inner, hidden],
        "mlp.down_proj.weight": [hidden, inner],
        "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden],
    }


def write_checkpoint(
    directory: Path, shapes: dict[str, list[int]], shards: int, *, sparse: bool
) -> int:
    """A bf16 checkpoint of `shards` files; sparse files take no space. Returns its bytes."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2))
    names = list(shapes)
    per_shard = -(-len(names) // shards)
    weight_map, total = {}, 0
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header, offset = {}, 0
        for name in names[number * per_shard : (number + 1) * per_shard]:
            size = 2
            for dimension in shapes[name]:
                size *= dimension
            header[name] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [offset, offset + size],
            }
            offset += size
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (directory / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            if sparse:
                out.truncate(8 + len(text) + offset)
            else:
                block = os.urandom(1 << 24)
                for start in range(0, offset, len(block)):
                    out.write(block[: min(len(block), offset - start)])
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def timed(command: list[str]) -> float:
    """Wall seconds of one command, after a sync."""
    os.sync()
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def bench_inspect(scratch: Path) -> None:
    """Time and peak memory of `inspect` on the sparse checkpoint."""
    shapes = {
        f"model.layers.{i}.{name}": shape
        for i in range(126)
        for name, shape in layer_shapes(16384, 53248, 1024).items()
    }
    shapes |= {
        "model.embed_tokens.weight": [128256, 16384],
        "lm_head.weight": [128256, 16384],
        "model.norm.weight": [16384],
    }
    total = write_checkpoint(scratch / "big", shapes, 191, sparse=True)
    command = [str(YARNCLI), "inspect", str(scratch / "big")]
    seconds = statistics.median(timed(command) for _ in range(5))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"inspect, {total / 1e9:.0f} GB in 191 shards: {seconds:.2f} s, peak {peak:.0f} MB")


def bench_convert(scratch: Path, runs: int) -> None:
    """The ratio of `convert` to `cp -r`."""
    shapes = {
        f"model.layers.{i}.{name}": shape
        for i in range(6)
        for name, shape in layer_shapes(4096, 14336, 1024).items()
    }
    total = write_checkpoint(scratch / "model", shapes, 2, sparse=False)
    ratios = []
    for number in range(runs + 1):
        convert = [str(YARNCLI), "convert", str(scratch / "model"), str(scratch / "out")]
        ours = timed([*convert, "--factor", "4"])
        shutil.rmtree(scratch / "out")
        theirs = timed(["cp", "-r", str(scratch / "model"), str(scratch / "out")])
        shutil.rmtree(scratch / "out")
        if number:
            ratios.append(ours / theirs)
    shown = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    print(
        f"convert / cp -r, {total / 1e9:.1f} GB: median {statistics.median(ratios):.2f} ({shown})"
    )


def main() -> None:
    """Run one benchmark in a scratch directory, removed afterwards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("which", choices=["inspect", "convert"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to write; default: here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as scratch:
        if arguments.which == "inspect":
            bench_inspect(Path(scratch))
        else:
            bench_convert(Path(scratch), arguments.runs)


if __name__ == "__main__":
    main()
