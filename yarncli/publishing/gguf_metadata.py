"""The metadata of a card for GGUF files, as the Hub wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yarncli.gguf.detection import ENDING
from yarncli.publishing.base import Base
from yarncli.publishing.gguf import GgufRepository, origin_of
from yarncli.publishing.gguf_header import lineage_of
from yarncli.publishing.markdown import listed

LIBRARY = "gguf"
RELATION = "quantized"
_BASE = ("base_model", "base_model_relation")


def gguf_metadata(
    repository: GgufRepository, base: Base | None, old: Mapping[str, Any]
) -> dict[str, Any]:
    """What a card says about GGUF files: the library, and the model that they belong to.

    Args:
        repository: the files.
        base: the model that they were made from, if it is known.
        old: the present metadata of the card.
    """
    found = {"library_name": LIBRARY}
    return found if "base_model" in old else found | _lineage(repository, base)


def task_of_gguf(repository: GgufRepository) -> str | None:
    """The Hub's name for the task of the model; None for an embedding model."""
    return None if repository.models[0].gguf.has("pooling_type") else "text-generation"


def _lineage(repository: GgufRepository, base: Base | None) -> dict[str, Any]:
    if base is not None:
        # If the base is a repository of GGUF files as well, these files belong to the model of that
        # repository, so its card names the base.
        is_copy = not base.stated and any(name.endswith(ENDING) for name in base.files)
        if is_copy and base.metadata.get("base_model"):
            said = {key: base.metadata[key] for key in _BASE if base.metadata.get(key)}
            return {"base_model_relation": RELATION, **said}
        return {"base_model": base.repo_id, "base_model_relation": RELATION}
    parents = lineage_of(repository.model_header).parents
    if len(parents) == 1:
        # The files quantise a model that was trained from this parent, not the parent itself.
        return {"base_model": parents[0], "base_model_relation": "finetune"}
    return {"base_model": list(parents)} if parents else {}


def parents_note(repository: GgufRepository) -> str:
    """Why the card names models that these files do not quantise; empty if it names none."""
    parents = () if origin_of(repository) else lineage_of(repository.model_header).parents
    if not parents:
        return ""
    return (
        f"The header names {listed(parents)}, from which the model was made, but it does not name "
        "the model that these files are quantisations of."
    )
