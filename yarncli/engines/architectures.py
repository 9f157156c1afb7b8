"""Which class vLLM builds for a checkpoint: `architectures` decides, not the model type alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.tables import Row, find_row, load_table
from yarncli.engines.types import LoaderError, Model, NotKnown, NotSupported

# config/model.py:2340: the ends of class names that vLLM treats as equal, in its order.
_ENDS = """
    ForCausalLM ForConditionalGeneration ChatModel LMHeadModel ForTextEncoding EmbeddingModel
    ForSequenceClassification ForTokenClassification ForAudioClassification ForImageClassification
    ForVideoClassification ClassificationModel ForRewardModeling RewardModel Model
    """.split()


def find_class(model: Model, notes: list[str]) -> Row | None:
    """The row of the class that `architectures` makes it build; `None` for transformers' own.

    Args:
        model: the config.
        notes: the list to which notes for the user are added.

    Raises:
        LoaderError: it finds no class.
        NotSupported: it has none of that name.
        NotKnown: the class was not examined with this model type.

    Source: model_executor/models/registry.py:1341 (`_normalize_arch`), 1420 (`resolve_model_cls`);
        transformers_utils/config.py:939.
    """
    table = load_table("vllm")
    bare = replace(model, config={k: v for k, v in model.config.items() if k != "architectures"})
    names = _architectures(model, table, notes)
    registry, through = table["architectures"], table["through_transformers"]
    # vLLM takes the first name that it knows, then names with another ending for the same model.
    spelled = [*names, *(other for name in names for other in _other_ends(name))]
    found = next((name for name in spelled if name in registry or name in through), None)
    if found is None:
        raise NotSupported(f"vLLM {table['version']} has no class {names[0]}.")
    if found not in registry:
        notes.append(f"runs transformers' own modelling code for {found}")
        if model.text_path:
            notes.append("whether that code takes images or sound in vLLM was not examined")
        return None
    built = registry[found]
    wrapper = table["wrappers"].get(model.model_type)
    if wrapper is not None:
        _check_wrapper(model, wrapper, registry.get(wrapper["class"]) == built)
    row = find_row("vllm", bare)
    inner = model.text.get("architectures") if model.text_path else None
    if inner and wrapper and wrapper.get("any") and str(inner[0]) != row.entry["class"]:
        raise NotKnown(f"The text part names {inner[0]}, not the {row.entry['class']} examined.")
    if row.entry["rope"] == "backend":
        notes.append(f"runs transformers' own modelling code for {row.entry['class']}")
        return None
    # The row is about the class that vLLM builds for this model type. Another class counts only if
    # it was examined with this type.
    pair = table["wrappers"].get(f"{row.model_type} {found}", {})
    is_own = _is_same_class(registry[row.entry["class"]], built) or pair.get("rope") == "same"
    if wrapper is None and not is_own:
        raise NotKnown(
            f"config.json names the architecture {found}; what {row.release} does with that and "
            f"model_type {row.model_type} was not examined."
        )
    return row


def _architectures(model: Model, table: Mapping[str, Any], notes: list[str]) -> list[str]:
    named = model.config.get("architectures")
    if named is not None and not isinstance(named, list):
        raise NotKnown("architectures is not a list; what vLLM does then was not examined.")
    if named:
        return [str(name) for name in named]
    if model.assume_like:
        return [str(find_row("vllm", model).entry.get("class"))]
    default = table["unnamed"].get(model.model_type)
    if default is None:
        raise LoaderError("config.json names no architectures, so it finds no class. Add them.")
    notes.append(
        f"config.json names no architectures: it takes {default}, which serves embeddings and no "
        "text; add architectures"
    )
    return [str(default)]


def _other_ends(name: str) -> Iterator[str]:
    end = next((end for end in _ENDS if name.endswith(end)), None)
    if end:
        yield from (name.removesuffix(end) + other for other in _ENDS)


def _is_same_class(one: str, other: str) -> bool:
    """Whether two classes are the same, or one is the other without its head."""
    return re.sub("(ForCausalLM|(Text)?Model)$", "", one) == re.sub(
        "(ForCausalLM|(Text)?Model)$", "", other
    )


def _check_wrapper(model: Model, wrapper: Mapping[str, Any], is_class: bool) -> None:
    """Insist that vLLM builds the text part of a multimodal model as it builds that type alone.

    Raises:
        NotKnown: it does not, or this was not examined.
    """
    own = model.rope.model_type == wrapper["text"] or wrapper.get("any")
    if not is_class or not own or wrapper["rope"] not in ("same", "backend"):
        raise NotKnown(
            f"How vLLM builds a {model.rope.model_type} model inside {model.model_type} was not "
            "examined."
        )
