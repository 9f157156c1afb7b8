"""`convert` for a folder of GGUF files: all quantisations of one model in one command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.output import check_destination, output_directory
from yarncli.conversion.gguf import GgufConversion, decide, require_options
from yarncli.conversion.options import ConvertOptions
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.contents import is_same_model
from yarncli.gguf.rewrite import write_gguf
from yarncli.gguf.source import models_in
from yarncli.planning.rope_plan import RopePlan
from yarncli.progress import ProgressCallback

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class GgufFolderConversion:
    """The conversions of all files of one model."""

    conversions: tuple[GgufConversion, ...]
    """One for each model file, in the order of their names."""
    left: Mapping[str, str]
    """Name of a GGUF file that is not changed → the reason."""
    output: Path | None
    """The directory to write; None in a dry run without one."""
    written: bool = False
    """Whether it has been written."""

    @property
    def plan(self) -> RopePlan | None:
        """Every number of the extension, the same for all; None with `--from`."""
        return self.conversions[0].plan

    def to_json(self) -> dict[str, Any]:
        """The document of `convert --json` for a folder."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "plan": self.plan.to_json() if self.plan else None,
            "files": [conversion.to_json() for conversion in self.conversions],
            "left": dict(self.left),
        }


def convert_gguf_folder(
    source: str | Path,
    out: Path | None,
    options: ConvertOptions,
    *,
    progress: ProgressCallback | None = None,
) -> GgufFolderConversion:
    """Convert every quantisation of a model in a folder; other GGUF files are not changed.

    All conversions are decided before one is written. OUT is written completely or not at all.

    Args:
        source: the folder.
        out: the directory to write; None in a dry run.
        options: the options of the conversion.
        progress: told how far the stage "Copying" is, in bytes.

    Raises:
        UsageError: contradictory options, or several models.
        CheckpointError: there is no model, or a file is damaged or cannot take what is asked.
        OutputError: the result cannot be written, or does not read back.
    """
    require_options(options)
    if options.in_place:
        raise UsageError("--in-place changes one GGUF file. Name it, or give the directory OUT.")
    folder = Path(source)
    with using(source, in_place=False):
        files, left = models_in(folder)
        if not files:
            reasons = f" {' '.join(left.values())}" if left else ""
            raise CheckpointError(f"{source} holds no GGUF file of a language model.{reasons}")
        made = [decide(file, options) for file in files]
        _require_one_model(made)
        if out is not None:
            made = [replace(each, output=out / _name(each)) for each in made]
        found = GgufFolderConversion(conversions=tuple(made), left=left, output=out)
        if options.dry_run or out is None:
            return found
        place: dict[str, Any] = {"source": folder, "overwrite": options.overwrite}
        check_destination(out, **place)
        with output_directory(out, **place, fsync=options.fsync, progress=progress) as staging:
            for each in made:
                write_gguf(each.file, each.rewrite, staging / _name(each), progress=progress)
    written = tuple(replace(each, written=True) for each in made)
    return replace(found, conversions=written, written=True)


def _name(conversion: GgufConversion) -> str:
    assert conversion.file.path is not None  # it is in a folder
    return conversion.file.path.name


def _require_one_model(made: list[GgufConversion]) -> None:
    """Check that all files are of one model, and get the same RoPE setting."""
    first = made[0]
    for other in made[1:]:
        if not is_same_model(first.gguf, other.gguf) or first.computed != other.computed:
            raise UsageError(
                f"{_name(first)} and {_name(other)} are not of one model, or do not have the "
                "same scaling. Convert each file separately."
            )
