"""The model card: a new card, or the present card with the yarncli section added or renewed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import change, using
from yarncli.checkpoint.source import Checkpoint
from yarncli.engines.judgement import Judgement, judge
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import History
from yarncli.hub.cards import body_of, dump_metadata, read_metadata, with_metadata
from yarncli.publishing.base import Base, base_of, local_card
from yarncli.publishing.gguf import GgufRepository, history_of, open_published, origin_of
from yarncli.publishing.gguf_metadata import (
    parents_note,
)
from yarncli.publishing.gguf_section import GgufParts
from yarncli.publishing.markdown import plain
from yarncli.publishing.measurements import ResultFiles, read_all
from yarncli.publishing.messages import Message, Messages, Notify
from yarncli.publishing.metadata import LICENCE, CardRequest, left_from_base, make_metadata
from yarncli.publishing.reproduction import short
from yarncli.publishing.results import Results, draw_heatmap
from yarncli.publishing.section import HEATMAP, Facts, section, title_in
from yarncli.publishing.selection import README
from yarncli.publishing.subject import read_subject

# A line that starts or ends a yarncli section, or a code block.
_MARK = re.compile(
    r"^(?:(?P<fence>`{3,}|~{3,})(?P<rest>.*)|(?P<begin><!-- yarncli:begin\b.*?-->[^\S\n]*)"
    r"|<!-- yarncli:end -->[^\S\n]*)$\n?",
    re.MULTILINE,
)

LONE_MARK = (
    "{} has only one of the two marks of a yarncli section. The mark and the text below it stay "
    "as your own text. Delete the rest of an old section by hand."
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model card."""

    name: str
    """Name of the model in the card: its Hub id, or its directory."""

    text: str
    """The whole README.md with LF line ends, without the last line end."""

    messages: tuple[Message, ...]
    """The messages of the call, in order."""

    written: tuple[str, ...] = ()
    """Names of the files that were written into the checkpoint."""

    def to_json(self) -> dict[str, Any]:
        """The card as plain data."""
        return {"schema_version": 1, **asdict(self), "messages": list(map(asdict, self.messages))}


def card(
    source: str | Path | Checkpoint,
    *,
    name: str | None = None,
    results: ResultFiles = None,
    base_model: str | None = None,
    licence: str | None = None,
    write: bool = False,
    notify: Notify = None,
) -> Card:
    """Make the model card of a local checkpoint or GGUF file; nothing changes without `write`.

    An existing card is kept; only the section between the yarncli marks is renewed. The card's
    statements about the base model are read from the Hub, if the Hub can be reached.

    Args:
        source: the directory of a checkpoint, a GGUF file, a folder of GGUF files of one model, or
            what `open_checkpoint` returned.
        name: Hub id of the model, `org/name`; None takes the name of the directory.
        results: result files (JSONL) of check-passkey, regress and perplexity, at most one of each.
        base_model: Hub id of the base model; None takes the one that yarncli.json records.
        licence: the licence, as the Hub spells it.
        write: write the card into the checkpoint, with the figure of the results.
        notify: called with the severity and the text of each message, as soon as it is known.

    Raises:
        UsageError: `source` is not on this machine, or `results` holds no results of it.
        CheckpointError: `source` is not a model, or a card's metadata or the results cannot be
            read, or README.md is shared with others and must not be changed.
        OutputError: the card cannot be written; nothing was changed.

    Example:
        >>> card("model-yarn", name="me/model-128k").text.count("yarncli:begin")  # doctest: +SKIP
        1
    """
    with using(source, in_place=write) as directory:
        checkpoint = open_published(source)
        messages = Messages(notify)
        base = _base(checkpoint, base_model, messages)
        found = read_all(results, checkpoint, messages)
        figure = draw_heatmap(found.report, messages) if found and write else None
        name = name or Path(checkpoint.name).resolve().name
        request = CardRequest(
            name=name, base=base, licence=licence, results=found,
            heatmap=figure is not None if write else bool(found and found.report),
        )  # fmt: skip
        current = local_card(checkpoint)
        if current is not None and has_lone_mark(current):
            messages.add("warning", LONE_MARK.format(README))
        text = make_card(checkpoint, current, request)
        if write and isinstance(checkpoint, GgufRepository):
            checkpoint.require_own_card()
        written = _write(directory, text, figure) if directory and write else ()
    text = text.replace("\r\n", "\n").rstrip("\n")
    return Card(name=name, text=text, messages=messages.kept, written=written)


def _base(checkpoint: Checkpoint, stated: str | None, messages: Messages) -> Base | None:
    """The base model: the one that the user named, or the recorded one."""
    origin = (stated, None) if stated else origin_of(checkpoint)
    notes: list[str] = []
    base = base_of(origin[0], origin[1], notes, stated=stated is not None) if origin else None
    for note in notes:
        messages.add("warning", note)
    if not stated and isinstance(checkpoint, GgufRepository) and (told := parents_note(checkpoint)):
        messages.note(f"{told} Give --base-model ORG/NAME if that model is on the Hub.")
    return base


def _write(directory: Directory, text: str, figure: bytes | None) -> tuple[str, ...]:
    """Write the files that differ from the present ones; return their names."""
    files = {README: text.encode(), **({HEATMAP: figure} if figure else {})}
    differing = {name: data for name, data in files.items() if directory.read(name) != data}
    change(directory, differing)
    return tuple(differing)


def make_card(checkpoint: Checkpoint, current: str | None, request: CardRequest) -> str:
    """Write the card of a checkpoint as text.

    Args:
        checkpoint: the checkpoint that the card describes.
        current: the card to put our section into. None gives a new card, and so does the unchanged
            card of the base, which `convert` copies.
        request: what the card is made of besides the checkpoint.

    Raises:
        CheckpointError: the metadata of a card cannot be read, or the checkpoint is damaged.
    """
    history, base = history_of(checkpoint), request.base
    of_base = base.card.split() if base is not None and base.card is not None else None
    if current is not None and current.split() == of_base:
        current = None
    ends = "\r\n" if "\r\n" in (current or "") else "\n"
    current = current and current.replace("\r\n", "\n")
    found = next(iter(_our_parts(current or "")[0]), None)
    old_part = current[found] if current and found else ""
    part = section(_facts(checkpoint, history, request, old_part))
    if current is None:
        metadata = make_metadata(checkpoint, history, {}, request)
        title = plain(short(request.name))
        return f"---\n{dump_metadata(metadata)}---\n\n# {title}\n\n{part}"
    if found:
        above = _retitled(current[: found.start], title_in(old_part), short(request.name))
        text = above + part + current[found.stop :]
    else:
        text = current.rstrip() + "\n\n" + part
    if not request.repairs:
        old = read_metadata(current, README)
        stale = [] if found else list(left_from_base(old, request))
        kept = {key: value for key, value in old.items() if key not in stale}
        new = make_metadata(checkpoint, history, kept, request)
        stale += [key for key in LICENCE if key in old and key not in new]
        changes = {k: v for k, v in new.items() if k not in old or old[k] != v}
        text = with_metadata(text, changes, without=stale)
    return text.replace("\n", ends)


def _facts(checkpoint: Checkpoint, history: History, request: CardRequest, old: str) -> Facts:
    """The facts for the section that replaces `old`."""
    gguf = None
    if isinstance(checkpoint, GgufRepository):
        gguf = GgufParts(repository=checkpoint, name=request.name)
    found = request.results or Results()
    return Facts(
        name=request.name,
        history=history,
        subject=gguf.subject() if gguf else read_subject(checkpoint, history, request.rest),
        judgement=_judgement(checkpoint, history, request.name),
        base=request.base.repo_id if request.base else None,
        results=found.report,
        setting=found.setting,
        price=found.price,
        contexts=found.contexts,
        heatmap=request.heatmap,
        old=old,
        repairs=request.repairs,
        gguf=gguf,
    )


def _retitled(above: str, old: str | None, new: str) -> str:
    """The text above our section. Its title is renewed if yarncli wrote that title."""
    text = above.rstrip()
    if old is None or not f"\n{text}".endswith(f"\n# {old}"):
        return above
    return text.removesuffix(old) + plain(new) + above[len(text) :]


def has_our_part(card: str) -> bool:
    """Whether a card has a section that yarncli wrote."""
    return bool(_our_parts(card)[0])


def has_lone_mark(card: str) -> bool:
    """Whether a card has only one mark of a section; such a mark counts as the user's text."""
    return _our_parts(card)[1]


def own_words(card: str) -> list[str]:
    """The words of a card without its metadata and without our section."""
    for part in reversed(_our_parts(card)[0]):
        card = card[: part.start] + card[part.stop :]
    return body_of(card).split()


def _our_parts(card: str) -> tuple[list[slice], bool]:
    """Where the sections that yarncli wrote are, and whether there is a mark without a partner.

    A section goes from a begin mark to the next end mark, with no other begin mark between them. A
    section inside a closed code block is only an example. Below a code block that was never closed,
    sections count, because the user may have forgotten to close it.
    """
    parts: list[slice] = []
    in_code: list[slice] = []  # sections since the open code block began
    start: int | None = None
    fence, lone = "", False
    for mark in _MARK.finditer(card):
        if found := mark["fence"]:
            if start is not None:
                continue  # a code block inside our own section
            if not fence:
                fence = found
            elif found.startswith(fence) and not mark["rest"].strip():
                # The code block is closed, so the sections in it were examples.
                parts = [part for part in parts if part not in in_code]
                fence, in_code = "", []
        elif mark["begin"]:
            lone = lone or start is not None
            start = mark.start()
        elif start is None:
            lone = True
        else:
            parts.append(slice(start, mark.end()))
            in_code += parts[-1:] if fence else []
            start = None
    return parts, lone or start is not None


def _judgement(checkpoint: Checkpoint, history: History, name: str) -> Judgement:
    if isinstance(checkpoint, GgufRepository):
        return Judgement(source=name, intended_from="", verdicts=())
    config = checkpoint.config().value
    try:
        return judge(config, history, source=name, checkpoint=checkpoint)
    except (CheckpointError, UsageError):  # an unknown model type; `check` reports it
        return Judgement(source=name, intended_from="", verdicts=())
