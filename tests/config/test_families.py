"""Every default of `FAMILIES` against the config classes of transformers."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from support import architectures
from yarncli.config.families import refused_types
from yarncli.config.families.refused_types import UNSUPPORTED, no_rope_types
from yarncli.config.families.table import FAMILIES
from yarncli.config.layers import read_layers
from yarncli.config.reading import read_rope
from yarncli.errors import UnsupportedArchitectureError
from yarncli.jsontext.fields import Fields
from yarncli.jsontext.text import JsonText
from yarncli.rules.config_view import view_config

TEXT = [name for name, f in FAMILIES.items() if not (f.is_wrapper or f.same_as)]
WRAPPERS = [name for name, f in FAMILIES.items() if f.is_wrapper]
FAST = (
    "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma2 gemma3_text gemma4_text olmo3 phi phi3 "
    "gpt_neox gpt_oss deepseek_v3 deepseek_v4 mistral4 ministral3 cohere2 exaone4 smollm3 "
    "llama4_text falcon dbrx glm4 qwen3_5_text modernbert-decoder laguna longcat_flash lfm2"
).split()

# By default these attend nowhere, nowhere with RoPE, or with heads of an odd width.
GIVEN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {
        "position_embedding_type": "rope",
        "layer_types": ["full_attention"] * 32,
    },
    "glm4_moe": {"head_dim": 128},
    "glm4v_moe_text": {"head_dim": 128},
    "qwen3_omni_moe_text": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["full_attention"] * 32},
    "zamba2": {"use_mem_rope": True},
}
# Its file counts the layers of two stacks, its config object every pass through them.
COUNTED_OTHERWISE = {"hrm_text"}


def default_config(model_type: str) -> Any:
    return architectures.config_class(model_type)(**GIVEN.get(model_type, {}))


@pytest.mark.parametrize("model_type", architectures.parameters(TEXT, FAST))
def test_sizes_are_those_of_the_config_class(model_type: str) -> None:
    config = default_config(model_type)
    rope = read_rope({"model_type": model_type, **GIVEN.get(model_type, {})})
    heads = architectures.global_value(config, "num_attention_heads")
    if model_type not in COUNTED_OTHERWISE:
        assert rope.num_hidden_layers == config.num_hidden_layers
    assert rope.max_position_embeddings == config.max_position_embeddings
    assert rope.num_attention_heads == heads
    assert rope.num_key_value_heads == architectures.kv_heads(config)
    head_dim = architectures.global_value(config, "head_dim") or config.hidden_size // heads
    assert rope.head_dim == head_dim
    assert FAMILIES[model_type].hidden_size == config.hidden_size


@pytest.mark.parametrize("model_type", architectures.parameters(TEXT, FAST))
def test_rope_defaults_are_those_of_the_config_class(model_type: str) -> None:
    config = default_config(model_type)
    rope = read_rope({"model_type": model_type, **GIVEN.get(model_type, {})})
    nested = bool(FAMILIES[model_type].scopes)
    expected = config.rope_parameters if nested else {"model": config.rope_parameters}
    for name, scope in rope.scopes.items():
        if name not in expected and model_type == "cohere_compass_text":
            continue  # transformers has no default at all there and does not load
        block = dict(expected[name])
        p = scope.parameters
        assert p.rope_type == block.pop("rope_type")
        assert p.rope_theta == block.pop("rope_theta")
        honoured = nested or FAMILIES[model_type].honours_partial or p.rope_type != "default"
        partial = block.pop("partial_rotary_factor", 1.0)
        if honoured:
            assert p.partial_rotary_factor == partial
        for key, value in block.items():
            if key not in ("type", "max_position_embeddings", "mrope_section"):
                assert p.extra.get(key, getattr(p, key, None)) == value, key


@pytest.mark.parametrize("count", [5, 12])
@pytest.mark.parametrize("model_type", architectures.parameters(TEXT, FAST))
def test_layer_types_are_those_of_the_config_class(model_type: str, count: int) -> None:
    family = FAMILIES[model_type]
    if not family.layer_rule or model_type in ("bamba", "zamba2", "lfm2_moe"):
        pytest.skip("no layer types by default, or not by the number of layers")
    fields = {"num_hidden_layers": count}
    config = architectures.config_class(model_type)(**fields)
    layers = read_layers(Fields(fields), family, count)
    ours = [architectures.LAYER_TYPE_NAMES.get(kind, kind) for kind in layers.types]
    assert ours == list(config.layer_types)


@pytest.mark.parametrize("model_type", architectures.parameters(TEXT, FAST))
def test_window_is_that_of_the_config_class(model_type: str) -> None:
    family = FAMILIES[model_type]
    config = default_config(model_type)
    if not family.window_switch:
        found = architectures.window(config, family.window_key)
        if family.layer_rule or family.window_everywhere:
            assert family.sliding_window == found


@pytest.mark.parametrize("model_type", architectures.parameters(WRAPPERS, FAST))
@pytest.mark.full
def test_wrappers_keep_their_text_part_where_we_look(model_type: str) -> None:
    from transformers import PreTrainedConfig

    family = FAMILIES[model_type]
    spec = architectures.config_class(model_type).sub_configs_defaults[family.text_key]
    assert spec.model_type == family.text_type
    fixed = isinstance(spec.config_class, type) and issubclass(spec.config_class, PreTrainedConfig)
    assert fixed == family.text_fixed


def test_every_model_type_of_transformers_is_in_exactly_one_list() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    ours = [*TEXT, *WRAPPERS, *UNSUPPORTED, *no_rope_types()]
    assert len(ours) == len(set(ours))
    assert set(ours) == set(CONFIG_MAPPING_NAMES)


def test_a_type_with_a_row_or_a_reason_does_not_read_the_list_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_types, "NO_ROPE_FILE", tmp_path / "absent.json")
    no_rope_types.cache_clear()
    read_rope({"model_type": "llama"})
    view_config("config.json", JsonText.parse('{"model_type": "llama"}', "config.json"))
    with pytest.raises(UnsupportedArchitectureError, match="fixed table"):
        read_rope({"model_type": "gptj"})
    with pytest.raises(FileNotFoundError):
        read_rope({"model_type": "bert"})


def test_a_type_of_the_list_is_refused_for_having_no_rope() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="does not use RoPE"):
        read_rope({"model_type": "bert"})
    document = json.loads(refused_types.NO_ROPE_FILE.read_text(encoding="utf-8"))
    assert document["transformers"].startswith("5.")


@pytest.mark.parametrize("model_type", [n for n in TEXT if FAMILIES[n].is_mla])
def test_the_softmax_scale_follows_mscale_where_the_model_code_says_so(
    model_type: str,
) -> None:
    config_type = architectures.config_class(model_type)
    file = Path(inspect.getfile(config_type))
    code = file.with_name(file.name.replace("configuration_", "modeling_")).read_text("utf-8")
    used = code.count("yarn_apply_mscale(") > 1  # its definition is one
    assert used == FAMILIES[model_type].scales_softmax


def test_the_number_of_key_value_heads_of_dbrx() -> None:
    """As in databricks/dbrx-instruct."""
    attention = {"kv_n_heads": 8, "rope_theta": 500000}
    rope = read_rope({"model_type": "dbrx", "rope_theta": 500000, "attn_config": attention})
    assert rope.num_key_value_heads == 8
