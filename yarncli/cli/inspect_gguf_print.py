"""How `yarncli inspect` prints a GGUF file."""

from __future__ import annotations

from yarncli.cli import console
from yarncli.cli.inspect_print import print_dimensions
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import Computed
from yarncli.inspection.gguf import GgufDescription


def print_gguf_description(description: GgufDescription, *, table: bool) -> None:
    """Print what a file holds, what llama.cpp computes, and the table of pairs on request."""
    console.print_heading(description.name)
    console.print_facts(_facts(description))
    console.print_text()
    console.print_heading("RoPE as llama.cpp computes it")
    rope = description.rope
    if isinstance(rope, Failure):
        console.print_text(f"None: {rope.because}.")
    else:
        console.print_facts(_rope_facts(description))
        if table:
            console.print_text()
            print_dimensions(description.dimensions())
    if description.windowed:
        console.print_text()
        window = description.gguf.window
        console.print_heading(f"RoPE of the layers that attend within {window:,} tokens")
        console.print_facts(_computed_facts(description.windowed))
    if description.dead:
        console.print_text()
        console.print_text("Keys without effect:")
        for key in description.dead:
            console.print_text(f"  {key.name}: {key.why}")
    for note in description.plan.notes if description.plan else ():
        console.note(note)


def _facts(description: GgufDescription) -> dict[str, console.CellValue]:
    types = description.types
    sizes = [stored.nbytes for stored in types.values()]
    files = "1 file" if description.files == 1 else f"{description.files} files"
    known = [size for size in sizes if size is not None]
    whole = console.format_bytes(sum(known)) if len(known) == len(sizes) else "size not known"
    facts: dict[str, console.CellValue] = {
        "format": f"GGUF version {description.version}, {files}",
        "architecture": description.gguf.architecture or "not stated",
        "parameters": f"{sum(stored.parameters for stored in types.values()):,}, {whole}",
    }
    for name, stored in types.items():
        size = "size not known" if stored.nbytes is None else console.format_bytes(stored.nbytes)
        facts[f"  {name}"] = f"{size} in {stored.tensors:,} tensors"
    return facts


def _rope_facts(description: GgufDescription) -> dict[str, console.CellValue]:
    rope = description.rope
    assert not isinstance(rope, Failure)
    p, plan = rope.parameters, description.plan
    kind = p.rope_type if p else "no setting of transformers"
    original = "not known" if rope.original_length is None else f"{rope.original_length:,} tokens"
    facts: dict[str, console.CellValue] = {
        "rotary dimensions": f"{rope.rotary_dim} of {rope.head_dim}",
        "type": f"{kind} → {plan.scopes[0].after.rope_type}" if plan else kind,
        "θ": rope.rope_theta,
        "original window": original,
    }
    before = _computed_facts(rope.computed)
    after = _computed_facts(description.after) if description.after else before
    for name, value in before.items():
        facts[name] = value if value == after[name] else f"{value} → {after[name]}"
    return facts


def _computed_facts(computed: Computed) -> dict[str, console.CellValue]:
    low, high = min(computed.inv_freq), max(computed.inv_freq)
    facts: dict[str, console.CellValue] = {
        "attention factor": console.format_cell(computed.attention_factor),
        "frequencies": f"{high:.6g} to {low:.6g}",
        "served at most": f"{computed.served_length:,} tokens",
    }
    if computed.softmax_scale_ratio != 1:
        facts["softmax scale"] = f"× {computed.softmax_scale_ratio:.6g}"
    return facts
