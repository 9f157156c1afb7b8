"""RoPE blocks beside the text part: the check of transformers itself says which stop it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support import configs
from yarncli.config.families.table import FAMILIES
from yarncli.engines.judgement import judge
from yarncli.engines.outer import outer_fault

ORIGINAL = {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, **ORIGINAL}
THETA = {"rope_theta": 1e6}
BLOCKS: dict[str, Any] = {
    "yarn": YARN,
    "yarn by its old key": {"type": "yarn", "factor": 4.0, **ORIGINAL},
    "yarn without original": {"rope_type": "yarn", "factor": 4.0},
    "yarn without factor": {"rope_type": "yarn", **ORIGINAL},
    "llama3": LLAMA3,
    "llama3 with θ": {**LLAMA3, **THETA},
    "longrope": LONG,
    "su": {**LONG, "rope_type": "su"},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic without factor": {"type": "dynamic"},
    "mrope": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "default": {"rope_type": "default", **THETA},
    "proportional": {"rope_type": "proportional"},
    "no object": "yarn",
}
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "window": {"max_position_embeddings": 32768},
    "θ": THETA,
    "θ and a window": {**THETA, "max_position_embeddings": 32768},
    "sizes": {"hidden_size": 32, "num_attention_heads": 4},
}
# fun_asr_nano checks more of its parts than this test gives; musicflamingo has a RoPE of its own.
WRAPPERS = [
    name
    for name, family in FAMILIES.items()
    if family.is_wrapper and name not in ("fun_asr_nano", "musicflamingo")
]
FEW = ["llava", "qwen2_vl", "qwen2_5_omni", "vibevoice_asr"]


@pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "kind", [pytest.param(n, marks=() if n in FEW else pytest.mark.full) for n in WRAPPERS]
)
def test_what_stops_transformers_is_what_the_rule_says(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    family = FAMILIES[kind]
    part = {family.names.get("text_config", family.text_key): {"model_type": family.text_type}}
    for block in BLOCKS.values():
        for beside in BESIDE.values():
            for key in ("rope_scaling", "rope_parameters"):
                config = {"model_type": kind, **part, **beside, key: block}
                fault = outer_fault(config, key)
                raised = ""
                try:
                    CONFIG_MAPPING[kind].from_dict(copy.deepcopy(config))
                except (AttributeError, KeyError) as error:
                    raised = type(error).__name__
                assert fault.partition(",")[0] == raised, (key, block, beside)


LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": configs.LLAMA,
}


def status(config: dict[str, Any], engine: str) -> str:
    return judge(config, engines=[engine], launch=False).verdicts[0].status


@pytest.mark.parametrize(
    ("engine", "of_yarn", "of_linear"),
    [
        ("transformers-5", "refuses", "ignores"),
        ("vllm", "refuses", "ignores"),
        ("transformers-4.57", "ignores", "ignores"),
        ("llama.cpp", "unknown", "unknown"),
    ],
)
def test_engines_refuse_or_ignore_a_block_beside_the_text_part(
    engine: str, of_yarn: str, of_linear: str
) -> None:
    assert status(LLAVA, engine) == "exact"
    assert status({**LLAVA, "rope_scaling": YARN}, engine) == of_yarn
    linear = {"rope_type": "linear", "factor": 2.0}
    assert status({**LLAVA, "rope_scaling": linear}, engine) == of_linear
    assert status({**LLAVA, "llm_config": {"rope_scaling": YARN}}, engine) == of_linear
    plain = {"type": "mrope", "mrope_section": [16, 24, 24]}
    assert status({**LLAVA, "rope_scaling": plain}, engine) == "exact"


@pytest.mark.parametrize("engine", ["transformers-5", "vllm"])
def test_a_window_with_a_point_is_refused(engine: str) -> None:
    """Run: transformers 5.23, LlamaConfig: StrictDataclassFieldValidationError."""
    from huggingface_hub.errors import StrictDataclassFieldValidationError
    from transformers import LlamaConfig

    config = {**configs.TINY_LLAMA, "max_position_embeddings": 65536.0}
    with pytest.raises(StrictDataclassFieldValidationError):
        LlamaConfig.from_dict(dict(config))
    assert status(config, engine) == "refuses"
    assert status({**config, "max_position_embeddings": 65536}, engine) == "exact"
