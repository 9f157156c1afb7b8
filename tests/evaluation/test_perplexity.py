"""Perplexity over nested, sliding and whole windows, against computations of their own."""

import json
import math
import random
import shutil
import statistics

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.program import invoke
from yarncli import evaluate_perplexity
from yarncli.errors import CheckFailed, CheckpointError, UsageError
from yarncli.evaluation.losses import read_perplexity_report
from yarncli.evaluation.texts import Text, Texts

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
WORDS = ("Ospa", "Wunim", "miner", "goat", "lives in", "was born in 3410.", "owns a turtle.")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A text that repeats itself, so that context helps."""
    rng = random.Random(4)
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text(" ".join(rng.choice(WORDS) for _ in range(900)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ids(book, demo):
    return AutoTokenizer.from_pretrained(demo).encode(book.read_text(), add_special_tokens=False)


@pytest.fixture(scope="module")
def model(demo):
    return AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32).eval()


def loss_of(model, ids, scored):
    """transformers' own loss of the last `scored` tokens."""
    given = torch.tensor([ids])
    labels = given.clone()
    labels[:, :-scored] = -100
    with torch.inference_mode():
        return float(model(given, labels=labels).loss)


def test_nested_contexts_predict_the_same_tokens(demo, book, ids, model):
    report = evaluate_perplexity(demo, text=[book], lengths=(64, 128, 256), tokens=1024)
    # Four stretches of 256 with <s> (id 0) before 255 tokens; half of 64 is scored.
    losses = {n: [] for n in (64, 128, 256)}
    for at in range(4):
        stretch = ids[255 * at : 255 * (at + 1)]
        for length, found in losses.items():
            found.append(loss_of(model, [0, *stretch[-(length - 1) :]], 32))
    for result in report.results():
        expected = math.exp(statistics.fmean(losses[result.length]))
        assert result.perplexity == pytest.approx(expected, rel=1e-4)
        assert result.tokens == 4 * 32
    shortest, *longer = report.results()
    assert shortest.gain is None
    for result in longer:
        gains = [a - b for a, b in zip(losses[64], losses[result.length], strict=True)]
        assert result.gain == pytest.approx(statistics.fmean(gains), abs=1e-4)
        # Blocks of 64 tokens, and each window has 32: a textbook interval of four numbers.
        half = 3.1824 * statistics.stdev(gains) / 2
        assert result.gain_interval == pytest.approx(
            (result.gain - half, result.gain + half), abs=1e-3
        )


def test_sliding_windows_are_the_papers(demo, book, ids, model):
    report = evaluate_perplexity(demo, text=[book], lengths=(100, 200), sliding=40, tokens=700)
    for result in report.results():
        # eval/perplexity.py of the paper's repository, written out again: a start token before
        # every window, and one mean for each.
        losses, counts, end = [], [], 0
        for begin in range(0, 700, 40):
            reached, end = end, min(begin + result.length - 1, 700)
            losses.append(loss_of(model, [0, *ids[begin:end]], end - reached))
            counts.append(end - reached)
            if end == 700:
                break
        assert sum(counts) == result.tokens == 700
        weighted = sum(a * b for a, b in zip(losses, counts, strict=True)) / 700
        assert result.perplexity == pytest.approx(math.exp(weighted), rel=1e-4)
        paper = math.exp(statistics.fmean(losses))
        assert result.window_mean_perplexity == pytest.approx(paper, rel=1e-4)
        assert abs(paper - math.exp(weighted)) > 1e-3  # the two averages are not the same


def test_by_position_tells_where_a_text_is_hard(demo, book, ids, model):
    report = evaluate_perplexity(demo, text=[book], lengths=(64, 256), by_position=True, tokens=512)
    sums = {64: 0.0, 256: 0.0}
    for at in range(2):
        stretch = [0, *ids[255 * at : 255 * (at + 1)]]
        with torch.inference_mode():
            logits = torch.log_softmax(model(torch.tensor([stretch])).logits[0], -1)
        for place in range(255):
            sums[64 if place < 63 else 256] -= float(logits[place, stretch[place + 1]])
    first, second = report.results()
    assert (first.tokens, second.tokens) == (2 * 63, 2 * 192)
    assert first.perplexity == pytest.approx(math.exp(sums[64] / 126), rel=1e-4)
    assert second.perplexity == pytest.approx(math.exp(sums[256] / 384), rel=1e-4)


def test_temperatures_side_by_side_are_configs_that_state_them(demo, book, scaled, tmp_path):
    """arXiv:2309.00071 A.2: perplexity over 1/√t, by segments of positions."""
    read = {"text": [book], "lengths": (64, 512), "by_position": True, "tokens": 512}
    tried = evaluate_perplexity(
        demo, override="factor=4", attention_factors=(1.0, 1.25), out=tmp_path / "a2.jsonl", **read
    )
    assert list(tried.losses) == ["1", "1.25"]
    for name, factor in (("1", 1.0), ("1.25", 1.25)):
        written = scaled({**YARN, "attention_factor": factor}, 1024, name=name)
        assert tried.results(name) == evaluate_perplexity(written, **read).results()
    assert tried.results("1") != tried.results("1.25")
    invoke("plot", tmp_path / "a2.jsonl", "--out", tmp_path / "a2.svg", code=0)
    drawn = (tmp_path / "a2.svg").read_text(encoding="utf-8")
    assert "<!-- 1/√t, the scale of the attention temperature -->" in drawn
    assert "<!-- 0.1 ln 4 + 1 -->" in drawn


def test_settings_side_by_side_are_those_of_converted_copies(demo, book, scaled):
    options = {"text": [book], "lengths": (256, 512), "tokens": 1024}
    both = evaluate_perplexity(
        demo, compare=("none", "yarn"), **{**options, "lengths": (256, 1024)}
    )
    copy = scaled(YARN, 1024)
    alone = evaluate_perplexity(copy, **{**options, "lengths": (256, 1024)})
    assert both.results("yarn") == alone.results()
    assert (
        both.results("none")
        == evaluate_perplexity(demo, **{**options, "lengths": (256, 1024)}).results()
    )
    assert both.results("none") != both.results("yarn")


def test_a_run_goes_on_where_it_stopped(demo, book, tmp_path):
    options = {"text": [book], "lengths": (64, 128), "tokens": 512}
    out = tmp_path / "run.jsonl"
    whole = evaluate_perplexity(demo, out=out, **options)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    again = evaluate_perplexity(demo, out=out, resume=True, **options)
    assert again.results() == whole.results()
    assert out.read_bytes().splitlines() == [line.rstrip(b"\n") for line in lines]
    assert read_perplexity_report(out).results() == whole.results()
    book.with_name("other.txt").write_text("Ospa " * 800)
    other = {**options, "text": [book.with_name("other.txt")]}
    with pytest.raises(UsageError, match="other settings"):
        evaluate_perplexity(demo, out=out, resume=True, **other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": []}, "Give --text FILE"),
        ({"lengths": (64, 100_000)}, "but 99,999 are needed"),
        ({"sliding": 100}, "must not be longer than the shortest window"),
        ({"sliding": 0}, "at least 1 token"),
        ({"sliding": 8, "by_position": True}, "not both"),
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"lengths": (2,)}, "are too few for a context"),
        ({"resume": True}, "--resume needs --out"),
        ({"control": True, "control_model": "x"}, "not both"),
        ({"attention_factors": (1.1,)}, "needs --override"),
        ({"attention_factors": (1.1,), "compare": ("yarn",)}, "cannot be used with --compare"),
        ({"attention_factors": (1.1,), "override": "beta_fast=8"}, "how far the model is"),
        ({"attention_factors": (1.1, 1.1), "override": "factor=4"}, "each number once"),
        ({"attention_factors": (1.1,), "override": "method=ntk,factor=4"}, "belongs to"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(demo, book, changes, words):
    with pytest.raises(UsageError, match=words):
        evaluate_perplexity(demo, **{"text": [book], "lengths": (64,), **changes})


def test_texts_that_are_none_are_refused(demo, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    for name, words in (("empty.txt", "is empty"), ("latin.txt", "is not UTF-8")):
        with pytest.raises(UsageError, match=words):
            evaluate_perplexity(demo, text=[tmp_path / name], lengths=(64,))
    with pytest.raises(CheckpointError, match="nowhere"):
        evaluate_perplexity(demo, text=[tmp_path / "nowhere.txt"], lengths=(64,))


def test_stretches_are_taken_from_all_texts_by_turns():
    texts = Texts((Text("a", tuple(range(10, 30))), Text("b", (50, 51, 52, 53, 54))), (0,))
    assert texts.stretches(5, 3) == [(0, 10, 11, 12, 13), (0, 50, 51, 52, 53), (0, 14, 15, 16, 17)]
    assert len(texts.stretches(5, 99)) == 6


def test_command_prints_a_table_and_fails_its_gate(demo, book, tmp_path):
    figure, file = tmp_path / "figure.svg", tmp_path / "run.jsonl"
    arguments = ("perplexity", demo, "--text", book, "--lengths", "64,256", "--tokens", "1k")
    done = invoke(*arguments, "--plot", figure, "--out", file, code=0)
    assert "gained, nats per token" in done.stdout
    assert "8 passes, 1,280 tokens." in done.stderr
    assert b"<svg" in figure.read_bytes()[:600]
    invoke("plot", file, "--out", tmp_path / "again.svg", code=0)
    assert (tmp_path / "again.svg").read_bytes() == figure.read_bytes()
    failed = invoke(*arguments, "--max-perplexity", "1.5", "--json", code=1)
    assert "Perplexity is above 1.5" in failed.stderr
    document = json.loads(failed.stdout)
    assert {"length", "perplexity", "interval", "tokens"} <= set(document["results"][1])


def test_the_gate_of_the_function(demo, book):
    report = evaluate_perplexity(demo, text=[book], lengths=(64,), tokens=128, max_perplexity=1.0)
    with pytest.raises(CheckFailed, match="at 64"):
        report.require_perplexity()


def test_dynamic_yarn_reads_every_context_with_its_own_factor(demo, book, scaled):
    options = {"text": [book], "tokens": 1024}
    found = evaluate_perplexity(
        demo, compare=("none", "dynamic-yarn"), lengths=(256, 512, 1024), **options
    )
    first, second, third = found.results("dynamic-yarn")
    assert first == found.results("none")[0]
    for factor, result in ((2.0, second), (4.0, third)):
        copy = scaled({**YARN, "factor": factor}, 1024, name=f"yarn{factor}")
        alone = evaluate_perplexity(copy, lengths=(256, 512, 1024), **options).results()
        same = {r.length: r.perplexity for r in alone}[result.length]
        assert result.perplexity == pytest.approx(same, rel=1e-6)


def test_a_model_without_rope_is_a_baseline_and_says_so(tmp_path, demo):
    """GPT-2 has a vector for each position: it is read as it is, with a warning."""
    from transformers import GPT2Config, GPT2LMHeadModel

    directory = tmp_path / "gpt2"
    GPT2LMHeadModel(
        GPT2Config(vocab_size=1024, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    ).save_pretrained(directory)
    for file in demo.glob("tokenizer*"):
        shutil.copy(file, directory)
    book = tmp_path / "book.txt"
    book.write_text("In Ospa you can meet Suhin Pami. " * 60)
    command = ("perplexity", directory, "--text", book)
    done = invoke(*command, "--lengths", "32", code=0)
    assert "measured unchanged, as a baseline" in " ".join(done.stderr.split())
    assert "Give --lengths" in invoke(*command, code=2).stderr
    said = " ".join(invoke(*command, "--lengths", "128", code=2).stderr.split())
    assert "vectors for 64 positions, too few for a text of 128" in said
    done = invoke("regress", directory, directory, "--text", book, "--texts", 1, code=0)
    assert "texts of up to 64 tokens are predicted exactly as before" in done.stdout
    assert "measured unchanged, as a baseline" in " ".join(done.stderr.split())
