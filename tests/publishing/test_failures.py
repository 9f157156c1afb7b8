"""What a push does when the Hub, the network or the user says no."""

from __future__ import annotations

import re
import shlex

import pytest

from support.progress import Stages
from yarncli.errors import CheckpointError, HubError
from yarncli.publishing.local import prepare_local
from yarncli.publishing.options import PushOptions
from yarncli.publishing.plan import plan_push
from yarncli.publishing.push import carry_out

TOKENS = {name: "hf_" + name[0] * 34 for name in ("other", "reader")}


def planned(model):
    return plan_push(prepare_local(str(model), PushOptions()), "me/long")


def main_of(hub, repo_id="me/long"):
    return hub.repos[repo_id].refs["main"]


def test_without_a_token(hub, cli, model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "A token is needed" in cli("push", model, "me/long", code=5).stderr
    assert hub.log == []


def test_a_token_that_is_not_accepted(hub, cli, model):
    hub.log_in("hf_" + "x" * 34)
    result = cli("push", model, "me/long", code=5)
    assert "does not accept the token" in result.stderr
    assert "x" * 34 not in result.output


def test_a_token_that_no_header_can_hold(hub, cli, model):
    hub.log_in("hf_" + "é" * 34)
    result = cli("push", model, "me/long", code=5)
    assert "characters that are not possible" in result.stderr
    assert "é" not in result.output


def test_a_token_that_may_only_read(hub, cli, model):
    hub.log_in(TOKENS["reader"])
    assert "access is denied" in cli("push", model, "reader/long", code=5).stderr
    hub.add_repo("reader/open", {"a": b""}, private=True)
    assert "access is denied" in cli("push", model, "reader/open", code=5).stderr
    assert not hub.requests("POST", "preupload|batch|commit")


def test_somebody_elses_repository(hub, cli, model):
    hub.add_repo("other/open", {"a": b""})
    result = cli("push", model, "other/open", "--public", code=5)
    assert "access is denied" in result.stderr
    assert not hub.requests("POST")


def test_somebody_elses_private_repository_is_not_overwritten(hub, cli, model):
    hub.add_repo("other/closed", {"a": b""}, private=True)
    cli("push", model, "other/closed", code=5)
    assert not hub.requests("POST", "preupload|batch|commit")


@pytest.mark.parametrize("option", ["--create-pr", "--config-only"])
def test_what_needs_a_repository_creates_none(hub, cli, model, option):
    assert "no such model" in cli("push", model, "me/long", option, code=5).stderr
    assert not hub.requests("POST")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("long", "Put its owner before it: ORG/long."),
        ("a/b/c", "is not the name of a repository. Write ORG/NAME."),
        ("me/--x", "Write ORG/NAME."),
        ("me/" + "x" * 100, "Write ORG/NAME."),
        ("", "Write ORG/NAME."),
        ("./long", "Write ORG/NAME."),
        ("hf://long", "Write ORG/NAME."),
        ("hf://datasets/me/long", "is not a model"),
        ("https://huggingface.co/spaces/me/long", "is not a model"),
        ("hf://me/long@yarn8", "with --revision: me/long --revision yarn8"),
        ("https://hf.co/me/long/tree/yarn8", "with --revision: me/long --revision yarn8"),
    ],
)
def test_a_bad_name(hub, cli, model, name, form):
    assert form in cli("push", model, name, code=2).stderr
    assert hub.log == []


@pytest.mark.parametrize(
    "start",
    ["hf://", "hf://models/", "https://huggingface.co/", "http://localhost:1234/", "hf.co/"],
)
@pytest.mark.parametrize("end", ["", "/"])
def test_a_repository_may_be_given_by_its_address(hub, cli, model, start, end):
    cli("push", model, f"{start}me/long{end}")
    assert "model.safetensors" in hub.repos["me/long"].commits[main_of(hub)]


def test_the_arguments_the_other_way_round(hub, cli, model):
    told = cli("push", "me/long", model, code=2).stderr
    (command,) = re.findall(r"Give the model first: yarncli (push .*)", told)
    assert hub.log == []
    cli(*shlex.split(command))
    assert "model.safetensors" in hub.repos["me/long"].commits[main_of(hub)]


def test_offline(hub, cli, model):
    hub.go_offline()
    result = cli("push", model, "me/long", code=5)
    assert "HF_HUB_OFFLINE is set, so the Hub cannot be asked" in result.stderr


def test_nobody_listens(hub, cli, model, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "The Hub cannot be reached" in cli("push", model, "me/long", code=5).stderr


def test_a_pull_request_that_does_not_exist(hub, cli, model):
    hub.add_repo("me/long", {"a": b""}, private=True)
    result = cli("push", model, "me/long", "--revision", "refs/pr/9", code=5)
    assert "has no refs/pr/9" in result.stderr
    assert not hub.requests("POST")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a..b", "a~1", "x.lock", "a/", "a@{b", "é\\x"])
def test_a_bad_name_of_a_branch(hub, cli, model, name):
    result = cli("push", model, "me/long", f"--revision={name}", code=2)
    assert "cannot be the name of a branch" in result.stderr
    assert hub.log == []


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "does not accept the request"),
        (403, "access is denied"),
        (404, "does not have it"),
        (409, "conflicts with what is already on the Hub"),
        (412, "the branch got a new commit in the meantime"),
        (429, "limits the number of requests. Try again later"),
        (500, "status 500"),
    ],
)
def test_every_status_has_its_own_sentence(hub, cli, model, fast_retries, status, sentence):
    before = hub.add_repo("me/long", {"a": b"old"}, private=True).refs["main"]
    hub.fail("POST", "/commit/", times=99, status=status)
    assert sentence in cli("push", model, "me/long", code=5).stderr
    assert main_of(hub) == before


def test_what_the_hub_says_is_passed_on_without_addresses(hub, cli, model):
    said = "Private storage limit reached, see https://hub/pay?Signature=abc or hf_" + "t" * 34
    hub.fail("POST", "/commit/", status=403, headers={"X-Error-Message": said})
    told = cli("push", model, "me/long", code=5).stderr
    assert "The Hub says: Private storage limit reached, see … or …" in told


def test_remarks_of_the_hub_on_the_card_are_warnings(hub, cli, model):
    hub.card_remarks = ["unknown license"]
    assert "unknown license" in cli("push", model, "me/long").stderr


def test_a_file_that_vanished(hub, model):
    before = hub.add_repo("me/long", {"a": b""}, private=True).refs["main"]
    plan = planned(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read: No such file"):
        carry_out(plan)
    assert main_of(hub) == before


def test_a_cache_that_cannot_be_written(hub, cli, model):
    hub.add_repo("me/long", {"README.md": b"# x\n"}, private=True)
    hub.cache.write_text("a file where the cache should be")
    assert "Cannot write the Hub cache" in cli("push", model, "me/long", code=6).stderr


def test_the_hub_holds_other_bytes_than_were_sent(hub, cli, model):
    repo = hub.add_repo("me/long", {"a": b""}, private=True)
    real, size = repo.commit, (model / "model.safetensors").stat().st_size
    repo.commit = lambda files, ref: real(
        {**files, "model.safetensors": hub.store(b"x" * size)}, ref
    )
    assert "differs from what was sent" in cli("push", model, "me/long", code=5).stderr


def test_bad_metadata_is_refused_before_any_file_is_sent(hub, cli, model):
    (model / "README.md").write_text("---\nlicense: mit\nbase_model: ./local\n---\n# x\n")
    told = cli("push", model, "me/long", code=5).stderr
    assert "does not accept the metadata of README.md" in told
    assert '"base_model" must be a model id' in told
    assert not hub.requests("", "batch|/upload/")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "repos/create"), ("POST", "batch"), ("PUT", "/upload/"), ("POST", "/commit/"),
     ("GET", "whoami"), ("POST", "preupload"), ("GET", "auth-check"), ("POST", "validate-yaml")],
)  # fmt: skip
@pytest.mark.parametrize(
    "failure",
    [{"status": 503}, {"status": 429, "headers": {"Retry-After": "1"}}, {"how": "drop"}],
    ids=["503", "429", "drop"],
)
def test_a_passing_failure_passes(hub, cli, model, fast_retries, method, path, failure):
    hub.fail(method, path, **failure)
    cli("push", model, "me/long")
    shard = hub.repos["me/long"].commits[main_of(hub)]["model.safetensors"]
    assert hub.blob(shard).read_bytes() == (model / "model.safetensors").read_bytes()
    assert len(hub.repos["me/long"].commits) == 2


def test_what_is_sent_twice_is_counted_once(hub, model, fast_retries):
    hub.fail("PUT", "/upload/", status=503)
    plan = planned(model)
    stages = Stages()
    carry_out(plan, progress=stages)
    assert len(hub.requests("PUT")) == 2
    size = (model / "model.safetensors").stat().st_size
    assert ("Sending", plan.size, size) in stages.done()
    assert ("Hashing", plan.size, plan.size) in stages.done()


def test_a_rate_limit_that_stays_names_the_wait(hub, cli, model, fast_retries):
    hub.fail("POST", "repos/create", times=99, status=429, headers={"Retry-After": "17"})
    assert "Try again in 17 seconds" in cli("push", model, "me/long", code=5).stderr


def test_a_push_goes_on_where_it_stopped(hub, cli, sharded, fast_retries):
    second = (sharded / "model-00002-of-00002.safetensors").read_bytes()
    oid = hub.store(second)
    hub.blob(oid).unlink()
    hub.fail("PUT", oid, times=99, status=500)
    result = cli("push", sharded, "me/long", code=5)
    assert "failed for model-00002-of-00002.safetensors with status 500" in result.stderr
    assert list(hub.repos["me/long"].commits[main_of(hub)]) == [".gitattributes"]
    hub.failures.clear()
    hub.log.clear()
    cli("push", sharded, "me/long")
    assert [r.path.split("?")[0] for r in hub.requests("PUT")] == [f"/upload/{oid}"]
    assert len(hub.repos["me/long"].commits) == 2


@pytest.mark.parametrize("pull", [False, True], ids=["commit", "pull request"])
def test_a_lost_answer_to_the_commit_is_not_repeated(hub, cli, model, fast_retries, pull):
    repo = hub.add_repo("me/long", {"a": b""}, private=True)
    hub.fail("POST", "/commit/", how="half")
    options = ["--create-pr"] if pull else []
    result = cli("push", model, "me/long", *options)
    assert len(repo.commits) == 2
    assert len(hub.pulls.get("me/long", [])) == pull
    page = "discussions/1" if pull else f"commit/{main_of(hub)}"
    assert result.stdout == f"{hub.url}/me/long/{page}\n"


def test_a_commit_by_somebody_else_is_not_overwritten(hub, model, fast_retries):
    hub.add_repo("me/long", {"a": b""}, private=True)
    plan = planned(model)
    theirs = hub.commit("me/long", {"a": b"new"})
    with pytest.raises(HubError, match="got a new commit in the meantime"):
        carry_out(plan)
    assert main_of(hub) == theirs


def test_a_repository_that_appeared_in_public_is_not_filled(hub, model):
    plan = planned(model)
    hub.add_repo("me/long", {"a": b""})
    with pytest.raises(HubError, match="was not created as private"):
        carry_out(plan)
    assert not hub.requests("POST", "preupload|/commit/")


def test_a_file_that_the_hub_would_ignore_is_refused(hub, cli, model):
    before = hub.add_repo("me/long", {".gitignore": b"*.safetensors\n"}, private=True).refs
    for _ in range(2):
        told = cli("push", model, "me/long", code=1).stderr
        assert "A .gitignore in me/long excludes model.safetensors." in told
        assert "[ignored]" in told
    assert main_of(hub) == before["main"]
    assert len(hub.repos["me/long"].commits) == 1
    assert not hub.requests("", "batch|/upload/|/commit/")


def test_a_hub_without_xet_is_named(hub, cli, model, fast_retries, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    result = cli("push", model, "me/long", code=5)
    assert "has no Xet storage. Set HF_HUB_DISABLE_XET=1" in result.stderr


def test_a_hub_that_hangs(hub, cli, model, fast_retries, monkeypatch):
    from yarncli.hub import waits

    monkeypatch.setattr(waits, "ANSWER_WAIT", 0.2)
    hub.fail("GET", "auth-check", times=99, how="wait", seconds=1.0)
    assert "did not answer in time" in cli("push", model, "me/long", code=5).stderr


def test_ctrl_c_leaves_the_branch_as_it_was(hub, model, interrupted):
    before = hub.add_repo("me/long", {"a": b"old"}, private=True).refs["main"]
    hub.fail("PUT", "/upload/", how="wait", seconds=30)
    told = interrupted(lambda: hub.requests("PUT"), "push", model, "me/long")
    assert told.endswith("note: Interrupted. The same command goes on from here.\n")
    assert main_of(hub) == before


def test_a_gated_model_can_be_mended_by_those_who_may_read_it(hub, cli, model):
    hub.add_repo("other/gated", {"config.json": b"{}", "README.md": b"# x\n"}, gated=True)
    arguments = ("push", model, "other/gated", "--config-only", "--create-pr")
    assert "access must be granted first" in cli(*arguments, code=5).stderr
    hub.users["hf_" + "t" * 34].may_read.add("other/gated")
    cli(*arguments)
    assert len(hub.pulls["other/gated"]) == 1


def test_a_server_that_vanishes_is_named_and_so_is_what_was_made(
    hub, cli, model, fast_retries, monkeypatch
):
    from yarncli.hub.commits import Draft

    send = Draft.send

    def vanish_and_send(self, progress):
        hub.__exit__()
        send(self, progress)

    monkeypatch.setattr(Draft, "send", vanish_and_send)
    told = cli("push", model, "me/long", code=5).stderr
    assert "me/long was created (private) and exists. The same command continues" in told
    assert "cannot be reached" in told.splitlines()[-1]
