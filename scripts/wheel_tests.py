"""Test the installed yarncli without access to its sources.

    python scripts/wheel_tests.py [--lowest] [PYTEST OPTION …]

The tests are copied to a directory without `yarncli/` and run there. Without an option these are
the tests for this system: all on Linux and macOS, those of WINDOWS on Windows. `--lowest` takes
those that use a dependency, for an environment that has the oldest versions.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ("tests", "docs", "scripts", "benchmarks", ".github")

# These read the sources, or install them.
NEED_SOURCES = ("tests/packaging", "tests/docs/test_security.py", "tests/rules/test_pre_commit.py")

# What yarncli does on Windows: it reads, decides and explains.
WINDOWS = (
    "tests/config", "tests/engines", "tests/inspection", "tests/jsontext", "tests/planning",
    "tests/rope", "tests/rules/test_rules.py",
)  # fmt: skip

# Tests that use each dependency; the oldest Hub client has a separate environment.
LOWEST = (
    "tests/cli/test_app.py",  # typer
    "tests/checkpoint/test_safetensors.py",  # safetensors, numpy
    "tests/baking/test_bake.py",  # numpy, torch, transformers
    "tests/evaluation/test_check_passkey.py", "tests/evaluation/test_load.py",  # accelerate, rich
    "tests/evaluation/test_template.py",  # jinja2
    "tests/hub/test_reading.py",  # huggingface_hub
    "tests/publishing/test_card_reader.py",  # pyyaml
)  # fmt: skip


def selection(arguments: list[str]) -> list[str]:
    """The arguments for pytest."""
    if "--lowest" in arguments:
        # An old library may use functions that its dependencies have deprecated since.
        return [*LOWEST, "-W", "ignore::DeprecationWarning"]
    if sys.platform == "win32":
        return list(WINDOWS)
    return [f"--ignore={path}" for path in NEED_SOURCES]


def main() -> None:
    """Copy the tests, and run them."""
    arguments = sys.argv[1:]
    found = importlib.util.find_spec("yarncli")
    if found is None or Path(str(found.origin)).is_relative_to(ROOT / "yarncli"):
        sys.exit("Install the wheel first, and run this from a Python that does not see yarncli/.")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "tests-of-yarncli"
        for name in CARRIED:
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, place)
        options = [option for option in arguments if option != "--lowest"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [sys.executable, "-m", "pytest", *selection(arguments), *options]
        done = subprocess.run(command, cwd=place, env=environment, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
