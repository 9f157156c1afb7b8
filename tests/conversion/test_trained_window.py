"""Qwen 3 says 40,960 tokens and was trained with 32,768: every method starts from the latter."""

import json
from functools import partial

import pytest

from support.program import invoke

THETA, DIM = 1000000.0, 128
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": DIM,
    "hidden_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
    "max_position_embeddings": 40960,
    "seq_length": 40960,
    "rope_theta": THETA,
}
MOE = {**CONFIG, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}
STATED = {
    **CONFIG,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": THETA,
        "original_max_position_embeddings": 16384,
    },
}
# The base of dynamic NTK for 131,072 tokens: 4 · 131072 / 32768 − 3 = 13 to the power d / (d − 2).
BASES = {"linear": THETA, "dynamic": THETA * 13 ** (DIM / (DIM - 2))}
DIVISORS = {"linear": 4.0, "dynamic": 1.0}


run = partial(invoke, code=0)


@pytest.fixture
def checkpoint(tmp_path):
    def write(config):
        place = tmp_path / "model"
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps(config, indent=2))
        (place / "tokenizer_config.json").write_text('{"model_max_length": 40960}')
        (place / "generation_config.json").write_text('{"max_length": 40960}')
        return place

    return write


def lengths(place):
    """Maximum, the other length of the config, the tokenizer's and the generation's."""
    config = json.loads((place / "config.json").read_text())
    tokenizer = json.loads((place / "tokenizer_config.json").read_text())
    generation = json.loads((place / "generation_config.json").read_text())
    return (
        config["max_position_embeddings"],
        config["seq_length"],
        tokenizer["model_max_length"],
        generation["max_length"],
    )


def convert(source, out, *arguments):
    run("convert", source, out, "--config-only", *arguments)
    return out


@pytest.mark.parametrize("config", [CONFIG, MOE], ids=["qwen3", "qwen3_moe"])
@pytest.mark.parametrize(
    "target", [("--factor", 4), ("--length", 131072)], ids=["factor", "length"]
)
@pytest.mark.parametrize("method", ["linear", "dynamic"])
def test_transformers_and_servers_read_what_is_planned(
    checkpoint, tmp_path, config, target, method
):
    import torch
    from transformers import AutoConfig
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    out = convert(checkpoint(config), tmp_path / "out", "--method", method, *target)
    assert lengths(out) == (32768, 32768, 131072, 131072)
    embedding = Qwen3RotaryEmbedding(AutoConfig.from_pretrained(out))
    embedding(torch.zeros(1), torch.tensor([[131071]]))
    expected = [BASES[method] ** (-2 * i / DIM) / DIVISORS[method] for i in range(DIM // 2)]
    assert embedding.inv_freq.tolist() == pytest.approx(expected, rel=1e-5)
    views = json.loads(run("engines", out, "--json").stdout)["engines"]
    served = {view["engine"]: view["served_length"] for view in views}
    assert served["vllm"] == served["sglang"] == 131072
    assert run("check", out, "--strict").stdout == ""


@pytest.mark.parametrize("method", ["yarn", "ntk", "ntk-by-parts", "llama3"])
def test_the_other_methods_raise_the_maximum(checkpoint, tmp_path, method):
    out = convert(checkpoint(CONFIG), tmp_path / "out", "--method", method, "--factor", 4)
    assert lengths(out) == (131072,) * 4


@pytest.mark.parametrize("method", ["linear", "dynamic"])
def test_undo_puts_the_published_maximum_back(checkpoint, method):
    place = checkpoint(CONFIG)
    before = (place / "config.json").read_bytes()
    shown = run("convert", place, "--in-place", "--method", method, "--factor", 4)
    assert "goes from 40,960 to 32,768, the original window" in shown.stderr
    assert lengths(place)[:2] == (32768, 32768)
    run("convert", place, "--undo")
    assert (place / "config.json").read_bytes() == before
    assert lengths(place) == (40960,) * 4


@pytest.mark.parametrize("method", ["linear", "dynamic"])
def test_a_rescaling_goes_on_from_there(checkpoint, tmp_path, method):
    first = convert(checkpoint(CONFIG), tmp_path / "out", "--method", method, "--factor", 4)
    second = convert(first, tmp_path / "further", "--rescale", "--length", "256k")
    assert lengths(second) == (32768, 32768, 262144, 262144)
    scaling = json.loads((second / "config.json").read_text())["rope_scaling"]
    assert scaling == {"rope_type": method, "type": method, "factor": 8.0}
    assert run("check", second, "--strict").stdout == ""


@pytest.mark.parametrize("method", ["yarn", "linear", "dynamic", "ntk"])
def test_a_window_that_the_config_or_the_user_states_counts(checkpoint, tmp_path, method):
    def plan(config, *arguments):
        shown = run(
            "convert", checkpoint(config), "--dry-run", "--json", "--method", method, *arguments
        )
        return json.loads(shown.stdout)["plan"]

    stated = plan(STATED, "--factor", 4)
    given = plan(CONFIG, "--factor", 4, "--original-length", 16384)
    assert stated["length"] == given["length"] == 65536
    assert stated["original_max_position_embeddings"] == 16384
    wanted = 16384 if method in ("linear", "dynamic") else 65536
    assert stated["max_position_embeddings"] == given["max_position_embeddings"] == wanted


def test_a_length_that_was_chosen_is_not_lowered(checkpoint, tmp_path):
    config = {**CONFIG, "seq_length": 65536, "max_sequence_length": 1024}
    given = ["--method", "linear", "--factor", 4, "--original-length", 32768]
    out = convert(checkpoint(config), tmp_path / "out", *given)
    written = json.loads((out / "config.json").read_text())
    assert (written["seq_length"], written["max_sequence_length"]) == (65536, 32768)


def test_a_maximum_that_is_not_the_planned_one_is_noticed(checkpoint):
    from yarncli.conversion.conversion import verify
    from yarncli.conversion.convert import convert
    from yarncli.errors import ConfigError

    found = convert(checkpoint(CONFIG), method="linear", factor=4.0, dry_run=True)
    verify(found.config, found.rope, found.plan)
    wrong = found.config.edited({("max_position_embeddings",): 40960})
    with pytest.raises(ConfigError, match="not as planned"):
        verify(wrong, found.rope, found.plan)


def test_the_figure_draws_the_window_of_its_title(checkpoint, tmp_path):
    place, svg = checkpoint(CONFIG), tmp_path / "rope.svg"
    for arguments, expected in (
        (["--factor", 4], ["original window 32,768", "new window 131,072"]),
        ([], ["original window 32,768", "window 40,960"]),
    ):
        run("inspect", place, "--plot", svg, *arguments)
        drawn = svg.read_text()
        assert all(f"<!-- {text} -->" in drawn for text in expected)
        assert "<!-- original window 40,960" not in drawn
        assert "<!-- new window 40,960" not in drawn
    found = json.loads(run("inspect", place, "--json", "--table").stdout)
    scope = found["scopes"]["model"]
    assert found["original_max_position_embeddings"] == 32768
    assert scope["original_max_position_embeddings"] == 32768
    # The first pair turns once in 2π tokens.
    assert scope["dimensions"][0]["rotations"] == pytest.approx(32768 / 6.283185307)


def test_compared_methods_start_and_end_alike(checkpoint):
    from yarncli.checkpoint.source import open_checkpoint
    from yarncli.evaluation.variants import Choice, choose_variants, default_lengths, parse_override

    methods = ("none", "linear", "dynamic", "ntk", "yarn")
    for override in ("factor=4", "length=131072"):
        choice = Choice(override=parse_override(override), methods=methods)
        variants = choose_variants(open_checkpoint(str(checkpoint(CONFIG))), choice)
        assert [v.window for v in variants] == [40960] + [131072] * 4
        assert {v.original for v in variants} == {32768}
        assert default_lengths(variants) == [16384, 32768, 65536, 131072]


@pytest.mark.parametrize("method", ["linear", "dynamic"])
def test_a_rescaling_with_settings_per_layer_type_goes_on_from_the_record(
    method, checkpoint, tmp_path
):
    """Published configs of such families have the maximum multiplied; those of yarncli have not."""
    gemma = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "max_position_embeddings": 32768,
        "seq_length": 32768,
        "sliding_window": 512,
    }
    once, twice = tmp_path / "once", tmp_path / "twice"
    run("convert", checkpoint(gemma), once, "--method", method, "--factor", 4, "--config-only")
    assert json.loads(run("inspect", once, "--json").stdout)["length"] == 131072
    short = invoke("convert", once, twice, "--rescale", "--length", 65536, "--config-only", code=3)
    assert "already reads 131,072 tokens" in short.stderr
    run("convert", once, twice, "--rescale", "--factor", 2, "--config-only")
    config = json.loads((twice / "config.json").read_text())
    assert config["max_position_embeddings"] == 32768
    assert config["rope_parameters"]["full_attention"]["factor"] == 8.0
    assert lengths(twice)[2:] == (262144, 40960)
