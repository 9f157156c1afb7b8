"""What each method does on the demo model: the table of the docs, as Markdown.

    python benchmarks/passkey_methods.py            # 10 depths × 5 trials: n = 50 per cell

Accuracy of passkey retrieval (greedy verdicts, float32) at 1, 2, 4 and 8 windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from yarncli.demo import write_demo
from yarncli.evaluation.report import LengthResult
from yarncli.evaluation.session import evaluate_passkey
from yarncli.evaluation.variants import CONTROL
from yarncli.rope.methods import METHODS

LENGTHS = (256, 512, 1024, 2048)
# Every method that needs no factor lists, and the settings that the page compares with them.
SETTINGS: dict[str, str | None] = {
    "none": None,
    **{
        f"{name} ×8": f"method={name},factor=8"
        for name, method in METHODS.items()
        if "long_factor" not in method.options
    },
    "dynamic, factor 1": "method=dynamic,factor=1",
    "yarn ×2": "method=yarn,factor=2",
    "yarn ×4": "method=yarn,factor=4",
}


def main() -> None:
    """Print the table."""
    import tempfile

    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, default=10)
    parser.add_argument("--trials", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    grid = {"lengths": LENGTHS, "depths": arguments.depths, "trials": arguments.trials, "seed": 1}

    def print_row(name: str, results: list[LengthResult]) -> None:
        shares = " | ".join(f"{result.accuracy:.2f}" for result in results)
        print(f"| {name} | {shares} |", flush=True)

    print("| method | " + " | ".join(f"{n:,}" for n in LENGTHS) + " |")
    print("|---" * (len(LENGTHS) + 1) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        base = write_demo(Path(temporary) / "base")
        tuned = write_demo(Path(temporary) / "tuned", tuned=True)
        for name, override in SETTINGS.items():
            print_row(name, evaluate_passkey(base, override=override, **grid).lengths())
        report = evaluate_passkey(tuned, control=True, **grid)
        print_row("yarn ×8, fine-tuned", report.lengths())
        print_row("yarn ×8, fine-tuned, scaling off", report.lengths(CONTROL))


if __name__ == "__main__":
    main()
