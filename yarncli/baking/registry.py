"""Which layout each model type has: the architectures for which baking is proved exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from yarncli.baking import layouts
from yarncli.baking.layouts import LAYOUTS, Layout
from yarncli.errors import UnsupportedArchitectureError, UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """The layout of one model type, and the config flag that decides between two.

    `flag` false or missing (with `flag_default` for missing) means `layout`, true means `flagged`.
    `optional_keys`: layers that share another layer's keys store none of their own.
    `heads_vary`: head counts differ from layer to layer.
    `stacks`: regex of the places of the layers where they are not the usual ones.
    """

    layout: Layout
    flag: str = ""
    flag_default: bool = False
    flagged: Layout | None = None
    optional_keys: bool = False
    heads_vary: bool = False
    stacks: str = ""


def _all(names: str, entry: Entry) -> dict[str, Entry]:
    return dict.fromkeys(names.split(), entry)


_PLAIN, _QK_NORM, _OFFSET = layouts.PLAIN, layouts.QK_NORM, layouts.QK_NORM_OFFSET

REGISTRY: dict[str, Entry] = {
    **_all(
        """arcee aria_text bamba bitnet cohere2 cohere2_moe cohere_compass_text cwm diffllama
        emu3_text_model ernie4_5 ernie4_5_moe falcon_h1 gemma gemma2 glm glm4 gpt_oss granite
        granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hyperclovax
        jais2 llama minimax ministral ministral3 mistral mixtral mllama_text_model nemotron qwen2
        qwen2_moe seed_oss smollm3 solar_open starcoder2 vaultgemma glm4v_moe_text glm4v_text
        glm_ocr_text internlm3 iquestcoder paddleocr_vl_text qwen2_5_vl_text qwen2_vl_text""",
        Entry(_PLAIN),
    ),
    **_all(
        """afmoe apertus beam doge dots1 exaone4 exaone_moe flex_olmo flint hy_v3 kolibri1 lfm2
        lfm2_moe lfm3 mellum minimax_m2 olmo2 olmo3 olmo_hybrid qwen3 qwen3_moe qwen3_vl_moe_text
        qwen3_vl_text""",
        Entry(_QK_NORM),
    ),
    **_all(
        "gemma3n_text gemma4_text gemma4_unified_text",
        Entry(_QK_NORM, optional_keys=True, heads_vary=True),
    ),
    **_all("gemma3_text qwen3_5_moe_text qwen3_5_text qwen3_next", Entry(_OFFSET)),
    **_all("minimax_m3_vl_text qwen4_exp_text", Entry(layouts.INDEX_NORM_OFFSET)),
    **_all(
        "axk1 deepseek_v2 deepseek_v3 glm4_moe_lite minicpm3 youtu", Entry(layouts.MLA)
    ),
    **_all("deepseek_v32 glm_moe_dsa", Entry(layouts.MLA_INDEXER)),
    **_all("cohere glm4_moe", Entry(_PLAIN, "use_qk_norm", False, _QK_NORM)),
    **_all("phi stablelm", Entry(_PLAIN, "qk_layernorm", False, _QK_NORM)),
    **_all("phi3 phi4_multimodal", Entry(layouts.FUSED)),
    **_all("gpt_neox gpt_neox_japanese", Entry(layouts.INTERLEAVED)),
    **_all("hunyuan_v1_dense hunyuan_v1_moe nanochat", Entry(layouts.AFTER_ROPE)),
    "axk2": Entry(layouts.MLA_GATED),
    "bailing_hybrid": Entry(replace(layouts.MLA, module="attention")),
    "dbrx": Entry(layouts.DBRX, "attn_config.clip_qkv", False, layouts.DBRX_CLIPPED),
    "deepseek_v4": Entry(layouts.SHARED_KV),
    "dots3_note_text": Entry(layouts.MLA_KEY_NORM),
    "falcon": Entry(layouts.INTERLEAVED),
    "hrm_text": Entry(layouts.FUSED_GATED, stacks=r"model\.[HL]_module\.layers"),
    "hy_v4": Entry(layouts.MLA_INDEXER_LAST),
    "jetmoe": Entry(layouts.MOE_ATTENTION),
    "laguna": Entry(_QK_NORM, heads_vary=True),
    "llama4_text": Entry(_PLAIN, "use_qk_norm", True, layouts.AFTER_ROPE),
    "longcat_flash": Entry(layouts.MLA_TWICE),
    "mimo_v2_flash": Entry(_PLAIN, heads_vary=True),
    "modernbert-decoder": Entry(
        replace(_PLAIN, module="attn", others=(*_PLAIN.others, "Wo"))
    ),
    "moshi": Entry(
        replace(
            _PLAIN,
            edits=tuple(replace(e, base=rf"{e.base}\.linear") for e in _PLAIN.edits),
            others=(*_PLAIN.others, r"[vo]_proj\.linear"),
        )
    ),
    "olmo": Entry(_PLAIN, "clip_qkv", False, layouts.PLAIN_CLIPPED),
    "olmoe": Entry(_QK_NORM, "clip_qkv", False, layouts.QK_NORM_CLIPPED),
    "persimmon": Entry(layouts.PERSIMMON),
    "zamba2": Entry(layouts.SHARED_BLOCK),
    "zaya": Entry(layouts.TEMPERATURE),
}  # fmt: skip


def find_entry(model_type: str, forced: str | None) -> Entry:
    """The registry's entry for a text model type, or one with the layout that the user names.

    Raises:
        UnsupportedArchitectureError: the model type is not in the registry.
        UsageError: `forced` is no layout.
    """
    if forced is not None:
        if forced not in LAYOUTS:
            raise UsageError(f"--layout {forced} is unknown; known: {', '.join(LAYOUTS)}.")
        return Entry(LAYOUTS[forced])
    entry = REGISTRY.get(model_type)
    if entry is None:
        raise UnsupportedArchitectureError(
            f"Nobody has proved which weights of a {model_type} model carry the temperature, so it "
            "is not baked. If its attention is that of a known layout, name it with --layout: it "
            "is then checked on a tiny random model of the same kind."
        )
    return entry


def choose_layout(entry: Entry, config: Mapping[str, Any]) -> Layout:
    """The layout that the config's flag chooses.

    Args:
        entry: of the registry.
        config: the text part of `config.json`.
    """
    if entry.flagged is None:
        return entry.layout
    value: Any = config
    for key in entry.flag.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    on = entry.flag_default if value is None else bool(value)
    return entry.flagged if on else entry.layout
