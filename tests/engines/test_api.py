"""`judge_checkpoint` is the whole of `yarncli engines`, and nothing is printed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from support.program import invoke
from yarncli.checkpoint.source import open_checkpoint
from yarncli.engines import rules
from yarncli.engines.judgement import judge, judge_checkpoint
from yarncli.errors import UsageError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.05,
    },
}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_the_function_is_the_command(checkpoint, capfd):
    found = [judge_checkpoint(checkpoint, engines=["vllm", "sglang"]) for _ in range(2)]
    found.append(judge_checkpoint(open_checkpoint(checkpoint), engines=["vllm", "sglang"]))
    documents = {json.dumps(one.to_json()) for one in found}
    assert capfd.readouterr() == ("", "")
    (document,) = documents
    command = invoke("engines", checkpoint, "--engine", "vllm", "--engine", "sglang", "--json")
    assert json.loads(command.stdout) == json.loads(document)
    assert json.loads(document)["source"] == found[0].source == str(checkpoint)
    assert found[0].misreadings() == {"sglang": ["attention scale 1.139 instead of 1.05"]}


def test_launch_lines_name_the_checkpoint_and_can_be_left_out(checkpoint):
    (told,) = judge_checkpoint(checkpoint, engines=["vllm"]).verdicts
    assert told.launch == f"vllm serve {checkpoint} --max-model-len 32768"
    (silent,) = judge_checkpoint(checkpoint, engines=["vllm"], launch=False).verdicts
    assert silent.launch is None


def test_a_hub_model_is_launched_by_its_id(minihub):
    """The name that yarncli takes, hf://org/long, is nothing that vLLM knows."""
    minihub.add_repo("org/long", {"config.json": json.dumps(CONFIG).encode()})
    found = judge_checkpoint("hf://org/long", engines=["vllm"])
    assert found.verdicts[0].launch == "vllm serve org/long --max-model-len 32768"
    assert found.source == "hf://org/long"


def test_an_unknown_type_is_read_as_another(checkpoint):
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | {"model_type": "brand_new"}))
    found = judge_checkpoint(checkpoint, engines=["vllm"], assume_like="llama")
    assert found.verdicts[0].status == "exact"
    named = CONFIG | {"model_type": "brand_new", "architectures": ["BrandNewForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(named))
    found = judge_checkpoint(checkpoint, engines=["vllm"], assume_like="llama")
    assert found.verdicts[0].status == "unsupported"
    with pytest.raises(UsageError):
        judge_checkpoint(checkpoint, engines=["vlm"], assume_like="llama")


@pytest.mark.parametrize("path", sorted(Path(rules.__path__[0]).glob("*.py")), ids=lambda p: p.stem)
def test_a_rule_file_imports_no_other(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith("yarncli.engines.rules")]


def test_no_line_is_printed_for_what_nobody_can_read():
    """θ of a file that transformers 5 refuses would be the class's own, not that of the file."""
    for found in judge({**CONFIG, "rope_scaling": 1.0}).verdicts:
        assert found.launch is None
        assert found.status != "exact"
