"""`evaluate_passkey`: the whole of the command, as a function that prints nothing."""

import inspect
import json
from dataclasses import FrozenInstanceError, fields

import pytest

from support.program import invoke
from yarncli.cli.check_passkey import check_passkey
from yarncli.errors import CheckFailed, UsageError
from yarncli.evaluation.report import read_report
from yarncli.evaluation.session import PasskeyOptions, PasskeyWatch, evaluate_passkey

FEW = PasskeyOptions(lengths=(512, 256, 512), depths=3, trials=1, seed=3)


class Told(PasskeyWatch):
    """Notes what it is told."""

    def __init__(self):
        self.events = []

    def begin(self, grid, settings, answered):
        self.events.append(("begin", grid.lengths, [v.name for v in settings], answered))


def answers_told(progress):
    """Stage → prompts answered in the end and those there were to answer."""
    return {n.stage: (n.done, n.total) for n in progress
            if n.unit == "prompts" and n.stage != "Writing prompts"}  # fmt: skip


def test_it_is_what_the_command_does(demo, tmp_path, capsys):
    asked = [str(demo), "--lengths", "256,512", "--depths", "3", "--trials", "1", "--seed", "3",
             "--compare", "none,linear", "--json", "--out", tmp_path / "command.jsonl"]  # fmt: skip
    command = invoke("check-passkey", *asked)
    counted = []
    report = evaluate_passkey(
        demo,
        FEW,
        progress=counted.append,
        compare=("none", "linear"),
        out=tmp_path / "function.jsonl",
        dump_prompts=tmp_path / "prompts.jsonl",
    )
    assert report.to_json() == json.loads(command.stdout)
    assert answers_told(counted) == {"none": (6, 6), "linear": (6, 6)}
    assert capsys.readouterr() == ("", "")
    written = (tmp_path / "function.jsonl").read_text()
    assert written == (tmp_path / "command.jsonl").read_text()
    assert len((tmp_path / "prompts.jsonl").read_text().splitlines()) == 6


def test_fields_can_be_given_one_by_one_and_the_record_stays(demo):
    found = evaluate_passkey(str(demo), FEW, lengths=[300], depths=1)
    assert found.cells == evaluate_passkey(demo, lengths=[300], depths=1, trials=1, seed=3).cells
    assert FEW.lengths == (512, 256, 512)
    with pytest.raises(FrozenInstanceError):
        FEW.seed = 4
    with pytest.raises(TypeError, match="length"):
        evaluate_passkey(demo, length=300)


def test_a_run_is_gone_on_with(demo, tmp_path):
    out = tmp_path / "run.jsonl"
    whole = evaluate_passkey(demo, FEW, out=out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:4]))
    told, counted = Told(), []
    resumed = evaluate_passkey(demo, FEW, out=out, resume=True, watch=told, progress=counted.append)
    assert resumed.cells == whole.cells == read_report(out).cells
    assert told.events[-1] == ("begin", (256, 512), ["as it is"], 3)
    assert answers_told(counted) == {"Asking": (3, 3)}


def test_the_gate_is_a_result_that_can_be_asked(demo):
    report = evaluate_passkey(demo, lengths=[2048], depths=2, trials=1, min_accuracy=0.75)
    (low,) = report.failures["as it is"]
    assert (low.length, low.accuracy) == (2048, 0.0)
    with pytest.raises(CheckFailed, match=r"Accuracy is below 0\.75: 0\.00 at 2,048\."):
        report.require_accuracy()
    lenient = evaluate_passkey(demo, lengths=[2048], depths=2, trials=1)
    assert lenient.failures == {}
    lenient.require_accuracy()


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (None, {}, "Give MODEL"),
        ("org/model", {"resume": True}, "--resume needs --out"),
        ("org/model", {"control": True, "control_model": "x"}, "not both"),
        ("org/model", {"served_model": "x"}, "are for a server"),
        ("org/model", {"base_url": "http://localhost:1/v1", "compare": ["yarn"]}, "one RoPE"),
    ],
)
def test_contradictions_are_refused_before_anything_is_fetched(model, changes, message):
    told = Told()
    with pytest.raises(UsageError, match=message):
        evaluate_passkey(model, FEW, watch=told, progress=told.events.append, **changes)
    assert told.events == []


def test_the_command_has_the_same_options_with_the_same_defaults():
    command = {p.name: p.default for p in inspect.signature(check_passkey).parameters.values()}
    for name in ("model", "json", "plot"):
        del command[name]
    function = {field.name: getattr(PasskeyOptions(), field.name) for field in fields(FEW)}
    assert command.keys() == function.keys()
    assert {n: v or None for n, v in command.items()} == {n: v or None for n, v in function.items()}
