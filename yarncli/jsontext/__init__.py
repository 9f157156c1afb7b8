"""JSON files as text: edited by span, read with types, compared field by field. Stdlib only."""
