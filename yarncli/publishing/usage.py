"""How to use a model: a snippet for transformers, a command for vLLM, and all other engines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from yarncli.engines.judgement import Judgement
from yarncli.engines.verdict import EngineView
from yarncli.publishing.markdown import block, code, folded, plain, table
from yarncli.publishing.subject import Subject

_SHOWN = ("transformers-5", "vllm")  # the engines that get a snippet
_LOADED = re.compile(r"\b(\w+)\.from_pretrained\(")
_QUESTION = "Summarise this text: …"
_TRUST = "trust_remote_code=True"


def use(subject: Subject, judgement: Judgement, name: str) -> Iterator[str]:
    """The section on transformers and vLLM: for each the code that is known to work, or the reason.

    Args:
        subject: the model.
        judgement: the verdicts on engines.
        name: name of the model: its Hub id, or its directory.
    """
    found = {view.engine.id: view for view in judgement.verdicts}
    if not found:
        return
    yield from ("### How to use it", "")
    trusted = subject.has_code and subject.rope is not None and bool(subject.rope.assume_like)
    if trusted:
        told = f"`{_TRUST}` runs code that comes with the model. Read that code first."
    elif judgement.assume_like:
        told = f"This needs a transformers that has code for {code(subject.model_type)}."
    else:
        told = ""
    view = found["transformers-5"]
    if not subject.writes:
        pass  # how to load and use a model of another task is not known here
    elif _is_right(view):
        yield from (f"With transformers {view.engine.versions}{_why(view)}:", "")
        yield from block("python", _snippet(subject, view.launch or "", name, trusted=trusted))
        yield from ("", told, "") if told else ("",)
    else:
        yield from (_instead(view), "")
    view = found["vllm"]
    if _is_right(view):
        yield from (f"With vLLM {view.engine.versions}{_why(view)}:", "")
        yield from block("sh", [view.launch or ""])
    else:
        yield _instead(view)


def _is_right(view: EngineView) -> bool:
    return view.launch is not None and view.launch_is_exact


def _why(view: EngineView) -> str:
    """What the options of a command are for."""
    return "" if view.status == "exact" else f". Without its options: {plain(view.summary())}"


def _instead(view: EngineView) -> str:
    """The reason why there is no command for an engine."""
    name, why = f"{view.engine.name} {view.engine.versions}", plain(view.summary())
    if view.status == "unknown":
        return f"It is not known what {name} computes: {why}"
    verb = (
        "has no code for it" if view.status == "unsupported" else "does not compute it as intended"
    )
    return f"{name} {verb}: {why}"


def _snippet(subject: Subject, launch: str, name: str, *, trusted: bool) -> Iterator[str]:
    """Python code that loads the model as the engine's command does, and generates text."""
    more = f", {_TRUST}" if trusted else ""
    load = _loading(launch).removesuffix(")") + f', device_map="auto"{more})'
    reader, cls = "tokenizer", "AutoTokenizer"
    if subject.has_processor:
        reader, cls = "processor", "AutoProcessor"
    yield from (_import(cls, *_LOADED.findall(load)), "")
    yield f"{reader} = {cls}.from_pretrained({json.dumps(name)}{more})"
    yield from (load, "")
    if subject.has_processor:
        content = f'[{{"type": "text", "text": "{_QUESTION}"}}]'
    else:
        content = f'"{_QUESTION}"'
    if subject.is_chat:
        yield f'messages = [{{"role": "user", "content": {content}}}]'
        yield f"inputs = {reader}.apply_chat_template("
        yield "    messages, add_generation_prompt=True, tokenize=True, return_dict=True,"
        yield '    return_tensors="pt",'
        yield ").to(model.device)"
    else:
        yield f'inputs = {reader}(text="{_QUESTION}", return_tensors="pt").to(model.device)'
    yield "output = model.generate(**inputs, max_new_tokens=256)"
    yield 'written = output[0, inputs["input_ids"].shape[1] :]'
    yield f"print({reader}.decode(written, skip_special_tokens=True))"


def _loading(launch: str) -> str:
    """The engine's command as a statement."""
    return launch if "model = " in launch else f"model = {launch}"


def _import(*classes: str) -> str:
    return f"from transformers import {', '.join(sorted({*classes}))}"


# The kinds of verdicts in the order of the list: the words for each, and its condition. The first
# condition that holds decides.
_KINDS: tuple[tuple[str, Callable[[EngineView], bool]], ...] = (
    ("as intended", lambda v: v.status == "exact" and not _is_unjudged(v)),
    ("RoPE as intended; not judged for this format of weights", lambda v: v.status == "exact"),
    ("as intended with options", lambda v: v.launch_is_exact and v.launch is not None),
    ("not known", lambda v: v.status == "unknown"),
    ("without code for this model", lambda v: v.status == "unsupported"),
    ("not as intended", lambda v: True),
)


def _is_unjudged(view: EngineView) -> bool:
    return view.weights is not None and view.weights.status == "not judged"


def engines(judgement: Judgement) -> Iterator[str]:
    """The verdicts on all engines by name. Commands and reasons are folded."""
    kinds: dict[str, list[EngineView]] = {kind: [] for kind, _ in _KINDS}
    for view in judgement.verdicts:
        kinds[next(kind for kind, fits in _KINDS if fits(view))].append(view)
    if not judgement.verdicts:
        return
    yield "### Which engines compute it as intended"
    yield ""
    assumed = f", assumed to be like {judgement.assume_like}" if judgement.assume_like else ""
    intended = f"the intended setting (according to {judgement.intended_from}{assumed})"
    yield f"How each engine reads config.json, compared with {intended}:"
    yield ""
    for kind, views in kinds.items():
        if views:
            named = "; ".join(view.engine.name for view in views)
            yield f"- {kind}: {len(views)} of {len(judgement.verdicts)} ({named})"
    helped, others = (
        [view for view in kinds[kind] if view.engine.id not in _SHOWN]
        for kind in ("as intended with options", "as intended")
    )
    wrong = kinds["not as intended"] + kinds["not known"]
    if helped:
        yield from ("", *folded("Engines that need options", _lines(helped)))
    if wrong:
        unsure = ", or may not" if kinds["not known"] else ""
        title = f"Engines that do not compute it as intended{unsure}"
        yield from ("", *folded(title, _table(wrong)))
    if others:
        yield from ("", *folded("How to start the other engines", _lines(others)))


def _names(views: Sequence[EngineView]) -> str:
    return "; ".join(f"{view.engine.name} ({view.engine.versions})" for view in views)


def _table(views: Sequence[EngineView]) -> Iterator[str]:
    rows: dict[tuple[str, ...], list[EngineView]] = {}
    for view in views:
        serves = f"{view.served_length:,}" if view.served_length else "–"
        rows.setdefault((view.status, serves, plain(view.summary())), []).append(view)
    found = [(_names(group), *row) for row, group in rows.items()]
    yield from table(("engine", "result", "serves, tokens", "why"), found)


def _lines(views: Sequence[EngineView]) -> Iterator[str]:
    """Launch commands, each with its engines and with what its options correct."""
    names: dict[str, list[EngineView]] = {}
    for view in views:
        names.setdefault(view.launch or "", []).append(view)
    first = True
    for launch, group in names.items():
        language, lines = "sh", [launch]
        if group[0].engine.id.startswith("transformers"):
            language = "python"
            lines = [_import(*_LOADED.findall(launch)), "", _loading(launch)]
        why = _why(group[0])
        if "MODEL.gguf" in launch:
            why += ". MODEL.gguf is the file that llama.cpp's converter makes from this checkpoint"
        yield from () if first else ("",)
        yield from (f"{_names(group)}{why}:", "", *block(language, lines))
        first = False
