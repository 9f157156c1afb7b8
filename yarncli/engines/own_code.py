"""Verdicts on a model type that comes with its own code.

Engines that would run that code are not judged, as it was not examined. Engines with a class of
their own for the type have a row in their tables. They are compared with the numbers of the config,
if it is known how the published code of the type reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.intended import find_intended
from yarncli.engines.loaders import read_model
from yarncli.engines.published import find_published, published_failure
from yarncli.engines.sliding import with_window
from yarncli.engines.tables import load_table
from yarncli.engines.types import Engine, Model, Reading
from yarncli.engines.unread import unread_view
from yarncli.engines.verdict import EngineView, view
from yarncli.errors import CheckpointError
from yarncli.history import NO_HISTORY
from yarncli.rope.formulas import ntk_theta

# RoPE types, beside plain RoPE, that the published code computes as transformers 5 does: the
# classes LinearScaling- and DynamicNTKScalingRotaryEmbedding of modeling_internlm2.py,
# Phi3SuScaledRotaryEmbedding of modeling_phi3_v.py and modeling_phi4mm.py, MiniCPMLongRoPE.
_READS: dict[str, tuple[str, ...]] = {
    "internlm2": ("linear", "dynamic"),
    "minicpmv": ("longrope",),
    "phi3_v": ("longrope",),
    "phi4mm": ("longrope",),
}
# Model type → the classes of its text model; others of the name have code of another kind.
_CLASSES: dict[str, tuple[str, ...]] = {
    "baichuan": ("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    "bailing_moe": ("BailingMoeForCausalLM",),
    "chatglm": ("ChatGLMModel", "ChatGLMForConditionalGeneration"),
    "exaone": ("ExaoneForCausalLM",),
    "internlm2": ("InternLM2ForCausalLM", "InternLM2ForRewardModel"),
    "minicpm": ("MiniCPMForCausalLM",),
    "minicpmv": ("MiniCPMV",),
    "molmo": ("MolmoForCausalLM",),
    "orion": ("OrionForCausalLM",),
    "phi3_v": ("Phi3VForCausalLM",),
    "phi4mm": ("Phi4MMForCausalLM",),
    "qwen": ("QWenLMHeadModel",),
    "xverse": ("XverseForCausalLM",),
}


def own_views(
    engines: Iterable[Engine], config: Mapping[str, Any], source: str, reason: str
) -> tuple[EngineView, ...]:
    """The verdicts on a model type that yarncli does not extend.

    Args:
        engines: which.
        config: the JSON object of `config.json`.
        source: what to call the checkpoint.
        reason: why nothing is known where the engine has no class of its own.
    """
    other_base = _other_base(config, source)
    if other_base:
        return tuple(_by_alpha(engine, other_base, config, reason) for engine in engines)
    model = read_own(config, source)
    return tuple(_view(engine, model, config, reason) for engine in engines)


def meant_by(views: Iterable[EngineView]) -> str:
    """Where it is known what is intended, for `Judgement.intended_from`.

    Args:
        views: the verdicts of `own_views`.
    """
    if any(item.length for item in views):
        return "the numbers of config.json; the code that comes with the model is not checked"
    return "the code that comes with the model"


def read_own(config: Mapping[str, Any], source: str = "SOURCE") -> Model | None:
    """Prepare a config whose numbers have a known meaning; `None` where they have not.

    Args:
        config: the JSON object of `config.json`.
        source: what to call the checkpoint.
    """
    if config.get("rope_parameters") is not None:
        return None  # the published code of these types is older than that key
    try:
        model = read_model(config, source=source, own_code=True)
    except CheckpointError:
        return None
    kind, named = model.rope.model_type, config.get("architectures")
    known = {"default", *_READS.get(kind, ())}
    asked = {scope.parameters.rope_type for scope in model.rope.scopes.values()}
    is_known = isinstance(named, list) and named[:1] and named[0] in _CLASSES.get(kind, ())
    if kind == "minicpmv":  # each version has another text model; the fourth is llama's
        is_known = is_known and config.get("version") in (4.0, "4.0")
    is_read = is_known and not model.text_path and not model.refusal and asked <= known
    return model if is_read else None


def _other_base(config: Mapping[str, Any], source: str) -> Model | None:
    """Hunyuan-A13B with the θ that its `dynamic` with `alpha` stands for: θ·α^(d/(d-2)).

    `None` where the config is of another kind, or says more than that.

    Source: transformers 5.23 models/hunyuan_v1_moe/modeling_hunyuan_v1_moe.py,
        `HunYuanMoEV1RotaryEmbedding`, made from the published code.
    """
    block = config.get("rope_scaling")
    if config.get("model_type") != "hunyuan" or not isinstance(block, Mapping):
        return None
    if config.get("architectures") != ["HunYuanMoEV1ForCausalLM"] or block.get("type") != "dynamic":
        return None
    alpha, theta = block.get("alpha"), config.get("rope_theta")
    if not (isinstance(alpha, int | float) and isinstance(theta, int | float)):
        return None
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    if not (isinstance(heads, int) and isinstance(width, int)) or min(alpha, theta) <= 0:
        return None
    # The engines that compute it take the width from hidden_size, and none reads the factor.
    if config.get("hidden_size") != heads * width or width <= 2 or block.get("factor") != 1:
        return None
    plain = {key: value for key, value in config.items() if key != "rope_scaling"}
    plain["rope_theta"] = ntk_theta(float(theta), width, float(alpha))
    try:
        model = read_model(plain, source=source, own_code=True)
    except CheckpointError:
        return None
    return None if model.refusal or config.get("rope_parameters") else model


def _by_alpha(engine: Engine, model: Model, config: Mapping[str, Any], reason: str) -> EngineView:
    """An engine whose class computes that θ, as its table says; the others are not judged."""
    entry = load_table(engine.id)["model_types"].get(model.rope.model_type, {})
    if not entry.get("alpha"):
        return replace(unread_view(engine, config, reason), length=model.length)
    intended = find_intended(model, NO_HISTORY)
    served = model.length if entry["alpha"] == "window" else None
    found = view(
        replace(engine, read=lambda _: Reading(intended, served_length=served)), model, intended
    )
    return replace(found, engine=engine)


def _view(
    engine: Engine, model: Model | None, config: Mapping[str, Any], reason: str
) -> EngineView:
    failed = published_failure(engine.id, config, model.text if model else config)
    if failed:
        return EngineView(engine=engine, status=failed.status, length=0, notes=(str(failed),))
    if model is None:
        return unread_view(engine, config, reason)
    entry = load_table(engine.id)["model_types"].get(model.rope.model_type, {})
    if entry.get("rope", "unknown") == "unknown" and not find_published(engine.id, config):
        return replace(unread_view(engine, config, reason), length=model.length)
    return with_window(view(engine, model, find_intended(model, NO_HISTORY)), model.rope)
