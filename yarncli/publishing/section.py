"""The section of a model card that yarncli writes: the model, what was done, how to use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from yarncli.engines.judgement import Judgement
from yarncli.evaluation.report import PasskeyReport
from yarncli.evaluation.tasks import PASSKEY
from yarncli.evaluation.tasks import TASKS as TASK_NAMES
from yarncli.history import History
from yarncli.planning.rope_plan import parameters_to_json
from yarncli.publishing.citation import papers
from yarncli.publishing.gguf_section import GgufParts
from yarncli.publishing.markdown import BEGIN, END, block, cell, code, plain, table
from yarncli.publishing.measured import (
    CONTEXTS,
    PRICE,
    RETRIEVAL,
    TASKS,
    Contexts,
    Price,
    retrieval,
)
from yarncli.publishing.reproduction import command, reproduction, short
from yarncli.publishing.subject import Subject, overview
from yarncli.publishing.usage import engines, use
from yarncli.rope.methods import METHODS, by_rope_type
from yarncli.rope.parameters import RopeParameters

HEATMAP = "passkey.png"
_SIZES = {"head_dim", "max_position_embeddings", "partial_rotary_factor"}
_CITATION = "### Citation\n"
_BEGIN = BEGIN + "{} – `yarncli card` rewrites everything up to yarncli:end -->"
_TITLE = re.compile(r"<!-- yarncli:begin ([\w.-]+) ")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts that the section states."""

    name: str
    """Name of the model: its Hub id, or its directory."""
    history: History
    """The steps of yarncli.json."""
    subject: Subject
    """The model itself."""
    judgement: Judgement
    """The verdicts on engines; none if the RoPE of the config is unknown."""
    base: str | None = None
    """Hub id of the base model, if it is known."""
    results: PasskeyReport | None = None
    """Results of check-passkey, if there are any."""
    heatmap: bool = False
    """Whether a figure of these results is uploaded."""
    setting: str | None = None
    """Name of the measured setting that the model has; None if none of them is."""
    price: Price | None = None
    """What short texts cost, if that was measured."""
    contexts: Contexts | None = None
    """Perplexity by context, if that was measured."""
    old: str = ""
    """The section that the card has now and that is replaced; empty if there is none."""
    repairs: bool = False
    """Whether the model is only repaired; then the card gets a short section."""
    gguf: GgufParts | None = None
    """The parts that differ for GGUF files; None for a checkpoint."""


def section(facts: Facts) -> str:
    """Write the section as Markdown, with its two marker lines."""
    parts: tuple[Callable[[Facts], Iterator[str]], ...]
    if facts.repairs and _CITATION not in facts.old:
        parts = (_done, _rope, _engines, _reproduction)
    else:
        parts = (
            _done, _overview, _use, _passkey, _price, _contexts, _rope, _engines, _reproduction,
            _limits, _citation,
        )  # fmt: skip
    body = "\n\n".join(text for part in parts if (text := "\n".join(part(facts)).rstrip()))
    title = short(facts.name)
    begin = _BEGIN.format(f" {title}" if re.fullmatch(r"[\w.-]+", title) else "")
    return f"{begin}\n## Context extension\n\n{body}\n{END}\n"


def title_in(part: str) -> str | None:
    """The card title that a section was written for; None if an older yarncli wrote the section."""
    found = _TITLE.match(part)
    return found[1] if found else None


def _done(facts: Facts) -> Iterator[str]:
    """What was done, and whether the model was trained for it."""
    done = facts.history.plan
    if done is None and facts.gguf is not None:
        yield from facts.gguf.unplanned()
    elif done is None and not facts.history.baked:
        yield _unrecorded(facts)
    elif done is None:
        told = f"The context window of {_base(facts)} is unchanged. {_about_weights(facts.history)}"
        yield told.rstrip()
    else:
        told = (
            f"The context window of {_base(facts)} was extended from {done.original_length:,} to "
            f"**{done.length:,} tokens** with {_label(done.method)}, factor {cell(done.factor)}. "
            f"{facts.gguf.about_weights() if facts.gguf else _about_weights(facts.history)}"
        )
        yield told.rstrip()
        yield from ("", _about_training(facts, done.original_length))
    if like := facts.judgement.assume_like:
        yield ""
        yield (
            f"yarncli does not know the model type {code(facts.subject.model_type)}. This "
            f"section assumes that it is like {like}."
        )


def _base(facts: Facts) -> str:
    """The base model, as precisely as it is known."""
    origin, base = facts.history.origin, facts.base
    if base and base != facts.name and (origin is None or base != origin[0]):
        return f"[{base}](https://huggingface.co/{base})"
    if origin:
        return f"[{origin[0]}](https://huggingface.co/{origin[0]}) at commit `{origin[1][:12]}`"
    return "this model"


def _about_training(facts: Facts, original_length: int) -> str:
    """Whether the weights were trained at the new length; no other part of the card says that."""
    measured = "; measurements are below" if _is_measured(facts) else ""
    if trained := facts.history.trained:
        steps = f" for {trained.steps:,} steps" if trained.steps else ""
        length = f" on texts of {trained.train_length:,} tokens" if trained.train_length else ""
        told = f"**The model was then fine-tuned{steps}{length}.**"
        if trained.train_length and trained.train_length < facts.subject.length:
            told += f" Beyond that length it relies on the method alone{measured}."
        return told
    return (
        f"**The model was not trained at this length.** Beyond {original_length:,} tokens it "
        f"relies on the method alone{measured}."
    )


def _unrecorded(facts: Facts) -> str:
    """What is known of a model without a record, or with a record of another config."""
    why = "it has no yarncli.json"
    if facts.history.unbelieved:
        why = "its yarncli.json describes another config.json"
    told = f"No conversion is recorded for this model ({why})."
    p, rope = _scaling(facts), facts.subject.rope
    if p is None or rope is None:
        return told
    method = by_rope_type(p.rope_type)
    name = _label(method.name) if method else code(p.rope_type)
    factor = f", factor {cell(p.resolved_factor())}" if p.resolved_factor() != 1 else ""
    length = f"{rope.original_length:,} tokens"
    return f"{told} Its config.json has {name}{factor}; the original window is {length}."


def _scaling(facts: Facts) -> RopeParameters | None:
    """The first setting of the config that scales RoPE; None if none does."""
    scopes = facts.subject.rope.scopes.values() if facts.subject.rope else ()
    found = (scope.parameters for scope in scopes if scope.parameters.rope_type != "default")
    return next(found, None)


def _label(name: str) -> str:
    """A method as a link with its label; an unknown method by its name."""
    method = METHODS.get(name)
    return f"[{method.label}]({method.reference_url})" if method else plain(name)


def _about_weights(history: History) -> str:
    baked, rest = history.baked, "" if history.trained else "All other weights are unchanged."
    if baked is None:
        return "" if history.trained else "The weights are unchanged."
    shown = ", ".join(sorted({cell(value) for value in baked.attention_factor.values()}))
    config = (
        "config.json still applies the default of the method"
        if baked.form == "residual"
        else "config.json applies none"
    )
    side = {"k": "key", "q": "query"}.get(baked.side, "query and key")
    return (
        f"The attention temperature ({shown} on the rotary part of queries and keys) is stored in "
        f"the {side} weights; {config}. {rest}".rstrip()
    )


def _overview(facts: Facts) -> Iterator[str]:
    done = facts.history.plan
    original = done.original_length if done else 0
    return facts.gguf.overview(original) if facts.gguf else overview(facts.subject, original)


def _use(facts: Facts) -> Iterator[str]:
    if facts.gguf is not None:
        return facts.gguf.use()
    return use(facts.subject, facts.judgement, facts.name)


def _engines(facts: Facts) -> Iterator[str]:
    return facts.gguf.engines() if facts.gguf else engines(facts.judgement)


def _rope(facts: Facts) -> Iterator[str]:
    done = facts.history.plan
    if done is None:
        return
    yield from ("### RoPE before and after", "")
    plans = [step.plan for step in facts.history.steps if step.plan]
    first = {scope.name: scope.before for plan in reversed(plans) for scope in plan.scopes}
    read = facts.subject.rope.scopes if facts.subject.rope and facts.history.baked else {}
    for scope in done.scopes:
        if scope.name != "model":
            yield from (f"Layers of kind {code(scope.name)}:", "")
        # After a bake, the temperature in the config differs from the one in the plan.
        after = read[scope.name].parameters if scope.name in read else scope.after
        yield from table(("RoPE", "before", "after"), _changes(first[scope.name], after))
        yield ""


def _changes(old_rope: RopeParameters, new_rope: RopeParameters) -> Iterator[tuple[str, ...]]:
    before, after = parameters_to_json(old_rope), parameters_to_json(new_rope)
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if key not in _SIZES or old != new:
            yield (code(key), cell(old), cell(new))


def _passkey(facts: Facts) -> Iterator[str]:
    report = facts.results
    if report is None:
        yield from _measured_before(facts, RETRIEVAL)
        yield from _measured_before(facts, TASKS)
        return
    yield from retrieval(report, facts.setting)
    if facts.heatmap:
        shown = {row.task for row in report.tasks()}
        what = (
            "Passkey retrieval over length and depth" if shown == {PASSKEY} else "Tasks by length"
        )
        yield from ("", f"![{what}]({HEATMAP})")
    on = f" on {code(str(report.settings.get('model')))}" if facts.gguf else ""
    yield from ("", f"Measured{on} with:", "", *block("sh", [command(_measurement(facts, report))]))


def _price(facts: Facts) -> Iterator[str]:
    return facts.price.lines() if facts.price else _measured_before(facts, PRICE)


def _contexts(facts: Facts) -> Iterator[str]:
    return facts.contexts.lines() if facts.contexts else _measured_before(facts, CONTEXTS)


def _is_measured(facts: Facts) -> bool:
    """Whether there are measurements on long texts."""
    return any(_passkey(facts)) or any(_contexts(facts))


def _measured_before(facts: Facts, heading: str) -> Iterator[str]:
    """The results in the old card, if RoPE has not changed since they were measured."""
    rope = "\n".join(_rope(facts)).rstrip()
    _, found, text = facts.old.partition(heading)
    if found and rope and rope in facts.old:
        yield found + re.split(r"^### |^<!-- yarncli:end", text, maxsplit=1, flags=re.M)[0].rstrip()


def _reproduction(facts: Facts) -> Iterator[str]:
    if facts.gguf is not None:
        return facts.gguf.reproduction()
    return reproduction(facts.history, facts.name)


def _measurement(facts: Facts, report: PasskeyReport) -> list[str]:
    """The check-passkey command that repeats the measurement, with its recorded settings."""
    rows = report.tasks()
    lengths = ",".join(str(length) for length in sorted({row.length for row in rows}))
    words = ["check-passkey", short(facts.name)] if not facts.gguf else facts.gguf.measurement()
    words += ["--lengths", lengths]
    if tasks := [task for task in dict.fromkeys(row.task for row in rows) if task in TASK_NAMES]:
        words += ["--tasks", ",".join(tasks)] if tasks != [PASSKEY] else []
    for name in ("depths", "trials", "seed"):
        value = report.settings.get(name)
        if type(value) is int:
            words += [f"--{name}", str(value)]
    return words


def _limits(facts: Facts) -> Iterator[str]:
    done = facts.history.plan
    if not facts.history.steps or (facts.gguf and not done):
        return
    yield from ("### Limitations", "")
    for note in done.notes if done else ():
        # A stranger may have written the record, so its notes add no links.
        yield f"- {plain(note).replace('[', '&#91;')}"
    if any(_passkey(facts)):
        yield (
            "- Passkey retrieval tests whether the model finds a fact, not whether it understands "
            "a text."
        )
    elif done and not _is_measured(facts):
        yield f"- Nothing was measured at {done.length:,} tokens for this card."
    if facts.history.baked:
        yield (
            "- The weights contain the attention temperature. If an engine or an override applies "
            "it again, attention is scaled twice."
        )
    if facts.judgement.verdicts:
        yield "- The verdicts on engines are valid only for the versions named here."


def _citation(facts: Facts) -> Iterator[str]:
    done, steps = facts.history.plan, facts.history.steps
    if not steps:
        return
    p = _scaling(facts)
    method = METHODS.get(done.method) if done else by_rope_type(p.rope_type) if p else None
    found = papers(method.reference_url if method else "", steps[-1].tool_version)
    yield from (_CITATION, *block("bibtex", found))
