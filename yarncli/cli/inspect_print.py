"""How `yarncli inspect` prints a description."""

from __future__ import annotations

from collections.abc import Iterable

from yarncli.cli import console
from yarncli.config.reading import Scope
from yarncli.inspection.description import Description, Weights
from yarncli.inspection.dimensions import Dimension
from yarncli.planning.plan import window_of
from yarncli.rope.methods import keeps_max
from yarncli.rope.parameters import RopeParameters


def print_description(description: Description, *, table: bool) -> None:
    """Print facts, one block per scope, and the per-dimension tables on request."""
    console.print_heading(description.name)
    console.print_facts(_facts(description))
    for scope in description.rope.scopes.values():
        console.print_text()
        console.print_heading(_scope_title(description, scope))
        console.print_facts(_scope_facts(description, scope))
        if table:
            console.print_text()
            print_dimensions(description.dimensions(scope))
    if keys := description.rope.attention_keys:
        console.print_text()
        console.print_text("Also changes attention:")
        for key in keys:
            console.print_text(f"  {key.describe()}")
    for note in description.plan.notes if description.plan else description.rope.notes:
        console.note(note)


def _facts(description: Description) -> dict[str, console.CellValue]:
    rope, weights = description.rope, description.weights
    facts: dict[str, console.CellValue] = {
        "architecture": description.architecture or rope.model_type,
        "model type": f"assumed to be like {like}"
        if (like := rope.assume_like)
        else rope.model_type,
    }
    if description.made_for:
        facts["made for"] = description.made_for
    if weights:
        facts["parameters"] = _parameters(weights)
        shards = "1 shard" if weights.shards == 1 else f"{weights.shards} shards"
        facts["weights"] = f"{console.format_bytes(weights.nbytes)} in {shards}"
    facts["quantization"] = description.format.name if description.format.id else "none"
    facts["tied embeddings"] = description.tied
    original = f"original {rope.original_length:,}, from {rope.original_source}"
    facts["window"] = f"{window_of(rope):,} tokens ({original})"
    if description.plan:
        facts["planned window"] = f"{description.plan.length:,} tokens by {description.plan.method}"
    limit = description.tokenizer_limit
    facts["tokenizer limit"] = "none" if limit is None else f"{limit:,} tokens"
    per_token = console.format_bytes(description.kv_cache_bytes_per_token)
    whole = console.format_bytes(description.kv_cache_bytes(description.length))
    kept = f", in {cache} as vLLM keeps it" if (cache := description.cache_format) else ""
    facts["KV cache"] = f"{per_token} per token, {whole} at {description.length:,} tokens{kept}"
    if description.engines:
        facts["engines"] = _engines(description)
    return facts


def _parameters(weights: Weights) -> str:
    """The number of parameters; for packed weights also the numbers that are stored."""
    stored = ", ".join(f"{n:,} {d}" for d, n in weights.parameters.items())
    if weights.unpacked is None:
        return f"not known; stored: {stored}"
    packed = weights.unpacked != sum(weights.parameters.values())
    return f"{weights.unpacked:,}; stored: {stored}" if packed else stored


def _engines(description: Description) -> str:
    """The engines that compute what is intended, and by name those that do not."""
    groups: dict[str, list[str]] = {"exact": []}
    for view in description.engines:
        unjudged = view.status == "exact" and view.weights and view.weights.status == "not judged"
        word = "RoPE as intended, format not judged" if unjudged else view.status
        groups.setdefault(word, []).append(view.engine.id)
    text = f"{len(groups.pop('exact'))} of {len(description.engines)} as intended"
    return "; ".join([text, *(f"{word}: {', '.join(ids)}" for word, ids in groups.items())])


def _scope_title(description: Description, scope: Scope) -> str:
    name = "RoPE" if scope.name == "model" else f"RoPE of {scope.name}"
    layers = f"{len(scope.layers)} of {description.rope.num_hidden_layers} layers"
    window = f", window {scope.window:,}" if scope.windowed and scope.window else ""
    return f"{name} ({layers}{window})"


def _scope_facts(description: Description, scope: Scope) -> dict[str, console.CellValue]:
    after = description.parameters(scope)
    facts: dict[str, console.CellValue] = {
        "rotary dimensions": f"{description.turning_dimensions(scope)} of {after.head_dim}",
    }
    before = _setting(scope.parameters)
    for name, new in _setting(after).items():
        old_text, new_text = console.format_cell(before[name]), console.format_cell(new)
        facts[name] = new_text if before[name] == new else f"{old_text} → {new_text}"
    if keeps_max(after.rope_type):
        facts["note"] = "frequencies below are those at the full window"
    return facts


def _setting(p: RopeParameters) -> dict[str, console.CellValue]:
    return {
        "type": p.rope_type,
        "θ": p.rope_theta,
        "factor": p.resolved_factor(),
        "attention factor": p.effective_attention_factor(),
        "max_position_embeddings": p.max_position_embeddings,
    }


def print_dimensions(dimensions: Iterable[Dimension]) -> None:
    """Print a table of dimension pairs."""
    rows = []
    for row in dimensions:
        ratio = row.inv_freq_after / row.inv_freq if row.inv_freq else None
        frequencies = row.inv_freq, row.inv_freq_after, ratio
        rows.append((row.index, row.wavelength, row.rotations, *frequencies, row.regime))
    header = ("pair", "wavelength", "rotations", "inv_freq", "after", "ratio", "regime")
    console.print_table(header, rows)
