"""A server is asked with the extra `serve` alone: no torch, no transformers."""

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import pytest
from transformers import AutoTokenizer

from support.checkpoints import DEMO
from support.servers import served_by
from yarncli.evaluation.passkey import Grid, make_codec
from yarncli.evaluation.tokenizing import read_tokenizer

# What `pip install 'yarncli[serve]'` does not bring.
LARGE = ("torch", "transformers", "accelerate", "peft", "matplotlib")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GRID = Grid((256, 512), depths=2, trials=1)
PROGRAM = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from yarncli.cli.app import main
main()
"""


class Answers(BaseHTTPRequestHandler):
    """A server that finds every key, of prompts as token ids."""

    def do_GET(self):
        self._send({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        tokens = self.server.tokenizer
        text = tokens.decode(body["prompt"])
        key = re.search(r"pass key is (\d+)", text)[1]
        self._send({
            "id": "1", "object": "text_completion", "created": 0, "model": "m",
            "choices": [{"text": f" {key}.", "index": 0, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1,
                      "total_tokens": 1},
        })  # fmt: skip

    def _send(self, document):
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served_by(Answers) as server:
        server.asked, server.tokenizer = [], AutoTokenizer.from_pretrained(DEMO)
        yield server


def run(*arguments, blocked=LARGE):
    command = [sys.executable, "-c", PROGRAM.format(blocked=blocked), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_server_is_asked_without_torch(server, tmp_path, template):
    """The prompts are those that transformers' own tokenizer gives."""
    model = tmp_path / "model"
    model.mkdir()
    for file in DEMO.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    if template:
        (model / "chat_template.jinja").write_text(template)
    grid = ("--lengths", "256,512", "--depths", 2, "--trials", 1)
    done = run("check-passkey", model, "--base-url", server.url, *grid, "--json")
    assert (done.returncode, done.stderr) == (0, "note: 4 prompts, 1,536 tokens.\n")
    report = json.loads(done.stdout)
    assert [cell["correct"] for cell in report["cells"]] == [True] * 4
    codec = make_codec(model, None)
    wanted = {prompt.token_ids for prompt in GRID.prompts(codec.builder(GRID))}
    assert {tuple(body["prompt"]) for body in server.asked} == wanted


@pytest.mark.parametrize(
    ("blocked", "arguments", "extra"),
    [
        ((*LARGE, "openai"), ("--base-url", "http://127.0.0.1:9/v1"), "serve"),
        ((*LARGE, "tokenizers"), ("--base-url", "http://127.0.0.1:9/v1"), "serve"),
        ((*LARGE, "jinja2"), ("--base-url", "http://127.0.0.1:9/v1"), "serve"),
        (LARGE, (), "eval"),
        (LARGE, ("--base-url", "http://127.0.0.1:9/v1", "--trust-remote-code"), "eval"),
    ],
)
def test_the_message_names_the_extra_that_brings_what_is_missing(
    tmp_path, blocked, arguments, extra
):
    model = tmp_path / "model"
    model.mkdir()
    for file in DEMO.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "chat_template.jinja").write_text(TEMPLATE)
    done = run("check-passkey", model, "--lengths", "256", *arguments, blocked=blocked)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"pip install 'yarncli[{extra}]'" in done.stderr


def test_a_tokenizer_that_only_transformers_can_read(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    done = run("check-passkey", "--tokenizer", tmp_path, "--lengths", "256",
               "--base-url", "http://127.0.0.1:9/v1")  # fmt: skip
    assert done.returncode == 4
    assert "has no tokenizer.json" in done.stderr
    assert "pip install 'yarncli[eval]'" in done.stderr


def byte_level(**config):
    """A small tokenizer of bytes, with the config that `config` adds to."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.add_special_tokens(["<s>"])
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokens.token_to_id("<s>"))]
    )
    tokens.enable_truncation(5)
    return tokens.to_str(), {"tokenizer_class": "PreTrainedTokenizerFast", **config}


ADDED = {"content": "<end>", "special": True, "lstrip": False, "rstrip": False,
         "normalized": False, "single_word": False}  # fmt: skip
CONFIGS = {
    "plain": {"bos_token": "<s>"},
    "add_bos_token=false": {"bos_token": "<s>", "add_bos_token": False},
    "add_eos_token=true": {"eos_token": "</s>", "add_eos_token": True},
    "an object": {"eos_token": {"__type": "AddedToken", **ADDED}},
    "added_tokens_decoder": {"eos_token": "<end>", "added_tokens_decoder": {"300": ADDED}},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("special_map", [None, {"eos_token": "<end>", "pad_token": ADDED}])
def test_tokens_are_those_of_transformers(tmp_path, name, special_map):
    tokens, config = byte_level(**CONFIGS[name])
    (tmp_path / "tokenizer.json").write_text(tokens)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if special_map:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(special_map))
    ours, theirs = read_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "Häuser<s> and <end></s> bytes, more than five."
    for special in (True, False):
        wanted = theirs.encode(text, add_special_tokens=special, truncation=False)
        assert ours.encode(text, add_special_tokens=special) == wanted
        assert ours.decode(wanted, skip_special_tokens=special) == theirs.decode(
            wanted, skip_special_tokens=special, clean_up_tokenization_spaces=False
        )
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)
    assert ours.eos_token_id == theirs.eos_token_id
    wanted = {n: str(t) for n, t in theirs.special_tokens_map.items() if isinstance(t, str)}
    assert ours.special_tokens_map == wanted
