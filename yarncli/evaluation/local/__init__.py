"""Evaluation on this machine: the only part, with bake.twin, that imports torch."""
