"""yarncli.json survives a round trip, old files are read, and a hostile one gives one sentence."""

import ast
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import PACKAGE, snapshot
from support.program import invoke
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.conversion.convert import convert
from yarncli.conversion.undo import undo
from yarncli.demo import write_demo
from yarncli.errors import CheckpointError, ConfigError
from yarncli.history import FILE_NAME, History, Step, describe_source, read_history
from yarncli.history.weights import Baked
from yarncli.jsontext.changes import ABSENT, FieldChange
from yarncli.jsontext.fields import Fields
from yarncli.planning.plan import make_plan
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target

OLD = Path(__file__).parent / "fixtures" / "0.1.0"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
GEMMA = {
    **LLAMA,
    "num_hidden_layers": 6,
    "model_type": "gemma3_text",
    "head_dim": 64,
    "sliding_window": 512,
}
FACTORS = {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}


def planned(method: str = "yarn", base: dict[str, Any] = LLAMA, **options: Any) -> RopePlan:
    return make_plan(read_rope(base), Target(method, factor=4.0, options=options))


def change(path: tuple[str | int, ...], before: Any, after: Any) -> FieldChange:
    return FieldChange(file="config.json", path=path, before=before, after=after)


STEPS = (
    Step(
        command="convert",
        source="org/name@" + "a" * 40,
        plan=planned(attention_factor=1.25, truncate=False),
        replaced=(
            change(("rope_scaling",), None, {}),
            change(("layers", 0, "é"), ABSENT, 1),
            change(("gone",), 3, ABSENT),
        ),
        config_only=True,
        options={"factor": 4.0, "truncate": False, "for": ["vllm", "sglang"]},
    ),
    Step(
        command="bake",
        source="model",
        tool_version="9",
        baked=Baked(
            form="residual",
            side="q",
            layout="plain",
            attention_factor={"model": 1.125, "other": 2.0},
            adapter=True,
        ),
    ),
)


def test_round_trip(make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint()
    assert read_history(open_checkpoint(str(model))) == History()
    document = json.loads(History(STEPS).to_bytes())
    assert History.from_json(document, FILE_NAME) == History(STEPS)
    (model / FILE_NAME).write_bytes(History(STEPS).to_bytes())
    # The config has another θ than the plan: of the conversion nothing is believed.
    found = read_history(open_checkpoint(str(model)))
    assert (found.steps, found.unbelieved) == (STEPS[1:], STEPS)


def test_a_record_is_believed_while_the_config_bears_it_out(demo: Path, tmp_path: Path) -> None:
    convert(demo, tmp_path / "out", method="ntk", factor=2.0)
    config = tmp_path / "out" / "config.json"
    text = config.read_text()
    assert read_history(open_checkpoint(tmp_path / "out")).plan is not None
    config.write_text(text.replace('"rope_theta": ', '"rope_theta": 1'))
    assert read_history(open_checkpoint(tmp_path / "out")).plan is None
    with pytest.raises(CheckpointError, match=r"not what yarncli\.json records"):
        undo(tmp_path / "out")
    config.write_text(
        text.replace('"max_position_embeddings": 512', '"max_position_embeddings": 600')
    )
    with pytest.raises(
        CheckpointError, match="max_position_embeddings was changed after the conversion"
    ):
        undo(tmp_path / "out")
    config.write_text(text)
    undo(tmp_path / "out")


@pytest.mark.parametrize("file", [".bashrc", "../config.json", "sub/config.json", "README.md"])
def test_a_record_restores_only_what_a_conversion_changes(demo: Path, file: str) -> None:
    convert(demo, in_place=True, factor=2.0)
    document = json.loads((demo / FILE_NAME).read_text())
    document["steps"][0]["replaced"][0]["file"] = file
    (demo / FILE_NAME).write_text(json.dumps(document))
    before = snapshot(demo)
    with pytest.raises(CheckpointError, match="no step of yarncli does"):
        undo(demo)
    assert snapshot(demo) == before


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("yarn", {"beta_fast": 16.0, "beta_slow": 2.0}),
        ("ntk", {"rope_theta": 1e6}),
        ("ntk-by-parts", {}),
        ("linear", {}),
        ("dynamic", {}),
        ("llama3", {"low_freq_factor": 2.0}),
        ("longrope", FACTORS),
    ],
)
@pytest.mark.parametrize("base", [LLAMA, GEMMA], ids=["flat", "nested"])
def test_a_plan_is_read_as_it_was_written(
    method: str, options: dict[str, Any], base: dict[str, Any]
) -> None:
    plan = planned(method, base, **options)
    assert RopePlan.from_json(Fields(json.loads(json.dumps(plan.to_json())))) == plan


def test_keys_that_are_only_carried_stay_in_a_plan() -> None:
    plan = planned()
    (scope,) = plan.scopes
    extra = {"mrope_section": [1, 2, 3], "deep": {"a": None}}
    carried = replace(plan, scopes=(replace(scope, after=replace(scope.after, extra=extra)),))
    assert RopePlan.from_json(Fields(carried.to_json())) == carried


def test_the_source_is_named_without_its_place(make_checkpoint: Callable[..., Path]) -> None:
    assert describe_source(open_checkpoint(str(make_checkpoint("my-model")))) == "my-model"


def broken(damage: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(History(STEPS).to_bytes())
    damage(document)
    return document


def plan_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["steps"][0]["plan"]
    return found


def after_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plan_of(document)["scopes"]["model"]["after"]
    return found


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("schema_version"),
        lambda d: d.update(schema_version=4),
        lambda d: d.update(schema_version=True),
        lambda d: d.update(schema_version="1"),
        lambda d: d.update(steps={}),
        lambda d: d.update(steps=[3]),
        lambda d: d["steps"][0].update(command=None),
        lambda d: d["steps"][0].update(plan=[]),
        lambda d: d["steps"][0].update(plan={"method": "yarn"}),
        lambda d: plan_of(d).update(scopes=3),
        lambda d: plan_of(d).update(scopes={"model": {}}),
        lambda d: plan_of(d).update(scopes={"model": {"before": {}, "after": {}}}),
        lambda d: plan_of(d).update(length="long"),
        lambda d: plan_of(d).update(length=0),
        lambda d: plan_of(d).update(length=True),
        lambda d: plan_of(d).update(length=10**5000),
        lambda d: plan_of(d).update(factor=None),
        lambda d: plan_of(d).update(factor=math.nan),
        lambda d: plan_of(d).update(notes=[3]),
        lambda d: plan_of(d).update(original_source=3),
        lambda d: after_of(d).pop("rope_theta"),
        lambda d: after_of(d).update(rope_theta="x"),
        lambda d: after_of(d).update(head_dim=0),
        lambda d: after_of(d).update(head_dim=2.5),
        lambda d: after_of(d).update(rope_type="magic"),
        lambda d: after_of(d).update(truncate=3),
        lambda d: after_of(d).update(short_factor=["x"]),
        lambda d: d["steps"][0].update(replaced=[3]),
        lambda d: d["steps"][0].update(replaced=[{"file": "x"}]),
        lambda d: d["steps"][0].update(replaced=[{"file": "x", "path": [1.5]}]),
        lambda d: d["steps"][0].update(replaced=[{"file": 1, "path": []}]),
        lambda d: d["steps"][0].update(options=[]),
        lambda d: d["steps"][0].update(options={"factor; rm": 1}),
        lambda d: d["steps"][0].update(options={"factor": {}}),
        lambda d: d["steps"][0].update(options={"factor": None}),
        lambda d: d["steps"][1].update(baked=True),
        lambda d: d["steps"][1]["baked"].update(form="x"),
        lambda d: d["steps"][1]["baked"].update(side=3),
        lambda d: d["steps"][1]["baked"].pop("layout"),
        lambda d: d["steps"][1]["baked"].update(attention_factor=1.2),
        lambda d: d["steps"][1]["baked"].update(attention_factor={}),
        lambda d: d["steps"][1]["baked"].update(attention_factor={"model": -1}),
        lambda d: d["steps"][1].pop("config_only"),
    ],
)
def test_hostile(damage: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ConfigError, match=r"^m/yarncli\.json") as caught:
        History.from_json(broken(damage), "m/yarncli.json")
    assert len(str(caught.value)) < 400


def test_unknown_keys_are_ignored() -> None:
    document = broken(lambda d: d["steps"][0].update(later="x"))
    assert History.from_json(document, "x") == History(STEPS)


def test_the_last_conversion_and_the_last_bake_stand() -> None:
    first, second = planned(), planned("linear")
    steps = (
        Step(command="convert", source="a", plan=first),
        Step(command="convert", source="b", plan=second),
        STEPS[1],
    )
    history = History(steps)
    assert (history.plan, history.baked) == (second, STEPS[1].baked)
    assert (History().plan, History().baked, History().origin) == (None, None, None)
    assert history.origin is None
    assert History(STEPS).origin == ("org/name", "a" * 40)


def test_a_file_of_0_1_0_is_read() -> None:
    """A real one: `yarncli demo base`, `convert base long --factor 4`, `bake long baked`."""
    history = History.from_json(json.loads((OLD / FILE_NAME).read_bytes()), FILE_NAME)
    converted, baked = history.steps
    assert (converted.source, baked.source) == ("base", "long")
    assert history.plan is not None
    assert (history.plan.length, history.plan.factor) == (1024, 4.0)
    assert history.plan.scopes[0].after.original_length == 256
    factor = 0.1 * math.log(4) + 1
    expected = Baked(
        form="neutral",
        side="k",
        layout="plain",
        attention_factor={"model": pytest.approx(factor)},
    )
    assert history.baked == expected
    assert change(("max_position_embeddings",), 256, 1024) in converted.replaced
    # What it did not record stays unrecorded when the file is written anew.
    assert [step.options for step in history.steps] == [None, None]
    assert History.from_json(json.loads(history.to_bytes()), FILE_NAME) == history
    assert converted.arguments() == ["--method", "yarn", "--length", "1024"]


def test_the_files_of_0_1_0_are_still_good_for_every_command(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "base")
    for name in ("config.json", FILE_NAME):
        shutil.copy(OLD / name, demo / name)
    results = ["--results", OLD / "passkey.jsonl"]
    card = invoke("card", demo, *results, code=0)
    assert "| 512 | 1.00 |" in card.stdout
    assert "did not record options" in card.stdout
    again = invoke("bake", demo, tmp_path / "again")
    assert (again.exit_code, "is baked already" in again.stderr) == (3, True)
    (demo / FILE_NAME).unlink()  # the marker in config.json alone
    again = invoke("bake", demo, tmp_path / "again")
    assert (again.exit_code, "is baked already" in again.stderr) == (3, True)
    judged = invoke("engines", demo, "--json")
    status = {e["engine"]: e["status"] for e in json.loads(judged.stdout)["engines"]}
    assert (status["vllm"], status["llama.cpp"]) == ("exact", "differs")


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (planned("ntk"), "--rope-theta"),
        (planned(truncate=False), "--no-truncate"),
        (planned("ntk-by-parts", beta_fast=16.0), "--beta-fast 16"),
        (planned("longrope", **FACTORS), "--long-factor " + ",".join(["2"] * 32)),
    ],
)
def test_the_numbers_of_a_step_without_options_prove_some(plan: RopePlan, expected: str) -> None:
    assert expected in " ".join(Step(command="convert", source="x", plan=plan).arguments())


def test_ntk_is_remembered_over_the_whole_history() -> None:
    """No config shows it, so a second extension would be a silent wrong write."""
    ntk, other = (
        Step(command="convert", source="x", plan=planned("ntk")),
        Step(command="convert", source="x", plan=planned()),
    )
    History((other,)).require_extendable({})
    with pytest.raises(CheckpointError, match=r"method ntk.* --undo; or convert the original"):
        History((other, ntk)).require_extendable({})
    for later in (STEPS[1], other):
        with pytest.raises(CheckpointError, match="--undo takes back only the last step"):
            History((ntk, later)).require_extendable({})


def reads_a_raw_step(path: Path) -> bool:
    """Whether a module takes a value out of plain steps: `.plan["x"]`, `.get("steps")`, …"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
        ):
            owner = node.value if isinstance(node, ast.Subscript) else node.func.value
            words = [word.value for word in ast.walk(node) if isinstance(word, ast.Constant)]
            is_record = isinstance(owner, ast.Attribute) and owner.attr in ("plan", "baked")
            if is_record or words[:1] == ["steps"]:
                return True
    return False


def test_no_other_module_reads_raw_steps() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "history"]
    assert [path.name for path in modules if reads_a_raw_step(path)] == []
