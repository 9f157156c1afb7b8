"""Resolve every dependency afresh and pin the result in constraints.txt (`make constraints`)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# torch pins these itself, on the platforms that need them.
PLATFORM_PACKAGES = re.compile(r"nvidia-|cuda-|triton|pytorch-triton")


def resolve(*requirements: str) -> dict[str, str]:
    """What pip would install for `requirements`: normalised name → version without local part."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--report", "-", *requirements]
    report = json.loads(
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    )
    found = [item["metadata"] for item in report["install"]]
    return {
        re.sub(r"[-_.]+", "-", metadata["name"]).lower(): metadata["version"].partition("+")[0]
        for metadata in found
    }


def main() -> None:
    """Write constraints.txt beside pyproject.toml."""
    groups = [word for group in ("dev", "site", "release") for word in ("--group", group)]
    pins = resolve("torch==2.13.0", "-e", ".[all]", *groups)
    del pins["yarncli"]
    lines = [f"{n}=={v}\n" for n, v in sorted(pins.items()) if not PLATFORM_PACKAGES.match(n)]
    header = "# Every package of every extra and dependency group; made by `make constraints`.\n"
    (ROOT / "constraints.txt").write_text(header + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
