"""The proof that a trained checkpoint has the RoPE of the conversion that it was trained from."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig
from yarncli.errors import CheckpointError, WeightsError
from yarncli.planning.rope_plan import parameters_to_json, same_setting

_SIZES = (
    "model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip


def require_same(name: str, trained: RopeConfig, converted: RopeConfig, length: int) -> None:
    """Refuse configs with different frequencies, attention factors or lengths.

    A maximum length below that of the conversion is accepted if it changes no frequency. The
    trainer has lowered it, and `finish` restores it.

    Args:
        name: name of the trained checkpoint in messages.
        trained: what its config says.
        converted: what the conversion's config says.
        length: the window of the conversion, tokens.

    Raises:
        CheckpointError: something differs. The message says what was trained and what it should be.
    """
    for size in _SIZES:
        found, wanted = getattr(trained, size), getattr(converted, size)
        if found != wanted:
            raise CheckpointError(
                f"{name} has {size} {found}, but the conversion has {wanted}: it was made from "
                "another model. Give --from the checkpoint that the training started from."
            )
    said = [*_settings(trained, converted, length), *_windows(trained, converted)]
    differences = list(dict.fromkeys(said))  # a length may also be part of the setting
    if differences:
        raise CheckpointError(
            f"{name} was not trained with the setting of the conversion. It has "
            f"{'; '.join(differences)}. With other frequencies it is another model, so nothing was "
            "written. If it was trained from another conversion, give that one with --from. "
            "Otherwise train again from this one, without any RoPE option of the trainer and "
            "without a length above its window."
        )


def _settings(trained: RopeConfig, converted: RopeConfig, length: int) -> Iterator[str]:
    for scope in dict.fromkeys([*converted.scopes, *trained.scopes]):
        if scope not in trained.scopes or scope not in converted.scopes:
            side = "no setting" if scope in converted.scopes else "a setting of its own"
            yield f"{side} for its {scope} layers"
            continue
        found, wanted = (c.scopes[scope].parameters for c in (trained, converted))
        if not same_setting(found, wanted, length):
            yield from _fields(scope, parameters_to_json(found), parameters_to_json(wanted))


def _fields(scope: str, found: dict[str, object], wanted: dict[str, object]) -> Iterator[str]:
    where = "" if scope == "model" else f" in its {scope} layers"
    for key in dict.fromkeys([*wanted, *found]):
        if found.get(key) != wanted.get(key):
            yield f"{key} {_said(found, key)} instead of {_said(wanted, key)}{where}"


def _said(setting: dict[str, object], key: str) -> str:
    value = setting.get(key, "absent")
    return f"{value:,}" if type(value) is int else f"{value!s:.60}"


def _windows(trained: RopeConfig, converted: RopeConfig) -> Iterator[str]:
    found, wanted = trained.max_position_embeddings, converted.max_position_embeddings
    if found > wanted:
        yield f"{trained.length_key} {found:,} instead of {wanted:,}"
    if trained.sliding_window != converted.sliding_window:
        yield f"sliding_window {trained.sliding_window} instead of {converted.sliding_window}"
    elif trained.windowed_layers != converted.windowed_layers:
        yield "other layers that attend within a sliding window"
    if trained.nope_layers != converted.nope_layers:
        yield "other layers that attend without RoPE"


def require_same_tensors(trained: Checkpoint, converted: Checkpoint) -> None:
    """Refuse weights whose width differs from the same weights of the conversion.

    The number of rows may differ: a trainer may have added tokens.

    Raises:
        WeightsError: a tensor belongs to another model, or there are no safetensors weights.
    """
    known = {n: t for header in converted.headers().values() for n, t in header.tensors.items()}
    mine = [t for header in trained.headers().values() for t in header.tensors.values()]
    if not mine:
        raise WeightsError(
            f"{trained.name} has no safetensors weights. Save them with transformers' "
            "save_pretrained, or give the folder of the adapter with --adapter."
        )
    for tensor in mine:
        other = known.get(tensor.name)
        if other and other.shape[1:] != tensor.shape[1:]:
            raise WeightsError(
                f"{tensor.name} has the shape {list(tensor.shape)} in {trained.name} and "
                f"{list(other.shape)} in {converted.name}: the weights are of different models."
            )
