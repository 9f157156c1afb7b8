"""What each method does on the demo model: the table of the docs, as Markdown.

    python benchmarks/passkey_methods.py            # 10 depths × 5 trials: n = 50 per cell

Accuracy of passkey retrieval (greedy verdicts, float32) at 1, 2, 4 and 8 windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from yarncli.checkpoint.source import open_checkpoint
from yarncli.demo import write_demo
from yarncli.evaluation.passkey import evaluate
from yarncli.evaluation.report import summarise
from yarncli.evaluation.variants import Override, overridden
from yarncli.planning.plan import Target
from yarncli.rope.methods import METHODS

LENGTHS = (256, 512, 1024, 2048)
FACTOR = 8.0
# Every method that needs no factor lists, and the settings that the page compares with them.
SETTINGS: dict[str, Target | None] = {
    "none": None,
    **{
        f"{name} ×8": Target(name, factor=FACTOR)
        for name, method in METHODS.items()
        if "long_factor" not in method.options
    },
    "dynamic, factor 1": Target("dynamic", factor=1.0),
    "yarn ×2": Target("yarn", factor=2.0),
    "yarn ×4": Target("yarn", factor=4.0),
}


def row(name: str, directory: Path, config: object, depths: int, trials: int) -> None:
    """Measure one setting and print its line."""
    cells = evaluate(directory, LENGTHS, depths=depths, trials=trials, seed=1, config=config)
    shares = " | ".join(f"{result.accuracy:.2f}" for result in summarise(cells))
    print(f"| {name} | {shares} |", flush=True)


def main() -> None:
    """Print the table."""
    import tempfile

    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, default=10)
    parser.add_argument("--trials", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| method | " + " | ".join(f"{n:,}" for n in LENGTHS) + " |")
    print("|---" * (len(LENGTHS) + 1) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        base = write_demo(Path(temporary) / "base")
        tuned = write_demo(Path(temporary) / "tuned", tuned=True)
        config = open_checkpoint(str(base)).config()
        for name, target in SETTINGS.items():
            value = None
            if target is not None:
                value = overridden(config, Override(target), name).config
            row(name, base, value, arguments.depths, arguments.trials)
        row("yarn ×8, fine-tuned", tuned, None, arguments.depths, arguments.trials)
        row(
            "yarn ×8, fine-tuned, scaling off",
            tuned,
            config.value,
            arguments.depths,
            arguments.trials,
        )


if __name__ == "__main__":
    main()
