"""What people give for a SOURCE or an OUT is named for what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.program import invoke
from yarncli.checkpoint.naming import hub_source, refuse_address
from yarncli.errors import UsageError


def write(path: Path, content: str | bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8})
JSON_FILES = {
    "adapter": (ADAPTER, "the config of an adapter (PEFT). Name its model: org/base."),
    "tokenizer config": ('{"tokenizer_class": "X", "model_max_length": 9}', "of a tokenizer"),
    "tokenizer": ('{"model": {}, "added_tokens": []}', "it is a tokenizer"),
    "generation": ('{"bos_token_id": 1, "transformers_version": "5"}', "of generation"),
    "preprocessor": ('{"image_processor_type": "X"}', "of a preprocessor"),
    "index": ('{"metadata": {}, "weight_map": {}}', "a weight index"),
    "diffusion": ('{"_class_name": "X", "_diffusers_version": "0"}', "of a diffusion pipeline"),
    "trainer": ('{"log_history": []}', "the state of a trainer"),
    "record": ('{"schema_version": 1, "steps": []}', "yarncli.json"),
}


@pytest.mark.parametrize(("content", "told"), JSON_FILES.values(), ids=JSON_FILES)
@pytest.mark.parametrize("name", ["config.json", "other.json"])
def test_json_that_is_no_config_is_named_by_its_content(tmp_path, name, content, told):
    path = write(tmp_path / name, content)
    for source in (path, str(tmp_path)) if name == "config.json" else (path,):
        for command in ("inspect", "engines"):
            assert told in invoke(command, source, code=3).stderr
        found = invoke("check", source, code=0).stdout
        assert "note[unreadable]" in found
        assert told.split(". Name")[0] in found


def test_a_config_of_another_model_still_passes_in_silence(tmp_path):
    source = write(tmp_path / "config.json", '{"model_type": "vit", "tokenizer_class": "X"}')
    assert invoke("check", source, code=0).stdout == ""


FILES = {
    "shard.safetensors": (b"x", "a file of weights; name its directory"),
    "no-ending": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "a file of weights; name its directory"),
    "torch": (b"PK\x03\x04" + bytes(20), "weights that torch saved"),
    "weights.npz": (b"x", "a file of weights"),
    "train.parquet": (b"PAR1", "a dataset"),
    "rows": (b"PAR1", "a dataset"),
    "model.zip": (b"x", "an archive"),
    "packed": (b"\x1f\x8b" + bytes(20), "an archive"),
    "README.md": (b"# x", "a text"),
    "app.py": (b"import x", "a program"),
    "tokenizer.model": (b"x", "a tokenizer"),
}


@pytest.mark.parametrize(("name", "content", "told"), [(n, *f) for n, f in FILES.items()])
def test_files_are_named_by_their_ending_or_their_first_bytes(tmp_path, name, content, told):
    told = f"it is {told}" if not told.startswith("weights that") else told
    assert told in invoke("inspect", write(tmp_path / name, content), code=3).stderr


FOLDERS = {
    "adapter_config.json": "an adapter (PEFT)",
    "app.py": "a Space",
    "data/train.parquet": "a dataset",
    "tokenizer_config.json": "a tokenizer alone",
    "weights.00.npz": "weights alone",
    "model.gguf": "a GGUF model",
}


@pytest.mark.parametrize(("name", "told"), FOLDERS.items())
def test_folders_without_a_config_are_named(tmp_path, name, told):
    write(tmp_path / name)
    assert told in invoke("inspect", tmp_path, code=3).stderr


# What stands in the address bar of a browser, and what is to be written.
ADDRESSES = {
    "https://huggingface.co/org/name": "hf://org/name",
    "https://www.huggingface.co/org/name/": "hf://org/name",
    "http://hf.co/org/name?library=x#readme": "hf://org/name",
    "huggingface.co/org/name": "hf://org/name",
    "hf.co/org/name": "hf://org/name",
    "https://huggingface.co/org/name.git": "hf://org/name",
    "https://huggingface.co/gpt2/tree/main": "hf://gpt2",
    "https://huggingface.co/org/name/tree/main": "hf://org/name",
    "https://huggingface.co/org/name/tree/v1.0": "hf://org/name@v1.0",
    "https://huggingface.co/org/name/tree/refs%2Fpr%2F7": "hf://org/name@refs/pr/7",
    "https://huggingface.co/org/name/commit/0123456789abcdef": "hf://org/name@0123456789abcdef",
    "https://huggingface.co/org/name/blob/main/config.json": "hf://org/name",
    "https://huggingface.co/org/name/resolve/main/q4/x.gguf?download=true": "hf://org/name/q4/x.gguf",
    "https://huggingface.co/org/name/blob/v2/x.gguf": "hf://org/name@v2/x.gguf",
    "https://huggingface.co/org/name/discussions/3": "hf://org/name",
    "hf://org/name/tree/main": "hf://org/name",
    "hf://org/name/config.json": "hf://org/name",
}  # fmt: skip


@pytest.mark.parametrize(("address", "form"), ADDRESSES.items())
def test_the_address_of_a_page_tells_what_to_write(address, form):
    for command in ("inspect", "check", "check-passkey"):
        if ".gguf" in address and command == "check-passkey":
            continue  # takes no GGUF file, and says so
        assert invoke(command, address, code=2).stderr.endswith(f" Write {form}.\n")
    if not form.endswith(".gguf"):
        assert hub_source(form)


@pytest.mark.parametrize(
    "form", ["{}", "hf://{}", "https://huggingface.co/{}", "hf.co/{}/tree/main"]
)
@pytest.mark.parametrize(("kind", "told"), [("datasets", "a dataset"), ("spaces", "a Space")])
def test_datasets_and_spaces_are_no_models(form, kind, told):
    given = form.format(f"{kind}/org/name")
    assert f"{given} is {told} on the Hub" in invoke("inspect", given, code=2).stderr


@pytest.mark.parametrize("address", ["https://example.com/org/name", "huggingface.co/papers/2309"])
def test_other_addresses_are_not_taken_for_a_model(address):
    with pytest.raises(UsageError, match=r"is a web address\. For a model .* write hf://org/name"):
        refuse_address(address)


def test_a_gguf_file_on_the_hub_is_named_where_none_is_taken():
    assert "is a GGUF file" in invoke("check-passkey", "hf://org/name/x.gguf", code=3).stderr


def test_a_similar_name_is_suggested(tmp_path):
    write(tmp_path / "qwen3-8b" / "config.json", "{}")
    told = invoke("inspect", tmp_path / "qwen3-8B", code=3).stderr
    assert f"Did you mean {tmp_path / 'qwen3-8b'}?" in told


@pytest.mark.parametrize("command", ["convert", "bake", "finish"])
def test_swapped_source_and_output_are_noticed(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DEMO, "model")
    more = {"convert": ["--factor", "2"], "bake": [], "finish": ["--from", "model"]}[command]
    told = invoke(command, "new", "model", *more, code=2).stderr
    assert "SOURCE comes first: model new." in told
    write(Path("x.gguf"))
    if command != "finish":
        assert "SOURCE comes first: x.gguf new.gguf." in invoke(
            command, "new.gguf", "x.gguf", *more, code=2
        ).stderr  # fmt: skip


@pytest.mark.parametrize("out", ["hf://me/model", "https://huggingface.co/me/model"])
def test_an_output_on_the_hub_is_refused(out):
    assert "`push` sends it to the Hub afterwards" in invoke(
        "convert", DEMO, out, "--factor", "2", "--dry-run", code=2
    ).stderr  # fmt: skip


def test_a_checkpoint_is_not_written_under_the_name_of_a_gguf_file(tmp_path):
    out = tmp_path / "out.gguf"
    assert "convert_hf_to_gguf.py" in invoke("convert", DEMO, out, "--factor", 2, code=2).stderr
    assert not out.exists()
