"""`yarncli.json`: what was done to a checkpoint, from what, by which command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from yarncli import __version__
from yarncli.errors import ConfigError

if TYPE_CHECKING:
    from yarncli.checkpoint.source import Checkpoint
    from yarncli.jsontext.text import JsonText

FILE_NAME = "yarncli.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One run of convert or bake.

    Attributes:
        command: "convert" or "bake".
        source: Hub id @ commit, or the name of the local directory (never its full path).
        tool_version: of yarncli.
        plan: the numbers that were written, as `RopePlan` gives them for JSON.
        replaced: the values that were changed, `{"file", "path", "before", "after"}` each; an
            absent side has no key.
        baked: what was moved into the weights; None for a step that leaves them alone.
        config_only: whether the weights were left out of the output.
    """

    command: str
    source: str
    tool_version: str = __version__
    plan: Mapping[str, Any] = field(default_factory=dict)
    replaced: tuple[Mapping[str, Any], ...] = ()
    baked: Mapping[str, Any] | None = None
    config_only: bool = False

    def restored(self, name: str, text: JsonText) -> JsonText:
        """The file `name` with every value put back that this step replaced in it."""
        mine = [entry for entry in self.replaced if entry["file"] == name]
        values = {tuple(e["path"]): e["before"] for e in mine if "before" in e}
        return text.edited(values, [tuple(e["path"]) for e in mine if "before" not in e])


@dataclass(frozen=True, slots=True)
class Provenance:
    """All steps that led to a checkpoint, oldest first."""

    steps: tuple[Step, ...]

    def to_bytes(self) -> bytes:
        """The content of `yarncli.json`."""
        document = {"schema_version": SCHEMA_VERSION, "steps": [asdict(s) for s in self.steps]}
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> Provenance:
        """Check and read a parsed `yarncli.json`; unknown keys are ignored.

        Args:
            document: the parsed object.
            where: what to call the file in messages.

        Raises:
            ConfigError: another schema, or a value of the wrong type.
        """
        version = document.get("schema_version")
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ConfigError(
                f"{where} does not have the schema_version {SCHEMA_VERSION} that this yarncli "
                "reads. Use a newer yarncli, or remove the file."
            )
        steps = _typed(document, "steps", list, where)
        return cls(tuple(_step(step, f"{where}, step {n}") for n, step in enumerate(steps, 1)))


def read_provenance(checkpoint: Checkpoint) -> Provenance | None:
    """The provenance that a checkpoint carries, None if it has none.

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: it is not what yarncli writes.
    """
    document = checkpoint.optional_json(FILE_NAME)
    if document is None:
        return None
    return Provenance.from_json(document.value, checkpoint.where(FILE_NAME))


def describe_source(checkpoint: Checkpoint) -> str:
    """The `source` of a step that starts from `checkpoint`."""
    if checkpoint.repo_id is not None:
        return f"{checkpoint.repo_id}@{checkpoint.commit}"
    path = checkpoint.directory or checkpoint.config_path
    return path.resolve().name if path else checkpoint.name


def _step(entry: Any, where: str) -> Step:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not an object.")
    replaced = _typed(entry, "replaced", list, where)
    for change in replaced:
        path = change.get("path") if isinstance(change, dict) else None
        if (
            not isinstance(path, list)
            or not all(isinstance(key, str) or type(key) is int for key in path)
            or not isinstance(change.get("file"), str)
        ):
            raise ConfigError(f"{where}: an entry of `replaced` lacks a valid `file` or `path`.")
    return Step(
        command=_typed(entry, "command", str, where),
        source=_typed(entry, "source", str, where),
        tool_version=_typed(entry, "tool_version", str, where),
        plan=_typed(entry, "plan", dict, where),
        replaced=tuple(replaced),
        baked=_typed(entry, "baked", (dict, type(None)), where),
        config_only=_typed(entry, "config_only", bool, where),
    )


def _typed(entry: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind):
        raise ConfigError(f"{where}: `{key}` is missing or of the wrong type.")
    return value
