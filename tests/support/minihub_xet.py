"""The Xet side of the small Hub: tokens, a store for xorbs and shards, and what reads it.

Loaded beside minihub_writing.py, whose routes it adds to. Formats and paths are those of
https://huggingface.co/docs/xet (api, xorb, shard, download protocol). A file that is read comes as
one xorb of its own, made when it is asked for; the client does not compute the hashes of what it
reads, so these are made up. Chunks must come uncompressed
(HF_XET_XORB_COMPRESSION_POLICY=none). A shard is accepted only if each of its files, put together
from the xorbs, has the SHA-256 that it claims. A hub that trusts its clients does without both.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.minihub import SIGNATURE, Exchange, MiniHub, route, send_bytes
from support.minihub_writing import is_pull, writable_repo

CHUNK = 1 << 16  # bytes of a chunk of a file that is read
ENTRY = 48  # bytes of every record of a shard
WITH_VERIFICATION, WITH_SHA256 = 1 << 31, 1 << 30


def open_for_xet(hub: MiniHub) -> MiniHub:
    """Give a hub the state that these routes need; without it, it has no Xet."""
    hub.xet_tokens = {}  # token → repository
    hub.xet_files = {}  # hash of a file → SHA-256 of its content
    hub.xet_headers = partial(_headers, hub)
    hub.xorbs = {}  # hash → chunks, or their sizes
    hub.trusts_xet = False  # whether files count as what they claim to be, and only sizes are kept
    return hub


def with_xet(hub: MiniHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniHub]:
    """What a fixture yields: the hub with Xet storage, and a client that soon gives up."""
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants
    from huggingface_hub.utils import _xet

    open_for_xet(hub)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    environment = {
        "HF_HUB_DISABLE_XET": "0",
        "HF_XET_XORB_COMPRESSION_POLICY": "none",  # of what is pushed
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # An earlier hub may have had the port of this one, and its storage another port.
    _xet.XET_CONNECTION_INFO_CACHE.clear()
    _xet.abort_xet_session()  # the next one reads the environment again
    yield hub
    _xet.abort_xet_session()


def _headers(hub: MiniHub, repo_id: str, commit: str, oid: str) -> dict[str, str]:
    """What tells a client that a file can be read through Xet."""
    name = hashlib.sha256(b"xet" + oid.encode()).hexdigest()
    hub.xet_files[name] = oid
    address = f"{hub.url}/api/models/{repo_id}/xet-read-token/{commit}"
    return {"X-Xet-Hash": name, "Link": f'<{address}>; rel="xet-auth"'}


@route("GET", r"/api/models/{id}/xet-write-token/(?P<revision>[^/]+)")
def write_token(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    if not hasattr(hub, "xet_tokens"):
        exchange.error(404, message="no such route")
        return
    if writable_repo(exchange, id, pull=is_pull(exchange, revision)) is not None:
        _give_token(exchange, hub, id)


@route("GET", r"/api/models/{id}/xet-read-token/(?P<revision>[^/]+)")
def read_token(exchange: Exchange, hub: MiniHub, id: str, revision: str) -> None:
    repo = exchange.readable_repo(id)
    if repo is not None and exchange.readable_files(repo):
        _give_token(exchange, hub, id)


def _give_token(exchange: Exchange, hub: MiniHub, repo_id: str) -> None:
    token, expires = f"xet-secret-{len(hub.xet_tokens)}", int(time.time()) + 3600
    hub.xet_tokens[token] = repo_id
    headers = {
        "X-Xet-Cas-Url": hub.storage_url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    body = {"casUrl": hub.storage_url, "accessToken": token, "exp": expires}
    exchange.answer(200, json.dumps(body).encode(), headers)


@route("POST", r"/v1/xorbs/default/(?P<name>[0-9a-f]{64})")
def xorb(exchange: Exchange, hub: MiniHub, name: str) -> None:
    if _repo_of(exchange, hub) is not None:
        read = _sizes if hub.trusts_xet else _chunks
        hub.xorbs[name] = list(read(exchange.body))
        exchange.answer_json({"was_inserted": True})


@route("POST", r"/v1/shards")
def shard(exchange: Exchange, hub: MiniHub) -> None:
    repo_id = _repo_of(exchange, hub)
    if repo_id is None:
        return
    for sha256, terms in _files(exchange.body):
        chunks = (chunk for name, begin, end in terms for chunk in hub.xorbs[name][begin:end])
        if hub.trusts_xet:
            with hub.blob(sha256).open("wb") as out:
                out.truncate(sum(chunks))
        elif _stored(hub, chunks) != sha256:
            exchange.error(400, message="the file has another SHA-256")
            return
        hub.objects.setdefault(repo_id, set()).add(sha256)
    exchange.answer_json({"result": 1})


@route("GET", r"/v1/reconstructions/(?P<name>[0-9a-f]{64})")
def reconstruction(exchange: Exchange, hub: MiniHub, name: str) -> None:
    """Where the bytes of a file are, or of the range of it that is asked for."""
    if _repo_of(exchange, hub) is None:
        return
    data = hub.blob(hub.xet_files[name]).read_bytes()
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("Range") or "")
    begin, end = (int(wanted[1]), int(wanted[2] or len(data))) if wanted else (0, len(data))
    if wanted and begin >= len(data):
        exchange.error(416)
        return
    first, last = begin // CHUNK, min(end // CHUNK, (len(data) - 1) // CHUNK)
    size = min((last + 1) * CHUNK, len(data)) - first * CHUNK
    term = {"start": first, "end": last + 1}
    where = {
        "start": first * (CHUNK + 8),
        "end": first * (CHUNK + 8) + size + (last - first) * 8 + 7,
    }
    exchange.answer_json(
        {
            "offset_into_first_range": begin - first * CHUNK,
            "terms": [{"hash": name, "unpacked_length": size, "range": term}],
            "fetch_info": {
                name: [
                    {
                        "range": term,
                        "url": f"{hub.storage_url}/read-xorbs/{name}?{SIGNATURE}",
                        "url_range": where,
                    }
                ]
            },
        }
    )


@route("GET", r"/read-xorbs/(?P<name>[0-9a-f]{64})")
def read_xorb(exchange: Exchange, hub: MiniHub, name: str) -> None:
    data = hub.blob(hub.xet_files[name]).read_bytes()
    chunks = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    send_bytes(exchange, hub, b"".join(map(_packed, chunks)), {})


def _packed(chunk: bytes) -> bytes:
    """A chunk as xorbs hold it: version 0, size there, 0 for uncompressed, size, bytes."""
    size = len(chunk).to_bytes(3, "little")
    return b"\0" + size + b"\0" + size + chunk


def _stored(hub: MiniHub, chunks: Iterator[bytes]) -> str:
    """Store a file that may be larger than the memory, zeros as a hole; returns its SHA-256."""
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=hub.root, delete=False) as out:
        for chunk in chunks:
            digest.update(chunk)
            if chunk.strip(b"\0"):
                out.write(chunk)
            else:
                out.seek(len(chunk), 1)
        out.truncate()
    Path(out.name).replace(hub.blob(digest.hexdigest()))
    return digest.hexdigest()


def _repo_of(exchange: Exchange, hub: MiniHub) -> str | None:
    """The repository that the Xet token was given for; otherwise the error is answered."""
    token = (exchange.headers.get("Authorization") or "").removeprefix("Bearer ")
    if token not in hub.xet_tokens:
        exchange.error(401, message="not a Xet token")
    return hub.xet_tokens.get(token)


def _chunks(xorb: bytes) -> Iterator[bytes]:
    """The chunks of a serialised xorb, up to its footer."""
    position = 0
    while position + 8 <= len(xorb) and xorb[position] == 0:
        size = int.from_bytes(xorb[position + 1 : position + 4], "little")
        assert xorb[position + 4] == 0, "a compressed chunk"
        yield xorb[position + 8 : position + 8 + size]
        position += 8 + size


def _sizes(xorb: bytes) -> Iterator[int]:
    """The sizes of the chunks of a serialised xorb, which may be compressed."""
    position = 0
    while position + 8 <= len(xorb) and xorb[position] == 0:
        yield int.from_bytes(xorb[position + 5 : position + 8], "little")
        position += 8 + int.from_bytes(xorb[position + 1 : position + 4], "little")


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """SHA-256 and terms (xorb, first chunk, end) of each file of a shard."""
    position = ENTRY  # after the header
    while shard[position : position + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", shard, position + 32)
        assert flags & WITH_SHA256
        position += ENTRY
        terms = []
        for _ in range(count):
            begin, end = struct.unpack_from("<II", shard, position + 40)
            terms.append((_hash(shard, position), begin, end))
            position += ENTRY
        position += ENTRY * count if flags & WITH_VERIFICATION else 0
        yield _hash(shard, position), terms
        position += ENTRY


def _hash(data: bytes, position: int) -> str:
    """A hash as text: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", data, position))
