"""Write the model types of transformers that have no RoPE in a text part, and what each is.

    python scripts/no_rope_types.py

All of the installed transformers' model types that have neither a row in `FAMILIES` nor a reason
in `UNSUPPORTED`. Prints what came and went: look at each new name first, since one that is new to
transformers may well be a text model that needs a row.
"""

from __future__ import annotations

import json
import re

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from yarncli.config.families import refused_types
from yarncli.config.families.table import FAMILIES

# Causal language models, by what their modelling code does with positions (transformers 5.23).
_CAUSAL = {
    "recurrent": "falcon_mamba mamba mamba2 rwkv xlstm",
    "alibi": "bloom mpt",
    "no-positions": "glm5_next_text jamba kimi_linear nemotron_h zamba",
    "relative": "cpmant inkling2_text inkling_text xlnet",
    "learned": """
        bert-generation biogpt ctrl gpt-sw3 gpt2 gpt_bigcode gpt_neo openai-gpt opt reformer xglm
    """,
}
_NAMED = {name: kind for kind, names in _CAUSAL.items() for name in names.split()}
# For others: the first of these kinds whose words are in one of its mappings or in its name.
_MAPPINGS = (
    ("seq2seq", r"SEQ_TO_SEQ|SPEECH_SEQ_2_SEQ"),
    ("encoder", r"MASKED_LM|TEXT_ENCODING|MULTIPLE_CHOICE|TABLE_QUESTION|DOCUMENT_QUESTION"),
    ("series", r"TIME_SERIES"),
    ("multimodal", r"IMAGE_TEXT_TO_TEXT|MULTIMODAL_LM"),
    ("audio", r"AUDIO|SPEECH|CTC|RNNT|TDT|SPECTROGRAM|WAVEFORM"),
    ("vision", r"IMAGE|VIDEO|DEPTH|BACKBONE|DETECTION|SEGMENT|KEYPOINT|MASK_GEN|POSE|POINTMAP|"
     r"NORMAL|VISUAL|RECOGNITION"),
    ("encoder", r"QUESTION_ANSWERING|SEQUENCE_CLASSIFICATION|TOKEN_CLASSIFICATION|PRETRAINING"),
)  # fmt: skip
_NAMES = (
    ("vision", r"vision|image|video|vqgan|vqmodel|^sam|^edgetam|^pixtral|^aimv2$|^radio$|seggpt"),
    (
        "audio",
        r"audio|speech|asr|^dac$|codec|mimi|musicgen|hifigan|^clap|^clvp|univnet|wav",
    ),
    ("series", r"^(?:autoformer|informer|time_series_transformer)$"),
)


def kind_of(name: str) -> str:
    """What a model type is: a key of `KINDS`."""
    tables = {k: v for k, v in vars(modeling_auto).items() if k.endswith("_MAPPING_NAMES")}
    inside = " ".join(table for table, types in tables.items() if name in types)
    if name in _NAMED:
        return _NAMED[name]
    if re.search(r"_text(?:_model)?$", name) and "CAUSAL_LM" not in inside:
        return "part"
    found = [kind for kind, words in _MAPPINGS if re.search(words, inside)]
    found += [kind for kind, words in _NAMES if re.search(words, name)]
    return found[0] if found else "part"


def ties(name: str) -> bool:
    """Whether the output head is the word embedding if a file does not say it."""
    if name not in CONFIG_MAPPING:
        return False
    return getattr(CONFIG_MAPPING[name](), "tie_word_embeddings", False) is True


def main() -> None:
    """Write the file and print how it differs from the one before."""
    found = sorted(set(CONFIG_MAPPING_NAMES) - set(FAMILIES) - set(refused_types.UNSUPPORTED))
    before = set(refused_types.no_rope_types()) if refused_types.NO_ROPE_FILE.exists() else set()
    kinds = {name: kind_of(name) for name in found}
    document = {
        "transformers": transformers.__version__,
        "tied_by_default": [name for name in sorted(FAMILIES) if ties(name)],
        "model_types": kinds,
    }
    refused_types.NO_ROPE_FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for sign, names in (("+", set(found) - before), ("-", before - set(found))):
        for name in sorted(names):
            print(sign, name)


if __name__ == "__main__":
    main()
