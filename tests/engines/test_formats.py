"""Formats of weights: what each is called, its parameters unpacked, and which engine loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.program import invoke
from yarncli.checkpoint.formats import read_format
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.weight_format import stated_format
from yarncli.engines.formats import _LOADERS
from yarncli.engines.judgement import judge, judge_checkpoint
from yarncli.engines.registry import ENGINES
from yarncli.inspection.description import inspect

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import save_file  # noqa: E402

SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 128, "tie_word_embeddings": False,
}  # fmt: skip
MLX = {"group_size": 64, "bits": 4, "mode": "affine"}


def mlx(name: str, w: Any) -> dict[str, Any]:
    """As mlx.core.quantize packs it: 8 numbers in 32 bits, a scale and a bias for each 64."""
    base, (rows, columns) = name.removesuffix(".weight"), w.shape
    some = torch.ones(rows, columns // 64, dtype=torch.bfloat16)
    packed = torch.zeros(rows, columns // 8, dtype=torch.uint32)
    return {name: packed, f"{base}.scales": some, f"{base}.biases": some.clone()}


def gptq(name: str, w: Any) -> dict[str, Any]:
    base, (rows, columns) = name.removesuffix(".weight"), w.shape
    return {
        f"{base}.qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
        f"{base}.qzeros": torch.zeros(1, rows // 8, dtype=torch.int32),
        f"{base}.scales": torch.ones(1, rows, dtype=torch.float16),
        f"{base}.g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def awq(name: str, w: Any) -> dict[str, Any]:
    base, (rows, columns) = name.removesuffix(".weight"), w.shape
    return {
        f"{base}.qweight": torch.zeros(columns, rows // 8, dtype=torch.int32),
        f"{base}.qzeros": torch.zeros(1, rows // 8, dtype=torch.int32),
        f"{base}.scales": torch.ones(1, rows, dtype=torch.float16),
    }


def gptq_3bit(name: str, w: Any) -> dict[str, Any]:
    base, (rows, columns) = name.removesuffix(".weight"), w.shape
    found = gptq(name, w)
    found[f"{base}.qweight"] = torch.zeros(columns * 3 // 32, rows, dtype=torch.int32)
    return found


def nf4(name: str, w: Any) -> dict[str, Any]:
    return {
        name: torch.zeros(w.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.absmax": torch.zeros(w.numel() // 64, dtype=torch.uint8),
        f"{name}.quant_map": torch.zeros(16),
        f"{name}.nested_absmax": torch.zeros(1),
        f"{name}.nested_quant_map": torch.zeros(256),
        f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(90, dtype=torch.uint8),
    }


def int8(name: str, w: Any) -> dict[str, Any]:
    base = name.removesuffix(".weight")
    return {
        name: torch.zeros(w.shape, dtype=torch.int8),
        f"{base}.SCB": torch.zeros(w.shape[0]),
        f"{base}.weight_format": torch.zeros((), dtype=torch.uint8),
    }


def packed(name: str, w: Any) -> dict[str, Any]:
    rows, columns = w.shape
    return {
        f"{name}_packed": torch.zeros(rows, columns // 8, dtype=torch.int32),
        f"{name}_scale": torch.ones(rows, 1, dtype=torch.bfloat16),
        f"{name}_shape": torch.tensor([rows, columns]),
    }


def fp8(name: str, w: Any) -> dict[str, Any]:
    return {
        name: w.to(torch.float8_e4m3fn),
        f"{name}_scale": torch.tensor(0.5),
        f"{name.removesuffix('.weight')}.input_scale": torch.tensor(1.0),
    }


def nvfp4(name: str, w: Any) -> dict[str, Any]:
    rows, columns = w.shape
    return {
        name: torch.zeros(rows, columns // 2, dtype=torch.uint8),
        f"{name}_scale": torch.ones(rows, columns // 16).to(torch.float8_e4m3fn),
        f"{name}_scale_2": torch.tensor(1.0),
    }


def exl3(name: str, w: Any) -> dict[str, Any]:
    base, (rows, columns) = name.removesuffix(".weight"), w.shape
    return {
        f"{base}.trellis": torch.zeros(columns // 16, rows // 16, 64, dtype=torch.int16),
        f"{base}.suh": torch.ones(columns, dtype=torch.float16),
        f"{base}.svh": torch.ones(rows, dtype=torch.float16),
    }


def groups(**weights: Any) -> dict[str, Any]:
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


# Case → how each projection is stored, the keys of config.json, the name.
CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "mlx": (mlx, {"quantization": MLX, "quantization_config": MLX}, "MLX 4-bit"),
    "mlx-bare": (mlx, {"quantization": MLX}, "MLX 4-bit"),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 64}, "GPTQ 4-bit"),
    "gptq 3": (gptq_3bit, {"quant_method": "gptq", "bits": 3, "group_size": 64}, "GPTQ 3-bit"),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 64}, "AWQ 4-bit"),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
    "int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit"),
    "compressed": (
        packed,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": groups(num_bits=4, type="int"),
        },
        "compressed-tensors (pack-quantized)",
    ),
    "modelopt fp8": (fp8, {"quant_method": "modelopt", "quant_algo": "FP8"}, "FP8 (ModelOpt)"),
    "nvfp4": (nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4 (ModelOpt)"),
    "exl3": (exl3, {"quant_method": "exl3", "bits": 4.0}, "EXL3 4-bit"),
}


def make(root: Path, case: str) -> tuple[Path, Any]:
    """A tiny Llama stored in a format, and the model it was."""
    store, keys, _ = CASES[case]
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).bfloat16()
    tensors: dict[str, Any] = {}
    for name, weight in model.state_dict().items():
        tensors |= store(name, weight) if "_proj." in name else {name: weight.contiguous()}
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    extra = {"quantization_config": keys} if "quant_method" in keys else keys
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"], **extra}
    (root / "config.json").write_text(json.dumps(config))
    return root, model


@pytest.mark.parametrize("case", CASES)
def test_a_format_has_its_name_and_parameters_are_counted_unpacked(case, tmp_path):
    root, model = make(tmp_path, case)
    found = inspect(root)
    assert found.format.name == CASES[case][2]
    assert found.weights is not None
    assert found.weights.unpacked == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("case", ["mlx", "mlx-bare", "modelopt fp8", "nvfp4", "exl3"])
def test_transformers_does_with_a_format_what_its_row_says(case, tmp_path):
    root, model = make(tmp_path, case)
    view = judge_checkpoint(root, engines=["transformers-5"]).verdicts[0]
    assert view.weights is not None
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(root)
    except (RuntimeError, ValueError):
        assert (view.weights.status, view.status) == ("refuses", "refuses")
        return
    assert (view.weights.status, view.status) == ("misreads", "differs")
    mine, right = (m.model.layers[0].self_attn.q_proj.weight for m in (loaded, model))
    if case == "modelopt fp8":  # what is stored, without its scale
        right = 0.5 * right
    assert not torch.allclose(mine.float(), right.float(), rtol=0.05, atol=1e-3)


def test_what_transformers_is_said_to_load_is_in_its_list():
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as known

    methods = {name.partition("_4bit")[0].partition("_8bit")[0] for name in known}
    assert set(_LOADERS["transformers-5"].loads.split()) - {"pickle"} <= methods


def test_rows_are_of_engines_and_name_a_format_once():
    assert set(_LOADERS) <= set(ENGINES)
    for loader in _LOADERS.values():
        names = [*loader.loads.split(), *loader.refuses, *loader.misreads]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(("engine", "status"), [
    ("vllm", "refuses"), ("sglang", "refuses"), ("llama.cpp", "refuses"), ("exllamav3", "refuses"),
    ("mlx-lm", "exact"), ("mlx-vlm", "exact"), ("lmdeploy-turbomind", "refuses"),
    ("ollama", "refuses"),
])  # fmt: skip
def test_an_mlx_folder(engine, status, tmp_path):
    root, _ = make(tmp_path, "mlx")
    view = judge_checkpoint(root, engines=[engine]).verdicts[0]
    assert view.status == status
    assert "MLX 4-bit" in view.summary()
    assert (view.launch is None) == (status == "refuses")
    served = json.loads(invoke("engines", root, "--engine", engine, "--factor", 4, "--json").stdout)
    assert served["engines"][0]["weights"]["format"] == "MLX 4-bit"
    assert (served["engines"][0]["status"] == "refuses") == (status == "refuses")


def test_a_verdict_on_rope_is_not_worded_as_one_on_the_checkpoint(tmp_path):
    root, _ = make(tmp_path, "gptq")
    wide = {"COLUMNS": "200"}
    found = invoke("engines", root, "--engine", "max", "--engine", "vllm", env=wide).stdout
    assert "Weights: GPTQ 4-bit" in found
    assert "format not judged" in found
    assert "loads GPTQ 4-bit weights (0.33)" in found
    assert "1 as intended, 1 as intended in RoPE alone (format not judged), of 2 engines." in found
    assert "format not judged: " in invoke("inspect", root, env=wide).stdout


def test_no_config_is_looked_for_where_the_weights_are_refused(tmp_path):
    root, _ = make(tmp_path, "mlx")
    result = invoke("convert", root, tmp_path / "out", "--factor", 4, "--for", "vllm")
    assert result.exit_code == 3
    assert "does not load MLX 4-bit weights" in result.stderr
    assert "--method ntk" not in result.stderr
    assert invoke("check", root, "--engine", "vllm").exit_code == 1
    assert invoke("check", root, "--engine", "mlx-lm").exit_code == 0


@pytest.mark.parametrize(("keys", "expected"), [
    ({}, ""),
    ({"quantization_config": None}, ""),
    ({"quantization_config": []}, ""),
    ({"quantization_config": {"bits": "4", "group_size": 64}}, "unnamed"),
    ({"quantization_config": {"quant_method": ["fp8"]}}, "unnamed"),
    ({"quantization_config": {"quant_method": "FP8"}}, "fp8"),
    ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
    ({"quantization_config": {"quant_method": "fp8", "moe_quant_algo": "NVFP4"}}, "fp8+NVFP4"),
    ({"quantization_config": {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}}, ""),
    ({"quantization_config": {"quant_method": "compressed_tensors"}}, "compressed-tensors:dense"),
    ({"compression_config": {"format": "dense", "quant_method": "compressed-tensors"}},
     "compressed-tensors:dense"),
])  # fmt: skip
def test_what_a_config_states(keys, expected):
    assert stated_format(keys, {}).id == expected
    assert stated_format({}, keys if "compression_config" not in keys else {}).id in (expected, "")


def test_the_text_part_and_modelopts_own_file_count():
    inner = {"quantization_config": {"quant_method": "awq"}}
    assert stated_format({"text_config": inner}, inner).id == "awq"
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
    assert stated_format({}, {}, beside).id == "modelopt:NVFP4"


@pytest.mark.parametrize(("names", "expected"), [
    (["pytorch_model-00001-of-00002.bin"], "pickle"),
    (["consolidated.00.pth", "params.json"], "consolidated"),
    (["consolidated.safetensors"], "consolidated"),
    (["model-Q4_K_M.gguf"], "gguf"),
    (["pytorch_model.bin", "model.safetensors"], ""),
    (["consolidated.safetensors", "model-00001-of-00002.safetensors"], ""),
    (["original/consolidated.00.pth"], ""),
    ([], ""),
])  # fmt: skip
def test_formats_of_files(names, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert read_format(open_checkpoint(tmp_path)).id == expected


def test_a_pickle_of_a_quantised_model_was_not_judged(tmp_path):
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    view = judge_checkpoint(tmp_path, engines=["vllm"]).verdicts[0]
    assert view.weights is not None
    assert (view.weights.status, view.weights.format) == (
        "not judged",
        "GPTQ 4-bit in pickled files",
    )


def test_plain_weights_change_nothing():
    view = judge({"model_type": "llama"}, engines=["vllm"]).verdicts[0]
    assert (view.weights, view.summary()) == (None, "as intended")
