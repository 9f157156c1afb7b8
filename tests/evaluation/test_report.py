"""Intervals, the JSON contract, and the file that survives an interruption."""

import json
import subprocess
import sys

import pytest

from yarncli.errors import CheckFailed, CheckpointError, UsageError
from yarncli.evaluation.report import (
    Cell,
    PasskeyReport,
    effective_length,
    read_cell,
    read_report,
    summarise,
    wilson_interval,
)
from yarncli.evaluation.result_file import ResultFile

SETTINGS = {"model": "m", "seed": 0, "device": "cpu", "variants": {"as it is": {}, "control": {}}}


def cell(length, trial, correct, depth=0.5, task="passkey"):
    return Cell(
        length=length, depth=depth, trial=trial, key="12345", text=" 12345", correct=correct,
        task=task,
    )  # fmt: skip


def run_of(**correct):
    """Cells of runs of 40 prompts: `n512=38` is 38 of 40 at 512 tokens."""
    return [
        cell(int(name[1:]), trial, trial < right)
        for name, right in correct.items()
        for trial in range(40)
    ]


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
    report = PasskeyReport(
        SETTINGS, {"as it is": [cell(256, 0, True)], "control": [cell(256, 0, False)]}
    )
    document = json.loads(json.dumps(report.to_json()))
    assert document["schema_version"] == 1
    (length,) = document["lengths"]
    assert {"length", "accuracy", "interval", "trials"} == set(length)
    assert length["accuracy"] == 1.0
    assert document["cells"] == [
        {"length": 256, "depth": 0.5, "trial": 0, "key": "12345", "text": " 12345",
         "correct": True, "task": "passkey"}
    ]  # fmt: skip
    (task,) = document["tasks"]
    assert task == {"task": "passkey", **length}
    assert document["effective_length"] is None
    assert document["settings"]["model"] == "m"
    assert document["variants"]["control"]["lengths"][0]["accuracy"] == 0.0


def test_tasks_have_a_result_per_length_in_the_order_asked():
    cells = [cell(512, 0, True, task="tracking"), cell(256, 0, False, task="multikey"),
             cell(256, 1, True, task="tracking"), cell(256, 2, False, task="tracking"),
             cell(256, 0, True)]  # fmt: skip
    settings = {**SETTINGS, "tasks": ["tracking", "passkey", "multikey"]}
    report = PasskeyReport(settings, {"as it is": cells}, min_accuracy=0.5)
    assert [(r.task, r.length, r.accuracy, r.trials) for r in report.tasks()] == [
        ("tracking", 256, 0.5, 2),
        ("tracking", 512, 1.0, 1),
        ("passkey", 256, 1.0, 1),
        ("multikey", 256, 0.0, 1),
    ]
    # What is said of the passkey is of the passkey only.
    assert [(r.length, r.accuracy) for r in report.lengths()] == [(256, 1.0)]
    with pytest.raises(CheckFailed, match=r"below 0\.5: multikey 0\.00 at 256\."):
        report.require_accuracy()


@pytest.mark.parametrize(
    ("cells", "length", "note"),
    [
        # 38/40: .835 – .986, 40/40: .912 – 1, 39/40: .871 – .996, 34/40: .709 – .929
        (run_of(n128=40, n256=40, n512=39, n1024=38), 512, None),
        (run_of(n128=38, n256=40, n512=39, n1024=38), 1024, None),  # .85 of .95 is .8075
        (run_of(n128=40, n256=34, n512=40), 512, "but not at 256"),
        (
            run_of(n128=34, n256=34),
            None,
            "too few trials: even 128 tokens do not surely reach 85 % of",
        ),  # .709 < .7225
        (run_of(n256=40, n512=40), 512, None),  # the window itself is inside it
        (run_of(n512=40, n1024=40), None, "no length within the original window"),
        (run_of(n128=0, n512=0), None, "nothing is found in 128 tokens either"),
        (run_of(n128=40, n512=40)[:-11], None, "too few trials"),
    ],
)
def test_effective_length(cells, length, note):
    found = effective_length(cells, original=256)
    assert found.length == length
    assert found.note is None if note is None else note in found.note
    settings = {"variants": {"x": {"original": 256, "window": 2048}}}
    assert PasskeyReport(settings, {"x": cells}).to_json()["effective_length"] == length


def test_all_tasks_count_for_the_effective_length():
    cells = [cell(n, t, n == 128, task=task) for n in (128, 256) for t in range(15)
             for task in ("passkey", "multikey")]  # fmt: skip
    assert effective_length(cells, 256).length == 128
    assert "too few" in effective_length(cells[:-1], 256).note


def test_a_file_from_before_there_were_tasks_is_read_and_resumed(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(
        '{"schema_version": 1, "settings": {"seed": 0, "variants": {"as it is": {}}}}\n'
        '{"variant": "as it is", "length": 256, "depth": 0.5, "trial": 0, "key": "12345", '
        '"text": " 12345", "correct": true}\n'
    )
    assert read_report(path).cells["as it is"] == [cell(256, 0, True)]
    settings = {"seed": 0, "variants": {"as it is": {}}, "tasks": ["passkey"]}
    with ResultFile(path, "passkey", settings, read_cell, resume=True) as file:
        assert file.done["as it is"] == [cell(256, 0, True)]
        file.add("as it is", cell(256, 1, True))
    assert read_report(path).cells["as it is"][1].task == "passkey"
    with pytest.raises(UsageError, match="tasks"):
        ResultFile(path, "passkey", {**settings, "tasks": ["multikey"]}, read_cell, resume=True)


def test_a_torn_file_goes_on_where_it_was_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=False) as file:
        file.add("as it is", cell(256, 0, True))
        file.add("as it is", cell(256, 1, False))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-5])
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=True) as file:
        assert file.done == {"as it is": [cell(256, 0, True)], "control": []}
        file.add("as it is", cell(256, 1, False))
    assert path.read_bytes() == whole
    assert read_report(path).cells["as it is"] == [cell(256, 0, True), cell(256, 1, False)]


def test_a_file_torn_in_its_first_line_is_refused_and_an_empty_one_begun(tmp_path):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=False) as file:
        file.add("as it is", cell(256, 0, True))
    whole = path.read_bytes()
    path.write_bytes(whole[:7])
    with pytest.raises(CheckpointError, match="not a result file"):
        ResultFile(path, "passkey", SETTINGS, read_cell, resume=True)
    path.write_bytes(b"")
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=True) as file:
        file.add("as it is", cell(256, 0, True))
    assert path.read_bytes() == whole


def test_a_run_without_an_answer_leaves_no_file(tmp_path):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=True) as file:
        assert path.exists()
        assert file.done == {}
    assert not path.exists()
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=True) as file:
        file.add("as it is", cell(256, 0, True))
    whole = path.read_bytes()
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=True):
        pass
    assert path.read_bytes() == whole


FULL_DISK = """
import resource, sys
from pathlib import Path
from yarncli.errors import OutputError
from yarncli.evaluation.report import Cell, read_cell
from yarncli.evaluation.result_file import ResultFile

path = Path(sys.argv[1])
before, room = int(sys.argv[2]), int(sys.argv[3])


def cell(trial):
    return Cell(length=256, depth=0.5, trial=trial, key="12345", text="", correct=True)


try:
    with ResultFile(path, "passkey", {"seed": 0}, read_cell, resume=True) as file:
        for trial in range(before):
            file.add("x", cell(trial))
        # From here on the system takes no more bytes than this, as on a disk that fills up.
        size = path.stat().st_size + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        file.add("x", cell(before))
except OutputError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_keeps_what_is_complete(tmp_path, room):
    path = tmp_path / "run.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path, "2", str(room)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "Cannot write" in done.stdout
    assert not done.stderr
    assert len(read_report(path).cells["x"]) == 2
    with ResultFile(path, "passkey", {"seed": 0}, read_cell, resume=True) as file:
        file.add("x", cell(256, 2, True))
    assert [c.trial for c in read_report(path).cells["x"]] == [0, 1, 2]


def test_resume_refuses_other_settings_but_not_another_device(tmp_path):
    path = tmp_path / "run.jsonl"
    with ResultFile(path, "passkey", SETTINGS, read_cell, resume=False) as file:
        file.add("as it is", cell(256, 0, True))
    ResultFile(path, "passkey", {**SETTINGS, "device": "cuda"}, read_cell, resume=True).close()
    with pytest.raises(UsageError, match=r"other settings \(seed: 0 there, 1 now\)"):
        ResultFile(path, "passkey", {**SETTINGS, "seed": 1}, read_cell, resume=True)
    with pytest.raises(UsageError, match="--resume"):
        ResultFile(path, "passkey", SETTINGS, read_cell, resume=False)


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
    with pytest.raises(UsageError, match="does not exist"):
        ResultFile(tmp_path / "no" / "run.jsonl", "passkey", SETTINGS, read_cell, resume=False)


def test_the_gate_names_every_length_and_setting_that_is_too_low():
    good = [cell(256, 0, True)]
    low = [cell(256, 0, True), cell(512, 0, True), cell(512, 1, False), cell(1024, 0, False)]
    PasskeyReport(SETTINGS, {"as it is": good}, min_accuracy=1.0).require_accuracy()
    with pytest.raises(CheckFailed, match=r"is below 0\.75: 0\.50 at 512, 0\.00 at 1,024\."):
        PasskeyReport(SETTINGS, {"as it is": low}, min_accuracy=0.75).require_accuracy()
    with pytest.raises(CheckFailed, match=r"below 0\.75: yarn 0\.50 at 512, .*; ntk 0\.50 at"):
        PasskeyReport(
            SETTINGS, {"none": low, "yarn": low, "ntk": low}, min_accuracy=0.75
        ).require_accuracy()


def test_the_gate_lets_what_is_only_compared_with_be_low():
    good, bad = [cell(512, 0, True)], [cell(512, 0, False)]
    PasskeyReport(
        SETTINGS, {"none": bad, "yarn": good, "control": bad}, min_accuracy=1.0
    ).require_accuracy()
    with pytest.raises(CheckFailed):  # alone, it is what is judged
        PasskeyReport(SETTINGS, {"none": bad}, min_accuracy=0.5).require_accuracy()


def test_no_accuracy_reaches_a_minimum_that_is_no_number():
    with pytest.raises(CheckFailed):
        PasskeyReport(
            SETTINGS, {"as it is": [cell(512, 0, True)]}, min_accuracy=float("nan")
        ).require_accuracy()
