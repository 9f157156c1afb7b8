"""The part of a model card that yarncli writes: what was done, what engines do, what they get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.provenance import Step
from yarncli.evaluate.report import Report
from yarncli.publish.preflight import origin_of
from yarncli.rope.engines.view import EngineView

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
    results: Report | None
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
    body = "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))
    return f"{BEGIN}\n## Context extension\n\n{body}\n{END}\n"


def last_plan(steps: Sequence[Step]) -> Mapping[str, Any]:
    """The plan of the last conversion; empty if there was none."""
    plans = [step.plan for step in steps if step.plan.get("scopes")]
    return plans[-1] if plans else {}


def _done(facts: Facts) -> Iterator[str]:
    plan = last_plan(facts.steps)
    if not plan:
        yield "No conversion is recorded for this model (it has no yarncli.json)."
        return
    origin = origin_of(facts.steps)
    base = f"[{origin[0]}](https://huggingface.co/{origin[0]})" if origin else "its base model"
    at = f" at commit `{origin[1][:12]}`" if origin else ""
    method = _METHODS.get(plan["method"], plan["method"])
    yield (
        f"The context window of {base}{at} was extended from "
        f"{_number(plan.get('original_max_position_embeddings'))} to "
        f"**{_number(plan.get('length'))} tokens** with {method}, factor {_cell(plan['factor'])}. "
        f"{_about_weights(facts.steps)}"
    )
    yield ""
    for name, scope in plan["scopes"].items():
        if len(plan["scopes"]) > 1:
            yield f"Layers of kind `{name}`:"
            yield ""
        before, after = scope["before"], scope["after"]
        yield "| RoPE | before | after |"
        yield "|---|---|---|"
        for key in dict.fromkeys([*before, *after]):
            old, new = before.get(key), after.get(key)
            if key not in _SIZES or old != new:
                yield f"| `{key}` | {_cell(old)} | {_cell(new)} |"


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
    yield f"Compared with what is meant (by {facts.intended}), per engine and version:"
    yield ""
    yield "| engine | versions | result | serves | remarks |"
    yield "|---|---|---|---|---|"
    for item in facts.engines:
        serves = _number(item.served_length) if item.served_length else "–"
        remarks = "" if item.status == "exact" else _plain(item.summary())
        cells = (item.engine.name, item.engine.versions, item.status, serves, remarks)
        yield f"| {' | '.join(cells)} |"


def _serving(facts: Facts) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for item in facts.engines:
        if item.launch:
            names.setdefault(item.launch, []).append(f"{item.engine.name} ({item.engine.versions})")
    if not names:
        return
    yield "### How to serve it"
    for launch, engines in names.items():
        yield from ("", f"{'; '.join(engines)}:", "", "```", launch, "```")


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
            yield f"Setting: {variant}"
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
    if not facts.steps:
        return
    yield "### How to reproduce it"
    yield ""
    yield "```"
    source = facts.steps[0].source
    for number, step in enumerate(facts.steps, 1):
        last = number == len(facts.steps)
        out = facts.name.rpartition("/")[2] if last else f"step{number}"
        yield f"yarncli {step.command} {source} {out}{_options(step)}"
        source = out
    yield "```"
    yield ""
    version = facts.steps[-1].tool_version
    yield f"With yarncli {version}. `yarncli.json` holds every value that was written or replaced."


def _options(step: Step) -> str:
    """The options that lead from the step's source to its numbers."""
    if step.baked:
        given = {"form": step.baked.get("form"), "side": step.baked.get("side")}
        return "".join(f" --{k} {v}" for k, v in given.items() if v and v not in ("neutral", "k"))
    plan = step.plan
    if not plan:
        return ""
    method = plan.get("method")
    options = "" if method == "yarn" else f" --method {method}"
    options += f" --length {plan.get('length')}"
    befores = [scope["before"].get("rope_type") for scope in plan["scopes"].values()]
    afters = [scope["after"] for scope in plan["scopes"].values()]
    if any(before not in (None, "default") for before in befores):
        same = all(before == a.get("rope_type") for before, a in zip(befores, afters, strict=True))
        options += " --rescale" if same else " --replace-scaling"
    for key in _SETTINGS if method != "ntk-by-parts" else ():
        values = {str(after[key]) for after in afters if key in after}
        if len(values) == 1:
            options += f" --{key.replace('_', '-')} {values.pop()}"
    if plan.get("original_source") == "--original-length":
        options += f" --original-length {plan.get('original_max_position_embeddings')}"
    return options


def _number(value: Any) -> str:
    return f"{value:,}" if type(value) is int else _plain(str(value))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} values"
    return _plain(str(value))


def _plain(text: str) -> str:
    """Text that cannot break out of a table cell, nor of the section."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
