"""What can go wrong with a push, times what is pushed, times how, and the same command again.

Each row says what the command must answer. What holds in every one is asserted for all: no commit
is half, the branch is as it was until the commit, the same command goes on from there, nothing that
arrived is sent again, words of the user stay, one pull request at most is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

LARGE = ("new", "main", "branch", "pull")  # scenes with weights
WORDS = b"# Mine\n\nKEEP ME\n"
FULL = "Private repository storage limit reached, please upgrade your plan"
NO_PULL = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
BATCH = {"error": {"code": 403, "message": FULL}, "oid": "0" * 64, "size": 1}


@dataclass(frozen=True)
class Fault:
    """Requests that go wrong, and what the command must make of it."""

    method: str
    pattern: str
    how: dict[str, Any]
    code: int
    told: str
    times: int = 999
    only: tuple[str, ...] = ()  # scenes
    transport: str = ""  # both, if empty


def said(status: int, words: str) -> dict[str, Any]:
    return {"status": status, "headers": {"X-Error-Message": words}}


def at_commit() -> Iterator[tuple[str, Fault]]:
    """What the Hub, or something before it, may answer to the commit."""
    sentences = {
        400: "does not accept the request",
        401: "does not accept the token",
        403: "access is denied",
        404: "does not have it",
        409: "conflicts with what is already on the Hub",
        412: "the branch got a new commit in the meantime. Run the command again.",
        413: "does not accept a file or a request of this size",
        500: "an internal problem (status 500)",
        504: "an internal problem (status 504)",
    }
    for status, sentence in sentences.items():
        yield f"commit {status}", Fault("POST", "/commit/", {"status": status}, 5, sentence)
    asked = {"status": 429, "headers": {"Retry-After": "7"}}
    yield "commit 429", Fault("POST", "/commit/", asked, 5, "Try again in 7 seconds")
    yield "commit 429 once", Fault("POST", "/commit/", asked, 0, "Trying again in 7 s", times=1)
    for status in (502, 503):
        told = f"The server answered {status}. Trying again in 1 s (try 2 of 3)."
        yield (
            f"commit {status} once",
            Fault("POST", "/commit/", {"status": status}, 0, told, times=1),
        )
    broke = "The connection broke. Trying again"
    yield "cut before commit", Fault("POST", "/commit/", {"how": "drop"}, 0, broke, times=1)
    yield "cut for ever", Fault("POST", "/commit/", {"how": "drop"}, 5, "the connection broke")
    yield "answer lost", Fault("POST", "/commit/", {"how": "half"}, 0, broke, times=1)
    yield (
        "proxy page once",
        Fault("POST", "/commit/", {"status": 200, "body": b"<html>"}, 0, "from a proxy", times=1),
    )
    yield "quota at commit", Fault("POST", "/commit/", said(403, FULL), 5, "used up or limited")
    yield "closed to the token", Fault("POST", "/commit/", said(403, NO_PULL), 5, "--create-pr")


def before_it() -> Iterator[tuple[str, Fault]]:
    """What may go wrong on the way to the commit."""
    yield "preupload 503", Fault("POST", "/preupload/", {"status": 503}, 5, "status 503")
    yield (
        "preupload 503 once",
        Fault(
            "POST", "/preupload/", {"status": 503}, 0, "answered 503. Trying again in 1 s", times=1
        ),
    )
    yield (
        "preupload 429 once",
        Fault(
            "POST",
            "/preupload/",
            {"status": 429, "headers": {"Retry-After": "3"}},
            0,
            "answered 429. Trying again in 4 s",
            times=1,
        ),
    )
    yield "preupload drop", Fault("POST", "/preupload/", {"how": "drop"}, 5, "connection broke")
    yield "quota at preupload", Fault("POST", "/preupload/", said(403, FULL), 5, "used up or limit")
    yield "whoami 401", Fault("GET", "whoami", {"status": 401}, 5, "does not accept the token")
    yield "whoami 503 once", Fault("GET", "whoami", {"status": 503}, 0, "answered 503", times=1)
    yield "look-up 500", Fault("GET", "/api/models/", {"status": 500}, 5, "status 500")
    yield "card refused", Fault("POST", "yaml", {"status": 503}, 5, "status 503", only=LARGE)
    new = ("new",)
    for status, told in {401: "accept the token", 403: "access is denied", 503: "503"}.items():
        yield f"create {status}", Fault("POST", "create", {"status": status}, 5, told, only=new)
    yield "create lost", Fault("POST", "create", {"how": "drop"}, 0, "broke", times=1, only=new)
    branch = ("branch",)
    yield "branch 403", Fault("POST", "/branch/", {"status": 403}, 5, "is denied", only=branch)
    yield "branch 503 once", Fault("POST", "/branch/", {"status": 503}, 0, "503", 1, only=branch)
    pull = ("pull", "config")
    opening = r"/discussions$"
    yield "pull 403", Fault("POST", opening, {"status": 403}, 5, "access is denied", only=pull)
    yield "pull 503", Fault("POST", opening, {"status": 503}, 5, "status 503", only=pull)
    yield "pull lost", Fault("POST", opening, {"how": "half"}, 0, "broke", times=1, only=pull)
    yield "pull stays draft", Fault("POST", "/status$", {"status": 403}, 5, "denied", only=pull)


def in_storage() -> Iterator[tuple[str, Fault]]:
    """What the two ways of storing large files may answer."""

    def lfs(*row: Any, **more: Any) -> Fault:
        return Fault(*row, only=LARGE, transport="lfs", **more)

    def xet(*row: Any, **more: Any) -> Fault:
        return Fault(*row, only=LARGE, transport="xet", **more)

    name = "model.safetensors"
    yield (
        "put 500",
        lfs("PUT", "/upload/", {"status": 500}, 5, f"failed for {name} with status 500"),
    )
    yield "put 403", lfs("PUT", "/upload/", {"status": 403}, 5, f"refused {name} with status 403")
    yield "put 400", lfs("PUT", "/upload/", {"status": 400}, 5, f"refused {name} with status 400")
    yield "put drop", lfs("PUT", "/upload/", {"how": "drop"}, 5, "storage broke while sending")
    yield "put 503 once", lfs("PUT", "/upload/", {"status": 503}, 0, "answered 503", times=1)
    yield "batch 503", lfs("POST", "/batch", {"status": 503}, 5, "status 503")
    yield "batch 403", lfs("POST", "/batch", {"status": 403}, 5, "access is denied")
    full = {"status": 200, "body": json.dumps({"objects": [BATCH]}).encode()}
    yield "quota in a batch", lfs("POST", "/batch", full, 5, "used up or limited")
    yield "verify 422", lfs("POST", "/verify", {"status": 422}, 5, f"refused {name}")
    yield "storage silent", lfs("PUT", "/upload/", {"how": "drop"}, 0, "broke", times=2)
    token = "xet-write-token"
    yield "no Xet", xet("GET", token, {"status": 404}, 5, "Set HF_HUB_DISABLE_XET=1")
    yield "no Xet access", xet("GET", token, {"status": 403}, 5, "Check the token's rights")
    yield "Xet quota", xet("GET", token, said(403, FULL), 5, "used up or limited")
    yield "xorb 403", xet("POST", "/v1/xorbs/", {"status": 403}, 5, "does not accept the token")
    yield "xorb 429", xet("POST", "/v1/xorbs/", {"status": 429}, 5, "limits the number")
    yield "xorb 500", xet("POST", "/v1/xorbs/", {"status": 500}, 5, "problem (status 500)")
    yield "xorb drop", xet("POST", "/v1/xorbs/", {"how": "drop"}, 5, "connection broke")
    yield (
        "shard 400",
        xet("POST", "/v1/shards", {"status": 400}, 5, "refused the request with status 400"),
    )


FAULTS = {name: fault for part in (at_commit, before_it, in_storage) for name, fault in part()}
SCENES = {
    "new": ("me/long", "main", ()),
    "main": ("me/long", "main", ()),
    "branch": ("me/long", "longer", ("--revision", "longer")),
    "pull": ("other/model", "refs/pr/1", ("--create-pr", "--public")),
    "config": ("other/model", "refs/pr/1", ("--create-pr", "--config-only")),
}
# The most telling ones; the others are run by `make test-full`.
QUICK = {
    "commit 409 main lfs", "commit 412 branch lfs", "answer lost new lfs", "answer lost pull xet",
    "commit 429 once main xet", "cut for ever config lfs", "quota at commit main lfs",
    "closed to the token main xet", "pull lost config lfs", "put 403 new lfs", "no Xet new xet",
    "Xet quota main xet", "preupload 503 once pull lfs", "quota in a batch new lfs",
}  # fmt: skip


def rows() -> Iterator[Any]:
    for name, fault in FAULTS.items():
        for scene in fault.only or SCENES:
            for transport in ("lfs", "xet"):
                if fault.transport in ("", transport) and (scene, transport) != ("config", "xet"):
                    called = f"{name} {scene} {transport}"
                    marks = () if called in QUICK else (pytest.mark.full,)
                    yield pytest.param(fault, scene, transport, id=called, marks=marks)


def test_the_table_is_large_and_its_telling_rows_are_in_it():
    names = {row.id for row in rows()}
    assert len(names) >= 200
    assert names >= QUICK


class Scene:
    """A Hub before a push, and what must be on it afterwards."""

    def __init__(self, hub: Any, name: str, model: Any, demo: Any) -> None:
        self.hub, self.name = hub, name
        self.repo_id, self.ref, options = SCENES[name]
        self.command = ("push", model, self.repo_id, *options)
        self.sent = {path.name for path in model.iterdir() if path.is_file()}
        if name == "config":
            self.sent &= {"config.json", "tokenizer_config.json", "yarncli.json", "README.md"}
        self.model = model
        base = {path.name: path.read_bytes() for path in demo.iterdir()} if name == "config" else {}
        if name != "new":
            hub.add_repo(
                self.repo_id, {**base, "README.md": WORDS}, private=self.repo_id == "me/long"
            )
        self.before = self.commits()

    def commits(self) -> list[dict[str, str]]:
        repo = self.hub.repos.get(self.repo_id)
        return [*repo.commits.values()] if repo else []

    def made(self) -> list[dict[str, str]]:
        """The commits since, but that of the creation."""
        since = [files for files in self.commits() if files not in self.before]
        return [files for files in since if set(files) != {".gitattributes"}]

    def assert_whole(self, count: int) -> None:
        """So many commits were made, and each holds all that was to be sent, byte by byte."""
        made = self.made()
        assert len(made) == count
        for files in made:
            for name in self.sent - {"README.md"}:
                sent = self.hub.blob(files[name]).read_bytes()
                assert sent == (self.model / name).read_bytes(), name
            card = self.hub.blob(files["README.md"]).read_bytes()
            assert b"yarncli:begin" in card
            assert self.name == "new" or b"KEEP ME" in card
        pulls = self.hub.pulls.get(self.repo_id, [])
        assert len(pulls) <= 1
        if self.name in LARGE[:3]:
            assert not pulls

    def stored(self) -> list[str]:
        """What the storage took, by its address."""
        log = self.hub.requests("PUT") + self.hub.requests("POST", "^/v1/xorbs/")
        return [request.path.split("?")[0] for request in log if request.status == 200]


@pytest.mark.parametrize(("fault", "scene", "transport"), list(rows()))
def test_a_push_and_the_same_again(
    fault, scene, transport, hub, model, demo, cli, fast_retries, request
):
    if transport == "xet":
        request.getfixturevalue("xet_hub")
    there = Scene(hub, scene, model, demo)
    hub.fail(fault.method, fault.pattern, times=fault.times, **fault.how)
    done = cli(*there.command, code=fault.code)
    assert fault.told in done.stderr
    assert "Traceback" not in done.stderr
    last = fault.pattern in ("/status$",)  # after the commit
    there.assert_whole(1 if fault.code == 0 or last else 0)
    if fault.code and scene == "new" and there.repo_id in hub.repos:
        assert "me/long was created (private) and exists." in done.stderr
    # What the storage took and then refused to confirm is nobody's.
    confirmed = fault.code == 0 or fault.pattern not in ("/verify", "/v1/shards")
    arrived = there.stored() if confirmed else []
    assert len(arrived) == len(set(arrived))
    hub.failures.clear()
    hub.log.clear()
    again = cli(*there.command)
    there.assert_whole(1)
    assert not set(there.stored()) & set(arrived)
    assert not hub.requests("", "collections")
    if fault.code == 0:
        assert again.stdout == done.stdout
        assert not [r for r in hub.log if r.method not in ("GET", "HEAD")]
    if scene in ("pull", "config"):
        assert [pull.status for pull in hub.pulls[there.repo_id]] == ["open"]
        assert re.fullmatch(r"http://\S+/other/model/discussions/1\n", again.stdout)
