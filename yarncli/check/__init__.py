"""Linting configs and checkpoints."""
