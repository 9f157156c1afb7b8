"""What a conversion costs: against transformers' own numbers, the gates, and what is refused."""

import json
import math
import shutil
import statistics

import matplotlib
import pytest
import torch
from transformers import AutoModelForCausalLM

from support.program import invoke
from yarncli import regress
from yarncli.errors import CheckFailed, UsageError
from yarncli.evaluation.local.load import load_model
from yarncli.evaluation.local.sampling import sample_texts
from yarncli.evaluation.regress import TextDivergence, read_regress_report, summarise
from yarncli.evaluation.sentences import price_sentence
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.statistics import Mean
from yarncli.figures.results import plot_results

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text("Suhin Pami was born in 3410. In Ospa you can meet Suhin Pami. " * 30)
    return path


def test_numbers_are_those_of_two_plain_models(demo, scaled, book):
    converted = scaled(YARN, 2048)
    cost = regress(demo, converted, text=[book], length=100, texts=5).regression()
    models = [
        AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32) for d in (demo, converted)
    ]
    ids = load_tokenizer_ids(demo, book)
    kl, agrees, losses = [], [], ([], [])
    for at in range(5):
        stretch = [0, *ids[99 * at : 99 * (at + 1)]]
        with torch.inference_mode():
            p, q = (
                torch.log_softmax(m(torch.tensor([stretch])).logits[0].double(), -1) for m in models
            )
        kl += (p.exp() * (p - q)).sum(-1)[:-1].tolist()
        agrees += (p.argmax(-1) == q.argmax(-1))[:-1].tolist()
        for place in range(99):
            for found, log in zip(losses, (p, q), strict=True):
                found.append(-float(log[place, stretch[place + 1]]))
    assert cost.kl.tokens == len(kl) == 5 * 99
    assert cost.kl.value == pytest.approx(statistics.fmean(kl), abs=1e-4)
    assert cost.kl_p99 == pytest.approx(
        statistics.quantiles(kl, n=100, method="inclusive")[98], abs=1e-3
    )
    assert cost.top1_agreement == pytest.approx(statistics.fmean(agrees))
    before, after = (math.exp(statistics.fmean(found)) for found in losses)
    assert cost.perplexity_before == pytest.approx(before, rel=1e-4)
    assert cost.perplexity_after == pytest.approx(after, rel=1e-4)
    assert cost.ratio.value == pytest.approx(after / before, rel=1e-4)


def load_tokenizer_ids(demo, book):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo).encode(book.read_text(), add_special_tokens=False)


def test_a_trial_is_the_converted_copy(demo, tmp_path, book):
    invoke("convert", demo, tmp_path / "yarn8", "--factor", 8, code=0)
    options = {"text": [book], "length": 128, "texts": 3}
    tried = regress(demo, override="factor=8", **options).regression()
    written = regress(demo, tmp_path / "yarn8", **options).regression()
    assert tried == written
    assert tried.kl.value > 0.01


def test_what_dynamic_leaves_alone_is_exactly_0(demo):
    cost = regress(demo, override="method=dynamic,factor=4", texts=2).regression()
    assert (cost.kl.value, cost.kl_p99, cost.top1_agreement) == (0.0, 0.0, 1.0)
    assert cost.kl.interval == (0.0, 0.0)
    assert price_sentence(cost.ratio, 256) == (
        "texts of up to 256 tokens are predicted exactly as before."
    )


def test_samples_are_draws_from_the_models_own_distribution(demo):
    """A second token has the probabilities that transformers gives it after the first."""
    loaded = load_model(demo, LoadSettings())
    drawn = [text[1] for text in sample_texts(loaded, length=2, count=4000, start=(0,), seed=1)]
    with torch.inference_mode():
        share = torch.softmax(loaded.model(torch.tensor([[0]])).logits[0, -1], -1)
    likely = share.topk(3)
    for token, p in zip(likely.indices.tolist(), likely.values.tolist(), strict=True):
        seen = drawn.count(token) / len(drawn)
        assert abs(seen - p) < 4 * math.sqrt(p * (1 - p) / len(drawn))
    one, again, other = (
        sample_texts(loaded, length=9, count=2, start=(0,), seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_samples_go_on_as_a_whole_reading_would(demo):
    """With one possible token, sampling over a cache says what generate does."""
    loaded = load_model(demo, LoadSettings())
    with torch.no_grad():
        loaded.model.model.norm.weight *= 200  # so sure that every draw is the likeliest token
    (text,) = sample_texts(loaded, length=40, count=1, start=(0,), seed=3)
    ids = torch.tensor([text[:1]])
    greedy = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                   max_new_tokens=39, eos_token_id=None)  # fmt: skip
    assert list(text) == greedy[0].tolist()


def test_several_conversions_share_a_run_and_a_file(demo, book, tmp_path):
    out, options = tmp_path / "run.jsonl", {"text": [book], "length": 64, "texts": 3}
    asked = {"compare": ("ntk", "yarn"), "override": "factor=4"}
    whole = regress(demo, out=out, **asked, **options)
    assert list(whole.divergences) == ["ntk", "yarn"]
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]))
    again = regress(demo, out=out, resume=True, **asked, **options)
    assert again.to_json() == whole.to_json() == read_regress_report(out).to_json()


def test_command_says_it_in_a_sentence_and_fails_its_gates(demo, book, tmp_path):
    figure, file = tmp_path / "figure.svg", tmp_path / "run.jsonl"
    arguments = ("regress", demo, "--override", "factor=8", "--length", 64, "--texts", 2)
    sampled = invoke(*arguments, "--plot", figure, "--out", file, code=0)
    assert "were written by the base model" in sampled.stderr
    assert "texts of up to 64 tokens get" in sampled.stdout
    invoke("plot", file, "--out", tmp_path / "again.svg", code=0)
    assert (tmp_path / "again.svg").read_bytes() == figure.read_bytes()
    read = invoke(*arguments, "--text", book, "--json", "--max-kl", 0, "--min-top1", 1, code=1)
    assert "samples" not in read.stderr
    assert "is above 0; yarn: top-1 agreement" in read.stderr
    document = json.loads(read.stdout)
    assert {"kl_mean", "kl_interval", "kl_p99", "top1_agreement", "perplexity_before",
            "perplexity_after"} <= set(document)  # fmt: skip
    assert document["kl_interval"][0] <= document["kl_mean"] <= document["kl_interval"][1]


def test_a_number_that_is_none_fails_the_gate():
    entry = TextDivergence(text=0, kl=(float("nan"),), agrees=(True,), before=(1.0,), after=(1.0,))
    assert math.isnan(summarise([entry]).kl.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Give BASE and CONVERTED"),
        ({"converted": "x", "override": "factor=2"}, "not both"),
        ({"override": "method=yarn"}, "how far the model is extended"),
        ({"override": "factor=2", "length": 1}, "at least 2 tokens"),
        ({"override": "factor=2", "texts": 0}, "--texts must be at least 1"),
        ({"override": "factor=2", "resume": True}, "--resume needs --out"),
    ],
)
def test_what_cannot_be_compared_is_refused(demo, arguments, words):
    converted = arguments.pop("converted", None)
    with pytest.raises(UsageError, match=words):
        regress(demo, converted, **arguments)


def test_gate_of_the_function(demo, book):
    report = regress(demo, override="factor=8", text=[book], length=64, max_kl=1e-9)
    with pytest.raises(CheckFailed, match="yarn: mean KL"):
        report.require()


@pytest.mark.parametrize(
    ("ratio", "interval", "words"),
    [
        (1.139, (1.084, 1.196), "get 13.9 % worse in perplexity (+8.4 to +19.6 %)."),
        (0.9, (0.85, 0.95), "get 10.0 % better in perplexity (-15.0 to -5.0 %)."),
        (1.02, (0.99, 1.05), "get neither better nor worse beyond chance (-1.0 to +5.0 %)."),
        (1.02, None, "get neither better nor worse beyond chance."),
    ],
)
def test_a_difference_within_chance_is_none(ratio, interval, words):
    assert price_sentence(Mean(ratio, interval, 640), 256) == f"texts of up to 256 tokens {words}"


def test_a_figure_of_several_runs_shows_each(demo, book, tmp_path):
    """Two runs of one model have settings of the same name; neither may hide the other."""
    files = [tmp_path / f"{factor}.jsonl" for factor in (2, 8, 8.0001)]
    for file in files[:2]:
        override = f"factor={file.stem}"
        regress(demo, override=override, text=[book], length=64, texts=1, out=file)
    shutil.copy(files[1], files[2])
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # words as words
        plot_results(files, tmp_path / "all.svg")
    drawn = (tmp_path / "all.svg").read_text()
    for name in ("base: yarn to 512", "base: yarn to 2,048 (1)", "base: yarn to 2,048 (2)"):
        assert name in drawn
