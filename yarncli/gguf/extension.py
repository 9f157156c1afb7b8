"""The plan of a context extension of a GGUF file."""

from __future__ import annotations

from dataclasses import replace

from yarncli.config.reading import RopeConfig
from yarncli.gguf.facts import Gguf
from yarncli.gguf.proof import planned_setting
from yarncli.gguf.record import read_record
from yarncli.gguf.rope_config import as_rope_config
from yarncli.gguf.source import GgufFile
from yarncli.planning.plan import check_values, make_plan
from yarncli.planning.rescale import can_rescale
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target


def decide_extension(
    file: GgufFile, gguf: Gguf, target: Target, *, original_length: int | None
) -> RopePlan:
    """Decide every number of an extension.

    Args:
        file: the file; its record says what was done to it before.
        gguf: the contents of the file.
        target: the wanted method and length.
        original_length: the window that the model was trained with, tokens; None reads the file.

    Raises:
        UsageError: contradictory options, or a factor below 1.
        CheckpointError: the file is already extended, is not a model, or cannot have this setting.
    """
    history = read_record(file.header)
    history.require_extendable({})
    rope = as_rope_config(gguf, original_length=original_length, replaces=target.replace_scaling)
    rope = _named(rope, gguf, history.plan)
    plan = make_plan(history.informed(rope), target)
    check_values(plan)
    # These notes end with advice for checkpoints. A GGUF file states the new window under every
    # method, and it is measured through a server.
    notes = (note.partition(" See how far")[0] for note in plan.notes)
    return replace(
        plan,
        max_position_embeddings=plan.length,
        notes=tuple(note for note in notes if not note.startswith("max_position_embeddings")),
    )


def _named(rope: RopeConfig, gguf: Gguf, done: RopePlan | None) -> RopeConfig:
    """The config with the recorded setting, if a tensor of factors carries that setting.

    The numbers in the tensor do not tell which method made them. The record does, and it is used
    only if the numbers agree with it.
    """
    scope = rope.scopes["model"]
    if done is None or can_rescale(scope.parameters):
        return rope
    setting = planned_setting(gguf, done)
    if setting is None:
        return rope
    return replace(rope, scopes={"model": replace(scope, parameters=setting)})
