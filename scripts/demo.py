"""`make demo`: a real checkpoint gets a longer window, and shows that it reads further than before.

python scripts/demo.py [DIRECTORY]     default: demo-run
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from yarncli.cli import console
from yarncli.evaluation.report import PasskeyReport
from yarncli.evaluation.session import evaluate_passkey
from yarncli.figures.lines import Curve, draw_curves, mark_windows, put_legend
from yarncli.figures.saving import new_figure, save_figure
from yarncli.progress import Progress

WINDOW = 256
LENGTHS = [WINDOW * times for times in (1, 2, 4, 8)]
DEPTHS, TRIALS = 10, 2
MARKER = ".made-by-make-demo"


def run(*arguments: str) -> None:
    """Show a yarncli command and run it; a failure ends the demo."""
    console.print_text(f"\n$ yarncli {shlex.join(arguments)}")
    program = Path(sys.executable).with_name("yarncli")
    subprocess.run([program, *arguments], check=True)


def main(directory: Path) -> None:
    """Inspect, convert, measure before and after, draw."""
    if directory.exists():
        if not (directory / MARKER).exists():
            raise SystemExit(f"{directory} exists and was not made by this demo; remove it first.")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARKER).touch()
    base, converted, tuned = (str(directory / name) for name in ("base", "yarn8", "tuned"))
    run("demo", base)
    run("inspect", base, "--factor", "8", "--plot", str(directory / "rope.png"))
    run("convert", base, converted, "--method", "yarn", "--factor", "8")
    run("demo", tuned, "--tuned")
    models = {
        "before: no scaling": base,
        "after: yarn ×8": converted,
        "yarn ×8, fine-tuned": tuned,
    }
    reports = {name: measure(name, Path(path)) for name, path in models.items()}
    console.print_text(f"\nPasskeys retrieved, {DEPTHS * TRIALS} prompts per length")
    console.print_table(
        ("", *(f"{n:,} ({n // WINDOW}×)" for n in LENGTHS)),
        [
            (name, *(f"{r.accuracy:.0%}" for r in found.lengths()))
            for name, found in reports.items()
        ],
    )
    figure = directory / "retrieval.png"
    draw(reports, figure)
    console.print_text(f"\nFigures: {directory / 'rope.png'}, {figure}")


def measure(name: str, path: Path) -> PasskeyReport:
    """Passkeys retrieved at each length."""
    bars = console.ProgressBars()

    def show(now: Progress) -> None:
        if now.stage == "Asking":
            bars(replace(now, stage=name))

    return evaluate_passkey(path, lengths=LENGTHS, depths=DEPTHS, trials=TRIALS, progress=show)


def draw(reports: dict[str, PasskeyReport], path: Path) -> None:
    """Draw retrieval over length, one curve per model, as `yarncli plot` does."""
    figure = new_figure(8.6, 4.4)
    axes = figure.add_subplot()
    found = {name: report.lengths() for name, report in reports.items()}
    curves = [
        Curve(name, [(r.length, r.accuracy, r.interval) for r in rows])
        for name, rows in found.items()
    ]
    draw_curves(axes, curves)
    mark_windows(axes, [(WINDOW, LENGTHS[-1])])
    axes.set(ylim=(-0.04, 1.04), xlabel="prompt length (tokens)", ylabel="passkeys retrieved")
    axes.grid(alpha=0.25)
    put_legend(axes, len(curves))
    figure.suptitle("Passkey retrieval before and after", fontsize=13, fontweight="bold")
    save_figure(lambda: figure, path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-run"))
