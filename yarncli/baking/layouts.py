"""Which rows of which tensors hold the attention factor: one `Layout` per kind of attention.

Rules match the names in files. Each layout was checked for each architecture by comparing logits of
transformers 5.23 before and after a bake; `registry.py` says which model type has which layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from yarncli.baking import rows
from yarncli.baking.rows import RowRule

EditSide = Literal["q", "k", "shared", "v", "o"]
"""What a tensor makes: queries, keys, a vector used as key and value, values, or the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutEdit:
    """One kind of tensor of an attention module that is multiplied."""

    base: str
    """Regex of the parameter's owner, relative to the attention module (`q_proj`)."""
    rows: RowRule
    """The rule that selects rows."""
    side: EditSide
    """What the rows make; this decides the power of the factor."""
    is_norm: bool = False
    """Whether the parameter is a norm, so that each of its elements counts as a row."""
    offset: float = 0.0
    """1 for norms that multiply by 1 + w."""
    optional: bool = False
    """Whether a layer may lack it."""
    parameters: tuple[str, ...] = ("weight", "bias")
    """Names below `base`; a bias is scaled like the rows of the weight."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of attention."""

    name: str
    """The name for `--layout`."""
    edits: tuple[LayoutEdit, ...]
    """The tensors to multiply."""
    others: tuple[str, ...] = ()
    """Regexes of further owners or parameters that the attention module may have."""
    module: str = "self_attn"
    """Regex of the attention module's place in a layer."""
    full_rotary: bool = False
    """Whether it is exact only if the whole head rotates."""
    clip: tuple[str, ...] = ()
    """Key path of a clamp between projection and rotation, which is also multiplied."""
    shared_block: bool = False
    """Whether the layers share one stored block, so that a layer may store no block."""
    nothing: str = ""
    """Why there is nothing to bake (models with norms after RoPE); empty for all others."""


# Layouts


def _edit(base: str, rule: RowRule, side: EditSide, **rest: Any) -> LayoutEdit:
    return LayoutEdit(base=base, rows=rule, side=side, **rest)


def _norm(base: str, rule: RowRule, side: EditSide, **rest: Any) -> LayoutEdit:
    return _edit(base, rule, side, is_norm=True, **rest)


_OUT = (r"[vo]_proj", r"out_proj", r"dense", r"rotary_emb")
_EXTRA = (
    r"sinks", r"attention_sink_bias", r"softmax_offset", r"lambda_[qk][12]", r"attn_sub_norm",
    r"g(ate)?_proj", r"gate_bias", r"A", r"dt_proj", r"[kv]_scale", r"k_cache", r"v_cache",
)  # fmt: skip
_COMMON = _OUT + _EXTRA
_Q_NORM = r"q_(?:layer)?norm(?:\.norms\.\d+)?"
_K_NORM = r"k_(?:layer)?norm(?:\.norms\.\d+)?"

PLAIN = Layout(
    "plain",
    edits=(_edit("q_proj", rows.q_heads, "q"), _edit("k_proj", rows.k_heads, "k")),
    others=_COMMON,
)  # q_norm and k_norm are not listed, so a model that has them is refused here
QK_NORM = Layout(
    "qk-norm",
    edits=(_norm(_Q_NORM, rows.norm_entries, "q"), _norm(_K_NORM, rows.norm_entries, "k")),
    others=(*_COMMON, "[qk]_proj"),
)
QK_NORM_OFFSET = replace(
    QK_NORM,
    name="qk-norm-offset",
    edits=tuple(replace(edit, offset=1.0) for edit in QK_NORM.edits),
)
INDEX_NORM_OFFSET = replace(
    QK_NORM_OFFSET,
    name="qk-norm-offset-indexer",
    edits=(
        *QK_NORM_OFFSET.edits,
        *(
            replace(
                edit,
                base=rf"index_{edit.side}_norm|indexer\.{edit.side}_(?:layer)?norm",
                rows=rows.index_heads,
                optional=True,
            )
            for edit in QK_NORM_OFFSET.edits
        ),
    ),
    others=(*QK_NORM_OFFSET.others, r"index_[qk]_proj", r"indexer\.(?:[qk]|index_qk)_proj"),
)

_MLA_OTHERS = (
    r"kv_b_proj", r"q_a_proj", r"(?:q_a|kv_a)_(?:layer)?norm(?:\.W_(?:down|up)|\.mlp\.fc[12])?",
    r"o_proj", r"dense", r"rotary_emb", r"g_proj", r"linear_gate", r"learnable_sink_param",
    r"[kv]_scale",
)  # fmt: skip
_INDEX_OTHERS = (r"indexer\.(?:wk|weights_proj|k_proj)",)
_MLA_KEY = _edit("kv_a_proj_with_mqa", rows.mla_key, "k")
MLA = Layout(
    "mla", edits=(_edit("q_b_proj|q_proj", rows.mla_query, "q"), _MLA_KEY), others=_MLA_OTHERS
)


def _indexer(rule: RowRule) -> tuple[LayoutEdit, ...]:
    return (
        _edit(r"indexer\.wq_b", rule, "q", optional=True),
        _norm(r"indexer\.k_norm", rule, "k", optional=True),
    )


MLA_INDEXER = replace(
    MLA,
    name="mla-indexer",
    edits=(*MLA.edits, *_indexer(rows.index_heads)),
    others=_MLA_OTHERS + _INDEX_OTHERS,
)
MLA_INDEXER_LAST = replace(
    MLA_INDEXER, name="mla-indexer-last", edits=(*MLA.edits, *_indexer(rows.index_heads_last))
)
MLA_GATED = replace(
    MLA_INDEXER,
    name="mla-gated",
    edits=(
        _edit("q_b_proj", rows.mla_gated_query, "q"),
        _MLA_KEY,
        *_indexer(rows.index_heads),
    ),
)
MLA_KEY_NORM = replace(
    MLA_INDEXER,
    name="mla-key-norm",
    edits=(
        _edit("q_b_proj", rows.mla_query, "q"),
        _norm("k_rope_only_layernorm", rows.rotary_entries, "k"),
        *_indexer(rows.index_heads),
    ),
    others=(*MLA_INDEXER.others, "kv_a_proj_with_mqa"),
)
MLA_TWICE = replace(MLA, name="mla-twice", module=r"self_attn\.(?P<sub>[01])")

FUSED = Layout(
    "fused-block",
    edits=(_edit("qkv_proj", rows.block_q, "q"), _edit("qkv_proj", rows.block_k, "k")),
    others=_COMMON,
)
FUSED_GATED = Layout(
    "fused-gated",
    edits=(
        _edit("gqkv_proj", rows.gated_block_q, "q"),
        _edit("gqkv_proj", rows.gated_block_k, "k"),
    ),
    others=_COMMON,
    module="attn",
)
INTERLEAVED = Layout(
    "fused-interleaved",
    edits=(
        _edit("query_key_value", rows.slot_q, "q"),
        _edit("query_key_value", rows.slot_k, "k"),
    ),
    others=(*_COMMON, "dense_bias", "bias", "masked_bias"),
    module="(?:self_)?attention",
)
PERSIMMON = Layout("fused-qk-norm", edits=QK_NORM.edits, others=(*_COMMON, "query_key_value"))

AFTER_ROPE = Layout(
    "norm-after-rope",
    edits=(),
    nothing="its queries and keys are normalised after the rotation, which removes the factor",
)

SHARED_KV = Layout(
    "shared-kv",
    edits=tuple(
        _norm(base, rows.last_entries, "shared", optional=base != "norm")
        for base in ("norm", r"compressor\.norm", r"indexer\.compressor\.norm")
    ),
    others=(
        r"(?:indexer\.)?compressor\.(?:ape|wgate|wkv)",
        r"indexer\.(?:weights_proj|wq_b)",
        r"attn_sink",
        r"q_norm",
        r"wkv|wo_[ab]|wq_[ab]",
    ),
    module="attn",
)
MOE_ATTENTION = Layout(
    "moe-attention",
    edits=(
        _edit(r"experts\.input_linear", rows.everything, "q"),
        _edit("kv_proj", rows.first_half, "k"),
    ),
    others=(r"experts\.(?:bias|output_linear|router\.layer)",),
    module="self_attention",
    full_rotary=True,
)
SHARED_BLOCK = Layout(
    "shared-block",
    edits=(
        *PLAIN.edits,
        _edit(r"linear_q_adapter_list\.\d+\.1", rows.q_heads, "q", optional=True),
        _edit(r"linear_k_adapter_list\.\d+\.1", rows.k_heads, "k", optional=True),
    ),
    others=(*_COMMON, r"linear_[qk]_adapter_list\.\d+\.0", r"linear_v_adapter_list\.\d+\.[01]"),
    module=r"shared_transformer\.self_attn",
    shared_block=True,
)
KEY_TEMPERATURE = Layout(
    "key-temperature",
    edits=(_edit("qk_norm", rows.everything, "shared", parameters=("temp",)),),
    others=(
        r"o_proj",
        r"qkv_proj\.(?:conv_qk_(?:depthwise|grouped)|[qk]_proj|v_proj_(?:current|delayed))",
    ),
    full_rotary=True,
)


def clipped(layout: Layout, clip: tuple[str, ...], *extra: LayoutEdit) -> Layout:
    """The layout for models with a clamp after the projections.

    Queries, keys, values and the limit of the clamp are all multiplied by m, so the clamp cuts the
    same values as before. The output projection is divided by m to cancel the factor of the values.
    """
    edits = (
        *layout.edits,
        *extra,
        _edit(r"o_proj|out_proj", rows.everything, "o", parameters=("weight",)),
    )
    return replace(layout, name=f"{layout.name}-clipped", edits=edits, full_rotary=True, clip=clip)


PLAIN_CLIPPED = clipped(PLAIN, ("clip_qkv",), _edit("v_proj", rows.everything, "v"))
QK_NORM_CLIPPED = clipped(QK_NORM, ("clip_qkv",), _edit("v_proj", rows.everything, "v"))
FUSED_WQKV = replace(
    FUSED,
    name="fused-wqkv",
    edits=tuple(replace(edit, base="Wqkv") for edit in FUSED.edits),
    module=r"norm_attn_norm\.attn",
)
FUSED_WQKV_CLIPPED = clipped(
    FUSED_WQKV, ("attn_config", "clip_qkv"), _edit("Wqkv", rows.block_v, "v")
)

# Every layout of this module, so that none can be forgotten.
LAYOUTS: dict[str, Layout] = {
    each.name: each for each in list(globals().values()) if isinstance(each, Layout)
}
