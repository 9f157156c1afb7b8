"""Which layout each model type has: the architectures for which baking was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from yarncli.baking import layouts
from yarncli.baking.layouts import LAYOUTS, Layout
from yarncli.errors import UnsupportedArchitectureError
from yarncli.options import choose


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """The layout of one model type, and the config flag that decides between two."""

    layout: Layout
    """The layout, unless the flag chooses the other one."""
    flag: str = ""
    """Key path of the flag in the text config; true means `flagged`."""
    flag_default: bool = False
    """The value of a missing flag."""
    flagged: Layout | None = None
    """The layout of models with the flag."""
    optional_keys: bool = False
    """Whether layers that use the keys of another layer store no keys."""
    heads_vary: bool = False
    """Whether head counts differ from layer to layer."""
    stacks: str = ""
    """Regex of the places of the layers, if they are not the usual ones."""
    beside: str = ""
    """Regex of the places of further layers, which belong to other parts of the model."""
    switch: str = ""
    """Key of the config; if its value is false, the model does not have this part."""


def _all(names: str, entry: RegistryEntry) -> dict[str, RegistryEntry]:
    return dict.fromkeys(names.split(), entry)


_PLAIN, _QK_NORM, _OFFSET = layouts.PLAIN, layouts.QK_NORM, layouts.QK_NORM_OFFSET

# How to add a model type (CONTRIBUTING.md, “A model type, and its baking”, has the details):
#
# 1. Give it a row in `config/families/`; `table.py` there says how.
# 2. Add it here with its layout. Write a new layout in `layouts.py` only if the query and key
#    projections are arranged as in no other model.
# 3. Give it a tiny size in `tests/support/architectures.py` if the common sizes do not suit, and
#    run `pytest -m "" tests/baking/test_architectures.py -k NAME`.
REGISTRY: dict[str, RegistryEntry] = {
    **_all(
        """arcee aria_text bamba bitnet cohere2 cohere2_moe cohere_compass_text cwm diffllama
        emu3_text_model ernie4_5 ernie4_5_moe falcon_h1 gemma gemma2 glm glm4 gpt_oss granite
        granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hyperclovax
        jais2 llama minimax ministral ministral3 mistral mixtral mllama_text_model nemotron qwen2
        qwen2_moe seed_oss smollm3 solar_open starcoder2 vaultgemma glm4v_moe_text glm4v_text
        glm_ocr_text internlm3 iquestcoder paddleocr_vl_text qwen2_5_vl_text qwen2_vl_text""",
        RegistryEntry(_PLAIN),
    ),
    **_all(
        """afmoe apertus beam doge dots1 exaone4 exaone_moe flex_olmo flint hy_v3 kolibri1 lfm2
        lfm2_moe lfm3 mellum minimax_m2 olmo2 olmo3 olmo_hybrid qwen3 qwen3_moe qwen3_vl_moe_text
        qwen3_vl_text""",
        RegistryEntry(_QK_NORM),
    ),
    **_all(
        "gemma3n_text gemma4_text gemma4_unified_text",
        RegistryEntry(_QK_NORM, optional_keys=True, heads_vary=True),
    ),
    **_all("gemma3_text qwen3_5_moe_text qwen3_5_text qwen3_next", RegistryEntry(_OFFSET)),
    **_all("minimax_m3_vl_text qwen4_exp_text", RegistryEntry(layouts.INDEX_NORM_OFFSET)),
    **_all(
        "axk1 deepseek_v2 deepseek_v3 glm4_moe_lite minicpm3 youtu", RegistryEntry(layouts.MLA)
    ),
    **_all("deepseek_v32 glm_moe_dsa", RegistryEntry(layouts.MLA_INDEXER)),
    **_all("cohere glm4_moe", RegistryEntry(_PLAIN, flag="use_qk_norm", flagged=_QK_NORM)),
    **_all("phi stablelm", RegistryEntry(_PLAIN, flag="qk_layernorm", flagged=_QK_NORM)),
    **_all("phi3 phi4_multimodal", RegistryEntry(layouts.FUSED)),
    **_all("gpt_neox gpt_neox_japanese", RegistryEntry(layouts.INTERLEAVED)),
    **_all("hunyuan_v1_dense hunyuan_v1_moe nanochat", RegistryEntry(layouts.AFTER_ROPE)),
    "axk2": RegistryEntry(layouts.MLA_GATED),
    "bailing_hybrid": RegistryEntry(replace(layouts.MLA, module="attention")),
    "dbrx": RegistryEntry(
        layouts.FUSED_WQKV, flag="attn_config.clip_qkv", flagged=layouts.FUSED_WQKV_CLIPPED
    ),
    "deepseek_v4": RegistryEntry(layouts.SHARED_KV),
    "dots3_note_text": RegistryEntry(layouts.MLA_KEY_NORM),
    "falcon": RegistryEntry(layouts.INTERLEAVED),
    "hrm_text": RegistryEntry(layouts.FUSED_GATED, stacks=r"model\.[HL]_module\.layers"),
    "hy_v4": RegistryEntry(layouts.MLA_INDEXER_LAST),
    "jetmoe": RegistryEntry(layouts.MOE_ATTENTION),
    "laguna": RegistryEntry(_QK_NORM, heads_vary=True),
    "llama4_text": RegistryEntry(
        _PLAIN, flag="use_qk_norm", flag_default=True, flagged=layouts.AFTER_ROPE
    ),
    "longcat_flash": RegistryEntry(layouts.MLA_TWICE),
    "mimo_v2_flash": RegistryEntry(_PLAIN, heads_vary=True),
    "modernbert-decoder": RegistryEntry(
        replace(_PLAIN, module="attn", others=(*_PLAIN.others, "Wo"))
    ),
    "moshi": RegistryEntry(
        replace(
            _PLAIN,
            edits=tuple(replace(e, base=rf"{e.base}\.linear") for e in _PLAIN.edits),
            others=(*_PLAIN.others, r"[vo]_proj\.linear"),
        )
    ),
    "olmo": RegistryEntry(_PLAIN, flag="clip_qkv", flagged=layouts.PLAIN_CLIPPED),
    "olmoe": RegistryEntry(_QK_NORM, flag="clip_qkv", flagged=layouts.QK_NORM_CLIPPED),
    "persimmon": RegistryEntry(layouts.PERSIMMON),
    "zamba2": RegistryEntry(layouts.SHARED_BLOCK),
    "zaya": RegistryEntry(layouts.KEY_TEMPERATURE),
}  # fmt: skip


def _blt(part: str, **rest: Any) -> RegistryEntry:
    return RegistryEntry(
        _PLAIN,
        stacks=rf"(?:model\.)?{part}\.layers",
        beside=r"(?:model\.)?(?:patcher|local_encoder|local_decoder|global_transformer)"
        r"\.(?:cross_attn_)?layers",
        **rest,
    )


# Models that consist of several models with RoPE: key of the config of a part → its entry.
SEVERAL: dict[str, dict[str, RegistryEntry]] = {
    "blt": {
        "global_config": _blt("global_transformer"),
        "encoder_config": _blt("local_encoder"),
        "decoder_config": _blt("local_decoder"),
        "patcher_config": _blt("patcher", switch="patch_in_forward"),
    },
}


def find_entry(model_type: str, forced: str | None) -> RegistryEntry:
    """The registry entry of a text model type, or an entry with the layout that the user names.

    Raises:
        UnsupportedArchitectureError: the model type is not in the registry.
        UsageError: `forced` is not a layout.
    """
    if forced is not None:
        return RegistryEntry(LAYOUTS[choose(forced, LAYOUTS, "layout")])
    entry = REGISTRY.get(model_type)
    if entry is None:
        raise UnsupportedArchitectureError(
            f"yarncli does not know which weights of a {model_type} model hold the attention "
            "factor, so it is not baked. If its attention has a known layout, name that with "
            "--layout; it is then checked on a tiny random model of the same kind."
        )
    return entry


def choose_layout(entry: RegistryEntry, config: Mapping[str, Any]) -> Layout:
    """The layout that the config's flag chooses.

    Args:
        entry: the registry entry.
        config: the text part of `config.json`.
    """
    if entry.flagged is None:
        return entry.layout
    value: Any = config
    for key in entry.flag.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    on = entry.flag_default if value is None else bool(value)
    return entry.flagged if on else entry.layout
