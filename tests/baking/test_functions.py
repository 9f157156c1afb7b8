"""bake and recover as Python functions: they return everything and print nothing."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from support.checkpoints import size_of, snapshot
from support.kills import leave_killed
from support.progress import Stages
from yarncli.baking.bake import bake, recover
from yarncli.baking.settings import BakeOptions
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError

pytestmark = pytest.mark.usefixtures("nothing_is_printed")


def test_a_dry_run_writes_nothing_whatever_the_source_is_given_as(handmade, tmp_path):
    source = handmade()
    before = snapshot(tmp_path)
    once = bake(source, tmp_path / "out", dry_run=True, side="q")
    again = bake(
        open_checkpoint(str(source)), str(tmp_path / "out"), BakeOptions(dry_run=True, side="q")
    )
    assert snapshot(tmp_path) == before
    document = json.loads(json.dumps(once.to_json()))
    assert document == json.loads(json.dumps(again.to_json()))
    assert (document["schema_version"], document["side"], document["written"]) == (1, "q", False)
    assert document["output"] == str(tmp_path / "out")
    assert document["checks"] == {}
    # Two layers of 32 query rows of 16 numbers in float32.
    assert document["bytes"] == 2 * 32 * 16 * 4
    with pytest.raises(FrozenInstanceError):
        once.written = True


def test_a_copy_is_written_and_told(handmade, tmp_path):
    source, stages = handmade(), Stages()
    report = bake(source, tmp_path / "one", progress=stages)
    verified = bake(source, tmp_path / "two", verify=True, progress=stages)
    files = [{p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("one", "two")]
    assert files[0] == files[1]
    assert report.written
    assert report.twin is None
    assert verified.twin.baked < 1e-4 < verified.twin.unbaked
    assert list(verified.to_json()["checks"]) == ["twin"]
    # Copied: all but the files that are written anew; read back: the keys, or every shard whole.
    copied = size_of(source) - (source / "config.json").stat().st_size
    weights = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    totals = [copied + report.baking.nbytes, copied + weights]
    headers = open_checkpoint(str(source)).headers().values()
    assert weights == sum(header.file_size for header in headers)
    first, second = (("Baking", total, total) for total in totals)
    assert stages.done() == [first, ("Checking a small random model", 0, 0), second]


def test_the_record_is_of_what_decides_the_bytes(handmade, tmp_path):
    bake(handmade(), tmp_path / "out", side="both", engines=["vllm"], fsync=True, verify=True)
    (step,) = json.loads((tmp_path / "out" / "yarncli.json").read_text())["steps"]
    assert step["options"] == {"side": "both"}


def test_a_refusal_writes_nothing(handmade, tmp_path):
    source = handmade()
    before = snapshot(tmp_path)
    for error, changes in (
        (UnsupportedArchitectureError, {"engines": ["llama.cpp"]}),
        (UsageError, {"engines": ["nonsense"]}),
        (UsageError, {"in_place": True}),
        (UsageError, {"verify_logits": "text", "dry_run": True}),
        (UsageError, {"attention_factor": -1.0}),
    ):
        with pytest.raises(error):
            bake(source, tmp_path / "out", **changes)
    with pytest.raises(UsageError, match="OUT"):
        bake(source)
    assert snapshot(tmp_path) == before


def test_in_place_and_recover(handmade):
    source, stages = handmade(), Stages()
    report = bake(source, in_place=True, progress=stages)
    nbytes = report.baking.nbytes
    assert stages.done() == [("Baking", 3 * nbytes, 3 * nbytes)]  # journal, weights, read back
    assert recover(source).to_json() == {"schema_version": 1, "recovered": "nothing"}
    with pytest.raises(CheckpointError, match="baked already"):
        bake(source, in_place=True)
    with pytest.raises(UsageError, match="not a directory"):
        recover(source / "config.json")


def test_recover_puts_the_old_state_back(handmade):
    source = handmade()
    before = snapshot(source)

    leave_killed(lambda place: bake(place, in_place=True), source, "pwrite", 3, half=True)
    assert snapshot(source) != before
    assert recover(str(source)).state == "old"
    assert snapshot(source) == before


def test_logits_are_compared_in_silence(demo, tmp_path):
    report = bake(
        demo, tmp_path / "out", attention_factor=1.2, verify_logits="The key is 51247. " * 9
    )
    assert report.logits.same_choice <= 1
    assert report.logits.difference > 5e-3  # another attention factor than the source's
    assert report.to_json()["checks"]["logits"]["positions"] == report.logits.positions


def test_a_hub_model_is_fetched_and_told(handmade, minihub, tmp_path):
    source, stages = handmade(), Stages()
    minihub.add_repo("org/name", source)
    bake("hf://org/name", tmp_path / "out", dry_run=True, progress=stages)
    assert stages == []
    bake("hf://org/name", tmp_path / "out", progress=stages)
    (fetched, baked) = stages.done()
    assert (fetched[0], baked[0]) == ("Fetching", "Baking")
    assert fetched[1] == fetched[2] > 0
