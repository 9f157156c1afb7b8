"""Decide a conversion: write every file that it changes in memory, and read it back."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.config.outer import dead_blocks
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.conversion.for_engines import refuse_other_code, written_for
from yarncli.conversion.options import ConvertOptions
from yarncli.engines.judgement import Judgement, judge
from yarncli.errors import ConfigError
from yarncli.history import FILE_NAME, History, Step, describe_source, read_history
from yarncli.jsontext.changes import FieldChange, changed_fields
from yarncli.jsontext.text import JsonText, format_path
from yarncli.planning.lengths import raise_generation_length, raise_tokenizer_length
from yarncli.planning.plan import check_values, window_of
from yarncli.planning.rope_plan import RopePlan, same_setting
from yarncli.planning.stated import refuse_tokenizer
from yarncli.planning.writing import write_config

if TYPE_CHECKING:
    from yarncli.baking.deciding import Baking

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Everything that a conversion writes, or wrote."""

    checkpoint: Checkpoint
    """The source."""
    options: ConvertOptions
    """The options of the conversion."""
    rope: RopeConfig
    """The config of the source."""
    plan: RopePlan
    """Every number of the extension."""
    files: Mapping[str, tuple[JsonText, JsonText]]
    """The config files that change: name → text before and after."""
    history: History
    """The steps of the result; the conversion is the last one."""
    baking: Baking | None = None
    """What the same pass bakes into the weights; None without --bake."""
    output: Path | None = None
    """The directory to write; None if the source itself is changed."""
    written: bool = False
    """Whether it has been written."""

    @property
    def changes(self) -> tuple[FieldChange, ...]:
        """Every value that will be replaced, in the order of the files."""
        return self.history.steps[-1].replaced

    @property
    def config(self) -> JsonText:
        """config.json as it will be."""
        return self.files["config.json"][1]

    def diff(self) -> str:
        """A unified diff of the config files."""
        lines: list[str] = []
        for name, (before, after) in self.files.items():
            lines += difflib.unified_diff(
                before.text.splitlines(), after.text.splitlines(), f"a/{name}", f"b/{name}",
                lineterm="",
            )  # fmt: skip
        return "\n".join(lines)

    @property
    def written_files(self) -> dict[str, bytes]:
        """The content of every config file that differs from the source."""
        files = {name: after.to_bytes() for name, (_, after) in self.files.items()}
        return {FILE_NAME: self.history.to_bytes(), **files}

    @property
    def name(self) -> str:
        """The name of the result in launch lines."""
        return str(self.output or self.checkpoint.name)

    @cached_property
    def judgement(self) -> Judgement:
        """What engines will compute from the result, with launch lines."""
        if self.baking:
            return self.baking.judgement(source=self.name)
        like = self.options.assume_like
        options: dict[str, Any] = {"assume_like": like, "checkpoint": self.checkpoint}
        return judge(self.config.value, self.history, source=self.name, **options)

    def to_json(self) -> dict[str, Any]:
        """The document of `convert --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "plan": self.plan.to_json(),
            "changes": [change.to_json() for change in self.changes],
            "engines": self.judgement.brief(),
            "launch": self.judgement.launch_lines(),
            "bake": self.baking.to_json() if self.baking else None,
        }


def decide(checkpoint: Checkpoint, options: ConvertOptions) -> Conversion:
    """Decide a conversion and write it in memory; reads only config files.

    Args:
        checkpoint: what to convert.
        options: the options of the conversion.

    Raises:
        UsageError: contradictory options.
        CheckpointError: the config is damaged, or the model cannot take what is asked.
    """
    config, like = checkpoint.config(), options.assume_like
    history = read_history(checkpoint)
    rope, plan = history.planned(
        config.value, options.target, assume_like=like, original_length=options.original_length
    )
    refuse_tokenizer(rope, options.target, checkpoint.optional_json("tokenizer_config.json"))
    spelling, readable = options.spelling, without_unread(config, rope)
    if options.engines:
        refuse_other_code(checkpoint, options.engines)
        plan, spelling = written_for(readable, rope, plan, options, history=history)
    check_values(plan)
    written = write_config(readable, rope, plan, spelling)
    verify(written, rope, plan, assume_like=like)
    files = {"config.json": (config, written), **_other_lengths(checkpoint, rope, plan)}
    files = {name: pair for name, pair in files.items() if pair[0].text != pair[1].text}
    step = Step(
        command="convert",
        source=describe_source(checkpoint),
        plan=plan,
        replaced=tuple(c for name, pair in files.items() for c in changed_fields(name, *pair)),
        config_only=options.config_only,
        options=options.recorded,
    )
    return Conversion(
        checkpoint=checkpoint,
        options=options,
        rope=rope,
        plan=plan,
        files=files,
        history=history.then(step),
    )


def without_unread(config: JsonText, rope: RopeConfig) -> JsonText:
    """The config without RoPE blocks outside its text part, at which transformers 5 may fail.

    Args:
        config: config.json as read.
        rope: the same config, interpreted.

    Raises:
        ConfigError: there is such a block, but the model has its own code, which may read it.
    """
    dead = list(dead_blocks(config.value, rope.text_path))
    if dead and rope.assume_like and rope.text_path:
        where, inside = format_path(dead[0].path), format_path(rope.text_path)
        raise ConfigError(
            f"{where} is outside {inside}, but --assume-like reads only {inside}. yarncli does not "
            f"know whether the model's own code reads it. Remove it, or move it into {inside}."
        )
    return config.edited({}, [block.path for block in dead])


def _other_lengths(
    checkpoint: Checkpoint, rope: RopeConfig, plan: RopePlan
) -> dict[str, tuple[JsonText, JsonText]]:
    """The length fields of tokenizer and generation config, which follow the new window."""
    found = {}
    if tokenizer := checkpoint.optional_json("tokenizer_config.json"):
        raised = raise_tokenizer_length(tokenizer, plan.length)
        found["tokenizer_config.json"] = (tokenizer, raised)
    if generation := checkpoint.optional_json("generation_config.json"):
        windows = (rope.max_position_embeddings, window_of(rope))
        raised = raise_generation_length(generation, windows, plan.length)
        found["generation_config.json"] = (generation, raised)
    return found


def verify(
    config: JsonText, rope: RopeConfig, plan: RopePlan, *, assume_like: str | None = None
) -> None:
    """Read a written config back and compare it with the plan, each spelling separately.

    Raises:
        ConfigError: the config differs from the plan. This is a bug; nothing has been written yet.
    """
    base = rope.text_path
    readings = [config]
    if not rope.family.scopes:
        both = [(*base, "rope_scaling"), (*base, "rope_parameters")]
        if all(isinstance(config.get(path), dict) for path in both):
            readings += [config.edited({}, [path]) for path in both]
    planned = {scope.name: scope.after for scope in plan.scopes}
    for text in readings:
        found = read_rope(text.value, assume_like=assume_like)
        if found.sliding_window != rope.sliding_window:
            raise ConfigError(
                f"The config written reads back with a sliding window of {found.sliding_window}, "
                f"not {rope.sliding_window}. Nothing was changed; please report this."
            )
        maximum_is_wrong = found.max_position_embeddings != plan.max_position_embeddings
        for name, scope in found.scopes.items():
            wanted = planned.get(name, rope.scopes[name].parameters)
            if maximum_is_wrong or not same_setting(scope.parameters, wanted, plan.length):
                raise ConfigError(
                    f"The config written for {name} reads back as {scope.parameters}, not as "
                    f"planned: {wanted}. Nothing was changed; please report this."
                )
