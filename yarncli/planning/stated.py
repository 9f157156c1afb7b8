"""Refuse to extend a model if its files do not state its trained window, or contradict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarncli.errors import CheckpointError
from yarncli.planning.commands import convert_command
from yarncli.planning.lengths import CONFIG_LENGTHS, SENTINEL
from yarncli.planning.published import multiplied_already, published_like, raised_over

if TYPE_CHECKING:
    from yarncli.config.reading import RopeConfig
    from yarncli.jsontext.text import JsonText
    from yarncli.planning.target import Target

# A limit above _NO_LIMIT means "none", because no model reads so much. Two numbers mean the same
# window up to the ratio _ALIKE: the config of Qwen2.5-VL says 128,000 and its tokenizer 131,072.
_NO_LIMIT = 2**24
_ALIKE = 1.25

# Qwen ships every Qwen2Tokenizer with this limit, even with models that read 4,096 (Qwen2.5-Math)
# or 32,768 tokens (Qwen2.5, Qwen3). It is the window that their model cards reach by YaRN.
_QWEN_LIMIT = 131_072


def refuse_unclear(rope: RopeConfig, target: Target) -> None:
    """Refuse a config whose numbers contradict the trained window, unless the user states it.

    Raises:
        CheckpointError: the trained window is not clear; the message has the commands for each
            possible window.
    """
    if rope.original_source == "--original-length":
        return
    if found := multiplied_already(rope):
        models, window = found
        p = rope.scopes["model"].parameters
        raise CheckpointError(
            f"{rope.length_key} is {rope.max_position_embeddings:,}, which is the {window:,} of "
            f"{models.name} times the factor {p.resolved_factor():g}. {p.rope_type} multiplies it "
            f"once more, so it should be {window:,}. Set it to {window}, or start from the window "
            f"that the model was trained with: {_command(rope, target, window, replace=True)}."
        )
    if target.rescale or target.replace_scaling or not _is_plain(rope):
        return
    if found := raised_over(rope):
        models, window = found
        raise CheckpointError(
            f"{rope.length_key} is {rope.max_position_embeddings:,} and there is no scaling, but "
            f"models of this type, size and rope_theta ({models.name}) read "
            f"{models.windows[-1]:,} tokens at most. It was raised, or the scaling was lost. "
            + _ways(rope, target, rope.max_position_embeddings, window)
        )
    for key in CONFIG_LENGTHS:
        _refuse_more(rope, target, key, rope.values.get(key))


def refuse_tokenizer(rope: RopeConfig, target: Target, tokenizer: JsonText | None) -> None:
    """Refuse a tokenizer limit that contradicts the window of the config.

    Raises:
        CheckpointError: the tokenizer states a longer window than the config.
    """
    if tokenizer is None or target.rescale or target.replace_scaling or not _is_plain(rope):
        return
    limit, models = tokenizer.value.get("model_max_length"), published_like(rope)
    is_qwen = str(tokenizer.value.get("tokenizer_class")).startswith("Qwen2Tokenizer")
    if models and rope.max_position_embeddings in models.windows:
        return
    if not (is_qwen and limit == _QWEN_LIMIT):
        _refuse_more(rope, target, "model_max_length of tokenizer_config.json", limit)


def _is_plain(rope: RopeConfig) -> bool:
    """Whether neither the config nor the user says that the model is scaled."""
    is_told = rope.original_source == "--original-length"
    return not is_told and all(s.parameters.rope_type == "default" for s in rope.scopes.values())


def _refuse_more(rope: RopeConfig, target: Target, place: str, value: object) -> None:
    maximum = rope.max_position_embeddings
    if type(value) not in (int, float) or place == rope.length_key:
        return
    length = int(min(value, SENTINEL))  # type: ignore[call-overload]
    if maximum * _ALIKE < length < _NO_LIMIT:
        raise CheckpointError(
            f"{place} is {length:,}, but {rope.length_key} is {maximum:,}: the model may already "
            f"read more than that. {_ways(rope, target, length, maximum)}"
        )


def _ways(rope: RopeConfig, target: Target, longer: int, shorter: int) -> str:
    """What to do if the model was trained with the shorter length, and what if with the longer."""
    asked = target.length or int((target.factor or 1) * shorter)
    if asked > longer:
        if_longer = f"extend it with: {_command(rope, target, longer)}"
    else:
        if_longer = f"it already reads {asked:,}: set {rope.length_key} to {longer}"
    return (
        f"If it was trained with {shorter:,} tokens, extend it with: "
        f"{_command(rope, target, shorter)}; if with {longer:,}, {if_longer}."
    )


def _command(rope: RopeConfig, target: Target, window: int, *, replace: bool = False) -> str:
    asked = target.length or int((target.factor or 1) * window)
    length = asked if asked > window else 2 * window
    more = {"replace_scaling": True} if replace else {}
    return convert_command(rope, target, length, original_length=window, **more)
