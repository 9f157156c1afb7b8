"""MAX (Modular): graphs of its own, which take few of the types that transformers 5 loads."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import ORIGINAL, mscale_ratio
from yarncli.engines.tables import Row, find_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What MAX 26.7 computes; `max_length` is max_position_embeddings where it is not given.

    Raises:
        LoaderError: transformers 5 or MAX refuses the config.
        EngineCrash: it fails while the model is built.
        NotSupported: it has no architecture for the model.
        NotKnown: the architecture was not read.

    Source: the line that the table names; max/nn/rotary_embedding.py.
    """
    row = find_row("max", model)
    if row.model_type == "deepseek_v4":
        return _deepseek_v4(model, row)
    faults: list[str] = []
    scopes = {name: _used(model, row, p, name, faults) for name, p in version_5(model).items()}
    served = model.rope.max_position_embeddings
    return Reading(scopes, served_length=served, faults=tuple(dict.fromkeys(faults)))


def _deepseek_v4(model: Model, row: Row) -> Reading:
    """Plain RoPE in layers that are not compressed, yarn without a temperature in the others.

    Source: pipelines/architectures/deepseekV4/layers/rope.py:93-130, model_config.py:546-577,
        hf_config_shims.py:209-241.
    """
    block = model.block("rope_scaling")
    kind = block.get("rope_type") or block.get("type")
    if model.text.get("rope_parameters") is not None or kind != "yarn":
        raise NotKnown(f"{row.release} was read for DeepSeek-V4's own rope_scaling with yarn.")
    for key in (*row.entry["requires"], "rope_theta", "compress_rope_theta"):
        if block.get(key, model.text.get(key)) is None:
            raise EngineCrash(f"without {key} it fails while the model is built. State it.")
    numbers = {key: block[key] for key in row.entry["requires"]}
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers.values()):
        raise NotKnown("Nobody examined what it does with numbers that are written as text.")
    scopes = {}
    for name, scope in model.rope.scopes.items():
        theta = float(model.text["rope_theta" if name == "main" else "compress_rope_theta"])
        p = replace(_plain(scope.parameters), rope_theta=theta)
        scopes[name] = Used(p if name == "main" else replace(p, rope_type="yarn", **numbers))
    return Reading(scopes, served_length=model.rope.max_position_embeddings)


def _plain(p: RopeParameters) -> RopeParameters:
    return RopeParameters(
        rope_type="default",
        rope_theta=p.rope_theta,
        head_dim=p.head_dim,
        max_position_embeddings=p.max_position_embeddings,
        partial_rotary_factor=p.partial_rotary_factor,
    )


def _used(model: Model, row: Row, p: RopeParameters, scope: str, faults: list[str]) -> Used:
    if row.entry.get("width") == "hidden_size":
        hidden, heads = model.text.get("hidden_size"), model.rope.num_attention_heads
        if not isinstance(hidden, int) or hidden // heads != p.rotary_dim:
            raise NotKnown(
                f"{row.release} takes the width of a head from hidden_size ({hidden}), the config "
                f"means {p.rotary_dim}: nobody examined what it computes."
            )
    if "scopes" in row.entry:
        return _one_type(model, row, p, scope)
    if p.rope_type == "proportional":
        raise NotKnown(f"Nobody examined what {row.release} does with proportional.")
    word = row.entry.get("default", "reads") if p.rope_type == "default" else row.word(p.rope_type)
    where = f"{row.release}, {row.entry['at']}"
    if word == "refuses":
        raise LoaderError(f"{p.rope_type} is refused for {row.model_type} ({where}).")
    if word == "ignores":
        return Used(replace(p, rope_type="default"))
    if p.rope_type == "longrope":
        faults.append("longrope: the factors change at the original window inside each text")
    if p.rope_type == "llama3" and ORIGINAL not in model.winning_block(scope):
        raise EngineCrash(f"llama3 without {ORIGINAL}: KeyError.")
    return _yarn(model, row, p, scope) if p.rope_type == "yarn" else Used(p)


def _one_type(model: Model, row: Row, p: RopeParameters, scope: str) -> Used:
    """Gemma 4: each kind of layer takes one type, without a factor.

    Source: pipelines/architectures/gemma4/model_config.py:264-288, layers/rotary_embedding.py:229.
    """
    if p.rope_type != row.entry["scopes"][scope]:
        raise LoaderError(f"{p.rope_type} in {scope} is a ValueError ({row.entry['at']}).")
    if p.rope_type == "proportional" and "partial_rotary_factor" not in model.winning_block(scope):
        raise NotKnown(f"Nobody examined {row.release} without partial_rotary_factor in {scope}.")
    return Used(replace(p, factor=None))


def _yarn(model: Model, row: Row, p: RopeParameters, scope: str) -> Used:
    """Always rounded ends; DeepSeek's reader takes six keys by index.

    Its softmax scale is m(s·mscale)², where DeepSeek's own is m(s·mscale_all_dim)².

    Source: max/nn/rotary_embedding.py:534-574, 650-704, 930-1049.
    """
    block = model.winning_block(scope)
    for key in row.entry.get("requires", ()):
        if block.get(key) is None:
            raise EngineCrash(f"yarn without {key}: KeyError while the model is built. State it.")
    if not row.entry.get("requires"):
        read_as = replace(
            p, truncate=None, original_max_position_embeddings=block.get(ORIGINAL, 4096)
        )
        return Used(read_as, get_mscale(p.resolved_factor()))
    softmax = get_mscale(p.resolved_factor(), p.mscale or 0.0) ** 2
    return Used(replace(p, truncate=None), mscale_ratio(p), softmax)


def launch(parts: Launch) -> str:
    """`max serve`, which takes no config overrides (max/_entrypoints/pipelines.py)."""
    words = ["max", "serve", "--model-path", parts.model.source]
    return shlex.join([*words, "--max-length", str(parts.length)])


ENGINE = Engine(
    id="max",
    name="MAX",
    versions="26.7, with transformers 5",
    read=read,
    launch=launch,
    about=(
        "Llama, Qwen and OLMo use llama3 only and silently ignore yarn, linear and dynamic; "
        "Mistral and LFM2 use no scaling; Gemma 3 uses linear.",
        "DeepSeek takes yarn with all of its keys, the two betas and mscales among them; its "
        "softmax scale comes from `mscale`.",
    ),
)
