"""Say whether this tree can be released (`make release-check`, with TAG=v1.2.3 for a tag).

Builds the sdist and the wheel (into dist/), and checks the version, CHANGELOG.md, CITATION.cff, the
metadata and how README.md renders, that the wheel is made byte for byte again and from the sdist,
and the forms and workflows of .github/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = {
    "citation-file-format": ["CITATION.cff"],
    "github-workflows": [".github/workflows/*.yml"],
    "github-issue-forms": [".github/ISSUE_TEMPLATE/[!c]*.yml"],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
}


def version() -> str:
    """The version of the package, which only yarncli/__init__.py states."""
    text = (ROOT / "yarncli" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def wrong_texts(tag: str) -> Iterator[str]:
    """Statements of the files that contradict the version or the tag."""
    found = version()
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    dated = re.search(rf"^## \[{re.escape(found)}\] - (\d{{4}}-\d\d-\d\d)$", changes, re.MULTILINE)
    waiting = re.search(
        r"^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", changes, re.MULTILINE | re.DOTALL
    )
    unreleased = bool(waiting and waiting[1].strip())
    if tag and tag != f"v{found}":
        yield f"The tag is {tag}, and yarncli/__init__.py says {found}."
    if tag and unreleased:
        yield "CHANGELOG.md still has lines under [Unreleased]; they belong to this version."
    if not dated and (tag or not unreleased):
        yield f"CHANGELOG.md has no section '## [{found}] - YYYY-MM-DD'."
    if dated and f"date-released: {dated[1]}\n" not in citation:
        yield f"CITATION.cff does not have the date of CHANGELOG.md, {dated[1]}."
    if f"version: {found}\n" not in citation:
        yield f"CITATION.cff does not have the version {found}."


def build(source: Path, out: Path, *kinds: str) -> None:
    """Build into `out`, with the tools of this environment."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1577836800"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *kinds, source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def wrong_builds(dist: Path) -> Iterator[str]:
    """Build everything into `dist`, then again, and the wheel once more from the sdist."""
    shutil.rmtree(dist, ignore_errors=True)
    build(ROOT, dist, "--sdist", "--wheel")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        build(ROOT, place, "--sdist", "--wheel")
        for first in dist.iterdir():
            if first.read_bytes() != (place / first.name).read_bytes():
                yield f"{first.name} differs when it is built again."
        (archive,) = dist.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(place / "unpacked", filter="data")
        (unpacked,) = (place / "unpacked").iterdir()
        build(unpacked, place / "again", "--wheel")
        (wheel,) = dist.glob("*.whl")
        if wheel.read_bytes() != (place / "again" / wheel.name).read_bytes():
            yield f"{wheel.name} differs when it is built from {archive.name}."
        yield from _not_packed(unpacked)


def _not_packed(unpacked: Path) -> Iterator[str]:
    """Files under version control that the sdist leaves out."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if missing := [name for name in listed.stdout.split("\n") if not (unpacked / name).exists()]:
        yield f"The sdist leaves out {', '.join(missing)}."


def failed_commands(dist: Path) -> Iterator[str]:
    """Run the checkers of other projects for metadata, schemas and workflow permissions."""
    binaries = Path(sys.executable).parent
    commands = [["twine", "check", "--strict", *map(str, sorted(dist.iterdir()))]]
    for name, patterns in SCHEMAS.items():
        files = [str(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
        kind = ["--default-filetype", "yaml", "--builtin-schema", f"vendor.{name}"]
        commands.append(["check-jsonschema", *kind, *files])
    commands.append(
        ["zizmor", "--offline", "--quiet", "--min-severity", "medium", str(ROOT / ".github")]
    )
    for program, *arguments in commands:
        if subprocess.run([binaries / program, *arguments], check=False).returncode:
            yield f"{program} found errors; see above."


def main() -> None:
    """Check everything, and print all errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tag", default="", help="the tag of the release, as v0.2.0")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    dist = arguments.out
    wrong = [*wrong_texts(arguments.tag), *wrong_builds(dist), *failed_commands(dist)]
    for text in wrong:
        print(text, file=sys.stderr)
    if not wrong:
        print(f"yarncli {version()} can be released: {', '.join(p.name for p in dist.iterdir())}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
