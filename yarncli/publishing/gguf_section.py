"""The parts of a card's section that differ for GGUF files."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod

from yarncli.config.weight_format import PLAIN
from yarncli.engines.gguf_files import GgufJudgement, judge_gguf
from yarncli.errors import CheckpointError
from yarncli.gguf.facts import FACTORS, FREQS
from yarncli.gguf.reading import GgufRope, read_gguf
from yarncli.gguf.rope_config import as_rope_config
from yarncli.gguf.serving import Serving
from yarncli.history import Step
from yarncli.progress import format_bytes
from yarncli.publishing.gguf import GgufModel, GgufRepository
from yarncli.publishing.markdown import block, cell, code, plain, table
from yarncli.publishing.reproduction import command
from yarncli.publishing.subject import Subject, in_words
from yarncli.rope.methods import by_rope_type

_CARRIERS = {
    "scale": "in added scales of the key projections; no weight was changed",
    "norm": "in the norms of the keys; all other weights are unchanged",
    "weights": "in the key weights; all other weights are unchanged",
}
_SERVER = "http://localhost:8080/v1"  # where llama-server listens by default


@dataclass(frozen=True, kw_only=True)
class GgufParts:
    """The parts of a section that differ for GGUF files."""

    repository: GgufRepository
    """The files that the card describes."""
    name: str
    """Name of the model: its Hub id, or its file or folder."""

    @property
    def _first(self) -> GgufModel:
        return self.repository.models[0]

    @property
    def _rope(self) -> GgufRope | None:
        found = read_gguf(self._first.gguf)
        return found if isinstance(found, GgufRope) else None

    def subject(self) -> Subject:
        """The model as its header describes it."""
        gguf, rope = self._first.gguf, None
        with suppress(CheckpointError):  # llama.cpp does not run it with RoPE; `engines` says why
            rope = as_rope_config(gguf)
        return Subject(
            architecture="", writes=True, model_type=gguf.architecture, rope=rope,
            length=self._rope.window if self._rope else 0, weights=None, format=PLAIN,
            cache_bytes=0, cache_dtype="", is_chat=False, has_processor=False, has_code=False,
        )  # fmt: skip

    def about_weights(self) -> str:
        """What was done to the weights."""
        bake = next((s for s in self.repository.history.steps[::-1] if s.command == "bake"), None)
        where = "in a tensor and in keys" if FREQS in self._first.gguf.tensors else "in keys"
        if bake is None:
            return f"The setting is stored {where} of the file; the weights are unchanged."
        options = bake.options or {}
        factor = cell(options.get("attention_factor"))
        carrier = _CARRIERS.get(str(options.get("carrier")), "in a key; no weight was changed")
        return f"The attention temperature was set to {factor} and is stored {carrier}."

    def unplanned(self) -> Iterator[str]:
        """What is known of a model without a recorded extension."""
        history = self.repository.history
        if history.unbelieved:
            yield "The record in the file describes another setting than the file has."
        sources = [(step.options or {}).get("from") for step in history.steps]
        for source in filter(None, sources):
            yield f"The RoPE setting of {code(str(source))} was written into the file."
        if any(step.command == "bake" for step in history.steps):
            yield self.about_weights()
        elif not any(sources) and not history.unbelieved:
            yield "No conversion is recorded in the file."
        p = self._rope.parameters if self._rope else None
        if p is not None and p.rope_type != "default":
            method = by_rope_type(p.rope_type)
            name = f"[{method.label}]({method.reference_url})" if method else code(p.rope_type)
            factor = f", factor {cell(p.resolved_factor())}" if p.resolved_factor() != 1 else ""
            yield f"llama.cpp computes {name}{factor} from it."

    def overview(self, original_length: int) -> Iterator[str]:
        """The model as a list of facts, and its files as a table.

        Args:
            original_length: the window before the extension, tokens; 0 where none is recorded.
        """
        gguf = self._first.gguf
        sizes = (prod(t.shape) for name, t in gguf.tensors.items() if name not in FACTORS)
        yield f"- Architecture: {code(gguf.architecture)}"
        yield f"- Parameters: {in_words(sum(sizes))}"
        if isinstance(layers := gguf.get("block_count"), int):
            yield f"- Layers: {layers}"
        if self._rope:
            before = f"; {original_length:,} before the extension" if original_length else ""
            yield f"- Context length: {self._rope.window:,} tokens{before}"
        yield ""
        yield from table(("file", "mostly in", "size"), map(self._row, self.repository.models))

    def _row(self, model: GgufModel) -> tuple[str, ...]:
        elements: Counter[str] = Counter()
        for tensor in model.gguf.tensors.values():
            elements[tensor.type] += prod(tensor.shape)
        files = (self.repository.file(name) for name in model.names)
        size = sum(file.size for file in files if file)
        more = f" and {len(model.names) - 1} more" if model.names[1:] else ""
        most = next((name for name, _ in elements.most_common(1)), "–")
        return f"{code(model.names[0])}{more}", plain(most), format_bytes(size)

    def use(self) -> Iterator[str]:
        """How to fetch and start the model, or why llama.cpp does not run it."""
        found = self._judgement()
        yield from ("### How to use it", "")
        if found.serving is None:
            yield f"llama.cpp does not run this file: {plain(found.verdicts[0].what)}."
            return
        first = self._first.names
        serving = Serving(first[0], found.serving.length, len(first))
        yield from ("With llama.cpp:", "")
        yield from block("sh", [*self._fetch(), serving.command])
        if serving.modelfile:
            yield from ("", "With Ollama, as a Modelfile for `ollama create`:", "")
            yield from block("", serving.modelfile.splitlines())
        if self.repository.models[1:]:
            yield from ("", f"Use the other files in the same way as {code(first[0])}.")

    def _fetch(self) -> Iterator[str]:
        if "/" in self.name:
            yield shlex.join(["hf", "download", self.name, *self._first.names, "--local-dir", "."])

    def engines(self, level: str = "###") -> Iterator[str]:
        """What each program computes, under a heading of the given level."""
        yield from (f"{level} What each program computes", "")
        rows = []
        for view in self._judgement().verdicts:
            serves = f"{view.served_length:,}" if view.served_length else "–"
            rows.append((plain(view.reader.name), view.status, serves, plain(view.what)))
        yield from table(("program", "result", "serves, tokens", "what it does"), rows)
        yield from (
            "",
            "The verdicts are valid only for the versions named; “unknown” means not examined.",
        )

    def _judgement(self) -> GgufJudgement:
        assert self._first.file.path is not None  # only local files are published
        return judge_gguf(self._first.file.path)

    def reproduction(self) -> Iterator[str]:
        """The commands that make the file again, according to its record."""
        steps = self.repository.history.steps
        if not steps:
            return
        yield from ("### How to reproduce it", "")
        yield from block("sh", self._commands(steps))
        yield ""
        yield (
            f"These commands are for yarncli {plain(steps[-1].tool_version)}. The key "
            "`yarncli.plan` in the file holds every value that was written or replaced."
        )
        if self.repository.history.origin:
            yield "Replace FILE.gguf by the name of the file in that repository."
        else:
            yield f"{code(steps[0].source)} is the file that the conversion started from."

    def _commands(self, steps: tuple[Step, ...]) -> Iterator[str]:
        source, names = steps[0].source, self._first.names
        end = f"-00001-of-{len(names):05}" if names[1:] else ""
        if self.repository.history.origin:
            source = f"hf://{source}/FILE.gguf"
        writing = [number for number, step in enumerate(steps) if step.command != "check"]
        for number, step in enumerate(steps):
            if step.command == "check":  # it repairs the file in place, so there is no new name
                yield command(["check", source, "--fix"])
                continue
            is_last = number == writing[-1]
            out = names[0].rpartition("/")[2] if is_last else f"step{number + 1}{end}.gguf"
            yield command([step.command, source, out, *step.arguments()])
            source = out

    def measurement(self) -> list[str]:
        """The first words of the command that measures a file through its server."""
        return ["check-passkey", "--base-url", _SERVER]
