"""GGUF files: what a file says about RoPE, what llama.cpp computes from that, and what to write."""
