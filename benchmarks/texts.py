"""CPU time of regress and perplexity, in multiples of plain forwards of transformers.

`python benchmarks/texts.py MODEL [--length 4096] [--rounds N]` loads a checkpoint twice, on one
thread, and times by turns in one process: two plain forwards against the divergence of two models;
as many plain forwards, with logits where tokens are scored, against sliding windows; and forwards
of every context against nested contexts. Who goes first changes every round. Then the peak memory
of regress in a process of its own, against its weights, its cache and one piece of logits.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from yarncli.evaluation.local import memory
from yarncli.evaluation.local.likelihood import TextReader, divergence
from yarncli.evaluation.local.load import LoadedModel, load_model, read_config
from yarncli.evaluation.settings import LoadSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
SETTINGS = LoadSettings(device="cpu")


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def plain(loaded: LoadedModel, ids: list[int], keep: int = 0) -> None:
    """One forward of transformers."""
    with torch.inference_mode():
        loaded.model(torch.tensor([ids]), use_cache=False, logits_to_keep=keep)


def ratios(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[float]:
    """CPU time of ours over theirs, round by round, after one that is not counted."""
    found = []
    for number in range(rounds + 1):
        ways = (ours, theirs) if number % 2 else (theirs, ours)
        spent = {way: cpu_seconds(way) for way in ways}
        found.append(spent[ours] / spent[theirs])
    return found[1:]


def tell(name: str, found: list[float], aim: float) -> None:
    """One line of the result."""
    ends = f"{min(found):.3f} – {max(found):.3f}"
    print(f"{name}: {statistics.median(found):.3f} x (of {len(found)}: {ends}), aim {aim:.2f} x")


def compare_time(directory: Path, length: int, rounds: int) -> None:
    """The three ratios."""
    one, other = (load_model(directory, SETTINGS) for _ in range(2))
    config = read_config(directory)
    ids = torch.randint(3, one.model.config.vocab_size, (length,)).tolist()
    chunk = memory.estimate(config, 0, length, one.dtype, one.device).chunk
    readers = TextReader(one, chunk), TextReader(other, chunk)
    stride = max(length // 16, 1)

    def both() -> None:
        plain(one, ids)
        plain(other, ids)

    found = ratios(lambda: divergence(*readers, ids), both, rounds)
    tell("regress against two plain forwards", found, 1.05)
    found = ratios(
        lambda: readers[0].losses(ids, length - 1 - stride),
        lambda: plain(one, ids, stride),
        rounds,
    )
    tell("a sliding window against a forward", found, 1.05)
    contexts = [length // 4, length // 2, length]
    scored = length // 8
    found = ratios(
        lambda: [readers[0].losses(ids[-n:], n - 1 - scored) for n in contexts],
        lambda: [plain(one, ids[-n:], scored) for n in contexts],
        rounds,
    )
    tell("nested contexts against their forwards", found, 1.05)


def peak(directory: Path, length: int) -> None:
    """Print by how much one comparison makes this process grow, and what it cannot do without."""
    from support.resident import resident

    before = resident("VmRSS")
    loaded = [load_model(directory, SETTINGS) for _ in range(2)]
    model = loaded[0].model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = memory.estimate(read_config(directory), 0, length, loaded[0].dtype, loaded[0].device)
    readers = [TextReader(each, needed.chunk) for each in loaded]
    ids = torch.randint(3, model.config.vocab_size, (length,)).tolist()
    divergence(readers[0], readers[1], ids)
    logits = readers[0].rows * model.config.vocab_size * 4
    least = 2 * (weights + needed.kv_cache + logits)
    print(resident("VmHWM") - before, least, 4 * length * model.config.vocab_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", action="store_true", help="print only the bytes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.peak:
        peak(arguments.model, arguments.length)
        return
    compare_time(arguments.model, arguments.length, arguments.rounds)
    for length in (arguments.length, 2 * arguments.length):
        command = [
            sys.executable,
            __file__,
            str(arguments.model),
            "--peak",
            "--length",
            str(length),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        grown, least, logits = (int(word) / 1e6 for word in done.stdout.split())
        print(
            f"regress at {length:,} tokens: {grown:.0f} MB, {grown / least:.2f} x weights, cache "
            f"and a piece of logits, aim 1.25 x (all logits of one model: {logits:.0f} MB)"
        )


if __name__ == "__main__":
    main()
