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
from yarncli.evaluation.session import evaluate_passkey
from yarncli.progress import Progress

WINDOW = 256
LENGTHS = [WINDOW * times for times in (1, 2, 4, 8)]
DEPTHS, TRIALS = 10, 2
MARKER = ".made-by-make-demo"


def run(*arguments: str) -> None:
    """Show a yarncli command and run it; its failure ends the demo."""
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
    accuracies = {name: measure(name, Path(path)) for name, path in models.items()}
    console.print_text(f"\nPasskeys retrieved, {DEPTHS * TRIALS} prompts per length")
    console.print_table(
        ("", *(f"{n:,} ({n // WINDOW}×)" for n in LENGTHS)),
        [(name, *(f"{a:.0%}" for a in row)) for name, row in accuracies.items()],
    )
    figure = directory / "retrieval.png"
    draw(accuracies, figure)
    console.print_text(f"\nFigures: {directory / 'rope.png'}, {figure}")


def measure(name: str, path: Path) -> list[float]:
    """The share of passkeys retrieved at each length."""
    bars = console.ProgressBars()

    def show(now: Progress) -> None:
        if now.stage == "Asking":
            bars(replace(now, stage=name))

    report = evaluate_passkey(path, lengths=LENGTHS, depths=DEPTHS, trials=TRIALS, progress=show)
    return [result.accuracy for result in report.lengths()]


def draw(accuracies: dict[str, list[float]], path: Path) -> None:
    """Accuracy over length, one line per model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, row), color in zip(
        accuracies.items(), ("#8a8f98", "#d1495b", "#30638e"), strict=True
    ):
        axes.plot(LENGTHS, row, marker="o", lw=2, color=color, label=name)
    axes.axvline(WINDOW, color="#30638e", ls=":", lw=1.2)
    axes.annotate(
        "original window", (WINDOW, 0.5), xytext=(6, 0), textcoords="offset points", fontsize=9
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
    axes.set(ylim=(-0.03, 1.03), xlabel="prompt length, tokens", ylabel="passkeys retrieved")
    axes.set_title("Passkey retrieval before and after", loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-run"))
