"""Deciding: RoPE settings as plain data and pure functions, standard library only."""
