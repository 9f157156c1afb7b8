"""The part of a model card that yarncli writes: what was done, what engines do, what they get."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from yarncli.engines.judgement import Judgement
from yarncli.engines.verdict import EngineView
from yarncli.evaluation.report import PasskeyReport
from yarncli.history import History
from yarncli.history.weights import Trained
from yarncli.planning.rope_plan import parameters_to_json
from yarncli.rope.methods import METHODS

BEGIN = "<!-- yarncli:begin – `yarncli card` rewrites everything up to yarncli:end -->"
END = "<!-- yarncli:end -->"
HEATMAP = "passkey.png"
_SIZES = {"head_dim", "max_position_embeddings", "partial_rotary_factor"}


@dataclass(frozen=True)
class Facts:
    """What the section tells."""

    name: str
    """What to call the model: its Hub id, or its directory."""
    history: History
    """The steps of yarncli.json."""
    judgement: Judgement
    """What engines make of it; without verdicts where the config has no RoPE that is known."""
    results: PasskeyReport | None
    """Passkey results, if any."""
    heatmap: bool
    """Whether a figure of them is uploaded."""


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
    done = facts.history.plan
    if done is None:
        yield "No conversion is recorded for this model (it has no yarncli.json)."
        return
    origin = facts.history.origin
    base = f"[{origin[0]}](https://huggingface.co/{origin[0]})" if origin else "its base model"
    at = f" at commit `{origin[1][:12]}`" if origin else ""
    yield (
        f"The context window of {base}{at} was extended from {done.original_length:,} to "
        f"**{done.length:,} tokens** with {_label(done.method)}, "
        f"factor {_cell(done.factor)}. {_about_weights(facts.history)}"
    )
    yield ""
    for scope in done.scopes:
        before, after = parameters_to_json(scope.before), parameters_to_json(scope.after)
        if len(done.scopes) > 1:
            yield f"Layers of kind {_code(scope.name)}:"
            yield ""
        yield "| RoPE | before | after |"
        yield "|---|---|---|"
        for key in dict.fromkeys([*before, *after]):
            old, new = before.get(key), after.get(key)
            if key not in _SIZES or old != new:
                yield f"| {_code(key)} | {_cell(old)} | {_cell(new)} |"
        yield ""


def _label(name: str) -> str:
    """A method as the text names it; one that is not known by its name alone."""
    method = METHODS.get(name)
    return f"[{method.label}]({method.reference_url})" if method else _plain(name)


def _about_weights(history: History) -> str:
    baked, trained = history.baked, _about_training(history.trained)
    if baked is None:
        return trained or "The weights are unchanged."
    shown = ", ".join(sorted({_cell(value) for value in baked.attention_factor.values()}))
    config = (
        "the config keeps the method's own"
        if baked.form == "residual"
        else "the config applies none"
    )
    side = {"k": "key", "q": "query"}.get(baked.side, "query and key")
    return (
        f"The attention temperature ({shown} on the rotary part of queries and keys) is in the "
        f"{side} weights; {config}. {trained or 'All other weights are unchanged.'}"
    )


def _about_training(trained: Trained | None) -> str:
    """What a training after the conversion did; empty where there was none."""
    if trained is None:
        return ""
    steps = f" for {trained.steps:,} steps" if trained.steps else ""
    length = f" on texts of {trained.train_length:,} tokens" if trained.train_length else ""
    return f"The weights were then fine-tuned{steps}{length}."


def _engines(facts: Facts) -> Iterator[str]:
    if not facts.judgement.verdicts:
        return
    yield "### What engines make of it"
    yield ""
    yield (
        f"Compared with what is meant (by {facts.judgement.intended_from}), per engine and "
        "version; “serves” is the longest text in tokens that it accepts, – where it sets no limit:"
    )
    yield ""
    yield "| engine | versions | result | serves | remarks |"
    yield "|---|---|---|---|---|"
    for item in facts.judgement.verdicts:
        serves = f"{item.served_length:,}" if item.served_length else "–"
        remarks = "" if item.status == "exact" else _plain(item.summary())
        cells = (item.engine.name, item.engine.versions, item.status, serves, remarks)
        yield f"| {' | '.join(cells)} |"


def _serving(facts: Facts) -> Iterator[str]:
    found = [item for item in facts.judgement.verdicts if item.launch]
    plain = [item for item in found if item.status == "exact"]
    helped = [item for item in found if item.status != "exact" and item.launch_is_exact]
    wrong = [item for item in found if not item.launch_is_exact]
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
        line = shlex.join(["yarncli", *words]).replace(END, "")
        yield re.sub(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", line)
    yield "```"
    steps = facts.history.steps
    if steps:
        version = _plain(steps[-1].tool_version)
        values = "`yarncli.json` holds every value that was written or replaced."
        yield from ("", f"With yarncli {version}. {values}")
    if any(step.options is None for step in steps):
        yield ""
        yield (
            "An older yarncli recorded no options, so the commands are what the recorded numbers "
            "show. Options such as `--spelling` and `--for` are missing where they were given."
        )


def _steps(facts: Facts) -> Iterator[list[str]]:
    """The recorded commands; the output of the first of two is called step1, and so on."""
    steps = facts.history.steps
    source = steps[0].source if steps else ""
    source = f"./{source}" if source.startswith("-") else source
    for number, step in enumerate(steps, 1):
        out = _short(facts.name) if number == len(steps) else f"step{number}"
        if step.trained:  # what the trainer made of `source` has a name of its own
            yield [step.command, "TRAINED", out, "--from", source, *step.arguments()]
        else:
            yield [step.command, source, out, *step.arguments()]
        source = out


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
