"""Servers: transformers serve and mlx_lm.server, and a small one for what those never say."""

import contextlib
import json
import os
import signal
import socket
import sysconfig
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from support.checkpoints import DEMO
from support.servers import Served, served_by
from yarncli.errors import HubError, UsageError
from yarncli.evaluation.passkey import Grid, TextCodec, local_cells, make_codec
from yarncli.evaluation.report import read_cell, read_report
from yarncli.evaluation.result_file import ResultFile
from yarncli.evaluation.server import Server, ServerSettings, ServerTokenizer, strip_reasoning
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.subjects import ServedSubject

MLX = os.environ.get("YARNCLI_MLX_PYTHON")
GRID = Grid((256, 512), depths=4, trials=2, seed=21)
# The user's text with the beginning of the answer where a base model goes on.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} The pass key is{% endif %}"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with (tmp_path_factory.mktemp("serve") / "log").open("wb") as log:
        server = Served(log)
        yield server
        server.stop()


@pytest.fixture(scope="module")
def chat_demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("chat") / "model"
    directory.mkdir()
    for file in DEMO.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return directory


def verdicts(cells):
    return [(cell.place, cell.key, cell.correct) for cell in cells]


def test_completions_give_the_verdicts_of_a_local_run(served, demo, codec):
    prompts = GRID.prompts(codec.builder(GRID))
    server = Server(ServerSettings(served.url, model=str(demo)))
    found = list(server.cells(prompts))
    local = list(local_cells(demo, prompts, settings=LoadSettings(), codec=codec))
    assert verdicts(found) == verdicts(local)
    assert {cell.correct for cell in found} == {True, False}


def test_chat_gives_the_verdicts_of_a_local_run(served, chat_demo):
    codec = make_codec(chat_demo, True)
    # The template itself begins the answer, so the builder adds nothing.
    builder = codec.builder(GRID, answer_prefix=False)
    server = Server(ServerSettings(served.url, model=str(chat_demo), chat=True))
    found = list(server.cells(GRID.prompts(builder)))
    plain = make_codec(chat_demo, False)
    asked = GRID.prompts(plain.builder(GRID))
    local = list(local_cells(chat_demo, asked, settings=LoadSettings(), codec=plain))
    assert verdicts(found) == verdicts(local)


@pytest.mark.full
@pytest.mark.skipif(not MLX, reason="YARNCLI_MLX_PYTHON names no Python with mlx-lm")
def test_mlx_lm_gives_the_verdicts_of_a_local_run(demo, codec, tmp_path):
    """It refuses token ids with 404. What it needs to serve is that of the tests."""
    prompts = GRID.prompts(codec.builder(GRID))
    ours = sysconfig.get_path("purelib")
    with (tmp_path / "log").open("wb") as log:
        server = Served(log, [MLX, "-m", "mlx_lm", "server", "--model", demo], PYTHONPATH=ours)
        try:
            asked = Server(ServerSettings(server.url, model="default_model"))
            found = list(asked.cells(prompts))
        finally:
            server.stop()
    local = list(local_cells(demo, prompts, settings=LoadSettings(), codec=codec))
    assert verdicts(found) == verdicts(local)
    assert asked._forms(prompts[0])[asked._form]["prompt"] == prompts[0].text


@pytest.mark.full
def test_a_server_killed_half_way_is_resumed_without_repeating(demo, codec, tmp_path):
    """With the real server; test_check_passkey.py has the same through the command."""
    prompts = GRID.prompts(codec.builder(GRID))
    settings = {"variants": {"served": {}}}
    with (tmp_path / "log").open("wb") as log:
        first = Served(log)
        with ResultFile(
            tmp_path / "run.jsonl", "passkey", settings, read_cell, resume=False
        ) as file:
            cells = Server(ServerSettings(first.url, model=str(demo), timeout=60)).cells(prompts)
            for _ in range(5):
                file.add("served", next(cells))
            first.stop(signal.SIGKILL)
            with pytest.raises(HubError):  # noqa: PT012 what was answered before comes first
                while True:
                    file.add("served", next(cells))
        second = Served(log)
        try:
            with ResultFile(
                tmp_path / "run.jsonl", "passkey", settings, read_cell, resume=True
            ) as file:
                done = {cell.place for cell in file.done["served"]}
                left = [prompt for prompt in prompts if prompt.place not in done]
                assert len(left) == GRID.size - len(done) <= GRID.size - 5
                for cell in Server(ServerSettings(second.url, model=str(demo))).cells(left):
                    file.add("served", cell)
        finally:
            second.stop()
    found = sorted(read_report(tmp_path / "run.jsonl").cells["served"], key=lambda c: c.place)
    local = list(local_cells(demo, prompts, settings=LoadSettings(), codec=codec))
    assert verdicts(found) == verdicts(local)


def test_a_model_the_server_does_not_have(served, codec):
    prompts = GRID.prompts(codec.builder(GRID))
    server = Server(ServerSettings(served.url, model="/no/such/model", timeout=30))
    server._client = server._client.with_options(max_retries=0)
    with pytest.raises(HubError):
        next(server.cells(prompts))


def test_nobody_listens(codec):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(HubError, match="cannot be reached"):
        Server(ServerSettings(url))


class Stub(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose answers a test sets on `server.answer`."""

    def do_GET(self):
        if self.server.listing:
            self._send(*self.server.listing)
            return
        self._send(200, {"object": "list", "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "x"}
            for name in self.server.models]})  # fmt: skip

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, body, headers))
        self._send(*self.server.answer(self.path, body))

    def _send(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # a client that no longer waits
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served_by(Stub) as server:
        server.models, server.requests, server.listing = ["only"], [], None
        yield server


def completion(text, prompt_tokens):
    return 200, {"id": "1", "object": "text_completion", "created": 0, "model": "only",
                 "choices": [{"text": text, "index": 0, "finish_reason": "stop", "logprobs": None}],
                 "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1,
                           "total_tokens": 1}}  # fmt: skip


def connected(stub, **options):
    server = Server(ServerSettings(stub.url, timeout=20, **options))
    server._client = server._client.with_options(max_retries=0)
    return server


@pytest.fixture
def one(codec):
    grid = Grid((256,), depths=1, trials=1)
    return grid.prompts(codec.builder(grid))


def test_token_ids_are_sent_where_the_server_takes_them(stub, one):
    stub.answer = lambda path, body: completion(f" {one[0].key}.", len(body["prompt"]))
    (cell,) = connected(stub).cells(one)
    assert cell.correct
    (path, body, _) = stub.requests[0]
    assert path == "/v1/completions"
    assert body["prompt"] == list(one[0].token_ids)
    assert body["temperature"] == 0
    assert body["model"] == "only"
    assert body["repetition_penalty"] == 1.0


def test_a_server_that_knows_less_is_asked_more_simply(stub, one):
    def answer(path, body):
        if "repetition_penalty" in body or not isinstance(body["prompt"], str):
            return 400, {"error": {"message": "unknown field"}}
        return completion(f" {one[0].key}.", len(one[0].token_ids))

    stub.answer = answer
    (cell,) = connected(stub).cells(one)
    assert cell.correct
    assert stub.requests[-1][1]["prompt"] == one[0].text


def test_a_cut_prompt_is_an_error_not_a_wrong_answer(stub, one):
    stub.answer = lambda path, body: completion(" 1", 200)
    with pytest.raises(HubError, match=r"read 200 tokens of a prompt of 250, so it cuts prompts"):
        list(connected(stub).cells(one))


def test_another_tokenizer_is_an_error(stub, one):
    stub.answer = lambda path, body: completion(" 1", 300)
    with pytest.raises(HubError, match="--tokenizer"):
        list(connected(stub).cells(one))


def test_a_server_that_does_not_count_is_told(stub, one):
    def answer(path, body):
        status, document = completion(f" {one[0].key}", 0)
        return status, {**document, "usage": None}

    stub.answer = answer
    server = connected(stub)
    (cell,) = server.cells(one)
    assert cell.correct
    (caveat,) = ServedSubject(name="only", server=server, codec=None).caveats()
    assert "does not report how many tokens it read" in caveat


@pytest.mark.parametrize(
    "document", ["<html>hello</html>", {}, {"choices": []}, {"choices": None}, [1]]
)
def test_something_else_than_an_api(stub, one, document):
    stub.answer = lambda path, body: (200, document)
    with pytest.raises(HubError, match="does not answer as an OpenAI-compatible server does"):
        list(connected(stub).cells(one))


@pytest.mark.parametrize("address", ["localhost:8000/v1", "", "ftp://host/v1", "http://"])
def test_an_address_that_is_none(address):
    with pytest.raises(UsageError, match="http://localhost:8000/v1"):
        Server(ServerSettings(address))


def test_answers_under_way_are_kept_when_one_fails(stub, codec):
    """The second of three requests fails at once; the third, in flight, is answered later."""
    grid = Grid((256,), depths=8, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    number = {p.token_ids: i for i, p in enumerate(prompts)}
    third = threading.Event()

    def answer(path, body):
        asked = number[tuple(body["prompt"])]
        if asked == 2:
            third.set()
        if asked == 1:
            third.wait(20)
            return 501, {"error": {"message": "burst"}}
        if asked == 2:
            time.sleep(0.2)
        return completion(f" {prompts[asked].key}", len(body["prompt"]))

    stub.answer = answer
    cells, found = connected(stub, concurrency=2).cells(prompts), []
    with pytest.raises(HubError, match="burst"):
        found.extend(cell.key for cell in cells)  # what was answered comes first
    assert found == [prompts[0].key, prompts[2].key]
    assert len(stub.requests) == 3  # nothing was asked after the failure


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (401, "who?", "refuses the key"),
        (403, "no", "refuses the key"),
        (404, "no such thing", "has no model 'only' or no such API: no such thing. .*--model"),
        (500, "burst", "failed with status 500: burst"),
        (400, "maximum context length is 100", "refused a prompt of 256 tokens: maximum context"),
    ],
)
def test_each_refusal_has_its_sentence(stub, one, status, said, message):
    stub.answer = lambda path, body: (status, {"error": {"message": said}})
    with pytest.raises(HubError, match=message):
        list(connected(stub).cells(one))


@pytest.mark.parametrize("status", [400, 404, 405, 422, 500, 501])
def test_any_refusal_of_the_first_prompt_tries_the_next_form(stub, codec, status):
    """mlx_lm.server refuses token ids with 404 and {"error": words}."""
    grid = Grid((256,), depths=2, trials=1)
    prompts = grid.prompts(codec.builder(grid))

    def answer(path, body):
        if not isinstance(body["prompt"], str):
            return status, {"error": "'list' object has no attribute 'strip'"}
        return completion(" 1", 250)

    stub.answer = answer
    server = connected(stub)
    assert len(list(server.cells(prompts))) == 2
    assert [type(body["prompt"]) for _, body, _ in stub.requests] == [list, list, str, str]


def test_words_of_a_refusal_are_quoted_and_later_prompts_try_no_other_form(stub, codec):
    grid = Grid((256, 300), depths=1, trials=1)
    prompts = grid.prompts(codec.builder(grid))

    def answer(path, body):
        if len(stub.requests) == 1:
            return completion(" 1", len(body["prompt"]))
        return 404, {"error": "the prompt is\ntoo long"}

    stub.answer = answer
    with pytest.raises(HubError, match=r"the prompt is too long\."):
        list(connected(stub).cells(prompts))
    assert len(stub.requests) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_in_other_forms(stub, one, status):
    stub.answer = lambda path, body: (status, {"error": {"message": "no"}})
    with pytest.raises(HubError, match="--api-key-env"):
        list(connected(stub).cells(one))
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ((404, {"error": "not found here"}), "status 404, not found here.* --model"),
        ((500, {"error": {"message": "burst"}}), r"status 500, burst\. .*--model"),
        ((200, {"object": "list"}), "does not answer as an OpenAI.*--model"),
    ],
)
def test_a_server_that_does_not_list_its_models(stub, listing, message):
    stub.listing = listing
    with pytest.raises(HubError, match=message):
        Server(ServerSettings(stub.url))
    Server(ServerSettings(stub.url, model="m"))  # nothing is listed then


def test_an_answer_without_text_is_an_error(stub, one):
    status, document = completion(None, 250)
    stub.answer = lambda path, body: (status, document)
    with pytest.raises(HubError, match=r"without text \(null\)"):
        list(connected(stub).cells(one))


def test_a_slow_server_times_out(stub, one):
    stub.answer = lambda path, body: time.sleep(1.5) or completion(" 1", 250)
    server = Server(ServerSettings(stub.url, timeout=0.3))
    server._client = server._client.with_options(max_retries=0)
    with pytest.raises(HubError, match="did not answer within"):
        list(server.cells(one))


def test_several_models_need_a_name(stub):
    stub.models = ["a", "b"]
    with pytest.raises(UsageError, match="a, b"):
        Server(ServerSettings(stub.url))


def test_key_is_sent_and_answers_keep_their_order(stub, codec):
    grid = Grid((256,), depths=6, trials=2)
    prompts = grid.prompts(codec.builder(grid))
    keys = {tuple(p.token_ids): p.key for p in prompts}

    def answer(path, body):
        time.sleep(0.02 * (len(stub.requests) % 3))
        return completion(f" {keys[tuple(body['prompt'])]}", len(body["prompt"]))

    stub.answer = answer
    cells = list(connected(stub, api_key="secret", concurrency=5).cells(prompts))
    assert [cell.key for cell in cells] == [p.key for p in prompts]
    assert all(cell.correct for cell in cells)
    assert stub.requests[0][2]["authorization"] == "Bearer secret"


def test_chat_ignores_thoughts(stub, one):
    said = f"<think>Is it 99999?</think>The pass key is {one[0].key}."
    stub.answer = lambda path, body: (200, {
        "id": "1", "object": "chat.completion", "created": 0, "model": "only",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": said}}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 1, "total_tokens": 1}})  # fmt: skip
    (cell,) = connected(stub, chat=True).cells(one)
    assert cell.correct
    messages = stub.requests[0][1]["messages"]
    assert messages == [{"role": "user", "content": one[0].user_text}]
    assert one[0].user_text.endswith("What is the pass key?")


def test_a_chat_answer_that_was_cut_is_told(stub, one):
    stub.answer = lambda path, body: (200, {
        "id": "1", "object": "chat.completion", "created": 0, "model": "only",
        "choices": [{"index": 0, "finish_reason": "length",
                     "message": {"role": "assistant", "content": "<think>Let me see"}}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 1024, "total_tokens": 1274},
    })  # fmt: skip
    server = connected(stub, chat=True)
    (cell,) = server.cells(one)
    assert (cell.correct, cell.text) == (False, "")
    (caveat,) = ServedSubject(name="only", server=server, codec=None).caveats()
    assert "not complete after 1,024 tokens" in caveat


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("12", "12"),
        ("<think>1</think> 2", "2"),
        ("1</think>2", "2"),
        ("<think>1 and on", ""),
        ("<think>1</think>2<think>3</think>4", "24"),
    ],
)
def test_reasoning_is_stripped(text, rest):
    assert strip_reasoning(text) == rest


def test_the_server_s_own_tokenizer(stub, codec):
    """vLLM's names and llama.cpp's, each with only its own fields in the answer."""

    def answer(path, body):
        if path == "/tokenize":
            text = body["prompt"] if stub.kind == "vllm" else body["content"]
            special = body["add_special_tokens" if stub.kind == "vllm" else "add_special"]
            return 200, {"tokens": codec.tokenizer.encode(text, add_special_tokens=special)}
        text = codec.tokenizer.decode(body["tokens"])
        return 200, {"prompt" if stub.kind == "vllm" else "content": text}

    stub.answer = answer
    for stub.kind in ("vllm", "llama.cpp"):
        own = TextCodec(ServerTokenizer(base_url=stub.url, model="only"))
        prompt = own.builder(Grid((256,))).build(256, 0.5, 0)
        assert prompt == codec.builder(Grid((256,))).build(256, 0.5, 0)
    stub.answer = lambda path, body: (404, {})
    with pytest.raises(UsageError, match="--tokenizer SOURCE"):
        own.encode("text")
