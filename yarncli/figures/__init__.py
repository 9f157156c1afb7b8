"""Figures: the only importers of matplotlib."""

FORMATS = (".png", ".svg")
"""How the name of a figure may end, and so in which format it is saved."""
