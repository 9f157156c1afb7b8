"""Models whose every layer attends within a window are lengthened together with the window."""

import json
from functools import partial

import pytest

import yarncli
from support.program import invoke

run = partial(invoke, "convert")

# Mistral-7B-v0.1, the YaRN authors' own case: train.sh of jquesnelle/yarn extends it by 8 to
# 65,536 tokens and by 16 to 131,072, over the 8,192 that finetune.py takes by default.
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 32000,
}
PHI3 = {
    **MISTRAL,
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
}
EXAONE4 = {
    "model_type": "exaone4",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "rope_theta": 1000000,
}
GEMMA2 = {
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def model(tmp_path):
    def write(config):
        place = tmp_path / "model"
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps(config, indent=2))
        return place

    return write


def read(place, name="config.json"):
    return json.loads((place / name).read_text())


@pytest.mark.parametrize(
    ("length", "window", "factor", "written"),
    [(65536, "off", 8.0, None), (65536, "64k", 8.0, 65536), (131072, "128k", 16.0, 131072)],
)
def test_mistral_is_extended_as_the_authors_did(model, tmp_path, length, window, factor, written):
    source, out = model(MISTRAL), tmp_path / "out"
    run(source, out, "--length", length, "--sliding-window", window, "--config-only", code=0)
    config = read(out)
    assert config["sliding_window"] == written
    assert config["max_position_embeddings"] == length
    assert config["rope_scaling"]["factor"] == factor
    assert config["rope_scaling"]["original_max_position_embeddings"] == 8192
    step = read(out, "yarncli.json")["steps"][-1]
    option = window if window == "off" else written
    assert step["options"]["sliding_window"] == step["plan"]["sliding_window"] == option
    changed = {tuple(change["path"]): change for change in step["replaced"]}
    assert changed["sliding_window",]["before"] == 4096


def test_it_is_taken_back_told_and_shown(model, tmp_path):
    source, out = model(MISTRAL), tmp_path / "out"
    run(source, out, "--length", "64k", "--sliding-window", "off", "--config-only", code=0)
    assert "--length 65536 --sliding-window off" in invoke("card", out, code=0).stdout
    assert read(out)["sliding_window"] is None
    run(out, "--undo", code=0)
    assert (out / "config.json").read_text() == (source / "config.json").read_text()


def test_the_functions_know_it(model, tmp_path):
    source = model(MISTRAL)
    found = yarncli.plan(source, length=65536, sliding_window="off")
    assert (found.factor, found.original_length, found.sliding_window) == (8.0, 8192, "off")
    assert "now attends to the whole text" in found.notes[-1]
    with pytest.raises(yarncli.UsageError, match="sliding_window is 'wide'"):
        yarncli.plan(source, length=65536, sliding_window="wide")
    result = yarncli.convert(
        source, tmp_path / "out", length=65536, sliding_window=70000, config_only=True
    )
    assert result.plan.sliding_window == read(tmp_path / "out")["sliding_window"] == 70000


def test_the_refusal_names_a_command_that_works(model, tmp_path):
    for config, length in ((MISTRAL, 65536), (PHI3, 8192)):
        refused = run(model(config), tmp_path / "no", "--length", length, code=3)
        assert "attends only within" in refused.stderr
        command = (
            refused.stderr.replace("\n", " ")
            .partition(": yarncli convert SOURCE OUT ")[2]
            .rstrip(". ")
        )
        out = tmp_path / config["model_type"]
        run(tmp_path / "model", out, *command.split(), "--config-only", code=0)
        assert read(out)["sliding_window"] is None
        assert read(out)["max_position_embeddings"] == length


def test_a_window_as_long_as_the_maximum_bounds_an_extension_too(model, tmp_path):
    source = model({**MISTRAL, "rope_theta": 1e6, "sliding_window": 32768})
    assert "within 32,768" in run(source, tmp_path / "no", "--length", "64k", code=3).stderr


@pytest.mark.parametrize(
    ("config", "options", "code", "message"),
    [
        (MISTRAL, ["--sliding-window", "8k"], 2, "at least --sliding-window 65536"),
        (MISTRAL, ["--sliding-window", "2k"], 2, "is not wider than the present window of 4,096"),
        (MISTRAL, ["--sliding-window", "wide"], 2, "is not a length"),
        ({**MISTRAL, "sliding_window": None}, ["--sliding-window", "off"], 2, "uses no sliding"),
        ({**MISTRAL, "layer_types": ["sliding_attention"] * 32}, ["--sliding-window", "off"], 2,
         "layer_types"),
        (GEMMA2, ["--sliding-window", "off"], 3, "some layers attend further"),
        (EXAONE4, ["--sliding-window", "off"], 3, "have no RoPE"),
        (EXAONE4, [], 3, "have no RoPE"),
        (PHI3, ["--sliding-window", "off"], 3, "cannot take yarn"),
    ],
)  # fmt: skip
def test_what_a_window_cannot_do_is_refused(model, tmp_path, config, options, code, message):
    length = 262144 if config is EXAONE4 else 65536
    refused = run(model(config), tmp_path / "out", "--length", length, *options, code=code)
    assert message in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("window", ["off", 128])
@pytest.mark.parametrize("kind", ["mistral", "mixtral", "phi3", "starcoder2", "phimoe"])
def test_transformers_sees_far_tokens_again(tmp_path, kind, window):
    """Two layers of 4 tokens reach 6 back: what the first token is cannot matter at the 40th."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=64, max_position_embeddings=64, sliding_window=4,
        num_local_experts=2, rope_theta=10000.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    text = torch.randint(3, 64, (1, 40))
    other = text.clone()
    other[0, 0] = 3 if text[0, 0] > 3 else 4

    def difference(place):
        model = AutoModelForCausalLM.from_pretrained(place).eval()
        with torch.no_grad():
            return (model(text).logits - model(other).logits)[0, -1].abs().max().item()

    assert difference(tmp_path / "model") == 0
    options = ["--method", "ntk", "--length", 128, "--sliding-window", window]
    run(tmp_path / "model", tmp_path / "out", *options, code=0)
    assert difference(tmp_path / "out") > 1e-4
