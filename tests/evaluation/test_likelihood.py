"""Losses and divergences against transformers' own logits, in double precision."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.architectures import build_config, tiny_fields
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation.local.likelihood import TextReader, divergence
from yarncli.evaluation.local.load import LoadedModel, load_model
from yarncli.evaluation.local.sharing import SharedWeights
from yarncli.evaluation.settings import LoadSettings

TEN = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "gpt_oss", "olmo2",
       "deepseek_v3", "phi3")  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}


def make_model(model_type, seed=0):
    """A tiny model with random weights that are large enough for sure predictions."""
    torch.manual_seed(seed)
    config = build_config(tiny_fields(model_type))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model


def token_ids(count, vocabulary, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (count,), generator=generator).tolist()


def log_probabilities(model, ids):
    """(tokens, vocabulary) by one plain forward of transformers, in double precision."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def expected_losses(model, ids, first):
    found = log_probabilities(model, ids)
    return [-float(found[at, ids[at + 1]]) for at in range(first, len(ids) - 1)]


def reader(loaded, *, chunk=2048, rows=None):
    found = TextReader(loaded, chunk)
    found.rows = rows or found.rows
    return found


@pytest.mark.parametrize("model_type", TEN)
def test_losses_are_those_of_a_plain_forward(model_type):
    model = make_model(model_type)
    ids = token_ids(60, 128)
    loaded = LoadedModel(model=model, device=torch.device("cpu"), dtype=torch.float32)
    for first in (0, 30, 58):
        expected = expected_losses(model, ids, first)
        for options in ({}, {"rows": 7}, {"chunk": 16}, {"chunk": 16, "rows": 5}):
            found = reader(loaded, **options).losses(ids, first)
            assert found == pytest.approx(expected, abs=1e-4), options


@pytest.mark.parametrize("model_type", TEN)
def test_divergence_is_the_definition_of_kl(model_type):
    one, other = make_model(model_type, seed=1), make_model(model_type, seed=2)
    ids = token_ids(40, 128)
    p, q = log_probabilities(one, ids)[:-1], log_probabilities(other, ids)[:-1]
    kl = (p.exp() * (p - q)).sum(-1)
    loaded = [
        LoadedModel(model=m, device=torch.device("cpu"), dtype=torch.float32) for m in (one, other)
    ]
    for rows in (2048, 9):
        found = divergence(*(reader(each, rows=rows) for each in loaded), ids)
        assert found.kl == pytest.approx(kl.tolist(), abs=1e-4)
        assert found.agrees == (p.argmax(-1) == q.argmax(-1)).tolist()
        assert found.before == pytest.approx(expected_losses(one, ids, 0), abs=1e-4)
        assert found.after == pytest.approx(expected_losses(other, ids, 0), abs=1e-4)
    assert max(found.kl) > 0.01  # or nothing was compared


def test_a_model_does_not_differ_from_itself(demo):
    loaded = load_model(demo, LoadSettings())
    found = divergence(reader(loaded), reader(loaded), token_ids(300, 512))
    assert set(found.kl) == {0.0}
    assert all(found.agrees)


def test_other_vocabularies_cannot_be_compared(demo):
    small = LoadedModel(model=make_model("llama"), device=torch.device("cpu"), dtype=torch.float32)
    large = reader(load_model(demo, LoadSettings()))
    with pytest.raises(UsageError, match="512 and 128 different tokens"):
        divergence(large, reader(small), token_ids(20, 100))


def test_logits_that_are_no_numbers_are_said(demo):
    loaded = load_model(demo, LoadSettings())
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        reader(loaded).losses(token_ids(20, 512), 0)


def test_dynamic_frequencies_are_those_of_the_whole_text(scaled):
    """arXiv:2309.00071 §3.3: one θ per text, whatever the chunks, and whatever was read before."""
    directory = scaled({"rope_type": "dynamic", "factor": 2.0})
    loaded = load_model(directory, LoadSettings())
    long, ids = token_ids(900, 512, seed=3), token_ids(600, 512)
    # θ·(2·600/256 − 1)^(32/30)
    static = scaled({"rope_theta": 10000.0 * (2 * 600 / 256 - 1) ** (32 / 30)}, name="static")
    model = AutoModelForCausalLM.from_pretrained(static, dtype=torch.float32)
    expected = expected_losses(model, ids, 300)
    for chunk in (2048, 100):
        found = reader(loaded, chunk=chunk)
        found.losses(long, 0)
        assert found.losses(ids, 300) == pytest.approx(expected, abs=1e-3)


def test_weights_are_loaded_once(demo):
    config = json.loads((demo / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 10000.0, **YARN}
    weights = SharedWeights(demo, LoadSettings())
    first, second = weights.model(None), weights.model(config)
    places = [
        {name: tensor.data_ptr() for name, tensor in loaded.model.named_parameters()}
        for loaded in (first, second)
    ]
    assert places[0] == places[1]
    # m(8) = 0.1·ln 8 + 1, and the first model keeps its own setting.
    assert second.model.model.rotary_emb.attention_scaling == pytest.approx(1.2079441)
    assert first.model.model.rotary_emb.attention_scaling == 1.0


def test_a_shared_model_is_the_loaded_one(scaled, demo):
    directory = scaled(YARN, 2048)
    config = json.loads((directory / "config.json").read_text())
    ids = token_ids(500, 512)
    weights = SharedWeights(demo, LoadSettings())
    weights.model(None)
    shared = reader(weights.model(config)).losses(ids, 0)
    assert shared == reader(load_model(directory, LoadSettings())).losses(ids, 0)
