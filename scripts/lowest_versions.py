"""Print pip constraints with the lowest version that pyproject.toml allows of each dependency.

    python scripts/lowest_versions.py [--base] [--without NAME]

`--base` leaves the extras out. Where two of them name one package, the higher bound counts.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BOUND = re.compile(r"([A-Za-z0-9-]+)>=([0-9.]+)")


def lowest(*, extras: bool) -> dict[str, str]:
    """Package → its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    if extras:
        wanted += [r for group in project["optional-dependencies"].values() for r in group]
    found: dict[str, str] = {}
    for name, version in (match.groups() for r in wanted if (match := _BOUND.match(r))):
        found[name] = max(found.get(name, "0"), version, key=_numbers)
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    for name, version in sorted(lowest(extras=not arguments.base).items()):
        if name not in arguments.without:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
