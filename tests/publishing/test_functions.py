"""push and card as Python functions: they return everything and print nothing."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from support.checkpoints import size_of
from support.progress import Stages
from yarncli.errors import CheckFailed, NotOnHubError, UsageError
from yarncli.publishing.card import card
from yarncli.publishing.options import PushOptions
from yarncli.publishing.preflight import PreflightFailed
from yarncli.publishing.push import push

pytestmark = pytest.mark.usefixtures("nothing_is_printed")


def writes(hub):
    return [f"{r.method} {r.path}" for r in hub.log if r.method not in ("GET", "HEAD")]


def passkey_results(path, measured):
    """Two prompts of four: the file of a run of `measured` that was not completed."""
    settings = {"model": measured, "lengths": [256, 2048], "depths": 2, "trials": 1,
                "variants": {"as it is": {"original": 256, "window": 2048}}}  # fmt: skip
    cells = [
        {"variant": "as it is", "length": 256, "depth": depth, "trial": 0, "key": "12345",
         "text": "12345", "correct": True}
        for depth in (0.0, 1.0)
    ]  # fmt: skip
    lines = [{"schema_version": 1, "settings": settings}, *cells]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_dry_run_only_reads_and_is_not_asked_about(hub, model):
    stages = Stages()
    once = push(model, "me/long", dry_run=True, confirm=pytest.fail, progress=stages)
    again = push(str(model), "me/long", PushOptions(dry_run=True))
    assert writes(hub) == []
    assert once.commit is None
    assert not once.sent
    assert "model.safetensors" in {file.name for file in once.plan.changed}
    assert stages.done() == [("Comparing", size_of(model), 0)]  # an absent file is not compared
    document = json.loads(json.dumps(once.to_json()))
    assert document == again.to_json()
    assert (document["sent"], document["findings"]) == (False, [])


def test_a_second_push_sends_nothing(hub, model):
    stages, asked = Stages(), []
    once = push(model, "me/long", progress=stages, confirm=lambda plan: not asked.append(plan.size))
    head = hub.repos["me/long"].refs["main"]
    assert once.sent
    assert once.commit.oid == head
    assert asked == [once.plan.size]
    # README.md goes with our part, everything else as it is here.
    sent = size_of(model) - (model / "README.md").stat().st_size
    sent += next(file.size for file in once.plan.changed if file.name == "README.md")
    (compared, hashed, sending) = stages.done()
    assert hashed == ("Hashing", sent, sent)
    assert compared == ("Comparing", size_of(model), 0)
    assert sending[:2] == ("Sending", sent)
    assert sending[2] >= (model / "model.safetensors").stat().st_size
    hub.log.clear()
    stages = Stages()
    again = push(model, "me/long", progress=stages)
    assert writes(hub) == []
    assert not again.sent
    assert again.commit.oid == head
    assert stages.done() == [("Comparing", size_of(model), sent)]
    assert json.loads(json.dumps(again.to_json())) | {"notes": []} == {
        "schema_version": 1, "repository": "me/long", "exists": True, "public": False,
        "pull_request": False, "body": "", "revision": "main", "tag": None,
        "files": [], "copies": [],
        "unchanged": sorted(path.name for path in model.iterdir()), "left_out": {}, "deleted": [],
        "card_diff": "", "notes": [], "sent": False, "commit": head, "url": once.commit.url,
    }  # fmt: skip


def test_without_consent_nothing_is_sent(hub, model):
    result = push(model, "me/long", confirm=lambda plan: False)
    assert result.commit is None
    assert writes(hub) == []
    assert not hub.repos


def test_single_options_go_before_the_prepared_ones(hub, model):
    prepared = PushOptions(public=True, with_card=False, dry_run=True)
    names = {file.name for file in push(model, "me/long", prepared).plan.changed}
    assert "README.md" not in names
    changed = push(model, "me/long", prepared, with_card=True, public=False)
    assert "README.md" in {file.name for file in changed.plan.changed}
    assert (changed.plan.public, prepared.public) == (False, True)
    with pytest.raises(TypeError, match="publik"):
        push(model, "me/long", publik=True)


def test_results_are_frozen(hub, model):
    result = push(model, "me/long", dry_run=True)
    for value, name in ((result, "commit"), (result.plan, "public"), (card(model), "text")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_an_error_of_the_preflight_carries_the_findings(hub, model):
    (model / "notes.md").write_text("hf_" + "a" * 34)
    heard = []
    with pytest.raises(CheckFailed, match=r"^1 error\. Nothing was sent\.$") as caught:
        push(model, "me/long", notify=lambda *message: heard.append(message))
    assert isinstance(caught.value, PreflightFailed)
    assert [found.rule.id for found in caught.value.findings] == ["secret"]
    ((severity, text),) = heard
    assert severity == "error"
    assert text.endswith("[secret]")
    assert json.loads(json.dumps(caught.value.to_json()))["findings"][0]["rule"] == "secret"
    assert hub.log == []


def test_messages_are_told_before_a_failure_and_kept_in_the_result(hub, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl", "somebody/else")
    expected = [
        ("warning", f"{results} holds 2 of 4 prompts: the run was not completed."),
        ("warning", f"The results in {results} are of else, not of {model}."),
    ]
    heard = []
    with pytest.raises(UsageError, match="not the name of a repository"):
        push(model, "bad", results=results, notify=lambda *message: heard.append(message))
    assert heard[:2] == expected
    heard.clear()
    done = push(model, "me/long", results=results, notify=lambda *message: heard.append(message))
    kept = [(message.severity, message.text) for message in done.messages]
    assert kept == heard
    assert kept[:2] == expected
    assert [text for severity, text in kept if severity == "note"][-len(done.plan.notes) :] == [
        *done.plan.notes
    ]


def test_a_card_twice(hub, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl", "somebody/else")
    heard = []
    once = card(model, name="me/long", results=results, licence="mit",
                notify=lambda *message: heard.append(message))  # fmt: skip
    again = card(str(model), name="me/long", results=str(results), licence="mit")
    assert once == again
    assert once.text.startswith("---\nlicense: mit\n")
    assert not once.text.endswith("\n")
    assert [message.severity for message in once.messages] == ["warning", "warning"]
    assert heard == [(message.severity, message.text) for message in once.messages]
    document = json.loads(json.dumps(once.to_json()))
    assert document == {
        "schema_version": 1, "name": "me/long", "text": once.text,
        "messages": [{"severity": s, "text": t} for s, t in heard], "written": [],
    }  # fmt: skip
    assert card(model).name == model.name


@pytest.mark.parametrize("name", ["no/such", "a b", "./local", "a/b/c"])
def test_a_base_that_the_user_names_must_be_there(hub, model, name):
    with pytest.raises(NotOnHubError):
        card(model, base_model=name)


@pytest.mark.parametrize("call", [card, lambda source: push(source, "me/long")])
def test_only_a_directory_can_be_published(hub, model, call):
    with pytest.raises(UsageError, match="is not a directory"):
        call(model / "config.json")
    assert hub.log == []
