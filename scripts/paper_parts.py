"""What `make paper` measures: the paper's experiments, each as one run of a command of yarncli."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarncli.rope.formulas import get_mscale

METHODS = ("none", "linear", "ntk", "ntk-by-parts", "yarn")
STORIES, TOPICS = "stories.txt", "topics.txt"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run: its results are in the file `NAME.jsonl`."""

    name: str
    """What is measured and on which model."""
    kind: str
    """passkey, perplexity or regress."""
    model: str
    """demo, tuned or smollm2."""
    minutes: float
    """Approximate CPU minutes on one thread."""
    options: Mapping[str, Any]
    """The options of the command."""
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Options of a reduced run instead; it uses the demo in place of SmolLM2."""


# A sliding window of the paper is 16 times its stride of 256 tokens at Llama 2's own window.
_DEMO_WINDOWS: dict[str, Any] = {
    "text": [STORIES], "lengths": [256, 512, 1024, 2048], "sliding": 32, "tokens": 4096,
}  # fmt: skip
_DEMO_KEYS: dict[str, Any] = {"lengths": [256, 512, 1024, 2048], "depths": 10, "trials": 2}
_FEW_WINDOWS = {"lengths": [256, 512], "sliding": 128, "tokens": 1024}
_FEW_KEYS = {"lengths": [256, 512], "depths": 2, "trials": 1}
_SHORT: dict[str, Any] = {"text": [TOPICS], "length": 1024, "texts": 2}
_FEW_TEXTS = {"text": [STORIES], "length": 256, "texts": 2}
_FEW_CONTEXTS = {"text": [STORIES], "lengths": [128, 256, 512], "tokens": 1024}

PARTS = (
    Part(
        name="sliding-demo", kind="perplexity", model="demo", minutes=2.0,
        options={**_DEMO_WINDOWS, "compare": METHODS, "override": "factor=8"}, quick=_FEW_WINDOWS,
    ),
    Part(
        name="sliding-tuned", kind="perplexity", model="tuned", minutes=0.7,
        options={**_DEMO_WINDOWS, "control": True}, quick=_FEW_WINDOWS,
    ),
    Part(
        name="passkey-demo", kind="passkey", model="demo", minutes=0.8,
        options={**_DEMO_KEYS, "compare": METHODS, "override": "factor=8"}, quick=_FEW_KEYS,
    ),
    Part(
        name="passkey-tuned", kind="passkey", model="tuned", minutes=0.3,
        options={**_DEMO_KEYS, "control": True}, quick=_FEW_KEYS,
    ),
    Part(
        name="short-demo", kind="regress", model="demo", minutes=0.1,
        options={
            "text": [STORIES], "length": 256, "texts": 4, "override": "factor=8",
            "compare": ("linear", "ntk", "ntk-by-parts", "yarn", "dynamic"),
        },
        quick=_FEW_TEXTS,
    ),
    Part(
        name="temperature-demo", kind="perplexity", model="demo", minutes=0.3,
        options={
            "text": [STORIES], "lengths": [2048], "tokens": 16384, "override": "factor=8",
            "attention_factors": (1.0, 1.05, 1.1, 1.15, round(get_mscale(8), 3), 1.25, 1.3),
        },
        quick={"lengths": [512], "tokens": 1024, "attention_factors": (1.0, 1.208)},
    ),
    Part(
        name="short-smollm2-4", kind="regress", model="smollm2", minutes=1.0,
        options={**_SHORT, "override": "factor=4", "compare": ("ntk", "yarn")}, quick=_FEW_TEXTS,
    ),
    Part(
        name="short-smollm2-2", kind="regress", model="smollm2", minutes=0.6,
        options={**_SHORT, "override": "factor=2", "compare": ("yarn",)}, quick=_FEW_TEXTS,
    ),
    Part(
        name="short-smollm2-8", kind="regress", model="smollm2", minutes=0.5,
        options={**_SHORT, "override": "factor=8", "compare": ("yarn",)}, quick=_FEW_TEXTS,
    ),
    Part(
        name="contexts-smollm2", kind="perplexity", model="smollm2", minutes=7.0,
        options={
            "text": [TOPICS], "lengths": [4096, 12288], "tokens": 12288,
            "compare": ("none", "ntk", "yarn"), "override": "factor=2",
        },
        quick=_FEW_CONTEXTS,
    ),
    Part(
        name="passkey-smollm2", kind="passkey", model="smollm2", minutes=10.0,
        options={
            "lengths": [4096, 10240], "depths": 3, "trials": 1, "compare": ("none", "yarn"),
            "override": "factor=2",
        },
        quick=_FEW_KEYS,
    ),
    Part(
        name="temperature-smollm2", kind="perplexity", model="smollm2", minutes=1.5,
        options={
            "text": [TOPICS], "lengths": [4096], "tokens": 4096, "override": "factor=8",
            "attention_factors": (1.0, 1.1, round(get_mscale(8), 3)),
        },
        quick={
            "text": [STORIES], "lengths": [512], "tokens": 1024, "attention_factors": (1.0, 1.208),
        },
    ),
    Part(
        name="sliding-smollm2", kind="perplexity", model="smollm2", minutes=1.0,
        options={
            "text": [TOPICS], "lengths": [1024], "sliding": 256, "tokens": 2048,
            "compare": ("none", "yarn"), "override": "factor=2",
        },
        quick={"text": [STORIES], **_FEW_WINDOWS},
    ),
)  # fmt: skip
