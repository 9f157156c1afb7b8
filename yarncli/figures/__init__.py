"""Figures: the only importers of matplotlib."""
