"""How `yarncli engines` prints the verdicts, and how other commands warn about them."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from yarncli.cli import console
from yarncli.engines.judgement import Judgement
from yarncli.engines.verdict import EngineView, ScopeView


def warn_of(found: Judgement) -> None:
    """Name on stderr each engine that does not compute what is intended, and what it computes.

    All engines of which it is not known share one line; so do all that have no code for the model.
    """
    apart: dict[str, list[str]] = {"unsupported": [], "unknown": []}
    for view in found.verdicts:
        if view.status in apart:
            apart[view.status].append(view.engine.id)
        elif view.status != "exact":
            console.warn(f"{view.engine.id} {view.status}: {view.summary()}")
    if apart["unknown"]:
        console.warn(
            f"yarncli does not know what these engines compute: {', '.join(apart['unknown'])}."
        )
    if apart["unsupported"]:
        console.warn(
            f"These engines have no code for this model: {', '.join(apart['unsupported'])}."
        )


def print_judgement(found: Judgement, *, lines: bool) -> None:
    """Print the table, and below it the launch lines.

    Args:
        found: the verdicts.
        lines: show every launch line, not only those that make the engine right.
    """
    length = found.verdicts[0].length
    window = f"{length:,} tokens" if length else "not known"
    like = f"; assumed to be like {found.assume_like}" if found.assume_like else ""
    console.print_text(f"Intended window: {window} (from {found.intended_from}{like})")
    head = ["engine", "status", "serves", "attention", "what"]
    rows = [_row(item) for item in found.verdicts]
    if stored := next((item.weights for item in found.verdicts if item.weights), None):
        console.print_text(f"Weights: {stored.format}; the status is about the config, except "
                           "where an engine refuses or misreads the weights")  # fmt: skip
        head.insert(2, "weights")
        for row, item in zip(rows, found.verdicts, strict=True):
            row.insert(2, item.weights.status if item.weights else None)
    console.print_table(head, rows)
    console.print_text(found.count())
    for item in found.verdicts:
        if item.launch and (lines or item.launch_is_exact):
            hint = "" if item.launch_is_exact else " (does not make it right)"
            console.print_text(f"\n{item.engine.id}{hint}:\n  {item.launch}")
    if any(item.engine.basis == "read" for item in found.verdicts):
        console.note(
            "Engines that cannot run here are predicted from their source: see --explain ID."
        )


def print_serving(found: Judgement) -> None:
    """Print for each engine the launch line that extends the model, or why there is none."""
    serving = found.serving
    assert serving is not None
    plan = serving.plan
    console.print_text(
        f"Served unchanged on disk, by {plan.method}: {plan.original_length:,} → {plan.length:,} "
        f"tokens, factor {plan.factor:g} (original from {plan.original_source})"
    )
    for item in found.verdicts:
        why = "; ".join(item.notes) or item.summary()
        said = item.launch if item.launch_is_exact else f"{item.status}: {why}"
        console.print_text(f"\n{item.engine.id}:\n  {said}")
        if item.weights and item.launch_is_exact:
            console.print_text(f"  {item.weights.describe()}")
        if item.launch and item.engine.id == "vllm":
            size = console.format_bytes(serving.kv_cache_bytes)
            console.print_text(f"  KV cache of one sequence of {plan.length:,} tokens: {size}")
    console.print_text(f"\n{found.count()}")
    for text in (*plan.notes, *(serving.draft.notes if serving.draft else ())):
        console.note(text)
    if any(item.launch and "MODEL.gguf" in item.launch for item in found.verdicts):
        console.note(
            "MODEL.gguf is the file that llama.cpp's converter makes from the unchanged checkpoint."
        )


# The engines that most people serve with, the last two as one choice.
_MOST_USED = (("vllm",), ("sglang",), ("llama.cpp", "transformers-5"))


def print_next(found: Judgement, source: str) -> None:
    """After a checkpoint was written, print how to start the most used engines that are right.

    Args:
        found: the verdicts on it, with launch lines.
        source: the name or path of the checkpoint.
    """
    lines = {line["engine"]: line["launch"] for line in found.launch_lines()}
    wanted = [next((n for n in ids if n in lines), "") for ids in _MOST_USED]
    shown = [name for name in lines if name in wanted]
    for name in shown:
        console.print_text(f"{name}: {lines[name]}")
    if "llama.cpp" in lines:
        name = PurePath(source).name or "model"
        made, out = f"{name}.gguf", f"{name}-set.gguf"
        line = shlex.join(["python", "convert_hf_to_gguf.py", source, "--outfile", made])
        then = shlex.join(["yarncli", "convert", made, out, "--from", source])
        console.note(f"For a GGUF file: {line} (llama.cpp's converter), then {then}")
    rest = len(lines) - len(shown)
    again = shlex.join(["yarncli", "engines", source])
    console.note(f"{again} shows the other {rest}." if shown and rest else f"Next: {again}")


def _row(item: EngineView) -> list[str | int | float | None]:
    serves: str | int | None = item.served_length
    if serves is None:
        serves = "no limit" if item.scopes else None
    scales = sorted({scope.attention_factor for scope in item.scopes})
    shown = " / ".join(f"{scale:.5g}" for scale in scales) or None
    what = item.summary()
    extra = [note for note in item.notes if note not in what]
    return [item.engine.id, item.status, serves, shown, "; ".join([what, *extra])]


def print_explanation(found: Judgement) -> None:
    """Print what each engine does in general, and every number for this checkpoint."""
    for item in found.verdicts:
        engine = item.engine
        how = "run by the tests" if engine.basis == "run" else "predicted from its source"
        console.print_heading(f"{engine.name} ({engine.versions}; {how})")
        for text in engine.about:
            console.print_text(f"- {text}")
        console.print_text(f"\nThis checkpoint: {item.status}, {item.summary()}")
        for note in item.notes:
            console.print_text(f"- {note}")
        for scope in item.scopes:
            _explain_scope(scope)
        if item.launch:
            console.print_text(f"\n{item.launch}")


def _explain_scope(scope: ScopeView) -> None:
    console.print_text(f"\n{scope.scope}, at {scope.at_length:,} tokens:")
    console.print_facts(
        {
            "attention scale": scope.attention_factor,
            "of the intended": scope.attention_ratio,
            "softmax scale": scope.softmax_scale_ratio,
            "largest frequency deviation": scope.deviation,
            "at pair": scope.deviation_at,
        }
    )
    pairs = enumerate(scope.inv_freq)
    console.print_table(["pair", "inv_freq"], [[i, value] for i, value in pairs])
