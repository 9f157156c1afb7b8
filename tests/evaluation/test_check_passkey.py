"""The command: `yarncli check-passkey` and `yarncli plot`, as a user runs them."""

import json
import os
import pty
import shutil
import signal
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import matplotlib
import pytest

from support.program import invoke
from support.servers import served_by
from yarncli.cli.check_passkey_print import LiveGrid
from yarncli.demo import write_demo
from yarncli.evaluation.passkey import Grid
from yarncli.evaluation.report import Cell, PasskeyReport, read_report
from yarncli.figures.passkey import accuracy_grid, plot_passkey

FEW = ["--depths", "3", "--trials", "1"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(write_demo(tmp_path_factory.mktemp("demo") / "base"))


@pytest.fixture(scope="module")
def yarn8(tmp_path_factory, base):
    out = str(tmp_path_factory.mktemp("converted") / "yarn8")
    invoke("convert", base, out, "--factor", 8, code=0)
    return out


run = partial(invoke, "check-passkey", code=0)


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
    invoke("plot", file, file, "--out", svg, code=0)
    assert b"<svg" in svg.read_bytes()[:600]


def test_plot_tells_of_a_run_that_was_not_completed(base, tmp_path):
    path, figure = tmp_path / "run.jsonl", tmp_path / "run.png"
    run(base, "--lengths", "200,256", *FEW, "--out", path)
    assert "holds" not in invoke("plot", path, "--out", figure, code=0).stderr
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"{") + 9])  # torn in its last line
    said = " ".join(invoke("plot", path, path, "--out", figure, code=0).stderr.split())
    assert said.count("run.jsonl holds 5 of 6 prompts, and the figure shows those.") == 2


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
    assert "Accuracy is below 0.5: linear 0.00 at 256, 0.00 at 1,024." in result.stderr


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
    ("prefix", "end"), [("So it is", "pass key? So it is"), ("", "What is the pass key?")]
)
def test_own_beginning_of_the_answer(base, tmp_path, prefix, end):
    run(base, "--lengths", 256, *FEW, "--answer-prefix", prefix, "--dump-prompts",
        tmp_path / "p.jsonl", "--json")  # fmt: skip
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert all(json.loads(line)["prompt"].endswith(end) for line in lines)


def test_tasks_by_length(base, tmp_path):
    path, figure = tmp_path / "run.jsonl", tmp_path / "run.svg"
    arguments = [base, "--lengths", "200,256", "--depths", 3, "--trials", 5,
                 "--tasks", "passkey,multikey"]  # fmt: skip
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # words as words
        result = run(*arguments, "--out", path, "--plot", figure)
    assert "60 prompts, 13,680 tokens." in result.stderr
    assert "like those of RULER, but their wordings differ" in " ".join(result.stderr.split())
    head, passkey, multikey, effective = result.stdout.splitlines()
    assert head.split() == ["task", "200", "256"]
    assert passkey.split()[:2] == ["passkey", "1.00"]
    assert multikey.split()[0] == "multikey"
    assert effective.startswith("effective length: ")
    for words in ("Tasks by length", "passkey", "multikey"):
        assert words in figure.read_text()
    lines = path.read_text().splitlines()
    kept = len(lines) // 2
    path.write_text("\n".join(lines[:kept]) + "\n")
    again = json.loads(run(*arguments, "--out", path, "--resume", "--json").stdout)
    assert {(r["task"], r["length"], r["trials"]) for r in again["tasks"]} == {
        (task, length, 15) for task in ("passkey", "multikey") for length in (200, 256)
    }
    assert [r["length"] for r in again["lengths"]] == [200, 256]
    assert sorted(path.read_text().splitlines()) == sorted(lines)


def test_tasks_of_several_settings_and_too_few_trials(base):
    result = run(base, "--lengths", "256,512", "--depths", 1, "--trials", 1, "--tasks", "passkey",
                 "--compare", "none,yarn")  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["task", "length", "setting", "accuracy"]
    assert len(lines) == 1 + 4 + 2
    assert lines[-2] == (
        "effective length, none: not known (too few trials: 30 prompts per length are needed)"
    )


def test_several_settings_fit_on_80_columns(base, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    methods = "none,linear,ntk,dynamic,ntk-by-parts,yarn"
    result = run(base, "--lengths", "256,2k", "--depths", 1, "--trials", 1, "--compare", methods)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["length", "setting", "accuracy", "95", "%", "interval"]
    assert [line[:2] for line in lines[1:]] == [
        [length, method] for length in ("256", "2,048") for method in methods.split(",")
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_control_that_says_the_same_is_told(yarn8, base):
    result = run(yarn8, "--lengths", 512, "--depths", 1, "--trials", 1, "--control-model", yarn8,
                 "--json")  # fmt: skip
    assert "does not show that the RoPE setting has any effect" in result.stderr
    different = run(yarn8, "--lengths", "2k", "--depths", 1, "--trials", 1, "--control", "--json")
    assert "is live" not in different.stderr


def test_a_figure_that_cannot_be_written_comes_after_the_result(base, tmp_path):
    (tmp_path / "taken.png").mkdir()
    result = run(base, "--lengths", 256, *FEW, "--plot", tmp_path / "taken.png", code=6)
    assert result.stdout.startswith("length")
    assert "Cannot write" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Give MODEL"),
        (["BASE", "--lengths", "50"], 2, "is too short"),
        (["BASE", "--lengths", "zero"], 2, "is not a length"),
        (["BASE", "--resume"], 2, "--resume needs --out"),
        (["BASE", "--plot", "x.jpg"], 2, ".png, .svg or .pdf"),
        (["BASE", "--chat"], 2, "no chat template"),
        (["BASE", "--control"], 2, "--control-model"),
        (["BASE", "--compare", "yarn"], 2, "--compare needs a length"),
        (["BASE", "--override", "factor=8", "--base-url", "http://127.0.0.1:9/v1"], 2, "one RoPE"),
        (["BASE", "--dtype", "int8"], 2, "There is no dtype 'int8'"),
        (["BASE", "--device", "abacus"], 2, "no such device. Known: auto, cpu"),
        (["BASE", "--tasks", "needle"], 2, "There is no task 'needle'. Known: passkey, multikey"),
        (["BASE", "--tasks", ","], 2, "names no task"),
        (["BASE", "--lengths", ","], 2, "names no length"),
        (["BASE", "--model", "x"], 2, "are for a server"),
        (["BASE", "--out", "no/such/run.jsonl"], 2, "The directory no/such of"),
        (["BASE", "--plot", "no/such/run.png"], 2, "The directory no/such of"),
        (["BASE", "--dump-prompts", "no/such/p.jsonl"], 6, "Cannot write no/such/p.jsonl"),
        (["BASE", "--needle", "BASE/model.safetensors"], 2, "is not UTF-8 text"),
        (["BASE", "--needle", "BASE/config.json"], 2, "no {key}"),
        (["BASE", "--filler", "nothing.txt"], 2, "cannot be read"),
        (["BASE", "--adapter", "BASE"], 3, "no adapter_config.json"),
        (["BASE", "--base-url", "somewhere"], 2, "http://localhost:8000/v1"),
        (["--base-url", "http://127.0.0.1:9/v1", "--chat"], 2, "--chat needs the chat template"),
        (["--base-url", "http://127.0.0.1:9/v1", "--model", "m"], 2, "Give --lengths"),
        (
            ["--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--lengths", "256"],
            2,
            "offers no tokenizer",
        ),
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


def test_a_run_that_cannot_begin_leaves_no_file(base, tmp_path):
    for arguments in (["--lengths", 50], ["--lengths", 256, "--adapter", base]):
        result = run(base, *arguments, "--out", tmp_path / "run.jsonl", code=None)
        assert result.exit_code in (2, 3)
        assert not (tmp_path / "run.jsonl").exists()


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
    monkeypatch.setattr("yarncli.evaluation.server._RETRIES", 0)
    with served_by(Dying) as server:
        server.lock, server.asked, server.life = threading.Lock(), [], 5
        _die_and_resume(base, tmp_path, server)


def _die_and_resume(base, tmp_path, server):
    arguments = [base, "--base-url", f"http://127.0.0.1:{server.server_port}/v1", "--model", "m",
                 "--lengths", "256,300", "--depths", 3, "--trials", 2, "--concurrency", 1,
                 "--out", tmp_path / "run.jsonl"]  # fmt: skip
    failed = run(*arguments, code=5)
    assert "failed with status 501: dying." in failed.stderr
    first = read_report(tmp_path / "run.jsonl").cells["served"]
    assert len(first) == 5
    server.asked, server.life = [], 1000
    resumed = run(*arguments, "--resume")
    assert "12 prompts, 3,336 tokens; 5 are answered already." in resumed.stderr
    cells = read_report(tmp_path / "run.jsonl").cells["served"]
    assert cells[:5] == first
    assert len({cell.place for cell in cells}) == len(cells) == 12
    assert len(server.asked) == 7


def test_interrupt_keeps_what_was_asked(base, tmp_path, monkeypatch):
    from yarncli.evaluation.result_file import ResultFile

    add, seen = ResultFile.add, []

    def interrupted(self, variant, cell):
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)
        seen.append(cell)
        add(self, variant, cell)

    monkeypatch.setattr(ResultFile, "add", interrupted)
    run(base, "--lengths", 256, *FEW, "--out", tmp_path / "run.jsonl", code=130)
    assert read_report(tmp_path / "run.jsonl").cells["as it is"] == seen[:2]


def test_what_is_dumped_is_what_a_chat_server_is_asked(base, tmp_path, monkeypatch):
    """There the assistant's turn is the server's, so nothing of the answer is in the prompt."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    directory = tmp_path / "chat"
    shutil.copytree(base, directory)
    path = directory / "tokenizer_config.json"
    template = "{{ messages[0].content }} So?"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    asked = []

    class Chat(Dying):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body["messages"][0]["content"])
            data = json.dumps({
                "id": "1", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop",
                             "message": {"role": "assistant", "content": "7"}}],
                "usage": {"prompt_tokens": 250, "completion_tokens": 1, "total_tokens": 251},
            }).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with served_by(Chat) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        run(directory, "--chat", "--base-url", url, "--model", "m", "--lengths", 256, *FEW,
            "--dump-prompts", tmp_path / "p.jsonl", "--concurrency", 1)  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [f"{text} So?" for text in asked]
    assert len(asked) == 3


def test_behind_a_server_the_weights_are_not_fetched(base, minihub, tmp_path, monkeypatch):
    minihub.add_repo("org/model", Path(base))
    with served_by(Dying) as server:
        server.lock, server.asked, server.life = threading.Lock(), [], 1000
        url = f"http://127.0.0.1:{server.server_port}/v1"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        run("hf://org/model", "--base-url", url, "--model", "m", "--lengths", 256, *FEW)
    assert list(minihub.cache.rglob("tokenizer.json"))
    assert not list(minihub.cache.rglob("*.safetensors"))


@pytest.mark.parametrize("option", ["--control-model", "--tokenizer"])
def test_code_from_the_hub_is_trusted_only_at_a_commit(base, minihub, option):
    """Whatever brings it: also the control and the tokenizer."""
    minihub.add_repo("org/model", Path(base))
    result = run(base, option, "hf://org/model", "--lengths", 256, *FEW, "--trust-remote-code",
                 code=2)  # fmt: skip
    assert "needs the full commit" in result.stderr


def test_a_model_on_the_hub_is_fetched_and_measured(base, minihub):
    minihub.add_repo("org/model", Path(base))
    document = json.loads(run("org/model", "--lengths", 256, *FEW, "--json").stdout)
    assert document["settings"]["model"] == "org/model"
    assert document["lengths"][0]["accuracy"] == 1.0


def cell(length, depth, trial, correct):
    return Cell(length=length, depth=depth, trial=trial, key="1", text="", correct=correct)


def test_the_grid_fills_on_a_terminal(monkeypatch):
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", "30")
    grid = Grid((256, 1024), depths=3, trials=2)
    known = [cell(256, 0.0, 0, True)]
    with open(slave, "w", closefd=True) as stderr:  # noqa: PTH123 a file descriptor
        monkeypatch.setattr("sys.stderr", stderr)
        with LiveGrid("Asking", grid, known) as show:
            show(cell(256, 0.0, 1, False))
            show(cell(256, 0.5, 0, True))
            show(cell(1024, 1.0, 0, False))
        written = b""
        while b"4 of 12" not in written or not written.endswith(b"\n"):  # it comes in pieces
            written += os.read(master, 100_000)
    os.close(master)
    text = written.decode()
    frames = text.replace("\r", "").split("\x1b[3A")
    assert len(frames) >= 2
    first, last = (
        [line for line in frame.split("\n") if line] for frame in (frames[0], frames[-1])
    )
    assert first[:2] == ["\x1b[2K  256  █··  1/1", "\x1b[2K1,024  ···  0/0"]
    assert last[:2] == ["\x1b[2K  256  ▒█·  2/3", "\x1b[2K1,024  ··░  0/1"]
    assert last[2].startswith("\x1b[2KAsking: 4 of 12 prompts, ")
    assert max(len(line.removeprefix("\x1b[2K")) for line in last) < 30


def test_rate_and_time_left_count_tokens(monkeypatch):
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    live = LiveGrid("Asking", Grid((100, 1000), depths=1, trials=2), [])
    live._cells += [cell(100, 0.5, 0, True), cell(100, 0.5, 1, True)]
    # 200 tokens in 2 s; 2,000 are left.
    assert live._pace() == "Asking: 2 of 4 prompts, 100 tokens/s, 0:00:20 left"


def test_the_grid_of_the_figure():
    cells = [cell(256, 0.0, 0, True), cell(256, 0.0, 1, False), cell(512, 1.0, 0, True)]
    lengths, depths, values = accuracy_grid(cells)
    assert (lengths, depths) == ([256, 512], [0.0, 1.0])
    assert values[0][0] == 0.5
    assert values[1][1] == 1.0
    assert values[0][1] != values[0][1]


def test_the_figure_names_both_windows_and_is_always_the_same(tmp_path):
    cells = [cell(n, d, 0, n < 512) for n in (256, 512, 2048) for d in (0.0, 1.0)]
    settings = {"model": "./m", "variants": {"as it is": {"original": 256, "window": 2048}}}
    first, again = tmp_path / "1.svg", tmp_path / "2.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # words as words
        for path in (first, again):
            plot_passkey([PasskeyReport(settings, {"as it is": cells})], path)
    text = first.read_text()
    for words in ("original window 256", "new window 2,048", "Passkey retrieval, m", "100 %"):
        assert words in text
    assert first.read_bytes() == again.read_bytes()
