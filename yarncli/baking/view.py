"""A bake as plain data: its edits by kind, what engines will do, the JSON of `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from yarncli.baking.baking import Baking
from yarncli.baking.edits import TensorEdit
from yarncli.engines.judgement import Judgement, judge

SCHEMA = 1


def edit_rows(edits: Iterable[TensorEdit]) -> list[list[str | int]]:
    """One row per kind of tensor: name, layers, rows, multiplier, rounding, bytes."""
    groups: dict[tuple[str, float, str], list[TensorEdit]] = {}
    for edit in edits:
        groups.setdefault((edit.kind, edit.factor, edit.info.dtype), []).append(edit)
    return [
        [
            f"{kind} ({dtype})",
            len({edit.layer for edit in group}),
            _rows_text(group[0]),
            f"{factor:.6g} (m^{group[0].power})" + (", of 1 + w" if group[0].offset else ""),
            f"{max(edit.rounding for edit in group):.1e}",
            sum(edit.nbytes for edit in group),
        ]
        for (kind, factor, dtype), group in groups.items()
    ]


def _rows_text(edit: TensorEdit) -> str:
    return f"{edit.rows.count} of {edit.rows_total}"


def judge_baking(baking: Baking, engines: Iterable[str] = ()) -> Judgement:
    """What engines will make of the baked checkpoint."""
    config, like = baking.config[1].value, baking.options.assume_like
    return judge(config, baking.history, engines=engines, assume_like=like, launch=False)


def edits_to_json(edits: Iterable[TensorEdit]) -> list[dict[str, Any]]:
    """What changes in each tensor; `rounding` is relative to the stored value."""
    return [
        {
            "tensor": edit.tensor,
            "file": edit.shard,
            "dtype": edit.info.dtype,
            "rows": edit.rows.ranges,
            "total_rows": edit.rows_total,
            "power": edit.power,
            "factor": edit.factor,
            "offset": edit.offset,
            "rounding": edit.rounding,
            "bytes": edit.nbytes,
        }
        for edit in edits
    ]


def to_json(baking: Baking) -> dict[str, Any]:
    """Everything that was decided."""
    return {
        "schema": SCHEMA,
        "form": baking.options.form,
        "side": baking.side,
        "layout": baking.layout.name,
        "attention_factor": {each.scope: each.factor for each in baking.temperatures},
        "bytes": baking.nbytes,
        "edits": edits_to_json(baking.edits),
        "changes": [change.to_json() for change in baking.history.steps[-1].replaced],
        "notes": list(baking.notes),
        "engines": judge_baking(baking).brief(),
    }
