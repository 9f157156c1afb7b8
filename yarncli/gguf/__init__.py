"""GGUF files: what one says about RoPE, what llama.cpp computes from it, and what to write."""
