"""`yarncli engines --factor`: what is printed for an extension that is not written."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from support.configs import NARROW_LLAMA
from support.program import invoke
from yarncli.engines.judgement import judge_checkpoint
from yarncli.engines.registry import ENGINES
from yarncli.errors import CheckpointError, UsageError
from yarncli.planning.target import Target

LLAMA = {"architectures": ["LlamaForCausalLM"], **NARROW_LLAMA}
FACTOR_4 = Target(factor=4)


def directory(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def served(tmp_path, config: dict[str, Any], engine: str, target: Target = FACTOR_4):
    (found,) = judge_checkpoint(
        directory(tmp_path, config), engines=[engine], target=target
    ).verdicts
    return found


def fields_of(line: str | None, option: str) -> dict[str, Any]:
    words = shlex.split(line or "")
    found: dict[str, Any] = json.loads(words[words.index(option) + 1])
    return found


def test_the_lines_and_their_json(tmp_path):
    source = directory(tmp_path, LLAMA)
    document = json.loads(invoke("engines", source, "--factor", 4, "--json", code=0).stdout)
    by_id = {e["engine"]: e for e in document["engines"]}
    assert list(by_id) == list(ENGINES)
    assert document["plan"]["length"] == 32768
    # Two layers of eight heads of 64, keys and values, two bytes each.
    assert document["kv_cache_bytes"] == 32768 * 2 * 8 * 64 * 2 * 2
    assert document["draft"] is None
    assert by_id["vllm"]["status"] == "exact"
    assert "--max-model-len 32768" in by_id["vllm"]["launch"]
    block = fields_of(by_id["vllm"]["launch"], "--hf-overrides")["rope_parameters"]
    assert block == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    assert by_id["mlx-lm"]["launch"] is None
    assert f"yarncli convert {source} OUT --factor 4" in by_id["mlx-lm"]["notes"][0]
    told = invoke("engines", source, "--factor", 4, "--engine", "vllm", code=0).stdout
    assert "KV cache of one sequence of 32,768 tokens: 134.2 MB" in told
    assert not (tmp_path / "yarncli.json").exists()


def test_theta_is_stated_only_where_it_is_known(tmp_path):
    """Cohere's default is 10000 in transformers 4.57 and 500000 in version 5."""
    cohere = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
        "model_type": "cohere",
        "architectures": ["CohereForCausalLM"],
    }
    found = served(tmp_path, cohere, "transformers-4.57")
    assert (found.status, found.launch) == ("unknown", None)
    assert "states no rope_theta, and transformers 4.57 assumes 10000" in found.notes[0]
    assert served(tmp_path, cohere, "transformers-5").launch_is_exact
    stated = served(tmp_path, cohere | {"rope_theta": 8e6}, "transformers-4.57")
    assert "'rope_theta': 8000000.0" in (stated.launch or "")


def test_a_theta_that_nobody_examined_is_unknown(tmp_path):
    """The probe for GPT-NeoX has its own name of θ, so the tables do not tell its default."""
    neox = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "rotary_pct": 0.5,
    }
    found = served(tmp_path, neox, "vllm")
    assert (found.status, found.launch) == ("unknown", None)
    assert "it is not known" in found.notes[0]


def test_old_length_fields_are_raised_too(tmp_path):
    found = served(tmp_path, LLAMA | {"max_sequence_length": 8192, "model_max_length": 10**30},
                   "sglang")  # fmt: skip
    fields = fields_of(found.launch, "--json-model-override-args")
    assert fields["max_sequence_length"] == 32768
    assert "model_max_length" not in fields


def test_flat_files_of_multimodal_models_are_nested_when_loaded(tmp_path):
    flat = {k: v for k, v in LLAMA.items() if k != "architectures"} | {
        "model_type": "qwen2_vl",
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
    }
    fields = fields_of(served(tmp_path, flat, "vllm").launch, "--hf-overrides")
    assert set(fields) == {"text_config"}
    assert fields["text_config"]["rope_parameters"]["mrope_section"] == [8, 12, 12]
    fields = fields_of(served(tmp_path, flat, "sglang").launch, "--json-model-override-args")
    assert fields.pop("text_config") == fields  # its Qwen-VL models read the outer copy
    inner = {"thinker_config": {"text_config": {**flat, "model_type": "qwen2_5_omni_text"}}}
    assert served(tmp_path, {"model_type": "qwen2_5_omni", **inner}, "sglang").launch is None


def test_what_sglang_keeps_of_the_file_is_counted_in(tmp_path):
    """Its override merges: a pair of mscale keys would stay and change the temperature."""
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096,
               "mscale": 0.7, "mscale_all_dim": 0.3}  # fmt: skip
    config = LLAMA | {"rope_scaling": scaling}
    target = Target(length=16384, replace_scaling=True)
    sglang, vllm = judge_checkpoint(
        directory(tmp_path, config),
        engines=["sglang", "vllm"],
        target=target,
        original_length=4096,
    ).verdicts
    assert sglang.launch is None
    assert "Write it and serve OUT: yarncli convert" in sglang.notes[0]
    assert vllm.launch_is_exact  # there the dict is replaced


@pytest.mark.parametrize(
    ("fields", "is_head", "says"),
    [
        ({"num_nextn_predict_layers": 1}, False, "own draft layers (num_nextn_predict_layers 1)"),
        ({"architectures": ["LlamaForCausalLMEagle3"]}, True, "a draft head (LlamaForCausalLME"),
        ({"draft_vocab_size": 32000}, True, "a draft head (draft_vocab_size)"),
        ({"num_nextn_predict_layers": 0}, None, ""),
    ],
)
def test_a_draft_is_named_with_its_target(fields, is_head, says, tmp_path):
    source = directory(tmp_path, LLAMA | fields)
    found = judge_checkpoint(source, engines=["vllm"], target=FACTOR_4)
    assert found.serving is not None
    draft = found.serving.draft
    if is_head is None:
        assert draft is None
        return
    assert draft is not None
    assert draft.is_head is is_head
    assert says in draft.notes[0]
    assert (found.verdicts[0].launch is None) is is_head
    shown = invoke("engines", source, "--factor", 4, "--engine", "vllm", code=0).stderr
    assert all(engine in shown for engine in ("vLLM", "SGLang"))


def test_options_that_contradict_each_other(tmp_path):
    source = directory(tmp_path, LLAMA)
    invoke("engines", source, "--factor", 4, "--length", "128k", code=2)
    invoke("engines", source, "--method", "ntk", code=2)
    invoke("engines", source, "--original-length", 4096, code=2)
    with pytest.raises(CheckpointError, match="already reads"):
        judge_checkpoint(source, target=Target(length=8192))
    with pytest.raises(UsageError, match="truncate belongs to"):
        judge_checkpoint(source, target=Target("ntk", factor=4, options={"truncate": False}))


def test_after_convert_and_bake_the_lines_are_printed(demo, tmp_path):
    out, baked = tmp_path / "out", tmp_path / "baked"
    told = invoke("convert", demo, out, "--factor", 4, code=0)
    assert f"vllm: vllm serve {out} --max-model-len 1024\n" in told.stdout
    names = [line.split(":")[0] for line in told.stdout.splitlines() if "1024" in line]
    assert names[-3:] == ["vllm", "sglang", "llama.cpp"]
    document = json.loads(invoke("engines", out, "--json", code=0).stdout)["engines"]
    exact = {e["engine"]: e["launch"] for e in document if e["launch_is_exact"]}
    assert f"yarncli engines {out} shows the other {len(exact) - 3}." in told.stderr
    shown = invoke("engines", out, code=0).stdout
    assert all(line in shown for line in exact.values())
    written = json.loads(invoke("bake", out, baked, "--json", code=0).stdout)
    lines = {item["engine"]: item["launch"] for item in written["launch"]}
    assert "llama.rope.scaling.attn_factor=float:0.878" in lines["llama.cpp"]
    assert lines["vllm"] == f"vllm serve {baked} --max-model-len 1024"
