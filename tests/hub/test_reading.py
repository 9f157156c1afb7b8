"""The real huggingface_hub client against the local Hub."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from support.checkpoints import DEMO
from support.program import invoke
from yarncli import hub
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, HubError, NotOnHubError, WeightsError
from yarncli.hub import failures
from yarncli.progress import Progress

CONFIG = b'{"model_type": "llama"}\n'


def shard(tensors: int, size: int = 4) -> bytes:
    return save({f"model.layers.{n}.w": np.full(size, n, np.float32) for n in range(tensors)})


@pytest.fixture
def files() -> dict[str, bytes]:
    shards = {f"model-{n}.safetensors": shard(n + 1, 200_000) for n in (1, 2)}
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = json.dumps({"weight_map": weight_map}).encode()
    return {
        "config.json": CONFIG,
        "tokenizer_config.json": b"{}",
        "model.safetensors.index.json": index,
        "sub/notes.md": b"x",
        **shards,
    }


@pytest.fixture
def repo(minihub: Any, files: dict[str, bytes]) -> Any:
    return minihub.add_repo("org/name", files)


def test_listing(minihub: Any, repo: Any, files: dict[str, bytes]) -> None:
    checkpoint = open_checkpoint("hf://org/name")
    assert checkpoint.is_remote
    assert checkpoint.name == "hf://org/name"
    assert checkpoint.commit == repo.refs["main"]
    assert {file.name: file.size for file in checkpoint.files} == {
        name: len(data) for name, data in files.items()
    }
    assert checkpoint.config().value == {"model_type": "llama"}
    assert checkpoint.optional_json("tokenizer_config.json").value == {}  # type: ignore[union-attr]
    assert checkpoint.optional_json("generation_config.json") is None


def test_headers_cost_one_small_range_each(minihub: Any, repo: Any) -> None:
    checkpoint = open_checkpoint("hf://org/name")
    checkpoint.config()
    headers = checkpoint.headers()
    assert {name: len(header.tensors) for name, header in headers.items()} == {
        "model-1.safetensors": 2,
        "model-2.safetensors": 3,
    }
    for name in headers:
        asked = minihub.requests("GET", f"/resolve/.*/{name}")
        assert [request.range for request in asked] == ["bytes=0-100000"]
        assert asked[0].status == 302
    stored = minihub.requests("GET", "/storage/")
    assert len(stored) == 2
    assert all(request.sent <= 100_001 for request in stored)
    assert all(request.authorization is None for request in stored)


def test_a_second_range_for_a_large_header_only(minihub: Any) -> None:
    raw = shard(2000)
    (header_length,) = struct.unpack("<Q", raw[:8])
    assert header_length > 110_000
    minihub.add_repo("org/name", {"config.json": CONFIG, "model.safetensors": raw})
    assert len(open_checkpoint("hf://org/name").headers()["model.safetensors"].tensors) == 2000
    stored = minihub.requests("GET", "/storage/")
    assert [r.range for r in stored] == ["bytes=0-100000", f"bytes=100001-{header_length + 7}"]
    assert sum(r.sent for r in stored) == header_length + 8


def test_no_range_is_asked_beyond_a_small_file(minihub: Any) -> None:
    raw = shard(1)
    minihub.add_repo("org/name", {"config.json": CONFIG, "model.safetensors": raw})
    open_checkpoint("hf://org/name").headers()
    assert [r.range for r in minihub.requests("GET", "/storage/")] == [f"bytes=0-{len(raw) - 1}"]


def test_a_server_without_ranges_does_not_flood_us(minihub: Any, files: dict[str, bytes]) -> None:
    files["model-1.safetensors"] = shard(2, 20_000_000)
    minihub.add_repo("org/name", files)
    minihub.supports_ranges = False
    assert len(open_checkpoint("hf://org/name").headers()) == 2
    sent = max(request.sent for request in minihub.requests("GET", "/storage/"))
    assert sent < len(files["model-1.safetensors"]) / 4  # buffers on the way, not the file
    large = shard(2000)
    minihub.add_repo("org/large", {"config.json": CONFIG, "model.safetensors": large})
    with pytest.raises(HubError, match="cannot send parts"):
        open_checkpoint("hf://org/large").headers()


def test_the_commit_is_pinned(minihub: Any, repo: Any, files: dict[str, bytes]) -> None:
    before = open_checkpoint("hf://org/name")
    old = repo.refs["main"]
    new_files = files | {"config.json": b'{"new": 1}', "tokenizer_config.json": b'{"new": 1}'}
    new = minihub.commit("org/name", new_files)
    assert new != old
    assert before.config().value == {"model_type": "llama"}
    assert before.optional_json("tokenizer_config.json").value == {}  # type: ignore[union-attr]
    before.headers()
    resolved = minihub.requests("", r"/resolve/")
    later = [r for r in resolved if "tokenizer" in r.path or "safetensors" in r.path]
    assert later
    assert all(f"/resolve/{old}/" in request.path for request in later)
    assert open_checkpoint("hf://org/name").config().value == {"new": 1}
    assert open_checkpoint(f"hf://org/name@{old}").config().value == {"model_type": "llama"}


def test_branches(minihub: Any, repo: Any, files: dict[str, bytes]) -> None:
    minihub.commit("org/name", files | {"config.json": b'{"pr": 3}'}, ref="refs/pr/3")
    assert open_checkpoint("hf://org/name@refs/pr/3").config().value == {"pr": 3}


def test_a_file_is_fetched_once(minihub: Any, repo: Any) -> None:
    for _ in range(2):
        checkpoint = open_checkpoint("hf://org/name")
        checkpoint.config()
        checkpoint.optional_json("tokenizer_config.json")
    for name in ("config.json", "tokenizer_config.json"):
        assert len(minihub.requests("GET", f"/resolve/.*/{name}$")) == 1


def test_download(minihub: Any, repo: Any, files: dict[str, bytes]) -> None:
    remote = open_checkpoint("hf://org/name")
    total = sum(map(len, files.values()))
    assert remote.missing_bytes() == total - len(CONFIG)
    told: list[Progress] = []
    local = remote.download(progress=told.append)
    stages = {"Fetching": total - len(CONFIG), "Verifying": total}
    assert {(now.stage, now.total) for now in told} == set(stages.items())
    assert {now.stage: now.done for now in told if now.ended} == stages
    assert not local.is_remote
    assert (local.repo_id, local.commit, local.name) == ("org/name", remote.commit, remote.name)
    assert {
        file.name: local.path(file.name).read_bytes() for file in local.files_to_copy()
    } == files
    assert len(local.headers()) == 2
    again = open_checkpoint("hf://org/name")
    assert again.missing_bytes() == 0
    before = len(minihub.log)
    assert again.download().directory == local.directory
    assert len(minihub.log) == before


def test_download_of_some_files(minihub: Any, repo: Any) -> None:
    remote = open_checkpoint("hf://org/name")
    local = remote.download(("config.json", "tokenizer_config.json"))
    assert [file.name for file in local.files] == ["config.json", "tokenizer_config.json"]
    assert not minihub.requests("", "safetensors")


def test_offline_uses_the_cache(minihub: Any, repo: Any, files: dict[str, bytes]) -> None:
    open_checkpoint("hf://org/name").download()
    minihub.go_offline()
    before = len(minihub.log)
    checkpoint = open_checkpoint("hf://org/name")
    assert checkpoint.commit == repo.refs["main"]
    assert {file.name for file in checkpoint.files} == set(files)
    assert checkpoint.config().value == {"model_type": "llama"}
    assert checkpoint.files_to_copy()
    assert open_checkpoint(f"hf://org/name@{checkpoint.commit}").headers()
    for absent in ("hf://org/other", "hf://org/name@v9"):
        with pytest.raises(HubError, match=r"HF_HUB_OFFLINE forbids"):
            open_checkpoint(absent)
    assert len(minihub.log) == before


def test_an_incomplete_cache_is_noticed(minihub: Any, repo: Any) -> None:
    open_checkpoint("hf://org/name").download(("config.json", "model.safetensors.index.json"))
    minihub.go_offline()
    with pytest.raises(WeightsError, match=r"model-1.safetensors, which is not there"):
        open_checkpoint("hf://org/name").headers()


@pytest.mark.parametrize(("kind", "told"), [("datasets", "a dataset"), ("spaces", "a Space")])
def test_what_has_the_name_of_no_model_is_named(minihub: Any, kind: str, told: str) -> None:
    minihub.others.add((kind, "org/other"))
    with pytest.raises(NotOnHubError, match=f"org/other is {told} on the Hub, and no model has"):
        open_checkpoint("hf://org/other")


def test_tokens(minihub: Any, files: dict[str, bytes]) -> None:
    minihub.add_user("hf_secret_token", "me", may_read={"org/private", "org/gated"})
    minihub.add_user("hf_stranger_token", "stranger")
    minihub.add_repo("org/private", files, private=True)
    minihub.add_repo("org/gated", files, gated=True)
    with pytest.raises(HubError, match="no such model, or it is private"):
        open_checkpoint("hf://org/private")
    with pytest.raises(HubError, match="access must be granted"):
        open_checkpoint("hf://org/gated")
    minihub.log_in("hf_stranger_token")
    with pytest.raises(HubError, match="no such model, or it is private"):
        open_checkpoint("hf://org/private")
    with pytest.raises(HubError, match="access must be granted"):
        open_checkpoint("hf://org/gated")
    minihub.log_in("hf_secret_token")
    for name in ("private", "gated"):
        checkpoint = open_checkpoint(f"hf://org/{name}")
        assert checkpoint.config().value
        assert checkpoint.headers()
    minihub.log_in("hf_wrong_token")
    with pytest.raises(HubError, match="does not accept the token") as refusal:
        open_checkpoint("hf://org/private")
    assert "hf_wrong" not in str(refusal.value)


def test_not_a_model(minihub: Any) -> None:
    minihub.add_repo("org/name", {"README.md": b"x"})
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint("hf://org/name")


def test_names_that_point_out_are_left_out(minihub: Any) -> None:
    minihub.add_repo("org/name", {"config.json": CONFIG, "../evil": b"x", "/etc/x": b"x"})
    assert [file.name for file in open_checkpoint("hf://org/name").files] == ["config.json"]


def test_passing_failures_are_retried(minihub: Any, repo: Any) -> None:
    minihub.fail("GET", r"/api/models/org/name", status=503)
    minihub.fail("GET", r"/api/models/org/name", how="drop")
    checkpoint = open_checkpoint("hf://org/name")
    minihub.fail("GET", r"/storage/", how="half")
    minihub.fail("GET", r"/resolve/.*model-1", status=429, headers={"Retry-After": "0"})
    assert len(checkpoint.headers()) == 2


PERMANENT = {
    "missing revision": (None, "no such revision"),
    "401": ({"status": 401}, "no such model, or it is private"),
    "403": ({"status": 403}, "access is denied"),
    "404": ({"status": 404}, "does not have it"),
    "429": ({"status": 429, "headers": {"Retry-After": "120"}}, "Try again in 120 seconds"),
    "429 without a wait": ({"status": 429}, "Try again later"),
    "rate limit": (
        {"status": 429, "headers": {"RateLimit": '"api";r=0;t=300'}},
        "Try again in 300 seconds",
    ),
    "500": ({"status": 500}, "status 500"),
    "418": ({"status": 418}, "refused the request with status 418"),
    "dropped": ({"how": "drop"}, "connection broke"),
    "not JSON": ({"status": 200, "body": b"<html>log in to this hotel</html>"}, "not JSON"),
    "no commit": ({"status": 200, "body": b'{"id": "x", "siblings": []}'}, "lacks the commit"),
    "disabled": ("disabled", "disabled access"),
    "hangs": ("hangs", "did not answer in time"),
}  # fmt: skip


@pytest.mark.parametrize("case", PERMANENT)
def test_every_cause_has_its_own_sentence(
    minihub: Any, repo: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, text = PERMANENT[case]
    revision = "@v9" if how is None else ""
    if how == "disabled":
        repo.disabled = True
    elif how == "hangs":
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
        minihub.fail("GET", "/api/models", times=9, how="wait", seconds=0.3)
    elif how is not None:
        minihub.fail("GET", "/api/models", times=9, **how)  # type: ignore[arg-type]
    with pytest.raises(HubError) as refusal:
        open_checkpoint(f"hf://org/name{revision}")
    message = str(refusal.value)
    assert message.startswith(("org/name", "The server's answer about org/name"))
    assert text in message
    assert "http" not in message.replace("HTTP", "")
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_no_signed_address_is_shown(minihub: Any, repo: Any) -> None:
    minihub.fail("GET", "/storage/", times=9, status=403)
    with pytest.raises(HubError) as refusal:
        open_checkpoint("hf://org/name").headers()
    import traceback

    shown = "".join(traceback.format_exception(refusal.value))
    assert "access is denied" in shown
    assert "Signature" not in shown
    assert minihub.storage_url not in shown


def test_the_log_of_the_client_shows_no_signed_address(
    minihub: Any, repo: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logger = logging.getLogger("huggingface_hub")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(caplog.handler)
    minihub.fail("GET", "/storage/", times=2, status=503)
    try:
        assert open_checkpoint("hf://org/name").download().headers()
    finally:
        logger.removeHandler(caplog.handler)
    assert len(minihub.requests("GET", "/storage/")) > 2
    assert "Signature" not in caplog.text


def test_inspect_reads_no_weights(minihub: Any, files: dict[str, bytes]) -> None:
    shards = {name: data for name, data in files.items() if "safetensors" in name}
    small = {path.name: path.read_bytes() for path in DEMO.glob("*.json")}
    minihub.add_repo("org/name", {**shards, **small})
    invoke("inspect", "org/name", code=0)
    for name in ("model-1.safetensors", "model-2.safetensors"):
        oid = minihub.repos["org/name"].commits[minihub.repos["org/name"].refs["main"]][name]
        read = minihub.requests("GET", f"/storage/{oid}|/resolve/.*/{name}")
        assert 0 < sum(request.sent for request in read) <= 150_000
    assert {request.method for request in minihub.log} <= {"GET", "HEAD"}


def test_nobody_listens(minihub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        open_checkpoint("hf://org/name")
    monkeypatch.setattr(constants, "ENDPOINT", "localhost:1")
    with pytest.raises(HubError, match="not a valid address"):
        open_checkpoint("hf://org/name")


def test_a_broken_download_is_reported(minihub: Any, repo: Any) -> None:
    remote = open_checkpoint("hf://org/name")
    minihub.fail("", r"/resolve/.*tokenizer_config", times=99, status=403)
    with pytest.raises(HubError, match=r"tokenizer_config.json of org/name: .*access is denied"):
        remote.download()
    minihub.failures.clear()
    assert remote.download().files_to_copy()


def test_interrupting_a_download(minihub: Any, files: dict[str, bytes]) -> None:
    minihub.add_repo("org/name", files)
    remote = open_checkpoint("hf://org/name")

    def interrupt(now: Progress) -> None:
        if now.done and not now.ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.download(progress=interrupt)
    assert remote.download().files_to_copy()


def test_a_full_cache_disk(minihub: Any, repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from yarncli.errors import OutputError

    minihub.cache.write_text("a file where the cache should be")
    with pytest.raises(OutputError, match="Cannot write the Hub cache"):
        open_checkpoint("hf://org/name")


def test_xet_failures_have_sentences() -> None:
    def sentence(text: str) -> str:
        with pytest.raises(HubError) as refusal, hub.hub_errors("org/name"):
            raise ConnectionError(text)
        return str(refusal.value)

    client = "Network error: Request error: HTTP status client error "
    assert "HF_HUB_DISABLE_XET=1" in sentence(
        client + "(404 Not Found) for url (x/xet-write-token/main)"
    )
    assert "does not accept the token" in sentence(client + "(403 Forbidden) for url (x)")
    assert "connection broke" in sentence("Network error: Request middleware error")


def test_a_certificate_that_is_not_trusted() -> None:
    httpx = failures.client_utils().httpx
    reason = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
    with pytest.raises(HubError, match="SSL_CERT_FILE"), hub.hub_errors("org/name"):
        raise httpx.ConnectError(reason)


def test_bugs_are_not_hidden() -> None:
    for bug in (ValueError("mine"), RuntimeError("mine"), KeyError("mine")):
        with pytest.raises(type(bug), match="mine"), hub.hub_errors("org/name"):
            raise bug


def test_the_environment_reaches_a_process_of_its_own(minihub: Any, repo: Any) -> None:
    minihub.add_user("hf_me", "me")
    minihub.log_in("hf_me")
    code = (
        "from yarncli.checkpoint.source import open_checkpoint\n"
        "c = open_checkpoint('org/name')\n"
        "print(c.config().value['model_type'], len(c.headers()))\n"
    )

    def run(**options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=minihub.root,
            **options,
        )

    assert run().stdout == "llama 2\n"
    assert {request.authorization for request in minihub.requests("", "/api/")} == {"Bearer hf_me"}
    open_checkpoint("hf://org/name").download()
    minihub.go_offline()
    before = len(minihub.log)
    offline = run()
    assert offline.stdout == "llama 2\n", offline.stderr
    assert len(minihub.log) == before


def test_snapshot_paths(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    snapshot = Path("/cache/models--org--my-name/snapshots") / commit
    assert hub.identify_snapshot(snapshot) == ("org/my-name", commit)
    assert hub.identify_snapshot(Path("/cache/models--gpt2/snapshots") / commit) == ("gpt2", commit)
    assert hub.is_blob_of(snapshot, Path("/cache/models--org--my-name/blobs/1"))
    for other in (snapshot.parent, snapshot / "sub", tmp_path, Path("/")):
        assert hub.identify_snapshot(other) is None
