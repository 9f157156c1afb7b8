"""The command: `yarncli check-passkey` and `yarncli plot`, as a user runs them."""

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from yarncli.cli.app import app
from yarncli.demo import write_demo
from yarncli.evaluate.passkey import Grid
from yarncli.evaluate.report import read_report
from yarncli.figures.passkey import accuracy_grid

FEW = ["--depths", "3", "--trials", "1"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(write_demo(tmp_path_factory.mktemp("demo") / "base"))


@pytest.fixture(scope="module")
def yarn8(tmp_path_factory, base):
    out = str(tmp_path_factory.mktemp("converted") / "yarn8")
    assert CliRunner().invoke(app, ["convert", base, out, "--factor", "8"]).exit_code == 0
    return out


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["check-passkey", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_json_of_a_converted_model_with_its_control(yarn8, tmp_path):
    figure, file = tmp_path / "run.png", tmp_path / "run.jsonl"
    result = run(yarn8, "--lengths", "256,2k", *FEW, "--control", "--json", "--plot", figure,
                 "--out", file)  # fmt: skip
    document = json.loads(result.stdout)
    assert [entry["length"] for entry in document["lengths"]] == [256, 2048]
    assert len(document["cells"]) == 6
    assert document["settings"]["variants"]["as it is"]["window"] == 2048
    far = document["variants"]["control"]["lengths"][1]
    assert far["accuracy"] == 0.0
    assert document["lengths"][1]["accuracy"] > 0.3
    assert figure.read_bytes().startswith(b"\x89PNG")
    saved = read_report(file)
    assert saved.to_json() == document
    assert "12 prompts, 13,824 tokens, 2 settings." in result.stderr
    svg = tmp_path / "again.svg"
    assert CliRunner().invoke(app, ["plot", str(file), str(file), "--out", str(svg)]).exit_code == 0
    assert b"<svg" in svg.read_bytes()[:600]


def test_default_lengths_and_table(yarn8):
    result = run(yarn8, "--depths", 1, "--trials", 1)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["length", "accuracy"]
    assert [line.split()[0] for line in lines[1:]] == ["128", "256", "512", "1,024", "2,048"]


def test_an_override_equals_the_conversion(base, yarn8):
    arguments = ["--lengths", "1k", *FEW, "--json"]
    tried = json.loads(run(base, *arguments, "--override", "method=yarn,factor=8").stdout)
    written = json.loads(run(yarn8, *arguments).stdout)
    assert tried["cells"] == written["cells"]


def test_compare_and_the_gate(base):
    result = run(base, "--lengths", "256,1k", *FEW, "--compare", "none,linear", "--json",
                 "--min-accuracy", 0.5, code=1)  # fmt: skip
    document = json.loads(result.stdout)
    assert document["lengths"][0]["accuracy"] == 1.0
    assert document["variants"]["linear"]["lengths"][0]["accuracy"] == 0.0
    assert "Accuracy of linear is below 0.5: 0.00 at 256, 0.00 at 1,024." in result.stderr


def test_greedy_decoding_says_the_same(base):
    arguments = [base, "--lengths", "256,512", *FEW, "--json"]
    fast, greedy = (json.loads(run(*arguments, "--decode", d).stdout) for d in ("fast", "greedy"))
    assert [c["correct"] for c in fast["cells"]] == [c["correct"] for c in greedy["cells"]]


def test_prompts_are_dumped_as_asked(base, tmp_path, codec):
    run(base, "--lengths", 256, *FEW, "--seed", 9, "--dump-prompts", tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    grid = Grid((256,), depths=3, trials=1, seed=9)
    expected = grid.prompts(codec.builder(grid))
    assert [line["prompt"] for line in lines] == [prompt.text for prompt in expected]
    assert all(len(line["token_ids"]) + len(line["answer_ids"]) == 256 for line in lines)


def test_own_needle_and_filler(base, tmp_path):
    (tmp_path / "needle").write_text("Note the code {key}, it is {key}.\n")
    (tmp_path / "filler").write_text("A quiet river\nruns to the sea.\n")
    run(base, "--lengths", 300, *FEW, "--needle", tmp_path / "needle", "--filler",
        tmp_path / "filler", "--dump-prompts", tmp_path / "p.jsonl")  # fmt: skip
    line = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[1])
    assert f"\nNote the code {line['key']}, it is {line['key']}.\n" in line["prompt"]
    assert "A quiet river runs to the sea. A quiet" in line["prompt"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Give MODEL"),
        (["BASE", "--lengths", "50"], 2, "is too short"),
        (["BASE", "--lengths", "zero"], 2, "is not a length"),
        (["BASE", "--resume"], 2, "--resume needs --out"),
        (["BASE", "--plot", "x.pdf"], 2, ".png or .svg"),
        (["BASE", "--chat"], 2, "no chat template"),
        (["BASE", "--control"], 2, "--control-model"),
        (["BASE", "--compare", "yarn"], 2, "--compare needs --lengths"),
        (["BASE", "--override", "factor=8", "--base-url", "http://127.0.0.1:9/v1"], 2, "one RoPE"),
        (["BASE", "--dtype", "int8"], 2, "--dtype must be"),
        (["BASE", "--override", "factor=0.5"], 2, ""),
        (["nowhere/"], 3, "does not exist"),
        (["BASE/config.json"], 3, "without weights"),
        (["BASE", "--base-url", "http://127.0.0.1:9/v1"], 5, "cannot be reached"),
        (["--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH"], 2, "is not set"),
    ],
)
def test_bad_input_has_a_code_and_a_sentence(base, arguments, code, message, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    result = run(*[a.replace("BASE", base) for a in arguments], code=code)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not result.stdout


def test_an_existing_result_is_not_overwritten(base, tmp_path):
    (tmp_path / "run.jsonl").write_text("precious")
    run(base, "--lengths", 256, "--out", tmp_path / "run.jsonl", code=2)
    assert (tmp_path / "run.jsonl").read_text() == "precious"


class Dying(BaseHTTPRequestHandler):
    """Answers the first `server.life` prompts, then only with errors."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(tuple(body["prompt"]))
            alive = len(self.server.asked) <= self.server.life
        answer = {"id": "1", "object": "text_completion", "created": 0, "model": "m",
                  "choices": [{"text": " 1", "index": 0, "finish_reason": "stop"}],
                  "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1,
                            "total_tokens": 1}}  # fmt: skip
        data = json.dumps(answer if alive else {"error": {"message": "dying"}}).encode()
        self.send_response(200 if alive else 501)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def test_a_server_that_dies_half_way_is_resumed_without_repeating(base, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The client waits between its tries; this error it need not try again.
    monkeypatch.setattr("yarncli.evaluate.server._RETRIES", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dying)
    server.lock, server.asked, server.life = threading.Lock(), [], 5
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    arguments = [base, "--base-url", f"http://127.0.0.1:{server.server_port}/v1", "--model", "m",
                 "--lengths", "256,300", "--depths", 3, "--trials", 2, "--concurrency", 1,
                 "--out", tmp_path / "run.jsonl"]  # fmt: skip
    try:
        failed = run(*arguments, code=5)
        assert "failed with status 501: dying." in failed.stderr
        first = read_report(tmp_path / "run.jsonl").cells["served"]
        assert len(first) == 5
        server.asked, server.life = [], 1000
        run(*arguments, "--resume")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    cells = read_report(tmp_path / "run.jsonl").cells["served"]
    assert cells[:5] == first
    assert len({cell.place for cell in cells}) == len(cells) == 12
    assert len(server.asked) == 7


def test_interrupt_keeps_what_was_asked(base, tmp_path, monkeypatch):
    from yarncli.evaluate.report import ResultFile

    add, seen = ResultFile.add, []

    def interrupted(self, variant, cell):
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)
        seen.append(cell)
        add(self, variant, cell)

    monkeypatch.setattr(ResultFile, "add", interrupted)
    run(base, "--lengths", 256, *FEW, "--out", tmp_path / "run.jsonl", code=130)
    assert read_report(tmp_path / "run.jsonl").cells["as it is"] == seen[:2]


def test_the_grid_of_the_figure():
    from yarncli.evaluate.report import Cell

    cells = [Cell(256, 0.0, 0, "1", "", True), Cell(256, 0.0, 1, "1", "", False),
             Cell(512, 1.0, 0, "1", "", True)]  # fmt: skip
    lengths, depths, values = accuracy_grid(cells)
    assert (lengths, depths) == ([256, 512], [0.0, 1.0])
    assert values[0][0] == 0.5
    assert values[1][1] == 1.0
    assert values[0][1] != values[0][1]
