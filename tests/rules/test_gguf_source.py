"""`check` on GGUF files: found by the command, mended in place, held against a checkpoint."""

from __future__ import annotations

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.gguf_files import demo_keys, read_gguf, write_gguf
from support.gguf_models import write_gguf as write_split
from support.program import invoke
from yarncli.errors import UsageError
from yarncli.gguf.facts import Typed, typed
from yarncli.gguf.runtime import run
from yarncli.rules.check import check

YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 256,
}  # fmt: skip
CONFIG = {
    "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "head_dim": 32,
    "num_hidden_layers": 3, "max_position_embeddings": 2048, "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256},
}  # fmt: skip


def write(path: Path, **keys: Any) -> Path:
    found = {**demo_keys(), **{f"llama.{k}": typed(k, v) for k, v in keys.items()}}
    return write_gguf(path, found, {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)})


def rules(path: Path | list[Path], **options: Any) -> list[str]:
    return [finding.rule.id for finding in check(path, **options).findings]


def test_findings_and_exit_codes(tmp_path: Path) -> None:
    assert invoke("check", write(tmp_path / "plain.gguf"), code=0).output == ""
    path = write(tmp_path / "low.gguf", **YARN)
    told = invoke("check", path, code=0).output
    assert f"{path}: warning[gguf-context-not-raised]" in told
    assert "(--fix corrects it)" in told
    invoke("check", path, "--strict", code=1)
    assert rules(path, ignore=["gguf-context-not-raised"]) == []
    bad = write(tmp_path / "bad.gguf", **{"rope.scaling.type": "dynamic"})
    found = json.loads(invoke("check", bad, path, "--json", code=1).stdout)
    assert [f["rule"] for f in found["findings"]] == [
        "gguf-type-unknown",
        "gguf-context-not-raised",
    ]
    assert "rope.scaling.type" in invoke("check", bad, "--format", "sarif", code=1).output
    (tmp_path / "cut.gguf").write_bytes(bad.read_bytes()[:60])
    assert rules(tmp_path / "cut.gguf") == ["unreadable"]
    assert rules(tmp_path / "none.gguf") == ["unreadable"]


def test_what_is_certain_is_mended_in_place_and_comes_back(tmp_path: Path) -> None:
    """A type that is no float, and with the right one a window that is not raised."""
    keys = {**demo_keys(), **{f"llama.{k}": typed(k, v) for k, v in YARN.items()}}
    keys["llama.rope.scaling.factor"] = Typed("u32", 8)
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    path = write_gguf(tmp_path / "m.gguf", keys, arrays)
    before = sha256(path.read_bytes()).hexdigest()
    report = check(path, fix=True)
    assert not report.findings
    assert [(c.file, c.path[0], c.before, c.after) for c in report.changes] == [
        (str(path), "llama.context_length", 256, 2048),
        (str(path), "llama.rope.scaling.factor", 8, 8.0),
    ]
    assert read_gguf(path).keys["llama.rope.scaling.factor"] == Typed("f32", 8.0)
    assert read_gguf(path).get("context_length") == 2048
    assert invoke("check", path, "--fix", code=0).output == ""
    invoke("convert", path, "--undo", code=0)
    assert sha256(path.read_bytes()).hexdigest() == before
    assert "1 file changed" in invoke("check", path, "--fix", code=1).output


def test_what_cannot_be_mended_in_place_is_written_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", **YARN)
    (tmp_path / "other-name.gguf").hardlink_to(path)
    told = " ".join(invoke("check", path, "--fix", code=3).output.split())
    (command,) = re.findall(r"yarncli (convert .*)", told)
    out = tmp_path / "out.gguf"
    words = [str(out) if word == "OUT.gguf" else word for word in shlex.split(command)]
    invoke(*words, code=0)
    assert rules(out) == []
    assert read_gguf(out).get("context_length") == 2048
    assert run(read_gguf(out)) == run(read_gguf(path).changed(
        {"llama.context_length": Typed("u32", 2048)}
    ))  # fmt: skip
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    keys = {**demo_keys(), "llama.context_length": Typed("u64", 256)}
    plain = write_gguf(tmp_path / "p.gguf", keys, arrays)
    (tmp_path / "plain.gguf").hardlink_to(plain)
    assert "mend the copy" in " ".join(invoke("check", plain, "--fix", code=3).output.split())


def test_a_file_is_held_against_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    same = write(tmp_path / "same.gguf", **YARN, context_length=2048)
    assert rules(same, against=tmp_path) == []
    other = write(tmp_path / "other.gguf", context_length=2048)
    told = invoke("check", same, other, "--against", tmp_path / "config.json", code=1).output
    assert "gguf-differs" in told
    assert "the frequency of pair" in told
    assert "the attention factor is 1, not 1.2079" in told
    with pytest.raises(UsageError, match="--against is for GGUF"):
        check(tmp_path / "config.json", against=tmp_path)
    # The repair that the difference calls for.
    invoke("convert", other, tmp_path / "mended.gguf", "--from", tmp_path, code=0)
    assert rules(tmp_path / "mended.gguf", against=tmp_path) == []


def test_a_file_beside_a_checkpoint_is_held_against_it(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "long"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write(folder / "m.gguf", **YARN, context_length=2048)
    write(folder / "other.gguf", context_length=2048)
    write(folder.parent / "alone.gguf", context_length=2048)
    for place in (folder, folder.parent):
        found = [f for f in check(place).findings if f.file.endswith(".gguf")]
        assert [(Path(f.file).name, f.rule.id) for f in found] == [("other.gguf", "gguf-differs")]
        assert f"than {folder}:" in found[0].message
    # A file that is named itself is compared with nothing, unless its directory is named, too.
    assert rules(folder / "other.gguf") == []
    assert "gguf-differs" in rules([folder / "other.gguf", folder])
    for name in ("other.gguf", "config.json"):
        assert "gguf-differs" in rules(folder / name, whole=True)
    assert rules(folder.parent / "alone.gguf", whole=True) == []
    # A fix of the config comes first: only then the window is that of `m.gguf`.
    (folder / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 256}))
    told = [f for f in check(folder, ignore=["legacy-only"]).findings if "m.gguf" in f.file]
    assert "the window is 2,048, not 256 tokens" in told[0].message
    assert rules(folder, fix=True, ignore=["legacy-only"]) == ["gguf-differs"]
    # Nothing can be compared with a config that cannot be read; that is told once.
    (folder / "config.json").write_text("{")
    assert [f.rule.id for f in check(folder).findings] == ["unreadable"]


def test_a_file_that_was_not_fetched_is_a_note(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "note[lfs-pointer]" in invoke("check", path, code=0).output
    assert "error[lfs-pointer]" in invoke("check", path, "--require-weights", code=1).output
    assert rules(path, ignore=["lfs-pointer"]) == []


def test_files_of_no_language_model_pass(tmp_path: Path) -> None:
    keys = {**demo_keys(), "general.type": Typed("str", "mmproj")}
    path = write_gguf(tmp_path / "mm.gguf", keys, {"x": np.ones(4, np.float32)})
    assert rules(path) == []
    assert rules(write_gguf(tmp_path / "vocab.gguf", demo_keys(), {})) == []


def test_a_split_model_counts_the_tensors_of_all_files(tmp_path: Path) -> None:
    first = write_split(tmp_path / "m.gguf", split=3)
    assert "gguf-split-count" not in rules(first)


def test_the_hub_and_blobs(tmp_path: Path, minihub: Any) -> None:
    path = write(tmp_path / "m.gguf", **YARN)
    minihub.add_repo("org/name", {"m.gguf": path.read_bytes()})
    assert rules("hf://org/name/m.gguf") == ["gguf-context-not-raised"]
    with pytest.raises(UsageError, match="works on local files"):
        check("hf://org/name/m.gguf", fix=True)
    assert rules(path.rename(tmp_path / "sha256-01")) == ["gguf-context-not-raised"]
