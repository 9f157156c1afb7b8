"""vLLM's lengths: what it serves, and how many positions its table of angles has."""

from __future__ import annotations

from collections.abc import Mapping

from yarncli.engines.shared import ORIGINAL
from yarncli.engines.tables import Row
from yarncli.engines.types import Model
from yarncli.rope.parameters import RopeParameters

_NOT_MULTIPLIED = frozenset({"longrope", "llama3", "yarn"})
_LENGTH_KEYS = """
    max_position_embeddings n_positions max_seq_len seq_length max_sequence_length max_seq_length
    seq_len
    """.split()


def served_length(model: Model, row: Row | None, parameters: Mapping[str, RopeParameters]) -> int:
    """The default `--max-model-len`: the smallest length field, multiplied for some types.

    Source: config/model.py:2545, `_get_and_verify_max_len`.
    """
    first = next(iter(parameters.values()))
    if any(p.rope_type == "longrope" for p in parameters.values()):
        stated = model.text.get(ORIGINAL)
        if stated is None and row and "list=short" in row.outcome("longrope mscales"):
            stated = first.original_length  # its config class has the key at the top level
        return int(stated or first.max_position_embeddings)
    stated = model.text.get("model_max_length")
    if isinstance(stated, int) and stated:
        length: int = stated
    else:
        found = [v for v in map(model.text.get, _LENGTH_KEYS) if type(v) is int]
        length = min([*found, first.max_position_embeddings])
    factor = 1.0
    for name, p in parameters.items():
        if p.rope_type not in _NOT_MULTIPLIED and not model.rope.model_type.startswith("gemma3"):
            # A factor counts even where there is no type.
            given = model.winning_block(name).get("factor", p.factor)
            factor = factor if given is None else float(given)
    return int(length * factor)


def table_rows(model: Model, row: Row, p: RopeParameters) -> int:
    """How many positions the precomputed cos/sin table has."""
    rows = p.max_position_embeddings
    stated = model.text.get("model_max_length")
    if stated and str(row.entry.get("at")).startswith("commandr.py"):
        rows = int(stated)  # commandr.py:203
    return int(rows * p.resolved_factor()) if p.rope_type == "linear" else rows
