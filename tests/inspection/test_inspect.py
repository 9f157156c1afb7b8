"""inspect on the demo checkpoint and on configs of other shapes."""

import json
import math
import struct
from functools import partial

import pytest

from support.program import invoke
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import UsageError
from yarncli.inspection.description import inspect

GEMMA3 = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "max_position_embeddings": 32768,
    "head_dim": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "num_hidden_layers": 12,
    "hidden_size": 1152,
    "rope_theta": 1000000,
    "rope_local_base_freq": 10000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 2,
    "max_position_embeddings": 163840,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "rope_theta": 10000,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
                     "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"quant_method": "fp8"},
}  # fmt: skip


run = partial(invoke, "inspect")


def described(tmp_path, config, *arguments):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    result = run(path, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_is_complete(demo):
    found = json.loads(run(demo, "--json").stdout)
    assert found["schema_version"] == 1
    assert found["weights"] == {
        "parameters": {"F16": 650112}, "unpacked": 650112, "bytes": 1300224, "shards": 1,
    }  # fmt: skip
    assert (found["quantization"], found["weight_format"]) == (None, "unquantised safetensors")
    assert found["tokenizer_limit"] == 256
    assert found["tied_word_embeddings"] is True
    # 3 layers × keys and values × 4 heads × 32 dimensions × 2 bytes.
    assert found["kv_cache_bytes_per_token"] == 3 * 2 * 4 * 32 * 2
    scope = found["scopes"]["model"]
    assert scope["rotary_dim"] == 32
    assert scope["inv_freq"] == pytest.approx([10000 ** (-i / 16) for i in range(16)])
    assert {"rope_type", "rope_theta", "factor", "original_max_position_embeddings",
            "max_position_embeddings", "attention_factor"} <= scope.keys()  # fmt: skip
    assert {view["status"] for view in found["engines"]} == {"exact"}


def test_a_preview_is_the_conversion(demo, tmp_path):
    preview = json.loads(run(demo, "--json", "--length", "2k").stdout)
    invoke("convert", demo, tmp_path / "out", "--length", "2k")
    written = json.loads(run(tmp_path / "out", "--json").stdout)
    assert preview["scopes"]["model"]["inv_freq"] == written["scopes"]["model"]["inv_freq"]
    assert preview["plan"]["length"] == written["max_position_embeddings"] == 2048
    assert written["scopes"]["model"]["attention_factor"] == pytest.approx(0.1 * math.log(8) + 1)


def test_scopes_have_their_own_settings_and_windows_bound_the_cache(tmp_path):
    found = described(tmp_path, GEMMA3)
    full, sliding = found["scopes"]["full_attention"], found["scopes"]["sliding_attention"]
    assert (full["rope_theta"], sliding["rope_theta"]) == (1000000, 10000)
    assert full["layers"] == [5, 11]
    assert sliding["windowed"] is True
    per_layer = 2 * 1 * 256 * 2
    assert found["kv_cache_bytes"] == per_layer * (2 * 32768 + 10 * 512)


def test_latent_attention_caches_its_latent(tmp_path):
    found = described(tmp_path, DEEPSEEK)
    assert found["kv_cache_bytes_per_token"] == 2 * (512 + 64) * 2
    assert found["quantization"] == "fp8"
    scope = found["scopes"]["model"]
    assert (scope["rotary_dim"], scope["attention_factor"]) == (64, 1.0)


def test_the_table_has_a_row_per_pair_and_the_regimes_of_the_ramp(demo):
    result = run(demo, "--factor", 8, "--table")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()[-16:]]
    assert [row[-1] for row in rows] == ["kept"] + ["ramp"] * 6 + ["interpolated"] * 9
    assert [int(row[0]) for row in rows] == list(range(16))


def test_the_figure_is_drawn(demo, tmp_path):
    png, svg = tmp_path / "rope.png", tmp_path / "rope.svg"
    assert run(demo, "--factor", 8, "--plot", png).exit_code == 0
    assert run(demo, "--factor", 8, "--plot", svg).exit_code == 0
    data = png.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert width > height > 500
    drawn = svg.read_text()
    assert all(f"<!-- {label}" in drawn for label in ("ramp", "original window 256", "new window"))
    assert run(demo, "--factor", 8, "--plot", svg).exit_code == 0
    assert svg.read_text() == drawn
    assert run(demo, "--plot", tmp_path / "rope.pdf").exit_code == 0
    assert run(demo, "--plot", tmp_path / "rope.gif").exit_code == 2
    assert run(demo, "--plot", tmp_path / "no/rope.png").exit_code == 2


def test_a_shape_that_is_refused_says_why(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "gpt2"}')
    result = run(path)
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert "does not use RoPE" in result.stderr


def test_the_function_is_the_command(demo, capfd):
    found = [inspect(demo), inspect(str(demo)), inspect(open_checkpoint(demo))]
    (document,) = {json.dumps(one.to_json(table=True)) for one in found}
    previews = {
        json.dumps(inspect(demo, **asked).to_json())
        for asked in ({"length": 2048}, {"factor": 8.0}, {"method": "yarn", "length": 2048})
    }
    assert capfd.readouterr() == ("", "")
    assert json.loads(run(demo, "--json", "--table").stdout) == json.loads(document)
    (preview,) = previews
    assert json.loads(run(demo, "--json", "--factor", 8).stdout) == json.loads(preview)
    assert json.loads(preview)["engines"] == []
    with pytest.raises(UsageError):
        inspect(demo, method="yarn")


def test_the_functions_options_reach_the_reading(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GEMMA3 | {"model_type": "brand_new"}))
    found = inspect(path, assume_like="gemma3_text", original_length=8192)
    assert (found.original_length, found.length) == (8192, 32768)
    full, sliding = map(found.dimensions, found.rope.scopes.values())
    assert len(full) == len(sliding) == 128
    # Turns of the slowest pair over the window that the model was trained with.
    assert full[-1].rotations == pytest.approx(8192 * 1e6 ** (-254 / 256) / (2 * math.pi))


def test_the_original_window_survives_a_conversion_that_only_the_record_shows(demo, tmp_path):
    invoke("convert", demo, tmp_path / "out", "--method", "ntk", "--factor", 4, code=0)
    found = json.loads(invoke("inspect", tmp_path / "out", "--json", code=0).stdout)
    assert (found["length"], found["original_max_position_embeddings"]) == (1024, 256)
    assert found["original_source"] == "yarncli.json"
    told = json.loads(
        invoke("inspect", tmp_path / "out", "--original-length", 512, "--json", code=0).stdout
    )
    assert told["original_max_position_embeddings"] == 512


def test_dimensions_that_stand_still_do_not_count_as_rotary(tmp_path):
    """Gemma 4, as transformers computes its frequencies: 64 of the 256 pairs of full layers."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRotaryEmbedding as Rotary

    sizes = {"num_hidden_layers": 6, "hidden_size": 64, "head_dim": 256, "global_head_dim": 512}
    real = Rotary(transformers.Gemma4TextConfig(**sizes))
    config = {"model_type": "gemma4_text", **sizes}
    scopes = described(tmp_path, config)["scopes"]
    for name, expected in (("full_attention", 128), ("sliding_attention", 256)):
        turning = 2 * int((getattr(real, f"{name}_inv_freq") != 0).sum())
        assert scopes[name]["rotary_dim"] == turning == expected
    assert scopes["full_attention"]["head_dim"] == 512
    assert "rotary dimensions        128 of 512" in run(tmp_path / "config.json").stdout


@pytest.mark.parametrize(("method", "keys", "expected"), [
    ("modelopt", {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, "FP8"),
    ("modelopt", {"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}, "FP8"),
    ("modelopt", {"kv_cache_scheme": {"num_bits": 4, "type": "float"}}, "NVFP4"),
    ("modelopt", {"quantization": {"kv_cache_quant_algo": "NVFP4"}}, "NVFP4"),
    ("compressed-tensors", {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "FP8"),
    ("compressed-tensors", {"kv_cache_scheme": None}, None),
    ("compressed-tensors", {"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, None),
    ("modelopt", {"kv_cache_quant_algo": "INT8"}, None),
    ("fp8", {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, None),
])  # fmt: skip
def test_a_cache_that_the_config_quantises_is_smaller(tmp_path, method, keys, expected):
    """As vLLM 0.33 resolves it: `get_kv_cache_quant_algo_string`, and its attention layer."""
    config = {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 128, "head_dim": 32,
        "num_attention_heads": 4, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": method, **keys},
    }  # fmt: skip
    found = described(tmp_path, config)
    numbers = 2 * 2 * 4 * 32
    per_number = {"FP8": 1, "NVFP4": 9 / 16, None: 2}[expected]
    assert found["kv_cache_format"] == expected
    assert found["kv_cache_bytes_per_token"] == numbers * per_number
    assert found["kv_cache_bytes"] == numbers * per_number * 2048
