"""A small Hugging Face Hub: loopback HTTP, files on disk, what the real client asks for.

Reading: model info, tree, resolve with ranges, LFS behind a signed URL on another origin, private
and gated repositories, tokens, failures on demand, a log of every request. Further routes are added
with `@route`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SIGNATURE = "Signature=do-not-show-this"
_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., None]]] = []


def route(method: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a handler `(exchange, hub, **groups)`; `{id}` stands for org/name."""

    def register(handler: Callable[..., None]) -> Callable[..., None]:
        compiled = re.compile(pattern.replace("{id}", r"(?P<id>[\w.-]+/[\w.-]+)"))
        _ROUTES.append((method, compiled, handler))
        return handler

    return register


@dataclass
class User:
    name: str
    write: bool = True
    may_read: set[str] = field(default_factory=set)


@dataclass
class Repo:
    """`commits` maps a commit to its files: path → SHA-256 of the content."""

    id: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, str], ref: str = "main") -> str:
        """Make `files` the content of a branch; returns the new commit."""
        parent = self.refs.get(ref, "")
        text = json.dumps([self.id, parent, sorted(files.items()), len(self.commits)])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None
    status: int = 0
    sent: int = 0  # bytes of the body
    failed: bool = False  # on demand


@dataclass
class Failure:
    """What to do instead of a normal answer: `status`, "drop" or a wait; or how to damage it.

    "half" breaks off in the body, "short" leaves its last byte out, "flip" changes one bit.
    """

    method: str
    pattern: re.Pattern[str]
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    how: str = "status"
    seconds: float = 0.0


class MiniHub:
    """A Hub to be used in a `with` block; `url` is its endpoint."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)
        self.repos: dict[str, Repo] = {}
        self.users: dict[str, User] = {}
        self.others: set[tuple[str, str]] = set()  # ("datasets" or "spaces", id)
        self.log: list[Request] = []
        self.failures: list[Failure] = []
        self.lfs_suffixes = (".safetensors", ".bin")
        self.supports_ranges = True
        self.xet_headers: Callable[[str, str, str], dict[str, str]] = lambda *_: {}
        self.lock = threading.RLock()
        self._servers = [self._serve(), self._serve()]  # the second one is the file storage

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage_url(self) -> str:
        # Another host name: clients of 1.x compare names without ports.
        return f"http://localhost:{self._servers[1].server_port}"

    def __enter__(self) -> MiniHub:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add_user(self, token: str, name: str, *, write: bool = True, may_read: Any = ()) -> None:
        self.users[token] = User(name, write, set(may_read))

    def add_repo(self, repo_id: str, files: Mapping[str, bytes] | Path, **properties: bool) -> Repo:
        """A repository with one commit on main: `files`, or all files of a directory."""
        repo = self.repos.setdefault(repo_id, Repo(repo_id, **properties))
        self.commit(repo_id, files)
        return repo

    def commit(self, repo_id: str, files: Mapping[str, bytes] | Path, ref: str = "main") -> str:
        """Make `files` the whole content of a branch."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes()
                for path in files.rglob("*")
                if path.is_file()
            }
        stored = {name: self.store(data) for name, data in files.items()}
        return self.repos[repo_id].commit(stored, ref)

    def store(self, data: bytes) -> str:
        oid = hashlib.sha256(data).hexdigest()
        self.blob(oid).write_bytes(data)
        return oid

    def blob(self, oid: str) -> Path:
        return self.root / "blobs" / oid

    def is_lfs(self, name: str) -> bool:
        return name.endswith(self.lfs_suffixes)

    def fail(self, method: str, pattern: str, *, times: int = 1, **how: Any) -> None:
        """Let the next `times` requests whose path (with query) matches go wrong; see `Failure`."""
        self.failures.append(Failure(method, re.compile(pattern), times, **how))

    def requests(self, method: str = "", pattern: str = "") -> list[Request]:
        return [r for r in self.log if method in ("", r.method) and re.search(pattern, r.path)]

    def _serve(self) -> ThreadingHTTPServer:
        hub = self

        class Handler(Exchange):
            def setup(self) -> None:
                self.hub = hub
                super().setup()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer, as the route handlers see it."""

    protocol_version = "HTTP/1.1"
    # Otherwise each answer, sent as header and body, waits 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True
    hub: MiniHub
    entry: Request

    def log_message(self, *_: object) -> None:
        """Nothing: `MiniHub.log` has it."""

    def _dispatch(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        authorization = self.headers.get("Authorization")
        self.entry = Request(self.command, self.path, self.headers.get("Range"), authorization)
        with self.hub.lock:
            self.hub.log.append(self.entry)
        self.failure = self._next_failure()
        self.entry.failed = self.failure is not None
        if self.failure and self._fail(self.failure):
            return
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        for method, pattern, handler in _ROUTES:
            match = pattern.fullmatch(parts.path)
            if match and method == ("GET" if self.command == "HEAD" else self.command):
                handler(
                    self, self.hub, **{k: unquote(v or "") for k, v in match.groupdict().items()}
                )
                return
        self.error(404, message="no such route")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch

    def _next_failure(self) -> Failure | None:
        with self.hub.lock:
            for failure in self.hub.failures:
                matches = failure.method in ("", self.command)
                if failure.times > 0 and matches and failure.pattern.search(self.path):
                    failure.times -= 1
                    return failure
        return None

    def _fail(self, failure: Failure) -> bool:
        time.sleep(failure.seconds)
        if failure.how == "drop":
            self.close_connection = True
            self.connection.close()
            return True
        if failure.how == "status":
            self.answer(failure.status, failure.body, failure.headers)
            return True
        return False  # the route answers

    @property
    def user(self) -> User | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.hub.users.get(token)

    def json(self) -> Any:
        return json.loads(self.body)

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        headers = dict(headers or {})
        if self.failure and self.command == "GET":
            body = _spoilt(body, self.failure.how)
        headers.setdefault("Content-Length", str(len(body)))
        self.entry.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.failure and self.failure.how == "half":
            body, self.close_connection = body[: len(body) // 2], True
        try:
            for start in range(0, len(body), 1 << 16):
                self.entry.sent += self.wfile.write(body[start : start + (1 << 16)])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # a client that had enough

    def answer_json(self, document: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        if message:
            headers["X-Error-Message"] = message
        self.answer(status, json.dumps({"error": message}).encode(), headers)

    def readable_repo(self, repo_id: str) -> Repo | None:
        """The repository if this user may read it; otherwise the error is answered."""
        repo = self.hub.repos.get(repo_id)
        token, user = self.headers.get("Authorization"), self.user
        allowed = user is not None and (
            repo_id in user.may_read or repo_id.startswith(user.name + "/")
        )
        if token and user is None:
            self.error(401, message="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not allowed):
            self.error(404 if user else 401, "RepoNotFound", "Repository not found")
        elif repo.disabled:
            self.error(403, message="Access to this resource is disabled.")
        else:
            return repo
        return None

    def readable_files(self, repo: Repo) -> bool:
        """Whether this user may read the files of a repository; otherwise the error is answered."""
        user = self.user
        if repo.gated and not (user and repo.id in user.may_read):
            self.error(403 if user else 401, "GatedRepo", "Access to this model is restricted.")
            return False
        return True


@route("GET", r"/api/models/{id}(?:/revision/(?P<revision>[^/]+))?")
def model_info(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None:
        return
    commit = repo.resolve(revision or "main")
    if commit is None:
        exchange.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    siblings = []
    for name, oid in repo.commits[commit].items():
        sibling: dict[str, Any] = {"rfilename": name}
        if "blobs" in exchange.query:
            size = hub.blob(oid).stat().st_size
            sibling |= {"size": size, "blobId": _git_oid(hub, oid, is_pointer=hub.is_lfs(name))}
            if hub.is_lfs(name):
                sibling["lfs"] = {"sha256": oid, "size": size, "pointerSize": 130}
        siblings.append(sibling)
    exchange.answer_json(
        {
            "_id": "0", "id": repo.id, "modelId": repo.id, "sha": commit, "siblings": siblings,
            "private": repo.private, "gated": "manual" if repo.gated else False,
            "disabled": repo.disabled, "downloads": 0, "likes": 0, "tags": [],
        }
    )  # fmt: skip


@route("GET", r"/api/(?P<kind>datasets|spaces)/{id}")
def other_info(exchange: Exchange, hub: MiniHub, kind: str, id: str) -> None:
    if (kind, id) not in hub.others:
        exchange.error(404, "RepoNotFound", "Repository not found")
        return
    exchange.answer_json({"_id": "0", "id": id, "sha": "0" * 40, "siblings": [], "tags": []})


@route("GET", r"/api/models/{id}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?")
def tree(exchange: Exchange, hub: MiniHub, id: str, revision: str, folder: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None:
        return
    commit = repo.resolve(revision)
    if commit is None:
        exchange.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    entries = []
    for name, oid in repo.commits[commit].items():
        if name.startswith(folder):
            size = hub.blob(oid).stat().st_size
            entry = {
                "type": "file",
                "path": name,
                "size": size,
                "oid": _git_oid(hub, oid, is_pointer=hub.is_lfs(name)),
            }
            if hub.is_lfs(name):
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
            entries.append(entry)
    exchange.answer_json(entries)


@route("GET", r"/{id}/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
def resolve(exchange: Exchange, hub: MiniHub, id: str, revision: str, name: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None or not exchange.readable_files(repo):
        return
    commit = repo.resolve(revision)
    if commit is None:
        exchange.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    oid = repo.commits[commit].get(name)
    if oid is None:
        exchange.error(404, "EntryNotFound", "Entry not found")
        return
    headers = {"X-Repo-Commit": commit}
    if not hub.is_lfs(name):
        headers["ETag"] = f'"{_git_oid(hub, oid, is_pointer=hub.is_lfs(name))}"'
        _send_file(exchange, hub, oid, headers)
        return
    headers |= {
        "X-Linked-ETag": f'"{oid}"',
        "X-Linked-Size": str(hub.blob(oid).stat().st_size),
        "Location": f"{hub.storage_url}/storage/{oid}?{SIGNATURE}",
        **hub.xet_headers(id, commit, oid),
    }
    exchange.answer(302, b"", headers)


@route("GET", r"/storage/(?P<oid>[0-9a-f]{64})")
def storage(exchange: Exchange, hub: MiniHub, oid: str) -> None:
    if exchange.headers.get("Authorization") or SIGNATURE not in exchange.path:
        exchange.error(403, message="a signed URL takes no token")
        return
    _send_file(exchange, hub, oid, {"ETag": f'"{oid}"'})


@route("GET", r"/api/whoami-v2")
def whoami(exchange: Exchange, hub: MiniHub) -> None:
    user = exchange.user
    if user is None:
        exchange.error(401, message="Invalid credentials in Authorization header")
        return
    role = "write" if user.write else "read"
    token = {"accessToken": {"displayName": "test", "role": role}}
    exchange.answer_json({"type": "user", "name": user.name, "orgs": [], "auth": token})


@route("GET", r"/api/models/{id}/auth-check(?P<write>/write)?")
def auth_check(exchange: Exchange, hub: MiniHub, id: str, write: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is None or not exchange.readable_files(repo):
        return
    user = exchange.user
    if write and not (user and user.write and id.startswith(user.name + "/")):
        exchange.error(403, message="You have no write access")
        return
    exchange.answer_json({})


def _send_file(exchange: Exchange, hub: MiniHub, oid: str, headers: dict[str, str]) -> None:
    send_bytes(exchange, hub, hub.blob(oid).read_bytes(), headers)


def send_bytes(exchange: Exchange, hub: MiniHub, data: bytes, headers: dict[str, str]) -> None:
    """Answer with bytes, or with the range of them that is asked for."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("Range") or "")
    if not hub.supports_ranges or not wanted:
        exchange.answer(200, data, headers)
        return
    headers["Accept-Ranges"] = "bytes"
    begin, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
    if begin >= len(data):
        exchange.answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
        return
    headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
    exchange.answer(206, data[begin : end + 1], headers)


def _spoilt(body: bytes, how: str) -> bytes:
    if how == "short":
        return body[:-1]
    if how == "flip" and body:
        place = len(body) // 2
        return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    return body


def _git_oid(hub: MiniHub, oid: str, *, is_pointer: bool = False) -> str:
    """The git hash of a file, or of the pointer that git holds in place of a large one."""
    data = f"oid sha256:{oid}".encode() if is_pointer else hub.blob(oid).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
