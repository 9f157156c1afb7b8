"""Model types that are published with their own code: what inspect may say about them.

transformers 5.23 has no class for them. Each row states what that code, or the model file of an
engine, reads; `yarncli` neither extends such a model nor judges engines by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from yarncli.config.families.family import Family

_LAYERS = {"num_hidden_layers": "num_layers"}
_THETA_ONLY = "Its own code reads no rope_scaling and no rope_theta."
_SGLANG = "It is read as SGLang 0.5.23 reads it."


@dataclass(frozen=True, slots=True)
class OwnCode:
    """One such model type."""

    family: Family
    """Its sizes under its own names; `remark` says what is known."""
    theta: float | None = None
    """θ where the file gives none; None where the file must give it."""
    theta_ratio_key: str = ""
    """The key of a number that multiplies θ."""
    reads_scaling: bool = True
    """False where it is known that nothing reads a RoPE dict of it."""

    def values(self, text: Mapping[str, Any]) -> Mapping[str, Any]:
        """The text part with the θ that its code computes."""
        key = self.family.theta_keys[0]
        ratio = text.get(self.theta_ratio_key, 1) if self.theta_ratio_key else 1
        if self.theta is None or text.get(key) is not None or not isinstance(ratio, (int, float)):
            return text
        return {**text, key: self.theta * ratio}


def _row(
    remark: str = "",
    theta: float | None = None,
    *,
    ratio: str = "",
    reads_scaling: bool = True,
    **family: Any,
) -> OwnCode:
    return OwnCode(
        family=Family(honours_partial=True, remark=remark, **family),
        theta=theta,
        theta_ratio_key=ratio,
        reads_scaling=reads_scaling,
    )


_ROWS = {
    # SGLang 0.5.23 baichuan.py 58-206: hidden_size 4096 has RoPE, the larger model ALiBi.
    "baichuan": _row(f"{_SGLANG} {_THETA_ONLY}", 1e4, reads_scaling=False),
    # vLLM 0.33 bailing_moe.py 132-145
    "bailing_moe": _row(rotary_dim_key="rotary_dim"),
    # vLLM 0.33 chatglm.py 98-113 and configs/chatglm.py; SGLang 0.5.23 chatglm.py 101-109
    "chatglm": _row(
        "Its code computes θ as 10000 × rope_ratio, turns half of each head, and reads neither "
        "rope_theta nor rope_scaling.",
        1e4,
        ratio="rope_ratio",
        reads_scaling=False,
        partial_rotary_factor=0.5,
        names={
            **_LAYERS,
            "max_position_embeddings": "seq_length",
            "num_key_value_heads": "multi_query_group_num",
            "head_dim": "kv_channels",
        },
    ),
    # vLLM 0.33 exaone.py 134-166; SGLang 0.5.23 exaone.py 115-202
    "exaone": _row(names=_LAYERS),
    # tencent/Hunyuan-A13B-Instruct; a scaling with `alpha` is its own
    "hunyuan": _row(names={"head_dim": "attention_head_dim"}),
    # Its modeling_internlm2.py, _init_rope
    "internlm2": _row(
        "Its own code knows the types linear and dynamic, under the key type, and stops at others.",
        1e4,
    ),
    "mimo": _row(),
    # SGLang 0.5.23 minicpm.py 215-303
    "minicpm": _row(theta=1e4),
    "minicpmv": _row(theta=1e4),
    "molmo": _row(),
    # SGLang 0.5.23 orion.py 83-131
    "orion": _row(theta=1e4),
    # SGLang 0.5.23 phi3_small.py 114-174
    "phi3small": _row(
        "Its own code also divides positions by rope_position_scale, and layers see blocks of the "
        "text only.",
        theta_keys=("rope_embedding_base",),
    ),
    "phi3_v": _row(original_max_position_embeddings=4096),
    "phi4mm": _row(original_max_position_embeddings=4096),
    # Its modeling_qwen.py: QWenModel.__init__, get_ntk_alpha
    "qwen": _row(
        "Its window is seq_length; use_dynamic_ntk and use_logn_attn reach beyond it. "
        f"{_THETA_ONLY}",
        1e4,
        reads_scaling=False,
        theta_keys=("rotary_emb_base",),
        partial_keys=("rotary_pct",),
        names={"max_position_embeddings": "seq_length", "head_dim": "kv_channels"},
    ),
    # SGLang 0.5.23 xverse.py 94-150
    "xverse": _row(theta=1e4),
}
OWN_CODE: dict[str, OwnCode] = {
    name: replace(row, family=replace(row.family, model_type=name)) for name, row in _ROWS.items()
}

# Sub-configs that hold the text model of a multimodal one, in published files.
TEXT_PARTS = (
    "text_config",
    "llm_config",
    "language_config",
    "language_model_config",
    "thinker_config",
    "lm_config",
    "llm",
    "language_model",
    "transformer_layer_config",  # of draft heads in the format of speculators
)
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")
