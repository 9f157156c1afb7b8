"""`make paper`: the YaRN paper's experiments at a size that a computer without a GPU can do.

    python scripts/paper.py            measure what is missing, then write docs/paper.md
    python scripts/paper.py --page     write docs/paper.md from the results that are there
    python scripts/paper.py --quick    a reduced run on the demo, all of it in the work directory

Results are the files of --out in docs/paper/; a run that was interrupted goes on where it was. To
measure anew, remove them. Numbers come from these files only.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from paper_page import draw, render
from paper_parts import PARTS, STORIES, TOPICS, Part
from smollm2 import write_checkpoint

from yarncli.checkpoint.output import atomic_write
from yarncli.demo import write_demo, write_demo_text

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def write_topics(path: Path) -> None:
    """Write the chapters of Python's reference that its standard library carries, by their names.

    Each version of Python has its own; a run is not resumed with another's.
    """
    from pydoc_data.topics import topics

    atomic_write(path, "\n\n".join(topics[name] for name in sorted(topics)).encode())


def prepare(quick: bool) -> None:
    """Write the models and texts that are missing into the current directory."""
    if not Path("demo").exists():
        write_demo("demo")
    if not Path("tuned").exists():
        write_demo("tuned", tuned=True)
    if not Path(STORIES).exists():
        write_demo_text(STORIES)
    if not quick and not Path("smollm2").exists():
        write_checkpoint(Path("smollm2"))
    topics = Path(TOPICS)
    if not quick and not topics.exists():
        write_topics(topics)


def measure(part: Part, out: Path, quick: bool) -> Any:
    """Run one part, or the rest of it; returns its report."""
    from yarncli.evaluation.perplexity import evaluate_perplexity
    from yarncli.evaluation.regress import regress
    from yarncli.evaluation.session import evaluate_passkey

    run: Any = {"passkey": evaluate_passkey, "perplexity": evaluate_perplexity, "regress": regress}
    model = "demo" if quick and part.model == "smollm2" else part.model
    options = {**part.options, **(part.quick if quick else {})}
    return run[part.kind](model, **options, dtype="float32", device="cpu", out=out, resume=True)


def measure_all(directory: Path, quick: bool) -> None:
    """Run all parts in the current directory; first print how long each one takes."""
    total = sum(part.minutes for part in PARTS)
    if not quick:
        for part in PARTS:
            print(f"{part.name:22} {part.minutes:5.1f} CPU minutes, about", flush=True)
        print(f"{'together':22} {total:5.1f} CPU minutes, about, on one thread", flush=True)
    prepare(quick)
    for part in PARTS:
        begin = time.process_time()
        measure(part, directory / f"{part.name}.jsonl", quick)
        took = (time.process_time() - begin) / 60
        print(f"{part.name}: done, {took:.1f} CPU minutes", flush=True)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "paper-run", help="models and texts")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    results = (work if arguments.quick else DOCS) / "paper"
    results.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if not arguments.page:
        os.chdir(work)  # so that results name models and texts without a directory
        measure_all(results, arguments.quick)
    draw(results, results)
    atomic_write(results.with_suffix(".md"), render(results).encode())


if __name__ == "__main__":
    main()
