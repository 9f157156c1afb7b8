"""push through Xet, the client's own storage protocol, against a Hub that speaks it."""

from __future__ import annotations

import pytest

from support.progress import Stages


def shard_on_hub(hub, ref="main", repo_id="me/long"):
    repo = hub.repos[repo_id]
    return hub.blob(repo.commits[repo.refs[ref]]["model.safetensors"]).read_bytes()


def local_shard(model):
    return (model / "model.safetensors").read_bytes()


def test_the_bytes_arrive(xet_hub, program, model):
    done = program("push", model, "me/long")
    commit = xet_hub.repos["me/long"].refs["main"]
    assert done.stdout == f"{xet_hub.url}/me/long/commit/{commit}\n"
    assert done.stderr.splitlines()[-1].startswith("note: To me/long (new, private): ")
    assert "\r" not in done.stderr  # the client would draw bars into a file too
    assert shard_on_hub(xet_hub) == local_shard(model)
    assert not xet_hub.requests("PUT")


def test_the_token_of_the_hub_stays_there(xet_hub, program, model):
    program("push", model, "me/long")
    stored = xet_hub.requests("POST", "^/v[12]/")
    assert stored
    assert {request.authorization for request in stored} == {"Bearer xet-secret-0"}


def test_a_second_push_moves_nothing(xet_hub, program, model):
    program("push", model, "me/long")
    xet_hub.log.clear()
    program("push", model, "me/long")
    assert not xet_hub.requests("POST")


def test_a_pull_request(xet_hub, program, model):
    xet_hub.add_repo("other/model", {"config.json": b"{}"})
    program("push", model, "other/model", "--create-pr", "--public")
    assert shard_on_hub(xet_hub, "refs/pr/1", "other/model") == local_shard(model)
    assert (
        "model.safetensors"
        not in xet_hub.repos["other/model"].commits[xet_hub.repos["other/model"].refs["main"]]
    )


def test_a_push_goes_on_where_it_stopped(xet_hub, program, model):
    xet_hub.fail("POST", "/commit/", status=403)
    assert "access is denied" in program("push", model, "me/long", code=5).stderr
    assert xet_hub.requests("POST", "/v1/xorbs/")
    xet_hub.log.clear()
    program("push", model, "me/long")
    assert shard_on_hub(xet_hub) == local_shard(model)
    assert not xet_hub.requests("POST", "/v1/xorbs/")


def test_bytes_are_counted(xet_hub, model):
    from yarncli.publishing.local import prepare_local
    from yarncli.publishing.options import PushOptions
    from yarncli.publishing.plan import plan_push
    from yarncli.publishing.push import carry_out

    plan = plan_push(prepare_local(str(model), PushOptions()), "me/long")
    stages = Stages()
    carry_out(plan, progress=stages)
    assert stages.done() == [("Sending", plan.size, len(local_shard(model)))]


def test_totals_become_steps_and_a_standstill_is_told():
    from types import SimpleNamespace

    from yarncli.hub.uploads import _XetCounter

    steps = []
    counter = _XetCounter(steps.append)
    for total in (3, 3, 10):
        counter.update_progress(SimpleNamespace(total_bytes_completed=total))
    assert steps == [3, 0, 7]


REFUSALS = {
    "no Xet": (("GET", "xet-write-token", {"status": 404}), "Set HF_HUB_DISABLE_XET=1"),
    "no rights": (("GET", "xet-write-token", {"status": 403}), "Check the token's rights"),
    "no token": (("GET", "xet-write-token", {"status": 401}), "does not accept the token"),
    "storage 403": (("POST", "/v1/xorbs/", {"status": 403}), "does not accept the token"),
    "storage 429": (("POST", "/v1/xorbs/", {"status": 429}), "limits the number of requests"),
    "storage 500": (("POST", "/v1/xorbs/", {"status": 500}), "internal problem (status 500)"),
    "storage 400": (("POST", "/v1/shards", {"status": 400}), "refused the request with status 400"),
    "storage drops": (("POST", "/v1/xorbs/", {"how": "drop"}), "connection broke"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_every_refusal_has_its_own_sentence(xet_hub, program, model, case):
    (method, path, how), sentence = REFUSALS[case]
    xet_hub.fail(method, path, times=99, **how)
    done = program("push", model, "me/long", code=5)
    assert sentence in done.stderr.splitlines()[-1]
    assert "http://" not in done.stderr
    repo = xet_hub.repos["me/long"]
    assert list(repo.commits[repo.refs["main"]]) == [".gitattributes"]


def test_ctrl_c_leaves_the_branch_as_it_was(xet_hub, model, interrupted):
    repo = xet_hub.add_repo("me/long", {"a": b"old"}, private=True)
    before = repo.refs["main"]
    xet_hub.fail("POST", "/v1/xorbs/", how="wait", seconds=30)
    told = interrupted(lambda: xet_hub.requests("POST", "/v1/xorbs/"), "push", model, "me/long")
    assert told.endswith("note: Interrupted. The same command goes on from here.\n")
    assert repo.refs["main"] == before
