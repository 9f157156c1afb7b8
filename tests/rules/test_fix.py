"""--fix: the smallest diff, nothing ambiguous, nothing left to mend."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from yarncli.checkpoint.in_place import changing
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.jsontext.text import JsonText
from yarncli.rules.catalogue import RULES
from yarncli.rules.check import check as check_all
from yarncli.rules.finding import Edit, Finding
from yarncli.rules.fix import mend
from yarncli.rules.sources import check_documents

BASE = """{
    "model_type": "llama",
    "hidden_size": 4096,
    "max_position_embeddings": %(maximum)s,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    %(rest)s,
    "initializer_range": 2e-2
}
"""


def config(rest: str, maximum: int = 32768) -> str:
    return BASE % {"rest": rest, "maximum": maximum}


YARN = '"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192'
LONG = f'"rope_type": "longrope", "short_factor": {[1.0] * 64}, "long_factor": {[2.0] * 64}'
THETA = '"rope_theta": 500000.0'
ORIGINAL = '"original_max_position_embeddings": 8192'

# Rule, the file before, lines removed, lines added.
CASES = [
    (
        "dual-chunk",
        config(
            THETA + ',\n    "dual_chunk_attention_config": '
            '{"chunk_size": 8192, "original_max_position_embeddings": 8192}'
        ),
        [
            '    "max_position_embeddings": 32768,',
            '    "dual_chunk_attention_config": '
            '{"chunk_size": 8192, "original_max_position_embeddings": 8192},',
        ],
        ['    "max_position_embeddings": 8192,'],
    ),
    (
        "type-old",
        config(
            THETA
            + ",\n    "
            + ORIGINAL
            + ",\n    "
            + LONG.replace('"rope_type": "longrope", ', '"rope_scaling": {"type": "su", ')
            + "}"
        ).replace("llama", "phi3"),
        [f'    "rope_scaling": {{"type": "su", {LONG.partition(", ")[2]}}},'],
        [
            '    "rope_scaling": {"type": "longrope", '
            f'{LONG.partition(", ")[2]}, "original_max_position_embeddings": 8192}},'
        ],
    ),
    (
        "factor-integer",
        config(THETA + ', "rope_scaling": {"rope_type": "linear", "factor": 4}'),
        ['    "rope_theta": 500000.0, "rope_scaling": {"rope_type": "linear", "factor": 4},'],
        ['    "rope_theta": 500000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0},'],
    ),
    (
        "length-float",
        config(THETA).replace(
            '"max_position_embeddings": 32768', '"max_position_embeddings": 32768.0'
        ),
        ['    "max_position_embeddings": 32768.0,'],
        ['    "max_position_embeddings": 32768,'],
    ),
    (
        "length-mismatch",
        config(THETA + f', "rope_scaling": {{{YARN}}}', 8192),
        ['    "max_position_embeddings": 8192,'],
        ['    "max_position_embeddings": 32768,'],
    ),
    (
        "length-mismatch",
        config(f'{THETA},\n    "rope_scaling": {{{YARN}}}', 40960)
        .replace("llama", "qwen3")
        .replace("8192", "32768"),
        ['    "max_position_embeddings": 40960,'],
        ['    "max_position_embeddings": 131072,'],
    ),
    (
        "max-raised",
        config(f'{THETA}, "rope_scaling": {{"rope_type": "linear", "factor": 4.0, {ORIGINAL}}}'),
        ['    "max_position_embeddings": 32768,'],
        ['    "max_position_embeddings": 8192,'],
    ),
    (
        "theta-lost",
        config(f'"rope_parameters": {{{YARN}, {THETA}}},\n    "rope_scaling": {{{YARN}}}'),
        ['    "initializer_range": 2e-2'],
        ['    "initializer_range": 2e-2,', '    "rope_theta": 500000.0'],
    ),
    (
        "v5-only",
        config(f'"rope_parameters": {{"rope_type": "default", {THETA}}}'),
        ['    "initializer_range": 2e-2'],
        ['    "initializer_range": 2e-2,', '    "rope_theta": 500000.0'],
    ),
    (
        "stale-length",
        config(f'{THETA},\n    "seq_length": 4096'),
        ['    "seq_length": 4096,'],
        ['    "seq_length": 32768,'],
    ),
    (
        "original-missing",
        config(f'{THETA},\n    "rope_scaling": {{{LONG}, {ORIGINAL}}}'),
        ['    "initializer_range": 2e-2'],
        ['    "initializer_range": 2e-2,', f"    {ORIGINAL}"],
    ),
]


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    diff = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [d[2:] for d in diff if d[0] == "-"], [d[2:] for d in diff if d[0] == "+"]


@pytest.mark.parametrize(
    ("rule", "before", "removed", "added"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_diff_is_minimal_and_the_finding_gone(
    tmp_path: Path, rule: str, before: str, removed: list[str], added: list[str], newline: str
) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(before.replace("\n", newline).encode())
    assert rule in {f.rule.id for f in check_all(str(file)).findings if f.edit}
    report = check_all(str(file), fix=True)
    after = file.read_bytes().decode()
    assert changed_lines(before, after.replace(newline, "\n")) == (removed, added)
    assert after.count(newline) == after.count("\n")
    assert not [f for f in report.findings if f.rule.id == rule]
    assert not [f for f in report.findings if f.severity != "note"]
    again = check_all(str(file), fix=True)
    assert again.changes == ()
    assert [f.rule.id for f in again.findings] == [f.rule.id for f in report.findings]


def test_every_fixable_rule_has_a_case() -> None:
    # below, in test_weights, in test_places and in test_gguf_rules
    elsewhere = {"tokenizer-limit", "index-size", "index-missing", "unread-block"}
    fixable = {r.id for r in RULES.values() if r.fixable and not r.id.startswith("gguf-")}
    assert fixable == {c[0] for c in CASES} | elsewhere


@pytest.mark.parametrize(
    "text",
    [
        # Which of the three numbers is wrong?
        config(THETA + f', "rope_scaling": {{{YARN}}}', 16384),
        # Which θ?
        config(THETA + ', "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}'),
        # Which type?
        config(THETA + f', "rope_scaling": {{{YARN}, "type": "linear"}}'),
        # Which spelling?
        config(
            THETA + f', "rope_scaling": {{{YARN}}}, "rope_parameters": '
            f"{{{YARN.replace('4.0', '2.0')}}}"
        ),
        # Raised to what?
        config(
            f'{THETA}, "rope_scaling": {{"rope_type": "linear", "factor": 4.0, {ORIGINAL}}}', 16384
        ),
        # Original length unknown.
        config(THETA + ', "rope_scaling": {"rope_type": "yarn", "type": "yarn", "factor": 4.0}'),
    ],
)
def test_what_is_ambiguous_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    report = check_all(str(file), fix=True)
    assert file.read_text() == text
    assert report.changes == ()
    assert report.count("error") >= 1


def test_v5_only_yarn_becomes_the_same_model_in_both_spellings(tmp_path: Path) -> None:
    block = f'{{{YARN}, {THETA}, "beta_fast": 16.0}}'
    file = tmp_path / "config.json"
    file.write_text(config(f'"rope_parameters": {block}'))
    report = check_all(str(file), fix=True)
    assert report.findings == ()
    written = json.loads(file.read_text())
    parameters = written["rope_parameters"]
    assert written["rope_theta"] == parameters.pop("rope_theta")
    assert written["rope_scaling"] == {**parameters, "type": "yarn"}


def test_the_tokenizer_is_raised(write: Callable[..., Path]) -> None:
    model = {"model_type": "llama", "max_position_embeddings": 4096, "rope_theta": 1e4}
    directory = write(model, tokenizer_config={"b": 1, "model_max_length": 2048})
    report = check_all(str(directory), fix=True)
    assert report.findings == ()
    text = (directory / "tokenizer_config.json").read_text()
    assert text == '{\n  "b": 1,\n  "model_max_length": 4096\n}\n'
    assert [c.describe() for c in report.changes] == [
        f"{directory}/tokenizer_config.json: model_max_length 2048 → 4096"
    ]


def test_ignored_rules_are_not_mended(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(config(f'{THETA},\n    "seq_length": 4096'))
    before = file.read_bytes()
    assert check_all(str(file), fix=True, ignore={"stale-length"}).findings == ()
    assert file.read_bytes() == before


def test_several_findings_are_mended_together(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    block = YARN.replace("4.0", "4")
    file.write_text(config(f'"seq_length": 10, "rope_parameters": {{{block}, {THETA}}}', 8192))
    report = check_all(str(file), fix=True)
    assert report.findings == ()
    written = json.loads(file.read_text())
    assert written["max_position_embeddings"] == written["seq_length"] == 32768
    assert written["rope_scaling"]["factor"] == 4.0
    assert type(written["rope_scaling"]["factor"]) is float


def test_an_edit_that_would_copy_an_error_waits_for_its_mending(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    block = f'{{"rope_type": "linear", "factor": 4, {THETA}}}'
    file.write_text(config(f'"rope_parameters": {block}'))
    first = check_all(str(file)).findings
    assert [f.rule.id for f in first] == ["v5-only", "factor-integer"]
    assert check_all(str(file), fix=True).findings == ()
    assert file.read_text().count('"factor": 4.0') == 2


def test_one_rule_mends_one_place_once_for_each_spelling(tmp_path: Path) -> None:
    # Phi-3's class renames yarn, and reads the length outside the block whatever the spelling.
    model = {
        "model_type": "phi3", "hidden_size": 3072, "num_attention_heads": 32,
        "num_hidden_layers": 32, "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096, "rope_theta": 1e4, "rope_scaling": {},
        "rope_parameters": {"rope_type": "yarn"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(model))
    assert check_all(str(tmp_path), fix=True).changes
    assert check_all(str(tmp_path), fix=True).changes == ()
    written = json.loads((tmp_path / "config.json").read_text())
    for spelling in ("rope_scaling", "rope_parameters"):
        assert written[spelling]["original_max_position_embeddings"] == 4096


def test_an_edit_that_brings_an_error_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(config(f'{THETA}, "seq_length": 4096'))
    checkpoint = open_checkpoint(str(file))
    documents = {"config.json": checkpoint.config()}

    def look(files: Mapping[str, JsonText]) -> list[Finding]:
        return check_documents(checkpoint, files)

    (found,) = look(documents)
    worse = replace(found, edit=Edit({("rope_theta",): "much"}))
    better = replace(found, edit=Edit({("rope_theta",): 1e6}))
    before = file.read_bytes()
    with changing(tmp_path) as directory:
        assert mend(checkpoint, documents, [worse], look, directory=directory)[1] == ()
        assert file.read_bytes() == before
        _, changes = mend(checkpoint, documents, [better], look, directory=directory)
    assert 1e6 in [change.after for change in changes]


def test_a_shared_file_is_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text(config(f'{THETA}, "seq_length": 4096'))
    before = real.read_bytes()
    link = tmp_path / "config.json"
    link.symlink_to(real)
    with pytest.raises(CheckpointError, match="symbolic link"):
        check_all(str(link), fix=True)
    link.unlink()
    os.link(real, link)
    with pytest.raises(CheckpointError, match="hard links"):
        check_all(str(link), fix=True)
    assert real.read_bytes() == before


def test_an_unpaired_surrogate_is_written_as_an_escape(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    text = config(f'"rope_parameters": {{{YARN}, {THETA}, "odd": "\\ud800"}}')
    file.write_text(text)
    report = check_all(str(file), fix=True)
    assert "v5-only" not in {f.rule.id for f in report.findings}
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["rope_scaling"]["odd"] == written["rope_parameters"]["odd"] == "\ud800"


def test_fix_leaves_the_hub_alone(minihub: Any) -> None:
    minihub.add_repo("org/model", {"config.json": config(f'{THETA}, "seq_length": 9').encode()})
    with pytest.raises(UsageError, match="on the Hub"):
        check_all("hf://org/model", fix=True)
    (finding,) = check_all("hf://org/model").findings
    assert finding.rule.id == "stale-length"
