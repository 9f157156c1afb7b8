"""The part of a model card that yarncli writes: what was done, what engines do, what they get."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarncli.engines.verdict import EngineView
from yarncli.evaluation.report import PasskeyReport
from yarncli.history import Step
from yarncli.publishing.record import Conversion, last_conversion, origin_of

BEGIN = "<!-- yarncli:begin – `yarncli card` rewrites everything up to yarncli:end -->"
END = "<!-- yarncli:end -->"
HEATMAP = "passkey.png"
_METHODS = {
    "yarn": "[YaRN](https://arxiv.org/abs/2309.00071)",
    "ntk-by-parts": "NTK-by-parts interpolation ([YaRN](https://arxiv.org/abs/2309.00071), §3.2)",
    "ntk": "NTK-aware scaling of the RoPE base",
    "dynamic": "dynamic NTK scaling",
    "linear": "linear position interpolation",
    "llama3": "Llama 3 RoPE scaling",
    "longrope": "LongRoPE",
}
# Settings of a method that are options of `convert` under the same name.
_SETTINGS = (
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
)
_SIZES = {"head_dim", "max_position_embeddings", "partial_rotary_factor"}


@dataclass(frozen=True)
class Facts:
    """What the section tells.

    Attributes:
        name: what to call the model: its Hub id, or its directory.
        steps: of yarncli.json; empty where nothing is recorded.
        engines: the verdicts, empty where the config has no RoPE that is known.
        results: passkey results, if any.
        heatmap: whether a figure of them is uploaded.
        intended: where the meaning of the config is known from.
    """

    name: str
    steps: tuple[Step, ...]
    engines: Sequence[EngineView]
    results: PasskeyReport | None
    heatmap: bool
    intended: str


def section(facts: Facts) -> str:
    """The section as Markdown, with its two marker lines."""
    parts = [
        _done(facts),
        _engines(facts),
        _serving(facts),
        _passkey(facts),
        _reproducing(facts),
    ]
    body = "\n\n".join(text for part in parts if (text := "\n".join(part).rstrip()))
    return f"{BEGIN}\n## Context extension\n\n{body}\n{END}\n"


def _done(facts: Facts) -> Iterator[str]:
    done = last_conversion(facts.steps)
    if done is None:
        yield "No conversion is recorded for this model (it has no yarncli.json)."
        return
    origin = origin_of(facts.steps)
    base = f"[{origin[0]}](https://huggingface.co/{origin[0]})" if origin else "its base model"
    at = f" at commit `{origin[1][:12]}`" if origin else ""
    yield (
        f"The context window of {base}{at} was extended from {done.original_length:,} to "
        f"**{done.length:,} tokens** with {_METHODS.get(done.method, _plain(done.method))}, "
        f"factor {_cell(done.factor)}. {_about_weights(facts.steps)}"
    )
    yield ""
    for name, (before, after) in done.scopes.items():
        if len(done.scopes) > 1:
            yield f"Layers of kind {_code(name)}:"
            yield ""
        yield "| RoPE | before | after |"
        yield "|---|---|---|"
        for key in dict.fromkeys([*before, *after]):
            old, new = before.get(key), after.get(key)
            if key not in _SIZES or old != new:
                yield f"| {_code(key)} | {_cell(old)} | {_cell(new)} |"
        yield ""


def _about_weights(steps: Sequence[Step]) -> str:
    baked = [step.baked for step in steps if step.baked]
    if not baked:
        return "The weights are unchanged."
    factors = baked[-1].get("attention_factor")
    given = factors.values() if isinstance(factors, Mapping) else [factors]
    shown = ", ".join(sorted({_cell(value) for value in given}))
    config = (
        "the config keeps the method's own"
        if baked[-1].get("form") == "residual"
        else "the config applies none"
    )
    side = {"k": "key", "q": "query"}.get(str(baked[-1].get("side")), "query and key")
    return (
        f"The attention temperature ({shown} on the rotary part of queries and keys) is in the "
        f"{side} weights; {config}. All other weights are unchanged."
    )


def _engines(facts: Facts) -> Iterator[str]:
    if not facts.engines:
        return
    yield "### What engines make of it"
    yield ""
    yield (
        f"Compared with what is meant (by {facts.intended}), per engine and version; “serves” is "
        "the longest text in tokens that it accepts, – where it sets no limit:"
    )
    yield ""
    yield "| engine | versions | result | serves | remarks |"
    yield "|---|---|---|---|---|"
    for item in facts.engines:
        serves = f"{item.served_length:,}" if item.served_length else "–"
        remarks = "" if item.status == "exact" else _plain(item.summary())
        cells = (item.engine.name, item.engine.versions, item.status, serves, remarks)
        yield f"| {' | '.join(cells)} |"


def _serving(facts: Facts) -> Iterator[str]:
    plain = [item for item in facts.engines if item.launch and item.status == "exact"]
    helped = [i for i in facts.engines if i.launch and i.status != "exact" and i.launch_is_exact]
    wrong = [i for i in facts.engines if i.launch and not i.launch_is_exact]
    if not (plain or helped or wrong):
        return
    yield "### How to serve it"
    yield from _lines(plain)
    if helped:
        yield from _folded("Engines that need these options to read it as meant", helped)
    if wrong:
        yield from _folded("Engines that do not read it as meant, whatever the options", wrong)


def _folded(title: str, engines: Sequence[EngineView]) -> Iterator[str]:
    yield from ("", f"<details><summary>{title}</summary>")
    yield from _lines(engines)
    yield from ("", "</details>")


def _lines(engines: Sequence[EngineView]) -> Iterator[str]:
    """Launch lines, each with the engines that it is for."""
    names: dict[str, list[EngineView]] = {}
    for item in engines:
        names.setdefault(item.launch or "", []).append(item)
    for launch, group in names.items():
        language = "python" if group[0].engine.id.startswith("transformers") else "sh"
        title = "; ".join(f"{item.engine.name} ({item.engine.versions})" for item in group)
        yield from ("", f"{title}:", "", f"```{language}", launch, "```")


def _passkey(facts: Facts) -> Iterator[str]:
    report = facts.results
    if report is None:
        return
    yield "### Passkey retrieval"
    yield ""
    yield (
        "Share of keys that are found in filler text of exactly that many tokens "
        "(greedy decoding), with the 95 % Wilson interval."
    )
    for variant in report.cells:
        if len(report.cells) > 1:
            yield ""
            yield f"Setting: {_plain(variant)}"
        yield ""
        yield "| tokens | accuracy | 95 % interval | prompts |"
        yield "|---|---|---|---|"
        for row in report.lengths(variant):
            low, high = row.interval
            yield f"| {row.length:,} | {row.accuracy:.2f} | {low:.2f} – {high:.2f} | {row.trials} |"
    if facts.heatmap:
        yield ""
        yield f"![Passkey retrieval over length and depth]({HEATMAP})"


def _reproducing(facts: Facts) -> Iterator[str]:
    commands = [*_steps(facts), *_measurement(facts)]
    if not commands:
        return
    yield "### How to reproduce it"
    yield ""
    yield "```sh"
    for words in commands:
        # A line break in a recorded name must not leave the block.
        yield " ".join(shlex.join(["yarncli", *words]).split())
    yield "```"
    if facts.steps:
        version = _plain(facts.steps[-1].tool_version)
        values = "`yarncli.json` holds every value that was written or replaced."
        yield from ("", f"With yarncli {version}. {values}")


def _steps(facts: Facts) -> Iterator[list[str]]:
    """The recorded commands; the output of the first of two is called step1, and so on."""
    source = facts.steps[0].source if facts.steps else ""
    for number, step in enumerate(facts.steps, 1):
        out = _short(facts.name) if number == len(facts.steps) else f"step{number}"
        options = _bake_options(step, facts.steps) if step.baked else _convert_options(step)
        yield [step.command, source, out, *options]
        source = out


def _bake_options(step: Step, steps: Sequence[Step]) -> Iterator[str]:
    """The options that lead from the step's source to its weights."""
    baked = step.baked or {}
    for name, usual in (("form", "neutral"), ("side", "k")):
        value = str(baked.get(name) or usual)
        yield from (f"--{name}", value) if value != usual else ()
    done, factors = last_conversion(steps), baked.get("attention_factor")
    given = set(map(str, factors.values())) if isinstance(factors, Mapping) else set()
    # These methods have a temperature only where the user gives one.
    if done and done.method in ("ntk", "linear", "llama3", "dynamic") and len(given) == 1:
        yield from ("--attention-factor", given.pop())


def _convert_options(step: Step) -> Iterator[str]:
    """The options that lead from the step's source to its numbers."""
    done = Conversion.of(step)
    if done is None:
        return
    if done.method != "yarn":
        yield from ("--method", done.method)
    yield from ("--length", str(done.length))
    afters = [after for _, after in done.scopes.values()]
    befores = [before.get("rope_type") for before, _ in done.scopes.values()]
    if any(before not in (None, "default") for before in befores):
        same = all(b == after.get("rope_type") for b, after in zip(befores, afters, strict=True))
        yield "--rescale" if same else "--replace-scaling"
    for key in _SETTINGS if done.method != "ntk-by-parts" else ():
        values = {str(after[key]) for after in afters if key in after}
        if len(values) == 1:
            yield from (f"--{key.replace('_', '-')}", values.pop())
    if done.original_source == "--original-length":
        yield from ("--original-length", str(done.original_length))


def _measurement(facts: Facts) -> Iterator[list[str]]:
    """The evaluation, as far as its settings are those of `check-passkey` itself."""
    if facts.results is None:
        return
    lengths = ",".join(
        str(row.length) for row in facts.results.lengths(next(iter(facts.results.cells)))
    )
    words = ["check-passkey", _short(facts.name), "--lengths", lengths]
    for name in ("depths", "trials", "seed"):
        value = facts.results.settings.get(name)
        if type(value) is int:
            words += [f"--{name}", str(value)]
    yield words


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} values"
    return _plain(str(value))


def _code(text: str) -> str:
    return f"`{_plain(text).replace('`', '')}`"


def _plain(text: str) -> str:
    """Text that cannot break out of a table cell, nor of the section."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
