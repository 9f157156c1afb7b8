"""How long a push waits: short for silence, long for work on the Hub's side, and never untold."""

from __future__ import annotations

import pytest

from support.progress import Stages
from yarncli.hub import waits


@pytest.fixture
def impatient(monkeypatch):
    """Limits of a fraction of a second for silence, and of more for work."""
    monkeypatch.setattr(waits, "CONNECT_WAIT", 0.3)
    monkeypatch.setattr(waits, "ANSWER_WAIT", 0.3)
    monkeypatch.setattr(waits, "WORK_WAIT", 3.0)
    monkeypatch.setattr(waits, "TOLD_AFTER", 0.2)
    monkeypatch.setattr(waits, "_LOOK_EVERY", 0.02)


@pytest.mark.parametrize("work", ["/complete/", "/verify", "/commit/", "repos/create"])
def test_the_hub_may_work_for_longer_than_it_may_be_silent(hub, cli, model, impatient, work):
    """As where it puts the parts of several GB together: minutes, against a limit of one."""
    hub.multipart_size = 300_000
    hub.fail("POST", work, how="wait", seconds=1.0)
    told = cli("push", model, "me/long").stderr
    assert "note: No answer for 0 s. Waiting." in told  # 0.2 and 0.4 seconds, rounded
    assert "Trying again" not in told
    assert len(hub.requests("POST", work)) == 1
    assert len(hub.repos["me/long"].commits) == 2


def test_a_hub_that_works_for_ever_is_left(hub, cli, model, impatient, fast_retries, monkeypatch):
    monkeypatch.setattr(waits, "WORK_WAIT", 0.3)
    hub.fail("POST", "/commit/", times=99, how="wait", seconds=1.0)
    told = cli("push", model, "me/long", code=5).stderr
    assert "The server did not answer in time. Trying again in 1 s (try 2 of 3)." in told
    assert "me/long: the server did not answer in time. Try again later." in told


def test_silence_of_a_reading_request_ends(hub, cli, model, impatient, fast_retries):
    hub.add_repo("me/long", {"a": b""}, private=True)
    hub.fail("GET", "auth-check", times=99, how="wait", seconds=1.0)
    told = cli("push", model, "me/long", code=5).stderr
    assert "did not answer in time" in told
    assert len(hub.requests("GET", "auth-check")) == 3


@pytest.mark.parametrize(
    ("method", "path", "tries"),
    [("POST", "/preupload/", 6), ("POST", "/batch", 6), ("PUT", "/upload/", 6),
     ("POST", "/commit/", 3), ("POST", "validate-yaml", 3), ("GET", "whoami", 3)],
)  # fmt: skip
def test_one_layer_tries_again(hub, cli, model, fast_retries, method, path, tries):
    """The client's, where it has one; ours for the rest. Each try but the first is told."""
    hub.fail(method, path, times=99, status=503)
    told = cli("push", model, "me/long", code=5).stderr
    assert len(hub.requests(method, path)) == tries
    numbers = [f"(try {number} of {tries})." for number in range(2, tries + 1)]
    assert [line[line.index("(try") :] for line in told.splitlines() if "(try" in line] == numbers


def test_the_session_of_the_client_keeps_its_limits_when_it_is_made_anew(hub, monkeypatch):
    from huggingface_hub.utils import close_session, get_session

    waits.limit_waits()
    limits = get_session().timeout
    assert (limits.connect, limits.read) == (waits.CONNECT_WAIT, waits.ANSWER_WAIT)
    heard = []
    with waits.told_waits(heard.append):
        close_session()
        waits._current.emit(
            record("HTTP Error 503 thrown while requesting PUT https://x?Signature")
        )
        waits._current.emit(record("Retrying in 4s [Retry 3/5]."))
    assert get_session().timeout == limits
    assert len([hook for hook in get_session().event_hooks["request"] if hook is waits._asked]) == 1
    assert heard == ["The server answered 503. Trying again in 4 s (try 4 of 6)."]


def record(message):
    import logging

    return logging.LogRecord("x", logging.WARNING, "x", 1, message, None, None)


def test_hashing_has_a_stage_of_its_own_before_lfs(hub, model):
    from yarncli.publishing.push import push

    stages = Stages()
    done = push(model, "me/long", progress=stages)
    names = [name for name, *_ in stages.done()]
    assert names == ["Comparing", "Hashing", "Sending"]
    assert ("Hashing", done.plan.size, done.plan.size) in stages.done()
    assert sum(request.status == 200 for request in hub.requests("PUT")) == 1


def test_quiet_tells_only_what_must_be_known(hub, cli, model, fast_retries):
    hub.fail("POST", "/commit/", status=503)
    done = cli("push", model, "me/long", "--quiet")
    assert done.stderr == ""
    assert done.stdout.startswith(f"{hub.url}/me/long/commit/")
    (model / "pytorch_model.bin").write_bytes(b"x")
    told = cli("push", model, "me/long", "-q", code=1).stderr
    assert "[pickle]" in told  # an error
    assert "[weights-twice]" in told  # a warning
    assert "note: " not in told
