"""`yarncli.json`: the record of what was done to a checkpoint, by which command and options."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from yarncli import __version__
from yarncli.errors import CheckpointError, ConfigError, UsageError
from yarncli.history.weights import Baked, Trained
from yarncli.jsontext.changes import ABSENT, FieldChange
from yarncli.jsontext.fields import Fields
from yarncli.planning.commands import option_words
from yarncli.planning.rope_plan import RopePlan
from yarncli.rope.methods import METHODS
from yarncli.rope.parameters import WIDEST_HEAD

if TYPE_CHECKING:
    from yarncli.checkpoint.source import Checkpoint
    from yarncli.config.reading import RopeConfig
    from yarncli.jsontext.text import JsonText
    from yarncli.planning.target import Target

FILE_NAME = "yarncli.json"
BAKED_MARKER = "yarncli_baked"  # in config.json; its value says what the weights carry
# The files in which a step replaces values; undoing a step changes only these files.
CONVERTED_FILES = ("config.json", "tokenizer_config.json", "generation_config.json")
GGUF_PARTS = ("keys", "tensors", "file")  # the same in the record that a GGUF file carries
SCHEMA_VERSION = 3
_SCHEMAS = (1, 2, SCHEMA_VERSION)  # 1 records no options; only 3 records a training
_COMMANDS = ("convert", "bake", "finish")
_HUB_SOURCE = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", re.ASCII)
_OPTION = re.compile(r"[a-z]+(_[a-z]+)*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run of convert, bake or finish."""

    command: str
    """convert, bake or finish; check, if it repaired a GGUF file."""
    source: str
    """Hub id @ commit, or the name of the local directory (never its full path)."""
    tool_version: str = __version__
    """The version of yarncli."""
    plan: RopePlan | None = None
    """The numbers that were written; None for a step that writes none."""
    replaced: tuple[FieldChange, ...] = ()
    """The values that were changed, in every config file."""
    baked: Baked | None = None
    """What was moved into the weights; None for a step that moves nothing."""
    trained: Trained | None = None
    """What a trainer did with the checkpoint before this step; None where none did."""
    config_only: bool = False
    """Whether the weights were left out of the output."""
    options: Mapping[str, Any] | None = None
    """The options that were given, by their long names; None in a step of schema 1."""

    def to_json(self) -> dict[str, Any]:
        """This step's entry of `yarncli.json`."""
        return {
            "command": self.command,
            "source": self.source,
            "tool_version": self.tool_version,
            "options": None if self.options is None else dict(self.options),
            "plan": self.plan and self.plan.to_json(),
            "replaced": [change.to_json() for change in self.replaced],
            "baked": self.baked and self.baked.to_json(),
            "config_only": self.config_only,
            **({"trained": self.trained.to_json()} if self.trained else {}),
        }

    def restored(self, name: str, text: JsonText) -> JsonText:
        """The file `name` with all values restored that this step replaced in it."""
        mine = [change for change in self.replaced if change.file == name]
        values = {c.path: c.before for c in mine if c.before is not ABSENT}
        return text.edited(values, [c.path for c in mine if c.before is ABSENT])

    def arguments(self) -> list[str]:
        """The options that reproduce the step, as words of a command line.

        If the record has no options, they are derived from its numbers.

        Example:
            >>> given = {"factor": 4.0, "truncate": False}
            >>> Step(command="convert", source="model", options=given).arguments()
            ['--factor', '4', '--no-truncate']
        """
        given = _proven_options(self) if self.options is None else self.options
        given = {name: value for name, value in given.items() if value is not None}
        words = [word for name, value in given.items() for word in option_words(name, value)]
        return [*words, "--config-only"] if self.config_only else words


@dataclass(frozen=True, slots=True)
class History:
    """All steps that led to a checkpoint, oldest first; no steps if nothing is recorded."""

    steps: tuple[Step, ...] = ()
    unbelieved: tuple[Step, ...] = ()
    """Steps that `yarncli.json` records although `config.json` contradicts them."""

    def believed(self, config: Mapping[str, Any]) -> History:
        """The history as far as `config.json` agrees; a record may be old or of another model.

        If the last plan does not describe the config, no conversion is believed. A bake is still
        believed, because the config cannot show that weights are unbaked, and baking twice is worse
        than refusing to bake.
        """
        if self.agrees(config):
            return self
        return History(tuple(step for step in self.steps if step.baked), self.steps)

    def agrees(self, config: Mapping[str, Any]) -> bool:
        """Whether a config has the setting of the last plan; True if there is no plan."""
        from yarncli.config.reading import read_rope

        for step in reversed(self.steps):
            if step.plan is None:
                continue
            try:
                rope = read_rope(config, assume_like=self.assume_like)
            except (CheckpointError, UsageError):
                return False
            return step.plan.describes(rope, is_baked=self.baked is not None)
        return True

    def then(self, step: Step) -> History:
        """The history with one more step."""
        return History((*self.steps, step))

    @property
    def plan(self) -> RopePlan | None:
        """The plan of the last conversion; None if there was none."""
        return next((step.plan for step in reversed(self.steps) if step.plan), None)

    @property
    def assume_like(self) -> str | None:
        """The model type that the last step with `--assume-like` named, if it is known."""
        from yarncli.config.families.table import FAMILIES

        named = [str((step.options or {}).get("assume_like")) for step in self.steps]
        return next((name for name in reversed(named) if name in FAMILIES), None)

    @property
    def baked(self) -> Baked | None:
        """What the last bake moved into the weights; None if nothing was baked."""
        return next((step.baked for step in reversed(self.steps) if step.baked), None)

    @property
    def trained(self) -> Trained | None:
        """The last training since the last conversion; None if there was none."""
        for step in reversed(self.steps):
            if step.trained or step.plan:
                return step.trained
        return None

    @property
    def origin(self) -> tuple[str, str] | None:
        """The Hub id and commit that the first step started from, if it was on the Hub."""
        match = _HUB_SOURCE.fullmatch(self.steps[0].source) if self.steps else None
        return (match[1], match[2]) if match else None

    def require_extendable(self, config: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that a further conversion would silently make wrong.

        There are two kinds. A conversion by ntk, in any step, changed only θ, so the config does
        not show it; a later bake does not change that. Baked weights hold the attention factor of
        the old scaling.

        Raises:
            CheckpointError: there is such a step or such a marker; the message says what to do
                instead.
        """
        for step in self.steps:
            if step.plan is None or not step.plan.is_unmarked:
                continue
            mend = "Undo that first with: yarncli convert SOURCE --undo; or convert"
            if step is not self.steps[-1]:
                mend = "--undo takes back only the last step, and that is a later one. Convert"
            raise CheckpointError(
                "The model is already extended: yarncli changed its rope_theta (method "
                f"{step.plan.method}). {mend} the original checkpoint."
            )
        if self.baked or config.get(BAKED_MARKER) is not None:
            raise CheckpointError(
                "The weights hold the attention factor of the scaling that they were baked for. "
                "With another scaling it would be wrong. Convert the checkpoint that the bake "
                "started from, with --bake."
            )

    def informed(self, rope: RopeConfig) -> RopeConfig:
        """The config, completed with the windows that only the record knows.

        ntk raises `max_position_embeddings` and adds no scaling, so the config no longer states the
        trained window; `--original-length` of the caller takes precedence over the record. If the
        plan kept the maximum, the scaling multiplies it.
        """
        plan = self.plan
        kept = plan and plan.max_position_embeddings == rope.max_position_embeddings
        if plan and kept and plan.max_position_embeddings < plan.length:
            rope = replace(rope, maximum_is_window=False)
        first = next((step.plan for step in self.steps if step.plan), None)
        told = rope.original_source == "--original-length"
        if first is None or told or not first.is_unmarked:
            return rope
        return replace(rope, original_length=first.original_length, original_source=FILE_NAME)

    def planned(
        self, config: Mapping[str, Any], target: Target, *, assume_like: str | None,
        original_length: int | None,
    ) -> tuple[RopeConfig, RopePlan]:  # fmt: skip
        """A further extension of a config: what it says, with `original_length` if given; the plan.

        Raises:
            UsageError, CheckpointError: as `make_plan`, or it is extended without a mark.
        """
        from yarncli.config.reading import read_rope
        from yarncli.planning.plan import make_plan
        from yarncli.planning.sliding import widened, window_note

        self.require_extendable(config)
        rope = read_rope(config, assume_like=assume_like, original_length=original_length)
        if target.sliding_window is None:
            return self.informed(rope), make_plan(self.informed(rope), target)
        config = widened(config, rope, target.sliding_window)
        note = window_note(rope, target.sliding_window)
        rope = read_rope(config, assume_like=assume_like, original_length=original_length)
        plan = make_plan(self.informed(rope), target)
        return self.informed(rope), replace(plan, notes=(*plan.notes, note))

    def unconverted(self, name: str, text: JsonText) -> JsonText:
        """The file `name` as it was before the first step."""
        for step in reversed(self.steps):
            text = step.restored(name, text)
        return text

    def to_bytes(self) -> bytes:
        """The content of `yarncli.json`."""
        steps = [step.to_json() for step in self.steps]
        # A record without a training is written in schema 2, which an earlier yarncli reads, too.
        version = SCHEMA_VERSION if self.trained else 2
        document = {"schema_version": version, "steps": steps}
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        # An unpaired surrogate has no UTF-8 form; as an escape it is valid JSON.
        return text.encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(
        cls, document: Mapping[str, Any], where: str, files: Collection[str] = CONVERTED_FILES
    ) -> History:
        """Check and read a parsed `yarncli.json`; unknown keys are ignored.

        Args:
            document: the parsed object.
            where: the name of the file for messages.
            files: the files in which a step may have replaced values.

        Raises:
            ConfigError: the schema is unknown, or yarncli never writes such a value.
        """
        version = document.get("schema_version")
        if type(version) is not int or version not in _SCHEMAS:
            raise ConfigError(
                f"{where} does not have the schema_version {' or '.join(map(str, _SCHEMAS))} that "
                "this yarncli reads. Use a newer yarncli, or remove the file."
            )
        steps = document.get("steps")
        if not isinstance(steps, list):
            raise ConfigError(f"{where}: `steps` is missing or of the wrong type.")
        found = []
        for number, step in enumerate(steps, 1):
            try:
                found.append(_step(step, files))
            except ConfigError as error:
                raise ConfigError(
                    f"{where} holds a step that yarncli did not write (step {number}: "
                    f"{str(error).rstrip('.')}). Restore the file, or remove it."
                ) from error
        return cls(tuple(found))


NO_HISTORY = History()


def read_history(checkpoint: Checkpoint) -> History:
    """The history of a checkpoint, as far as its config agrees.

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: yarncli did not write it.
    """
    if not (found := checkpoint.optional_json(FILE_NAME) or checkpoint.json_beside(FILE_NAME)):
        return NO_HISTORY
    history = History.from_json(found.value, found.where)
    return history.believed(checkpoint.config().value)


def describe_source(checkpoint: Checkpoint) -> str:
    """The `source` of a step that starts from `checkpoint`."""
    if checkpoint.repo_id is not None:
        return f"{checkpoint.repo_id}@{checkpoint.commit}"
    path = checkpoint.directory or checkpoint.config_path
    return path.resolve().name if path else checkpoint.name


def _step(entry: Any, files: Collection[str]) -> Step:
    if not isinstance(entry, dict) or not isinstance(entry.get("replaced"), list):
        raise ConfigError("it is not an object, or has no list `replaced`.")
    fields = Fields(entry)
    if entry.get("command") not in (*_COMMANDS, *(["check"] if files == GGUF_PARTS else [])):
        raise ConfigError("its command is not convert, bake or finish.")
    names = ("plan", "baked", "trained", "options")
    plan, baked, trained, options = (fields.mapping(name) for name in names)
    for name, value in options.values.items() if options else ():
        if not _OPTION.fullmatch(name) or not _is_value(value):
            raise ConfigError(f"options.{name:.40} is not an option.")
    return Step(
        command=fields.required("command", Fields.text),
        source=fields.required("source", Fields.text),
        tool_version=fields.required("tool_version", Fields.text),
        plan=RopePlan.from_json(plan) if plan and plan.values else None,
        replaced=tuple(_replaced(change, files) for change in entry["replaced"]),
        baked=Baked.from_json(baked) if baked else None,
        trained=Trained.from_json(trained) if trained else None,
        config_only=fields.required("config_only", Fields.boolean),
        options=options.values if options else None,
    )


def _replaced(entry: Any, files: Collection[str]) -> FieldChange:
    change = FieldChange.from_json(entry)
    if change.file not in files:
        raise ConfigError(f"it changes {change.file!r:.80}, which no step of yarncli does.")
    return change


def _is_value(value: Any) -> bool:
    """Whether an option can have this value: a number, a word, a flag, or a list of these."""
    items = value if isinstance(value, list) else [value]
    return len(items) <= WIDEST_HEAD and all(isinstance(item, (str, int, float)) for item in items)


def _proven_options(step: Step) -> dict[str, Any]:
    """The options that follow from the numbers of a step; None stands for "not given".

    The numbers do not show how the fields were spelled (`--spelling`, `--for`).
    """
    if step.baked:
        factors = [factor for factor in step.baked.attention_factor.values() if factor != 1]
        asked = _common(factors) if step.baked.form == "neutral" else None
        return {"form": step.baked.form, "side": step.baked.side, "attention_factor": asked}
    plan = step.plan
    if plan is None:
        return {}
    is_told = plan.original_source == "--original-length"
    is_scaled = any(scope.before.rope_type != "default" for scope in plan.scopes)
    if is_scaled and not is_told:  # --replace-scaling requires --original-length
        return {"length": plan.length, "rescale": True}
    method = METHODS.get(plan.method)
    names = method.options if method else ()
    return {
        "method": plan.method,
        "length": plan.length,
        **{name: _common([getattr(scope.after, name) for scope in plan.scopes]) for name in names},
        "original_length": plan.original_length if is_told else None,
        "replace_scaling": is_scaled or None,
    }


def _common(values: Collection[Any]) -> Any:
    """The value that all items share; None if they differ or there are none."""
    first, *others = {*values} or {None}
    return None if others else first
