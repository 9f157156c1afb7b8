"""What one more config costs `yarncli check` in a large repository.

`python benchmarks/check.py [--runs N]` runs one call with 200 configs and one with a single config
by turns, in child processes. Start-up against a bare Typer program is in startup.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "yarncli" / "demo" / "base" / "config.json"
MANY = 200

YARNCLI = "from yarncli.cli.app import main; main()"


def seconds(arguments: list[str]) -> float:
    """Wall-clock time of one child process."""
    with Path(os.devnull).open("w") as sink:
        started = time.perf_counter()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", YARNCLI, "check", *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), 1)],
        )
        os.waitpid(child, 0)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(MANY):
            path = Path(folder, str(number), "config.json")
            path.parent.mkdir()
            path.write_bytes(CONFIG.read_bytes())
            paths.append(str(path))
        extra = []
        for _ in range(runs):
            one = seconds(paths[:1])
            extra.append((seconds(paths) - one) / (MANY - 1))
    print(f"{MANY} configs: {1000 * statistics.median(extra):.2f} ms per further file (aim 3 ms)")


if __name__ == "__main__":
    main()
