"""`bake` for GGUF files: the attention factor in a key, in scales, in norms or in weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.baking.blocks import block_scaler, row_bytes
from yarncli.baking.settings import BakeOptions
from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.rewrite import Patch
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.gguf.carriers import ScaledRows, TemperaturePlan, plan_temperature
from yarncli.gguf.contents import read_contents
from yarncli.gguf.in_place import change_gguf
from yarncli.gguf.layout import GgufEdit, NewTensor
from yarncli.gguf.loading import Failure
from yarncli.gguf.record import Rewrite, decide_rewrite, refuse_baked
from yarncli.gguf.rewrite import require_free, write_gguf
from yarncli.gguf.runtime import run
from yarncli.gguf.serving import Serving
from yarncli.gguf.source import GgufFile, download, open_gguf
from yarncli.history import Step
from yarncli.options import given_options
from yarncli.progress import ProgressCallback

SCHEMA_VERSION = 1
_OF_CHECKPOINTS = (
    "form", "side", "layout", "assume_like", "engines", "adapter", "verify_logits",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GgufBake:
    """What a bake of a GGUF file did, or would do."""

    file: GgufFile
    """The source."""
    attention_factor: float
    """The new attention factor: what multiplies cos and sin, or has the same effect."""
    before: float
    """The old attention factor."""
    plan: TemperaturePlan
    """Where the factor goes."""
    rewrite: Rewrite
    """What changes in the file."""
    length: int
    """The window of the file, tokens."""
    output: Path | None = None
    """The file to write; None if the source itself is changed."""
    written: bool = False
    """Whether it has been written."""

    @property
    def serving(self) -> Serving:
        """How to serve the result."""
        return Serving.of(self.file, self.output, self.length)

    def to_json(self) -> dict[str, Any]:
        """The document of `bake --json` for a GGUF file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "carrier": self.plan.carrier,
            "attention_factor": {"before": self.before, "after": self.attention_factor},
            "changes": [change.to_json() for change in self.rewrite.changes],
            "scaled": {
                name: {"factor": rows.factor, "rows": rows.rows and [*map(list, rows.rows)]}
                for name, rows in self.plan.scaled.items()
            },
            "notes": list(self.plan.notes),
            **self.serving.to_json(),
        }


def bake_gguf(
    source: str | Path,
    out: Path | None,
    options: BakeOptions,
    *,
    progress: ProgressCallback | None = None,
) -> GgufBake:
    """Give a GGUF file an attention factor.

    Args:
        source: a local file, or `hf://org/name/file.gguf`.
        out: the file to write; None in place, or in a dry run.
        options: which factor, where it goes, and how to write.
        progress: told how far the stages "Fetching", "Copying" and "Verifying" are, in bytes.

    Raises:
        UsageError: contradictory options, or options that are for checkpoints.
        CheckpointError: the file is damaged, or already has the factor.
        UnsupportedArchitectureError: the carrier is not exact for this file.
        HubError: something cannot be fetched.
        OutputError: the result cannot be written, or does not read back.
    """
    _require_options(options)
    in_place = options.in_place and not options.dry_run
    with using(source, in_place=in_place) as directory:
        file = open_gguf(source)
        found = replace(_decide(file, options), output=out)
        if options.dry_run:
            return found
        if out is None:
            if directory is None:
                raise UsageError(
                    f"{file.name} is on the Hub; --in-place needs a file on this machine."
                )
            change_gguf(file, found.rewrite, directory)
        else:
            require_free(file, out, overwrite=options.overwrite)
            write_gguf(
                download(file, progress=progress), found.rewrite, out,
                overwrite=options.overwrite, verify=options.verify, fsync=options.fsync,
                progress=progress,
            )  # fmt: skip
    return replace(found, written=True)


def _decide(file: GgufFile, options: BakeOptions) -> GgufBake:
    gguf, wanted = read_contents(file), options.attention_factor
    assert wanted is not None  # because _require_options checked it
    if not 0 < wanted < math.inf:
        raise UsageError(f"--attention-factor is {wanted:g}; it must be a positive number.")
    refuse_baked(file.header)
    plan = plan_temperature(gguf, wanted, options.carrier)
    before = run(gguf)
    assert not isinstance(before, Failure)  # because the plan checked it
    if plan.factor == 1:
        raise CheckpointError(f"{file.name} already has the attention factor {wanted:g}.")
    edit = GgufEdit(
        keys={name: (value.type, value.value) for name, value in plan.keys.items()},
        tensors={name: NewTensor.of_floats(values) for name, values in plan.tensors.items()},
        patches=tuple(_patches(file, plan)),
    )
    told = {"attention_factor": wanted, "carrier": plan.carrier}
    step = Step(command="bake", source=file.source, options=told)
    return GgufBake(
        file=file,
        attention_factor=wanted,
        before=before.attention_factor,
        plan=plan,
        rewrite=decide_rewrite(file, edit, step),
        length=before.served_length,
    )


def _patches(file: GgufFile, plan: TemperaturePlan) -> Iterator[Patch]:
    """The rows that are multiplied, as ranges of the file."""
    for name, change in plan.scaled.items():
        tensor = file.header.tensors.get(name)
        if tensor is None:
            raise UnsupportedArchitectureError(
                f"{name} is in a later file of the split model, and only the first can change. "
                "Join the files with llama.cpp's `llama-gguf-split --merge` first."
            )
        is_row = len(tensor.shape) < 2  # in a bias or a norm, each element counts as a row
        width = 1 if is_row else tensor.shape[0]
        length = row_bytes(tensor.type_name, width, name)
        transform = block_scaler(tensor.type_name, change.factor, name)
        begin = file.header.data_start + tensor.offset
        for start, stop in _rows(change, math.prod(tensor.shape) // width):
            yield Patch(
                begin + start * length, length=(stop - start) * length, transform=transform,
                step=length,
            )  # fmt: skip


def _rows(change: ScaledRows, count: int) -> tuple[tuple[int, int], ...]:
    return change.rows if change.rows is not None else ((0, count),)


def _require_options(options: BakeOptions) -> None:
    given = given_options(options)
    for name in _OF_CHECKPOINTS:
        if name in given:
            flag = "engine" if name == "engines" else name.replace("_", "-")
            raise UsageError(
                f"--{flag} is for checkpoints, and SOURCE is a GGUF file. Leave it out."
            )
    if options.attention_factor is None:
        raise UsageError(
            "For a GGUF file you must name the factor: give --attention-factor FACTOR."
        )
