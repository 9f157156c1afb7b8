"""What commands print about a GGUF file."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from yarncli.cli import console
from yarncli.gguf.serving import Serving
from yarncli.gguf.types import TENSOR_TYPES
from yarncli.jsontext.changes import ABSENT, FieldChange

if TYPE_CHECKING:  # each command needs one of them, and numpy comes with the first
    from yarncli.baking.gguf import GgufBake
    from yarncli.conversion.gguf import GgufConversion
    from yarncli.conversion.gguf_folder import GgufFolderConversion
    from yarncli.engines.gguf_files import GgufJudgement


def print_gguf_conversions(found: GgufConversion | GgufFolderConversion) -> None:
    """Print what changes in a file or in each file of a folder, the notes, and what is next."""
    from yarncli.conversion.gguf import GgufConversion

    is_one = isinstance(found, GgufConversion)
    conversions = (found,) if isinstance(found, GgufConversion) else found.conversions
    for conversion in conversions:
        if not is_one:
            console.print_text(f"\n{conversion.file.name}")
        _print_changes(conversion)
    for text in conversions[0].notes:
        console.note(text)
    for why in () if isinstance(found, GgufConversion) else found.left.values():
        console.note(f"Not changed: {why}")
    if found.written:
        where = shlex.quote(conversions[0].serving.path)
        console.note(f"To see what Ollama and others compute: yarncli engines {where}")


def _print_changes(conversion: GgufConversion) -> None:
    """Print every key and tensor that changes, and how the result is served."""
    if intended := conversion.intended:
        console.print_text(
            f"RoPE of {intended.name}: {intended.setting.rope_type}, {intended.length:,} tokens"
        )
    for change in conversion.changes:
        console.print_text(f"  {describe_change(change)}")
    if not conversion.changes:
        console.print_text("  no change: the file already has this RoPE setting")
    if conversion.written:
        print_serving(conversion.serving)


def print_gguf_bake(found: GgufBake) -> None:
    """Print where the factor goes, every key and tensor that changes, and what is next."""
    console.print_text(
        f"carrier {found.plan.carrier}: attention factor {found.before:.6g} → "
        f"{found.attention_factor:.6g}"
    )
    scaled = found.plan.scaled
    for change in found.rewrite.changes:
        if change.path[0] not in scaled:
            console.print_text(f"  {describe_change(change)}")
    for name, rows in scaled.items():
        console.print_text(f"  {name} × {rows.factor:.8g}")
    for text in found.plan.notes:
        console.note(text)
    if found.written:
        print_serving(found.serving)


def print_gguf_judgement(found: GgufJudgement) -> None:
    """Print what each engine computes from a file, and how it is served."""
    rows: list[list[console.CellValue]] = []
    for verdict in found.verdicts:
        known = verdict.served_length is not None
        serves = verdict.served_length if known else "not known"
        rows.append([verdict.reader.id, verdict.status, serves, verdict.what])
    console.print_table(["engine", "status", "serves", "what"], rows)
    if any(verdict.basis == "read" for verdict in found.verdicts):
        console.note("llama.cpp's code for this architecture was read, not run.")
    if found.serving:
        console.print_text()
        print_serving(found.serving)


def print_serving(serving: Serving) -> None:
    """Print how llama.cpp's server and Ollama are started on a file."""
    console.print_text(f"llama.cpp: {serving.command}")
    if serving.modelfile:
        first, second = serving.modelfile.splitlines()
        console.print_text(f"Ollama, as a Modelfile:\n  {first}\n  {second}")


def describe_change(change: FieldChange) -> str:
    """`llama.context_length 256 → 2048`; a tensor by its type and shape."""
    shown = [_brief(side) for side in (change.before, change.after)]
    return f"{change.path[0]} {shown[0]} → {shown[1]}"


def _brief(side: Any) -> str:
    if side is ABSENT:
        return "absent"
    if "shape" in side:
        kind = TENSOR_TYPES.get(side["type"], (f"type {side['type']}",))[0]
        return f"{kind} [{', '.join(map(str, side['shape']))}]"
    value = side["value"]
    if isinstance(value, list):
        return f"[{len(value)} values]"
    return f"{value:.8g}" if isinstance(value, float) else str(value)
