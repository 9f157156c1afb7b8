"""Models that are a part of another one, with RoPE of their own; no checkpoint is one of them."""

from __future__ import annotations

from dataclasses import replace

from yarncli.config.families.family import Family

_ROWS: dict[str, Family] = {
    "blt_global_transformer": Family(max_position_embeddings=4096, hidden_size=2048,
        num_attention_heads=16, num_hidden_layers=25, head_dim_fixed=True, rope_theta=5e5),
    "blt_local_decoder": Family(max_position_embeddings=24576, hidden_size=1024,
        num_attention_heads=16, num_hidden_layers=9, head_dim_fixed=True, rope_theta=5e5),
    "blt_local_encoder": Family(max_position_embeddings=24576, hidden_size=1024,
        num_attention_heads=16, num_hidden_layers=1, head_dim_fixed=True, rope_theta=5e5),
    "blt_patcher": Family(max_position_embeddings=8192, hidden_size=768, num_attention_heads=12,
        num_hidden_layers=14, head_dim_fixed=True),
}  # fmt: skip
PART_FAMILIES = {name: replace(row, model_type=name) for name, row in _ROWS.items()}
