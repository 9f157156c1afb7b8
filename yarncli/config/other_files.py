"""Recognises, by its keys, a JSON file that is not the `config.json` of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The first row whose keys are all in the file counts.
_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("peft_type",), "the config of an adapter (PEFT)"),
    (("weight_map",), "a weight index"),
    (("added_tokens", "model"), "a tokenizer"),
    (("tokenizer_class",), "the config of a tokenizer"),
    (("added_tokens_decoder",), "the config of a tokenizer"),
    (("image_processor_type",), "the config of a preprocessor"),
    (("feature_extractor_type",), "the config of a preprocessor"),
    (("processor_class",), "the config of a preprocessor"),
    (("_diffusers_version",), "a part of a diffusion pipeline"),
    (("_class_name",), "a part of a diffusion pipeline"),
    (("log_history",), "the state of a trainer"),
    (("splits", "features"), "the description of a dataset"),
    (("schema_version", "steps"), "the record that yarncli keeps, yarncli.json"),
    (("dim", "n_layers"), "the params.json of a publisher's own format"),
    (("eos_token_id", "transformers_version"), "the settings of generation"),
    (("bos_token_id", "transformers_version"), "the settings of generation"),
    (("do_sample",), "the settings of generation"),
    (("max_new_tokens",), "the settings of generation"),
    (("bos_token", "eos_token"), "a list of special tokens"),
)


def describe_json(values: Mapping[str, Any]) -> str:
    """What a file is that names no `model_type`, such as "a weight index"; empty if not known.

    Args:
        values: what stands in the file.
    """
    if "model_type" in values:
        return ""
    return next((what for keys, what in _KINDS if all(key in values for key in keys)), "")


def adapter_base(values: Mapping[str, Any]) -> str:
    """The model that the config of an adapter names as its base; empty if it names none."""
    base = values.get("base_model_name_or_path")
    return base if isinstance(base, str) and "peft_type" in values else ""
