"""Where the files do not tell the trained window, or tell a raised one, convert asks for it."""

import json
import re
from functools import partial

import pytest

import yarncli
from support.program import invoke

run = partial(invoke, "convert")

SIZES = {"num_attention_heads": 32, "vocab_size": 32000}
LLAMA2_13B = {
    **SIZES,
    "model_type": "llama",
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
}
LLAMA3 = {
    **SIZES,
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
QWEN3 = {
    **SIZES,
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
}
QWEN25 = {
    **QWEN3,
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "max_position_embeddings": 32768,
}
# Nobody published such a model: only what its files say counts.
OTHER = {**LLAMA3, "hidden_size": 2560, "rope_theta": 20000.0, "max_position_embeddings": 4096}
COMMAND_R = {
    **SIZES,
    "model_type": "cohere",
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_hidden_layers": 40,
    "max_position_embeddings": 8192,
    "model_max_length": 131072,
    "rope_theta": 8000000.0,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
QWEN_LIMIT = {"model_max_length": 131072, "tokenizer_class": "Qwen2Tokenizer"}


@pytest.fixture
def model(tmp_path):
    def write(config, tokenizer=None):
        place = tmp_path / "model"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config, indent=2))
        if tokenizer:
            (place / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        return place

    return write


UNCLEAR = [
    (COMMAND_R, None, "model_max_length is 131,072", 8192),
    ({**OTHER, "max_sequence_length": 16384}, None, "max_sequence_length is 16,384", 4096),
    ({**OTHER, "seq_length": 8192.0}, None, "seq_length is 8,192", 4096),
    (OTHER, {"model_max_length": 16384}, "of tokenizer_config.json is 16,384", 4096),
    (OTHER, {**QWEN_LIMIT, "model_max_length": 32768}, "of tokenizer_config.json", 4096),
    ({**QWEN3, "max_position_embeddings": 131072}, None, "(Qwen3) read 40,960", 32768),
    ({**LLAMA3, "max_position_embeddings": 131072}, None, "(Llama 3) read 8,192", 8192),
    ({**LLAMA2_13B, "max_position_embeddings": 16384, "rope_scaling": LINEAR}, None,
     "the 4,096 of Llama 1 and 2 times the factor 4", 4096),
    ({**LLAMA3, "max_position_embeddings": 16384,
      "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, None, "the 8,192 of Llama 3", 8192),
]  # fmt: skip


@pytest.mark.parametrize(("config", "tokenizer", "message", "original"), UNCLEAR)
def test_convert_ends_and_every_command_that_it_names_works(
    model, tmp_path, config, tokenizer, message, original
):
    source = model(config, tokenizer)
    refused = run(source, tmp_path / "out", "--length", "256k", code=3)
    text = " ".join(refused.stderr.split())
    assert message in text
    commands = re.findall(r"yarncli convert SOURCE OUT ([^;]*?)(?=;|\.$|\. )", text)
    assert f"--original-length {original}" in commands[0]
    for number, command in enumerate(commands):
        out = tmp_path / f"out{number}"
        run(source, out, *command.split(), "--config-only", code=0)
        given = int(re.search(r"--original-length (\d+)", command)[1])
        written = json.loads((out / "config.json").read_text())["rope_scaling"]
        assert written["original_max_position_embeddings"] == given
        assert written["factor"] == 262144 / given


@pytest.mark.parametrize(
    ("config", "tokenizer", "original"),
    [
        (QWEN25, QWEN_LIMIT, 32768),
        (QWEN3, QWEN_LIMIT, 32768),
        ({**OTHER, "rope_theta": 10000.0}, QWEN_LIMIT, 4096),  # as Qwen2.5-Math is
        (OTHER, {"model_max_length": 1000000000000000019884624838656}, 4096),
        (OTHER, {"model_max_length": 2147483647}, 4096),
        (OTHER, {"model_max_length": 2048}, 4096),
        ({**OTHER, "max_position_embeddings": 128000}, {"model_max_length": 131072}, 128000),
        ({**OTHER, "max_sequence_length": 4096}, None, 4096),
        ({**QWEN3, "rope_theta": 5000000, "max_position_embeddings": 131072}, None, 131072),
    ],
)
def test_what_says_nothing_about_the_window_is_no_obstacle(model, config, tokenizer, original):
    assert yarncli.plan(model(config, tokenizer), length=262144).original_length == original


def test_a_window_that_is_told_is_believed(model):
    source = model({**QWEN3, "max_position_embeddings": 131072})
    plan = yarncli.plan(source, length=131072, original_length=32768)
    assert (plan.factor, plan.max_position_embeddings) == (4.0, 131072)
    with pytest.raises(yarncli.CheckpointError, match="already reads 131,072"):
        yarncli.plan(source, length=131072, original_length=131072)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({**QWEN3, "max_position_embeddings": 131072}, "window-raised"),
        ({**LLAMA2_13B, "max_position_embeddings": 32768,
          "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "max-raised"),
        ({**LLAMA2_13B, "rope_scaling": LINEAR}, None),
        ({**LLAMA2_13B, "max_position_embeddings": 2048}, None),
        (QWEN3, None),
        (COMMAND_R, None),
    ],
)  # fmt: skip
def test_check_warns_of_raised_maxima_only(model, config, rule):
    found = [f for f in yarncli.check(model(config)).findings if f.severity != "note"]
    assert [f.rule.id for f in found] == ([rule] if rule else [])
    assert all(f.severity == "warning" for f in found)
