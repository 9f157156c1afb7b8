"""The writing side of the small Hub: repositories, LFS uploads, commits, pull requests, copies.

Loaded beside minihub.py, whose routes it adds to. Objects of the file storage belong to a
repository, as on the real Hub: a commit may name only what was uploaded or copied there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from support.minihub import (
    SIGNATURE,
    Exchange,
    MiniHub,
    Repo,
    _git_oid,
    route,
)

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class PullRequest:
    num: int
    title: str
    author: str
    status: str = "open"
    body: str = ""

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


def open_for_writing(hub: MiniHub) -> MiniHub:
    """Give a hub the state that these routes need."""
    hub.objects = {}  # repository → object ids of the file storage
    hub.pulls = {}  # repository → pull requests
    hub.multipart_size = 1 << 40
    hub.copies_files = True
    hub.card_remarks = []
    hub.tags = {}  # (repository, tag) → commit
    hub.protected = set()  # branches that take no commits
    return hub


def held(hub: MiniHub, repo: Repo) -> set[str]:
    in_commits = {oid for files in repo.commits.values() for oid in files.values()}
    return hub.objects.setdefault(repo.id, set()) | in_commits


def writable_repo(exchange: Exchange, repo_id: str, *, pull: bool = False) -> Repo | None:
    """The repository if this user may commit to it (or open a pull request)."""
    repo = exchange.readable_repo(repo_id)
    if repo is None:
        return None
    user = exchange.user
    if user is None:
        exchange.error(401, message="Invalid username or password.")
    elif not pull and not (user.write and repo_id.startswith(user.name + "/")):
        exchange.error(403, message="You do not have write access")
    else:
        return repo
    return None


@route("POST", r"/api/repos/create")
def create(exchange: Exchange, hub: MiniHub) -> None:
    wanted, user = exchange.json(), exchange.user
    if user is None:
        exchange.error(401, message="Invalid credentials in Authorization header")
        return
    owner = wanted["organization"] or user.name
    repo_id = f"{owner}/{wanted['name']}"
    url = {"url": f"{hub.url}/{repo_id}"}
    if not user.write or owner != user.name:
        exchange.error(403, message="You don't have the rights to create a model there")
    elif repo_id in hub.repos:
        exchange.answer_json(url | {"error": "You already created this model repo"}, 409)
    else:
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        hub.add_repo(repo_id, {".gitattributes": GITATTRIBUTES}, private=private)
        exchange.answer_json(url)


@route("POST", r"/api/validate-yaml")
def validate_yaml(exchange: Exchange, hub: MiniHub) -> None:
    bad = "base_model: ./" in exchange.json()["content"]
    errors = [{"message": '"base_model" must be a model id'}] if bad else []
    remarks = [{"message": text} for text in hub.card_remarks]
    exchange.answer_json({"errors": errors, "warnings": remarks}, 400 if bad else 200)


@route("POST", r"/api/models/{id}/preupload/(?P<revision>[^/]+)")
def preupload(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    repo = writable_repo(exchange, id, pull=is_pull(exchange, revision))
    if repo is None:
        return
    commit = repo.resolve(revision)
    there = repo.commits[commit] if commit else {}
    asked = exchange.json()
    text = hub.blob(there[".gitignore"]).read_text() if ".gitignore" in there else ""
    ignoring = asked.get("gitIgnore", text).splitlines()
    answers = []
    for file in asked["files"]:
        name = file["path"]
        mode = "lfs" if hub.is_lfs(name) else "regular"
        answer = {"path": name, "uploadMode": mode, "shouldIgnore": ignored(name, ignoring)}
        if name in there:
            answer["oid"] = there[name] if mode == "lfs" else _git_oid(hub, there[name])
        answers.append(answer)
    exchange.answer_json({"files": answers})


def ignored(name: str, lines: list[str]) -> bool:
    """Whether a .gitignore names a file: patterns for a part of the path, negations."""
    found = False
    for line in lines:
        pattern = line.strip().removeprefix("!").rstrip("/")
        fits = any(fnmatchcase(part, pattern) for part in (name, *name.split("/")))
        if fits and not pattern.startswith("#"):
            found = not line.startswith("!")
    return found


@route("POST", r"/{id}\.git/info/lfs/objects/batch")
def batch(exchange: Exchange, hub: MiniHub, id: str) -> None:
    repo = writable_repo(exchange, id, pull=True)
    if repo is None:
        return
    objects = []
    for wanted in exchange.json()["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in held(hub, repo):
            upload: dict[str, Any] = {
                "href": f"{hub.storage_url}/upload/{oid}?{SIGNATURE}",
                "header": {},
            }
            if size > hub.multipart_size:
                count = -(-size // hub.multipart_size)
                parts = {
                    f"{n:05}": f"{hub.storage_url}/part/{oid}/{n}?{SIGNATURE}"
                    for n in range(1, count + 1)
                }
                upload["href"] = f"{hub.url}/complete/{oid}?{SIGNATURE}"
                upload["header"] = {"chunk_size": str(hub.multipart_size), **parts}
            verify = {"href": f"{hub.url}/{id}/verify", "header": {}}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    exchange.answer_json({"transfer": "basic", "objects": objects})


def _signed(exchange: Exchange) -> bool:
    """Whether a request has the signature, no token, and a length, as the file storage asks."""
    signed = SIGNATURE in exchange.path and not exchange.headers.get("Authorization")
    if not signed or exchange.headers.get("Content-Length") is None:
        exchange.error(403 if not signed else 501, message="not a signed upload")
        return False
    return True


@route("PUT", r"/upload/(?P<oid>[0-9a-f]{64})")
def upload(exchange: Exchange, hub: MiniHub, oid: str) -> None:
    if not _signed(exchange):
        return
    if hashlib.sha256(exchange.body).hexdigest() != oid:
        exchange.error(400, message="BadDigest")
        return
    hub.store(exchange.body)
    exchange.answer(200)


@route("PUT", r"/part/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)")
def part(exchange: Exchange, hub: MiniHub, oid: str, number: str) -> None:
    if _signed(exchange):
        (hub.root / f"{oid}.{number}").write_bytes(exchange.body)
        exchange.answer(200, headers={"ETag": hashlib.md5(exchange.body).hexdigest()})


@route("POST", r"/complete/(?P<oid>[0-9a-f]{64})")
def complete(exchange: Exchange, hub: MiniHub, oid: str) -> None:
    parts = sorted(part["partNumber"] for part in exchange.json()["parts"])
    data = b"".join((hub.root / f"{oid}.{number}").read_bytes() for number in parts)
    if hub.store(data) == oid:
        exchange.answer_json({})
    else:
        exchange.error(400, message="BadDigest")


@route("POST", r"/{id}/verify")
def verify(exchange: Exchange, hub: MiniHub, id: str) -> None:
    wanted = exchange.json()
    path = hub.blob(wanted["oid"])
    if not exchange.user or not path.exists() or path.stat().st_size != wanted["size"]:
        exchange.error(422, message="the object is not there")
        return
    hub.objects.setdefault(id, set()).add(wanted["oid"])
    exchange.answer_json({})


@route("POST", r"/api/models/{id}/commit/(?P<revision>[^/]+)")
def commit(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    with hub.lock:
        _commit(exchange, hub, id, revision)


def _commit(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    pull = "create_pr" in exchange.query
    repo = writable_repo(exchange, id, pull=pull or is_pull(exchange, revision))
    if repo is None:
        return
    if revision in hub.protected and not pull:
        exchange.error(403, message="This branch is protected")
        return
    head = repo.resolve(revision)
    lines = [json.loads(line) for line in exchange.body.splitlines()]
    header = lines[0]["value"]
    if head is None or head != header.get("parentCommit", head):
        exchange.error(412 if head else 404, message="the branch is at another commit")
        return
    files = dict(repo.commits[head])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = hub.store(base64.b64decode(value["content"]))
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        elif value["oid"] in held(hub, repo):
            files[value["path"]] = value["oid"]
        else:
            exchange.error(400, message="LFS pointer to a file that does not exist")
            return
    answer = {}
    if pull:
        pulls = hub.pulls.setdefault(id, [])
        opened = PullRequest(len(pulls) + 1, header["summary"], exchange.user.name)
        pulls.append(opened)
        repo.refs[opened.ref] = head
        revision = opened.ref
        answer["pullRequestUrl"] = f"{hub.url}/{id}/discussions/{opened.num}"
    made = repo.commit(files, revision)
    url = f"{hub.url}/{id}/commit/{made}"
    exchange.answer_json({"success": True, "commitOid": made, "commitUrl": url, **answer})


def _overview(pull: PullRequest, repo_id: str) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "author": {"name": pull.author},
        "status": pull.status,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "isPullRequest": True,
        "repo": {"name": repo_id, "type": "model"},
    }


@route("GET", r"/api/models/{id}/discussions")
def discussions(exchange: Exchange, hub: MiniHub, id: str) -> None:
    if exchange.readable_repo(id) is None:
        return
    author = exchange.query.get("author", [None])[0]
    found = [_overview(p, id) for p in hub.pulls.get(id, []) if author in (None, p.author)]
    exchange.answer_json({"discussions": found, "count": len(found), "start": 0})


@route("POST", r"/api/models/{id}/discussions")
def open_discussion(exchange: Exchange, hub: MiniHub, id: str) -> None:
    repo = writable_repo(exchange, id, pull=True)
    if repo is None:
        return
    wanted = exchange.json()
    assert wanted["pullRequest"]
    assert 3 <= len(wanted["title"]) <= 200
    pulls = hub.pulls.setdefault(id, [])
    opened = PullRequest(len(pulls) + 1, wanted["title"], exchange.user.name, "draft")
    opened.body = wanted["description"]
    pulls.append(opened)
    repo.refs[opened.ref] = repo.refs["main"]
    exchange.answer_json({"num": opened.num})


@route("GET", r"/api/models/{id}/discussions/(?P<num>\d+)")
def discussion(exchange: Exchange, hub: MiniHub, id: str, num: str) -> None:
    if exchange.readable_repo(id) is None:
        return
    changes = {"base": "refs/heads/main", "mergeCommitId": None}
    found = {"events": [], "filesWithConflicts": [], "changes": changes, "diff": ""}
    exchange.answer_json({**_overview(hub.pulls[id][int(num) - 1], id), **found})


@route("POST", r"/api/models/{id}/discussions/(?P<num>\d+)/status")
def discussion_status(exchange: Exchange, hub: MiniHub, id: str, num: str) -> None:
    if writable_repo(exchange, id, pull=True) is None:
        return
    hub.pulls[id][int(num) - 1].status = exchange.json()["status"]
    event = {"id": "1", "type": "status-change", "createdAt": "2026-01-01T00:00:00.000Z"}
    author = {"name": exchange.user.name}
    exchange.answer_json({"newStatus": {**event, "author": author, "data": exchange.json()}})


@route("GET", r"/api/models/{id}/refs")
def refs(exchange: Exchange, hub: MiniHub, id: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None:
        return
    named = {name: oid for name, oid in repo.refs.items() if not name.startswith("refs/")}
    tags = {tag for where, tag in hub.tags if where == id}
    found = {
        kind: [
            {"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": oid}
            for name, oid in named.items()
            if (name in tags) == (kind == "tags")
        ]
        for kind, prefix in {"branches": "heads", "tags": "tags"}.items()
    }
    exchange.answer_json({**found, "converts": []})


@route("POST", r"/api/models/{id}/tag/(?P<revision>[^/]+)")
def tag(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    repo = writable_repo(exchange, id)
    if repo is None:
        return
    name = exchange.json()["tag"]
    if name in repo.refs:
        exchange.error(409, message="Tag reference exists already")
        return
    hub.tags[id, name] = repo.refs[name] = repo.resolve(revision)
    exchange.answer_json({})


@route("POST", r"/api/models/{id}/branch/(?P<name>[^/]+)")
def branch(exchange: Exchange, hub: MiniHub, id: str, name: str) -> None:
    repo = writable_repo(exchange, id)
    if repo is None:
        return
    if name in repo.refs:
        exchange.error(409, message="Reference already exists")
        return
    repo.refs[name] = repo.refs["main"]
    exchange.answer_json({})


@route("POST", r"/api/models/{id}/paths-info/(?P<revision>[^/]+)")
def paths_info(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None:
        return
    commit = repo.resolve(revision)
    wanted = _form(exchange)
    entries = []
    for name, oid in repo.commits[commit].items() if commit else ():
        if name in wanted:
            size = hub.blob(oid).stat().st_size
            entry = {
                "type": "file",
                "path": name,
                "size": size,
                "oid": _git_oid(hub, oid, is_pointer=hub.is_lfs(name)),
            }
            if hub.is_lfs(name):
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
                entry |= {"xetHash": oid} if hub.copies_files else {}
            entries.append(entry)
    exchange.answer_json(entries)


@route("POST", r"/api/models/{id}/lfs-files/duplicate")
def duplicate(exchange: Exchange, hub: MiniHub, id: str) -> None:
    source = exchange.readable_repo(id)
    wanted = exchange.json()
    if source is None:
        return
    target = writable_repo(exchange, wanted["target"]["name"])
    if target is None:
        return
    for file in wanted["files"]:
        assert file["sha256"] in held(hub, source)
        hub.objects.setdefault(target.id, set()).add(file["sha256"])
    exchange.answer_json({"success": len(wanted["files"]), "failed": []})


def is_pull(exchange: Exchange, revision: str) -> bool:
    return "create_pr" in exchange.query or revision.startswith("refs/pr/")


def _form(exchange: Exchange) -> list[str]:
    """The paths of a paths-info request, which the client sends as a form."""
    from urllib.parse import parse_qs

    if exchange.headers.get("Content-Type", "").startswith("application/json"):
        return list(exchange.json()["paths"])
    return parse_qs(exchange.body.decode())["paths"]
