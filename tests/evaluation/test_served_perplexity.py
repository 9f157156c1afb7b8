"""perplexity --base-url: the local numbers, from answers as vLLM and SGLang give them."""

from __future__ import annotations

import contextlib
import json
import math
from http.server import BaseHTTPRequestHandler

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.program import invoke
from support.servers import served_by
from yarncli import evaluate_perplexity
from yarncli.errors import HubError, UsageError
from yarncli.evaluation.losses import read_perplexity_report
from yarncli.evaluation.passkey import make_codec

LENGTHS = [64, 128]


class Engine:
    """A model of transformers behind the answers of a server.

    Answers have the fields and shapes that the servers' code writes: `vllm` is vLLM 0.33.0
    (vllm/entrypoints/openai/completion), `sglang` SGLang 0.5.23 (serving_completions.py), `llama`
    llama.cpp's server in llama-cpp-python 0.3.36 (tools/server/server-common.cpp).
    """

    def __init__(self, directory, kind):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.tokenizer = make_codec(directory, False).tokenizer
        self.kind, self.longest, self.cuts = kind, 4096, 0
        self.requests = []

    def log_probabilities(self, ids):
        with torch.inference_mode():
            rows = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), -1)
        return [None, *(float(rows[at, token]) for at, token in enumerate(ids[1:]))]

    def answer(self, path, body):
        if path == "/tokenize":
            ids = self.tokenizer.encode(
                body["prompt"], add_special_tokens=body["add_special_tokens"]
            )
            return 200, {"tokens": ids}
        self.requests.append(body)
        ids = body["prompt"]
        ids = ids[: len(ids) - self.cuts]
        if len(ids) + body["max_tokens"] > self.longest:
            return 400, {
                "error": {"message": f"the context has {self.longest} tokens", "code": 400}
            }
        numbers = self.log_probabilities(ids)
        choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length"}
        if self.kind == "vllm" and body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [
                None if number is None
                else {str(token): {"logprob": number, "rank": 1, "decoded_token": "x"}}
                for token, number in zip(ids, numbers, strict=True)
            ]  # fmt: skip
        if body.get("echo"):
            if self.kind == "llama":
                return 500, {"error": {"message": "Only no echo is supported", "code": 500}}
            choice["logprobs"] = {
                "text_offset": [-1] * (len(ids) + 1), "token_logprobs": [*numbers, -0.5],
                "tokens": ["x"] * (len(ids) + 1), "top_logprobs": [None] * (len(ids) + 1),
            }  # fmt: skip
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        return 200, {
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "demo",
            "choices": [choice], "usage": usage,
        }  # fmt: skip


@contextlib.contextmanager
def serving(engine):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, {"object": "list", "data": [{"id": "demo", "object": "model"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(*engine.answer(self.path, body))

        def reply(self, status, document):
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("x-should-retry", "false")  # the client would wait and try again
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with served_by(Handler) as server:
        yield server.url


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("Suhin Pami was born in 3410. In Ospa you can meet Suhin Pami. " * 12)
    return path


@pytest.fixture
def asked(book):
    return {"text": [book], "lengths": LENGTHS, "tokens": 256}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("own", [True, False], ids=["tokenizer here", "the server's tokenizer"])
def test_numbers_are_those_of_the_local_model(demo, asked, kind, own, tmp_path):
    local = evaluate_perplexity(demo, **asked).results()
    engine, out = Engine(demo, kind), tmp_path / "run.jsonl"
    with serving(engine) as url:
        report = evaluate_perplexity(demo if own else None, base_url=url, out=out, **asked)
    for here, there in zip(local, report.results(), strict=True):
        assert (there.length, there.tokens) == (here.length, here.tokens)
        assert there.perplexity == pytest.approx(here.perplexity, rel=1e-4)
        if here.gain is not None:
            assert there.gain == pytest.approx(here.gain, abs=1e-4)
    # Each context is read with exactly its tokens, which begin with the start token.
    assert {len(body["prompt"]) for body in engine.requests} == set(LENGTHS)
    assert {body["prompt"][0] for body in engine.requests} == {engine.tokenizer.bos_token_id}
    saved = read_perplexity_report(out)
    assert saved.to_json() == report.to_json()
    assert saved.settings["base_url"] == url


def test_a_server_that_learned_one_form_is_asked_in_it(demo, asked):
    engine = Engine(demo, "sglang")
    with serving(engine) as url:
        evaluate_perplexity(demo, base_url=url, **asked)
    assert [bool(body.get("echo")) for body in engine.requests] == [False] + [True] * 4


def test_a_server_without_these_numbers_is_named_with_those_that_have_them(demo, asked):
    with serving(Engine(demo, "llama")) as url:
        said = r"does not return the log-probabilities.*vLLM.*SGLang.*llama\.cpp's server does not"
        with pytest.raises(HubError, match=said):
            evaluate_perplexity(demo, base_url=url, **asked)


def test_a_text_that_is_too_long_or_cut(demo, asked):
    engine = Engine(demo, "vllm")
    with serving(engine) as url:
        engine.longest = 100
        with pytest.raises(HubError, match=r"refused a text of 128 tokens.*context has 100 tokens"):
            evaluate_perplexity(demo, base_url=url, **asked)
        engine.longest, engine.cuts = 4096, 1
        with pytest.raises(HubError, match="read 63 tokens of a text of 64"):
            evaluate_perplexity(demo, base_url=url, **asked)


@pytest.mark.parametrize("number", [None, 0.1, math.inf, "x"])
def test_what_is_no_log_probability_is_not_taken(demo, asked, number):
    engine = Engine(demo, "vllm")
    whole = engine.log_probabilities
    engine.log_probabilities = lambda ids: [*whole(ids)[:-1], number]
    engine.kind = "vllm"
    with serving(engine) as url, pytest.raises(HubError, match="does not return"):
        evaluate_perplexity(demo, base_url=url, **asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sliding": 16}, "only be asked for nested contexts"),
        ({"by_position": True}, "only be asked for nested contexts"),
        ({"override": "factor=2"}, "one RoPE setting"),
        ({"control": True}, "one RoPE setting"),
    ],
)
def test_what_does_not_go_with_a_server(demo, asked, options, said):
    with pytest.raises(UsageError, match=said):
        evaluate_perplexity(demo, base_url="http://127.0.0.1:9/v1", **asked, **options)


def test_command_asks_a_server_and_resumes(demo, asked, tmp_path, book):
    out = tmp_path / "run.jsonl"
    with serving(Engine(demo, "vllm")) as url:
        arguments = ("perplexity", "--base-url", url, "--text", book, "--lengths", "64,128",
                     "--tokens", "256", "--out", out)  # fmt: skip
        whole = invoke(*arguments, code=0).stdout
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(lines[:2]))
        assert invoke(*arguments, "--resume", code=0).stdout == whole
        told = invoke("perplexity", "--text", book, code=2).stderr
    assert "Give MODEL" in told
    assert "--base-url" in invoke("perplexity", "--text", book, "--model", "x", code=2).stderr
