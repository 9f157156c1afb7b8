"""Small configs of a Llama, as in `config.json`, and yarn's attention factor for them."""

from __future__ import annotations

from typing import Any

# Llama 3 with two layers: 8,192 tokens, heads of 128.
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
# The same with eight heads of 64.
NARROW_LLAMA = {**LLAMA, "hidden_size": 512, "num_attention_heads": 8}
# One layer, four heads of 16, 2,048 tokens.
TINY_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "rope_theta": 10000.0,
}
M4 = 1.138629436111989  # yarn's attention factor at factor 4: 0.1 · ln 4 + 1
