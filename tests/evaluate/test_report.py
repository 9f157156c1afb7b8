"""Intervals, the JSON contract, and the file that survives an interruption."""

import json

import pytest

from yarncli.errors import CheckFailed, CheckpointError, OutputError, UsageError
from yarncli.evaluate.passkey import require_accuracy
from yarncli.evaluate.report import (
    Cell,
    Report,
    ResultFile,
    read_report,
    summarise,
    wilson_interval,
)

SETTINGS = {"model": "m", "seed": 0, "device": "cpu", "variants": {"as it is": {}, "control": {}}}


def cell(length, trial, correct, depth=0.5):
    return Cell(length, depth, trial, "12345", " 12345", correct)


@pytest.mark.parametrize(
    ("correct", "trials", "low", "high"),
    [
        # statsmodels.stats.proportion.proportion_confint(method="wilson")
        (0, 10, 0.0, 0.27753279964),
        (5, 10, 0.23659309051, 0.76340690949),
        (10, 10, 0.72246720036, 1.0),
        (81, 263, 0.25528838, 0.36621006),
    ],
)
def test_wilson_interval(correct, trials, low, high):
    assert wilson_interval(correct, trials) == pytest.approx((low, high), abs=1e-6)


def test_accuracy_is_per_length():
    cells = [cell(512, 0, True), cell(256, 0, True), cell(512, 1, False), cell(256, 1, True)]
    results = summarise(cells)
    assert [(r.length, r.accuracy, r.trials) for r in results] == [(256, 1.0, 2), (512, 0.5, 2)]


def test_json_contract():
    report = Report(SETTINGS, {"as it is": [cell(256, 0, True)], "control": [cell(256, 0, False)]})
    document = json.loads(json.dumps(report.to_json()))
    assert document["schema_version"] == 1
    (length,) = document["lengths"]
    assert {"length", "accuracy", "interval", "trials"} == set(length)
    assert length["accuracy"] == 1.0
    assert document["cells"] == [
        {"length": 256, "depth": 0.5, "trial": 0, "key": "12345", "text": " 12345",
         "correct": True}
    ]  # fmt: skip
    assert document["settings"]["model"] == "m"
    assert document["variants"]["control"]["lengths"][0]["accuracy"] == 0.0


def test_a_torn_file_goes_on_where_it_was_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, SETTINGS, resume=False) as file:
        file.add("as it is", cell(256, 0, True))
        file.add("as it is", cell(256, 1, False))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-5])
    with ResultFile(path, SETTINGS, resume=True) as file:
        assert file.done == {"as it is": [cell(256, 0, True)], "control": []}
        file.add("as it is", cell(256, 1, False))
    assert path.read_bytes() == whole
    assert read_report(path).cells["as it is"] == [cell(256, 0, True), cell(256, 1, False)]


@pytest.mark.parametrize("cut", [0, 7])
def test_a_file_torn_in_its_first_line_is_refused_or_begun(tmp_path, cut):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, SETTINGS, resume=False):
        pass
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="not a result file"):
        ResultFile(path, SETTINGS, resume=True)


def test_resume_refuses_other_settings_but_not_another_device(tmp_path):
    path = tmp_path / "run.jsonl"
    ResultFile(path, SETTINGS, resume=False).close()
    ResultFile(path, {**SETTINGS, "device": "cuda"}, resume=True).close()
    with pytest.raises(UsageError, match=r"other settings \(seed: 0 there, 1 now\)"):
        ResultFile(path, {**SETTINGS, "seed": 1}, resume=True)
    with pytest.raises(UsageError, match="--resume"):
        ResultFile(path, SETTINGS, resume=False)


@pytest.mark.parametrize(
    "content",
    [
        b"not json\n",
        b"[]\n",
        b'{"schema_version": 2, "settings": {}}\n',
        b'{"schema_version": 1, "settings": {}}\n{"variant": "x"}\n',
        b'{"schema_version": 1, "settings": {}}\n{"variant": "x", "length": "256", "depth": 0.5, '
        b'"trial": 0, "key": "1", "text": "", "correct": true}\n',
        b"\xff\xfe\n",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a result file"):
        read_report(path)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        ResultFile(tmp_path / "no" / "run.jsonl", SETTINGS, resume=False)


def test_the_gate_names_every_length_that_is_too_low():
    cells = [cell(256, 0, True), cell(512, 0, True), cell(512, 1, False), cell(1024, 0, False)]
    require_accuracy(cells[:2], 1.0)
    with pytest.raises(CheckFailed, match=r"below 0\.75: 0\.50 at 512, 0\.00 at 1,024"):
        require_accuracy(cells, 0.75)
