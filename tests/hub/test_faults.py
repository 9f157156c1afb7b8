"""What goes wrong while a model is fetched: fault × command × transport, and the same run again.

Each scenario insists on the exit code, on a message that names the cause and the file, that nothing
half stays at OUT, and that the same command succeeds once the fault is over: with the bytes that
the Hub has, and without fetching again what had arrived whole.
"""

from __future__ import annotations

import re
import subprocess
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import DEMO
from support.minihub import SIGNATURE
from support.program import PROGRAM, Result, interrupt, invoke
from yarncli.checkpoint.source import open_checkpoint
from yarncli.conversion.convert import convert
from yarncli.hub import failures, hub_errors

MODEL = {p.name: p.read_bytes() for p in DEMO.iterdir() if p.suffix in {".json", ".safetensors"}}
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
HEADER = "bytes=0-100000"  # what is read of a shard before anything is fetched
SOURCE = "hf://org/name"
TRANSPORTS = ("regular", "lfs", "xet")
# Where the bytes of the weights come from.
BYTES = {"regular": f"/resolve/.*/{WEIGHTS}", "lfs": "/storage/", "xet": "/read-xorbs/"}

COMMANDS = {
    "convert": ["convert", SOURCE, "OUT", "--factor", "8"],
    "links": ["convert", SOURCE, "OUT", "--factor", "8", "--weights", "hardlink"],
    "bake": ["bake", SOURCE, "OUT", "--attention-factor", "1.1"],
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what is said of it.

    Attributes:
        requests: pattern of the paths that fail.
        how: they fail; of `MiniHub.fail`.
        says: pattern of the message; empty if the same run gets over it.
        method: of the requests.
        times: how many of them fail.
    """

    requests: str
    how: dict[str, Any]
    says: str = ""
    method: str = ""
    times: int = 999


def status(number: int, **headers: str) -> dict[str, Any]:
    return {"status": number, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


DROP, HALF, FLIP, SHORT = ({"how": how} for how in ("drop", "half", "flip", "short"))
LIMITED = status(429, Retry_After="120")
BROKE = "the connection broke"


def of_file(name: str, transport: str = "regular") -> dict[str, Fault]:
    """What can go wrong with one file."""
    asked = f"/resolve/.*/{name}"
    place = BYTES[transport] if name == WEIGHTS else asked
    who = f"^error: {re.escape(name)} of org/name"
    faults = {
        "401": Fault(asked, status(401), f"{who}: .*no such model, or it is private"),
        "403": Fault(asked, status(403), f"{who}: access is denied"),
        "404": Fault(asked, status(404, X_Error_Code="EntryNotFound"), f"{who}: .*no such file"),
        "429": Fault(asked, LIMITED, f"{who}: .*Try again in 120 seconds"),
        "429 once": Fault(asked, status(429, Retry_After="1"), times=1),
        "500": Fault(asked, status(500), f"{who}: .*status 500"),
        "503 once": Fault(asked, status(503), times=1),
        "cut": Fault(asked, DROP, f"{who}: {BROKE}"),
        "cut once": Fault(asked, DROP, times=1),
        "bytes 403": Fault(place, status(403), f"{who}: access is denied", "GET"),
        "bytes 404": Fault(place, status(404), f"{who}: .*does not have it", "GET"),
        "bytes 500": Fault(place, status(500), f"{who}: .*status 500", "GET"),
        "bytes 503 once": Fault(place, status(503), "", "GET", 1),
        "bytes cut": Fault(place, DROP, f"{who}: {BROKE}", "GET"),
        "bytes cut once": Fault(place, DROP, "", "GET", 1),
        "half": Fault(place, HALF, f"{who}: {BROKE}", "GET"),
        "half once": Fault(place, HALF, "", "GET", 1),
        "flipped": Fault(place, FLIP, f"{who} is damaged: its {HASHES}", "GET"),
        "short": Fault(place, SHORT, f"{who}: the file arrived with another size", "GET"),
    }
    if name != WEIGHTS or transport != "xet":
        return faults
    token, terms = "/xet-read-token/", "/v[12]/reconstructions/"
    storage = f"{who}: the Xet storage"
    return faults | {
        "bytes 403": Fault(
            place, status(403), f"{storage} refused the request with status 403", "GET"
        ),
        "bytes 404": Fault(
            place, status(404), f"{storage} refused the request with status 404", "GET"
        ),
        "bytes 500": Fault(
            place, status(500), f"{storage} has an internal problem \\(status 500\\)", "GET"
        ),
        "short": Fault(place, SHORT, f"{who}: {BROKE}", "GET"),
        "token 401": Fault(token, status(401), f"{who}: .*no such model, or it is private"),
        "token 403": Fault(token, status(403), f"{who}: access is denied"),
        "token 404": Fault(token, status(404), f"{who}: .*does not have it"),
        "token 500": Fault(token, status(500), f"{who}: .*status 500"),
        "token cut once": Fault(token, DROP, times=1),
        "terms 401": Fault(terms, status(401), f"{storage} does not accept the token"),
        "terms 404": Fault(terms, status(404), f"{storage} refused the request with status 404"),
        "terms 429": Fault(terms, status(429), f"{storage} limits the number of requests"),
        "terms 500": Fault(
            terms, status(500), f"{storage} has an internal problem \\(status 500\\)"
        ),
        "terms cut": Fault(terms, DROP, f"{who}: {BROKE}"),
        "terms half": Fault(terms, HALF, f"{who}: {BROKE}"),
    }


HASHES = "(SHA-256|git hash) is [0-9a-f]{40,64}, but on the Hub it is [0-9a-f]{40,64}"
_LISTING = r"/api/models/org/name(\?|/revision)"
LISTING = {
    "401": Fault(_LISTING, status(401), "org/name: .*no such model, or it is private"),
    "403": Fault(_LISTING, status(403), "org/name: access is denied"),
    "404": Fault(_LISTING, status(404), "org/name: .*does not have it"),
    "429": Fault(_LISTING, LIMITED, "org/name: .*Try again in 120 seconds"),
    "429 once": Fault(_LISTING, status(429, Retry_After="1"), times=1),
    "500": Fault(_LISTING, status(500), "org/name: .*status 500"),
    "503 once": Fault(_LISTING, status(503), times=1),
    "cut": Fault(_LISTING, DROP, f"org/name: {BROKE}"),
    "cut once": Fault(_LISTING, DROP, times=1),
    "half": Fault(_LISTING, HALF, f"org/name: {BROKE}"),
    "half once": Fault(_LISTING, HALF, times=1),
    "no JSON": Fault(_LISTING, status(200) | {"body": b"<html>"}, "org/name: .*is not JSON"),
}

# In the fast tests; the others are for `make test-full`.
FAST = {
    ("lfs", "convert", "flipped"), ("xet", "convert", "flipped"), ("regular", "convert", "flipped"),
    ("xet", "links", "flipped"), ("lfs", "bake", "flipped"), ("lfs", "convert", "half once"),
    ("lfs", "convert", "404"), ("lfs", "convert", "short"), ("xet", "convert", "half"),
    ("xet", "convert", "bytes 403"), ("xet", "convert", "terms 500"), ("lfs", "convert", "429"),
}  # fmt: skip


def scenarios() -> Iterator[Any]:
    """All about the weights, `(transport, command, case)`."""
    for transport in TRANSPORTS:
        for command in COMMANDS:
            for case in of_file(WEIGHTS, transport):
                # The others fetch as convert does; what differs is who takes the hashes.
                if command == "convert" or case in {"flipped", "half", "bytes 403", "404"}:
                    scenario = transport, command, case
                    marks = () if scenario in FAST else pytest.mark.full
                    yield pytest.param(*scenario, marks=marks, id="-".join(scenario))


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between tries, the client's and ours, take no time."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    clock = types.SimpleNamespace(**vars(time))
    clock.sleep = lambda seconds: None
    for module in (_http, file_download, failures):
        monkeypatch.setattr(module, "time", clock)


@pytest.fixture
def model_hub(request: pytest.FixtureRequest, minihub: Any, transport: str) -> Any:
    """A Hub with the model, which is sent over `transport`."""
    if transport == "regular":
        minihub.lfs_suffixes = ("nothing",)
    if transport == "xet":
        request.getfixturevalue("xet_hub")
    minihub.add_repo("org/name", MODEL)
    return minihub


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What each command makes of the same files here."""
    place = tmp_path_factory.mktemp("expected")
    source = place / "source"
    source.mkdir()
    for name, data in MODEL.items():
        (source / name).write_bytes(data)
    made = {}
    for command, words in COMMANDS.items():
        out = place / command
        invoke(*({SOURCE: source, "OUT": out}.get(word, word) for word in words), code=0)
        made[command] = contents(out)
    return made


def contents(directory: Path) -> dict[str, bytes]:
    """Its files, but for the record that names the source."""
    names = {path.name for path in directory.iterdir()} - {"yarncli.json"}
    return {name: (directory / name).read_bytes() for name in names}


def run(command: str, out: Path) -> Result:
    return invoke(*(out if word == "OUT" else word for word in COMMANDS[command]))


def in_cache(hub: Any) -> set[str]:
    """The files that have arrived."""
    return {path.name for path in hub.cache.glob("models--*/snapshots/*/*") if path.exists()}


def fetched(hub: Any, transport: str) -> set[str]:
    """The files of which more than a header was sent."""
    asked = [r for r in hub.log if r.method == "GET" and r.range != HEADER and not r.failed]
    places = {name: f"/resolve/.*/{name}$" for name in MODEL} | {WEIGHTS: BYTES[transport]}
    return {n for n, place in places.items() if any(re.search(place, r.path) for r in asked)}


def refused(done: Result, says: str, code: int = 5) -> None:
    """Insist on a failure with one plain sentence, and nothing secret."""
    assert done.exit_code == code, (done.output, done.exception)
    message = done.stderr.splitlines()[-1]
    assert re.search(says, message), message
    assert SIGNATURE not in done.output
    assert "http://" not in done.output


def again(hub: Any, command: str, out: Path, transport: str, wanted: dict[str, bytes]) -> None:
    """The same command, once nothing fails any more."""
    assert not list(out.parent.glob("*out*")) + list(out.parent.glob(".*out*"))  # nothing half
    arrived = in_cache(hub)
    hub.failures.clear()
    hub.log.clear()
    done = run(command, out)
    assert done.exit_code == 0, (done.output, done.exception)
    assert contents(out) == wanted
    assert fetched(hub, transport) == MODEL.keys() - arrived


def meet(hub: Any, fault: Fault, command: str, out: Path, transport: str, wanted: Any) -> None:
    """The whole scenario."""
    hub.fail(fault.method, fault.requests, times=fault.times, **fault.how)
    done = run(command, out)
    assert any(request.failed for request in hub.log)
    if fault.says:
        refused(done, fault.says)
        again(hub, command, out, transport, wanted)
    else:
        assert done.exit_code == 0, (done.output, done.exception)
        assert contents(out) == wanted


@pytest.mark.parametrize(("transport", "command", "case"), list(scenarios()))
def test_weights(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, command: str, case: str
) -> None:
    fault = of_file(WEIGHTS, transport)[case]
    meet(model_hub, fault, command, tmp_path / "out", transport, expected[command])


@pytest.mark.full
@pytest.mark.parametrize("transport", ["lfs"])
@pytest.mark.parametrize("case", of_file("x"))
@pytest.mark.parametrize("name", [CONFIG, TOKENIZER])
def test_small_files(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, name: str, case: str
) -> None:
    out, fault = tmp_path / "out", of_file(name)[case]
    meet(model_hub, fault, "convert", out, transport, expected["convert"])


@pytest.mark.full
@pytest.mark.parametrize("transport", ["lfs"])
@pytest.mark.parametrize("case", LISTING)
@pytest.mark.parametrize("command", ["convert", "bake"])
def test_the_listing(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, command: str, case: str
) -> None:
    meet(model_hub, LISTING[case], command, tmp_path / "out", transport, expected[command])


@pytest.mark.full
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_broke_in_the_cache(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, command: str
) -> None:
    open_checkpoint(SOURCE).download()
    spoil(next(model_hub.cache.glob(f"models--*/snapshots/*/{WEIGHTS}")))
    done = run(command, tmp_path / "out")
    refused(done, f"{WEIGHTS} of org/name is damaged: its {HASHES}. It was removed")
    again(model_hub, command, tmp_path / "out", transport, expected[command])


def spoil(link: Path) -> Path:
    """Flip a bit of the file behind a link, which is given back."""
    path = link.resolve()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return path


@pytest.mark.full
@pytest.mark.parametrize("transport", ["lfs", "xet"])
@pytest.mark.parametrize("source", ["offline", "directory"])
def test_a_broken_file_is_named_where_the_hub_is_not_asked(
    model_hub: Any, tmp_path: Path, transport: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is left to the user: the name in the cache says the hash, and nobody else does."""
    directory = open_checkpoint(SOURCE).download().path(WEIGHTS).parent
    broken = spoil(directory / WEIGHTS)
    words = [directory if source == "directory" else SOURCE, tmp_path / "out", "--factor", 8]
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", source == "offline")
        done = invoke("convert", *words)
    refused(done, f"{WEIGHTS} is damaged: its {HASHES}. Delete {broken} and fetch it again")
    broken.unlink()
    open_checkpoint(SOURCE).download()
    invoke("convert", *words, code=0)


@pytest.mark.full
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_passkey_command_does_not_load_a_broken_file(model_hub: Any, transport: str) -> None:
    pytest.importorskip("torch")
    model_hub.fail("GET", BYTES[transport], times=9, **FLIP)
    words = ("check-passkey", SOURCE, "--lengths", 128, "--depths", 1, "--trials", 1)
    refused(invoke(*words), f"{WEIGHTS} of org/name is damaged: its {HASHES}")
    model_hub.failures.clear()
    invoke(*words, code=0)


@pytest.mark.full
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("how", ["copy", "hardlink"])
def test_a_branch_that_moves_meanwhile(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, how: Any
) -> None:
    before = open_checkpoint(SOURCE)
    moved = {**MODEL, TOKENIZER: b"{}", WEIGHTS: MODEL[WEIGHTS][:-1] + b"x"}
    model_hub.commit("org/name", moved)
    convert(before, tmp_path / "out", factor=8, weights=how)
    assert contents(tmp_path / "out") == expected["convert"]
    assert str(before.commit) in (tmp_path / "out/yarncli.json").read_text()


@pytest.mark.full
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_offline(
    model_hub: Any, tmp_path: Path, expected: Any, transport: str, command: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        refused(run(command, tmp_path / "out"), "org/name: not in the Hub cache, and HF_HUB_OFFL")
    again(model_hub, command, tmp_path / "out", transport, expected[command])
    model_hub.go_offline()
    model_hub.log.clear()
    (tmp_path / "out").rename(tmp_path / "first")
    done = run(command, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert contents(tmp_path / "out") == expected[command]
    assert not model_hub.log


@pytest.mark.full
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("command", ["convert", "bake"])
def test_ctrl_c(
    model_hub: Any,
    tmp_path: Path,
    expected: Any,
    transport: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "2")  # how long a silent connection is waited for
    headers = int(command == "bake" and transport != "xet")  # that come from the same place
    model_hub.fail("GET", BYTES[transport], how="wait", times=headers)
    model_hub.fail("GET", BYTES[transport], how="wait", seconds=20)
    words = [tmp_path / "out" if word == "OUT" else word for word in COMMANDS[command]]
    told = interrupt(lambda: in_cache(model_hub) >= MODEL.keys() - {WEIGHTS}, *words)
    assert "Traceback" not in told
    again(model_hub, command, tmp_path / "out", transport, expected[command])


@pytest.mark.full
@pytest.mark.parametrize("transport", ["xet"])
def test_a_failure_does_not_wait_for_xet(model_hub: Any, tmp_path: Path) -> None:
    """Whose transfers go on by themselves; the program would end after the last of them."""
    asked = f"/resolve/.*/{TOKENIZER}"
    model_hub.fail("", asked, status=403, seconds=2, times=9)
    model_hub.fail("GET", BYTES["xet"], how="wait", seconds=30, times=9)
    words = [tmp_path / "out" if word == "OUT" else word for word in COMMANDS["convert"]]
    begin = time.monotonic()
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True)
    assert time.monotonic() - begin < 25
    assert done.returncode == 5, done.stderr
    *_, last = told = done.stderr.splitlines()
    assert [line for line in told if not line.startswith("note: ")] == [last]
    assert f"{TOKENIZER} of org/name: access is denied" in last


@pytest.mark.parametrize(("number", "code"), [(28, 28), (30, 30)])
def test_a_full_disk_under_xet(number: int, code: int) -> None:
    """hf_xet says it as text; `output_errors` says it to the user."""
    said = "Task error: File reconstruction error: IO Error: No space left on device (os error "
    with pytest.raises(OSError) as refusal, hub_errors("x of org/name"):  # noqa: PT011
        raise RuntimeError(f"{said}{number})")
    assert refusal.value.errno == code
