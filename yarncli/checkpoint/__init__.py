"""Checkpoints as files: no decisions about RoPE."""
