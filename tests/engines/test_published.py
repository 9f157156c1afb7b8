"""Checkpoints whose own code runs, by the published code of their model types."""

from __future__ import annotations

import hashlib
import json

import pytest

from support.program import invoke
from yarncli.engines.judgement import judge, judge_checkpoint
from yarncli.engines.published import is_failure, setting_of
from yarncli.engines.tables import load_table, registered_types

SIZES = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
}


def with_code(kind, config, model, **keys):
    auto_map = {"AutoConfig": config, "AutoModelForCausalLM": model}
    architectures = [model.rpartition(".")[2]]
    return {
        **SIZES, "model_type": kind, "auto_map": auto_map, "architectures": architectures, **keys,
    }  # fmt: skip


INTERNLM = with_code(
    "internlm2", "configuration_internlm2.InternLM2Config",
    "modeling_internlm2.InternLM2ForCausalLM",
)  # fmt: skip
QWEN = with_code(
    "qwen", "configuration_qwen.QWenConfig", "modeling_qwen.QWenLMHeadModel",
    seq_length=8192, kv_channels=128, rotary_emb_base=1000000, rotary_pct=1.0,
    use_dynamic_ntk=True, use_logn_attn=True,
)  # fmt: skip
MINIMAX = with_code(
    "minimax_m2", "configuration_minimax_m2.MiniMaxM2Config",
    "modeling_minimax_m2.MiniMaxM2ForCausalLM", head_dim=128, rotary_dim=64,
)  # fmt: skip
DEEPSEEK = with_code(
    "deepseek_v3", "configuration_deepseek.DeepseekV3Config",
    "modeling_deepseek.DeepseekV3ForCausalLM",
    qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, kv_lora_rank=512,
    rope_scaling={"type": "yarn", "factor": 32.0, "beta_fast": 1.0, "beta_slow": 1.0,
                  "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
)  # fmt: skip


def found(engine, config):
    (view,) = judge(config, engines=[engine], launch=False).verdicts
    return view


@pytest.mark.parametrize(
    ("config", "engine", "error"),
    [
        # transformers 5 makes a dict of a rope_scaling that is null.
        (INTERNLM, "transformers-5", "KeyError: 'type'"),
        ({**INTERNLM, "rope_scaling": None}, "transformers-5", "KeyError: 'type'"),
        # Caches lost the methods that published code calls.
        (INTERNLM, "transformers-4.57", "get_max_length"),
        (DEEPSEEK, "transformers-4.50", "get_max_length"),
        (QWEN, "transformers-5", "get_head_mask"),
        # It needs a cache of 4.56, and a module that came with 4.53.
        (MINIMAX, "transformers-4.55", "transformers 4.55.4"),
        (MINIMAX, "transformers-4.50", "masking_utils"),
    ],
)
def test_code_that_fails_in_a_release_is_said_to_fail_there(config, engine, error):
    view = found(engine, config)
    assert view.status == "crashes"
    told = view.summary()
    assert error in told
    assert "published code" in told
    assert "trust_remote_code=True" in told
    assert "not compared" in told


def test_an_older_release_of_the_range_that_runs_the_code_is_named():
    assert "transformers 4.43.4 runs it" in found("transformers-4.50", INTERNLM).summary()
    for engine in ("transformers-4.57", "transformers-5"):
        assert "runs it" not in found(engine, INTERNLM).summary()


def test_a_setting_that_the_published_config_class_does_not_take_is_refused():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    view = found("transformers-4.57", {**INTERNLM, "rope_scaling": yarn})
    assert view.status == "refuses"
    assert "two fields" in view.summary()


def test_published_code_that_runs_is_held_against_the_numbers_of_the_config():
    view = found("transformers-4.57", MINIMAX)
    assert view.status == "exact"
    # rotary_dim of head_dim, by partial_rotary_factor of its config class.
    expected = [1000000.0 ** (-2 * i / 64) for i in range(32)]
    assert view.scopes[0].inv_freq == pytest.approx(expected)
    assert any("trust_remote_code=True" in note for note in view.notes)
    view = found("transformers-4.50", QWEN)
    assert view.status == "exact"
    assert any("beyond seq_length" in note for note in view.notes)
    expected = [1000000.0 ** (-2 * i / 128) for i in range(64)]
    assert view.scopes[0].inv_freq == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "engine"),
    [
        # These keys were not examined, nor the spelling that came after the code.
        ({**MINIMAX, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "more": 1}},
         "transformers-4.57"),
        ({**MINIMAX, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
         "transformers-4.57"),
        # Its class takes the whole head, and another θ.
        ({k: v for k, v in MINIMAX.items() if k != "rotary_dim"}, "transformers-4.57"),
        ({k: v for k, v in MINIMAX.items() if k != "rope_theta"}, "transformers-4.57"),
        ({**INTERNLM, "head_dim": 256}, "tgi"),
        # Another class, another file, another type inside a wrapper.
        ({**INTERNLM, "architectures": ["InternLMXComposer2ForCausalLM"]}, "transformers-5"),
        ({**DEEPSEEK, "model_type": "kimi_k2"}, "transformers-5"),
        ({**INTERNLM, "auto_map": {**INTERNLM["auto_map"], "AutoConfig": "configuration.Config"}},
         "transformers-5"),
        ({"model_type": "internvl_chat", "llm_config": INTERNLM, "auto_map": INTERNLM["auto_map"],
          "architectures": INTERNLM["architectures"]}, "transformers-5"),
        # TGI may have either of two releases, in one of which it fails.
        (MINIMAX, "tgi"),
    ],
)  # fmt: skip
def test_what_was_not_examined_stays_unknown(config, engine):
    assert found(engine, config).status == "unknown"


def test_tgi_calls_the_code_itself():
    # It passes the mask with every token, which the published code of Qwen cannot take.
    assert found("tgi", QWEN).status == "crashes"
    # It never calls `generate`.
    assert found("tgi", INTERNLM).status == "exact"
    # It looks for a causal model in the map.
    only = {key: value for key, value in INTERNLM["auto_map"].items() if key == "AutoConfig"}
    reward = {**INTERNLM, "auto_map": {**only, "AutoModel": "modeling_internlm2.InternLM2Model"}}
    assert found("tgi", reward).status == "unsupported"


def test_files_beside_the_config_are_compared(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(INTERNLM))

    def view(engine="transformers-5"):
        (one,) = judge_checkpoint(tmp_path, engines=[engine]).verdicts
        return one

    assert view().status == "crashes"
    code = b"# another revision\n"
    (tmp_path / "modeling_internlm2.py").write_bytes(code)
    assert view().status == "unknown"
    assert "modeling_internlm2.py" in view().summary()
    assert view("vllm").status == "exact"
    files = load_table("published")["model_types"]["internlm2"]["files"]
    monkeypatch.setitem(files, "modeling_internlm2.py", hashlib.sha256(code).hexdigest())
    assert view().status == "crashes"


def test_no_command_accepts_code_that_was_not_examined(tmp_path):
    root, out = tmp_path / "minimax", tmp_path / "out"
    root.mkdir()
    (root / "config.json").write_text(json.dumps(MINIMAX))
    engine = ("--engine", "transformers-4.57")
    assert invoke("check", root, *engine).exit_code == 0
    (root / "modeling_minimax_m2.py").write_text("# another revision")
    told = invoke("check", root, *engine, code=1)
    assert "modeling_minimax_m2.py" in told.output
    told = invoke("convert", root, out, "--factor", "2", "--for", "transformers-4.57", code=3)
    assert "modeling_minimax_m2.py" in told.output
    listed = invoke("convert", root, "--dry-run", "--factor", "2", "--json").stdout
    found = {item["engine"]: item["status"] for item in json.loads(listed)["engines"]}
    assert found["transformers-4.57"] == "unknown"


def test_the_launch_line_trusts_the_code_that_it_needs(tmp_path):
    def launch(engine, config):
        (view,) = judge(config, engines=[engine], source="X").verdicts
        return view.launch

    assert "trust_remote_code=True" in launch("transformers-4.57", MINIMAX)
    # transformers 5 has the model type itself.
    assert "trust_remote_code" not in launch("transformers-5", MINIMAX)


def test_the_table_is_of_types_that_the_release_does_not_have():
    table = load_table("published")
    for entry in table["model_types"].values():
        for engine, (oldest, newest) in table["engines"].items():
            assert {oldest, newest} <= entry["releases"].keys()
            assert engine == "tgi" or newest == load_table(engine)["version"]
        assert entry["files"]
        assert any(kind not in registered_types("4.50.3") for kind in entry["kinds"])
        for lines in entry["releases"].values():
            plain = {lines["absent"], lines["null"]}
            assert all(line == "plain" or is_failure(line) for line in plain)
            # No path of the machine that ran it.
            assert not any("(/" in line for line in lines.values())


def test_a_setting_is_named_by_its_keys():
    assert setting_of({}) == "absent"
    assert setting_of({"rope_scaling": None}) == "null"
    assert setting_of({"rope_scaling": {}}) != "null"
    linear = {"factor": 4, "type": "linear"}
    assert setting_of({"rope_scaling": linear}) == "linear integer: factor type"
    assert setting_of({"rope_scaling": {**linear, "factor": 4.0}}) == "linear: factor type"
