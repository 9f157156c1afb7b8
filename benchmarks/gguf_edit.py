"""Editing a GGUF file against copying it, and against gguf-py's script; reading a large header.

`python benchmarks/gguf_edit.py [--runs N] [--size MB] [--directory DIR]` writes a Q8_0 file with
128k tokens and 280k merges, then runs each way by turns in child processes with the page cache warm
and a sync in between; who goes first changes every round, and the first round is dropped. It prints
medians, and their ratios to `cp`: of one way the rounds differ by a factor of two, as the system
writes to the disk when it likes. Starting Python (with the byte code that an installed program has)
and reading the header count. At the end stand what is promised and how much of it was needed: a
share below 1 keeps the promise. The promises on copies are for files of 2.5 GB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

SCRIPT = "gguf_new_metadata.py"
TOKENS, MERGES = 128_000, 280_000
# What is promised: times `cp`, seconds and bytes of a header with so many words, times the script.
MOST_COPY, MOST_SECONDS, MOST_MEMORY, LEAST_SCRIPT = 1.15, 0.2, 60e6, 8
WITH_BYTE_CODE = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}
WIDTH, ROWS = 4096, 4096  # of one tensor: 17.8 MB of Q8_0
EDIT = """
import sys
from pathlib import Path
from yarncli.gguf.layout import GgufEdit, NewTensor
from yarncli.gguf.record import decide_rewrite
from yarncli.history import Step
from yarncli.gguf.source import open_gguf
file = open_gguf(sys.argv[1])
edit = GgufEdit(
    keys={"llama.context_length": ("u32", 32768), "llama.rope.scaling.attn_factor": ("f32", 1.1)},
    tensors={"rope_freqs.weight": NewTensor.of_floats([4.0] * 64)},
)
rewrite = decide_rewrite(file, edit, Step(command="convert", source="m"))
"""
COPY = """
from yarncli.gguf.rewrite import write_gguf
write_gguf(file, rewrite, Path(sys.argv[2]), verify="verify" in sys.argv)
"""
IN_PLACE = """
from yarncli.checkpoint.in_place import changing
from yarncli.gguf.in_place import change_gguf
with changing(Path(sys.argv[1]).parent) as held:
    change_gguf(file, rewrite, held)
"""
# Seconds of the parse alone, and peak memory in kilobytes; `getrusage` counts the parent's, too.
HEADER = """
import sys, time
from yarncli.gguf.source import open_gguf
times = []
for _ in range(5):
    started = time.perf_counter()
    header = open_gguf(sys.argv[1]).header
    times.append(time.perf_counter() - started)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(min(times), header.data_start, *peak)
"""


def write_model(path: Path, megabytes: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_rope_freq_base(500000.0)
    writer.add_token_list([f"token{number:06}" for number in range(TOKENS)])
    writer.add_token_types([1] * TOKENS)
    writer.add_token_merges([f"to{number % 999} ken{number}" for number in range(MERGES)])
    row = WIDTH // 32 * 34
    noise = np.frombuffer(os.urandom(ROWS * row), np.uint8).reshape(ROWS, row)
    for number in range(max(megabytes * 10**6 // noise.size, 1)):
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"blk.{number}.ffn_up.weight", noise, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(arguments: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of a processor, of a child process."""
    os.sync()
    started = time.perf_counter()
    child = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=WITH_BYTE_CODE
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{arguments[:3]} failed")
    return seconds, usage.ru_utime + usage.ru_stime


def measure_header(scratch: Path, model: Path) -> dict[str, float]:
    """Shares of what is promised."""
    found = []
    grown = scratch / "grown.gguf"
    subprocess.run(["cp", model, grown], check=True)
    os.truncate(grown, model.stat().st_size + (4 << 30))  # a hole, after the last tensor
    for path in (model, grown):
        done = subprocess.run(
            [sys.executable, "-c", HEADER, path], capture_output=True, text=True, check=True
        )
        seconds, size, memory = done.stdout.split()
        print(
            f"header of {int(size) / 1e6:.1f} MB in a file of {path.stat().st_size / 1e9:.2f} GB: "
            f"{float(seconds):.3f} s, peak {int(memory) * 1.024e-3:.0f} MB with Python"
        )
        found.append((float(seconds), int(memory) * 1024.0))
    grown.unlink()
    (seconds_of, memory_of), (_, grown_memory) = found
    return {
        f"header in {MOST_SECONDS} s": seconds_of / MOST_SECONDS,
        f"header in {MOST_MEMORY / 1e6:.0f} MB": memory_of / MOST_MEMORY,
        "its memory, of a file 4 GiB longer": grown_memory / memory_of,
    }


def measure(scratch: Path, runs: int, megabytes: int) -> None:
    model, out = scratch / "m.gguf", scratch / "out" / "o.gguf"
    out.parent.mkdir()
    write_model(model, megabytes)
    subprocess.run(["cat", model], stdout=subprocess.DEVNULL, check=True)
    shares = measure_header(scratch, model)
    python, script = [sys.executable, "-c"], "gguf.scripts.gguf_new_metadata"
    renamed = ["--force", "--general-name", "x"]
    ways = {
        "cp": ["cp", str(model), str(out)],
        "edit": [*python, EDIT + COPY, str(model), str(out)],
        "edit, verified": [*python, EDIT + COPY, str(model), str(out), "verify"],
        "edit in place": [*python, EDIT + IN_PLACE, str(out)],
        SCRIPT: [sys.executable, "-m", script, *renamed, str(model), str(out)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(runs + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            arguments = ways[name]
            if name == "edit in place":
                subprocess.run(["cp", model, out], check=True)
            took, busy = run(arguments)
            seconds[name].append(took)
            processor[name].append(busy)
            out.unlink()
    print(f"{model.stat().st_size / 1e9:.2f} GB, {runs} rounds")
    for name, times in seconds.items():
        print(
            f"{name:20} {min(times[1:]):6.2f} to {max(times[1:]):5.2f} s   "
            f"{_ratio(times, seconds['cp']):5.2f} × cp   "
            f"{statistics.median(processor[name][1:]):6.2f} s of a processor"
        )
    to_copy, to_script = (_ratio(seconds["edit"], seconds[n]) for n in ("cp", SCRIPT))
    shares |= {
        f"edit in {MOST_COPY} × cp": to_copy / MOST_COPY,
        f"{SCRIPT} beaten {LEAST_SCRIPT} ×": to_script * LEAST_SCRIPT,
    }
    for name, share in shares.items():
        print(f"{name:40} {share:5.2f}")


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The ratio of medians; the first round is dropped."""
    return statistics.median(ours[1:]) / statistics.median(theirs[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=2500, help="of the file, in MB")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as scratch:
        measure(Path(scratch), given.runs, given.size)


if __name__ == "__main__":
    main()
