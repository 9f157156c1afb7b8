"""The search for a setting: it finds what was planted, and calls nothing better within chance."""

import itertools
import json
import math
import shlex
import shutil
import statistics

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.program import invoke
from yarncli import FitOptions, fit
from yarncli.cli.fit_print import verdict
from yarncli.demo import write_demo_text
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.evaluation.candidates import axes_of, changes_of_name, name_of_changes, search
from yarncli.evaluation.fit_items import answer_items, text_items
from yarncli.evaluation.fit_report import FitReport, Measurement, read_fit_report

# The tuned demo was trained with YaRN ×8 and the paper's temperature: that is the right one for it.
TRAINED = 0.1 * math.log(8) + 1
AGAIN = {"factor": 8.0, "original_length": 256, "replace_scaling": True}
SMALL = {"lengths": (320,), "prompts": 12, "texts": 4}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    return write_demo_text(tmp_path_factory.mktemp("texts") / "stories.txt")


@pytest.fixture(scope="module")
def planted(tuned, tmp_path_factory):
    """A function that copies the tuned demo with keys times a number, its config as it was."""

    def plant(times):
        from safetensors.numpy import load_file, save_file

        directory = tmp_path_factory.mktemp("planted") / "model"
        shutil.copytree(tuned, directory)
        tensors = load_file(directory / "model.safetensors")
        for name in tensors:
            if name.endswith("k_proj.weight"):
                tensors[name] = (tensors[name].astype(np.float32) * times).astype(np.float16)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory

    return plant


@pytest.fixture(scope="module")
def found(planted, stories, tmp_path_factory):
    """The search on weights that carry a temperature already, and its result file."""
    out = tmp_path_factory.mktemp("runs") / "run.jsonl"
    model = planted(2.2)
    return fit(model, budget=6, text=[stories], out=out, **AGAIN, **SMALL), model, out


def test_a_planted_temperature_is_found(found, tmp_path):
    """Keys times 2.2 are the attention factor √2.2 in the weights: what is left is the rest."""
    report, model, _ = found
    assert len(report.measurements) == 1 + 6
    assert report.better
    factor = report.values(report.best)["attention_factor"]
    assert factor == pytest.approx(TRAINED / math.sqrt(2.2), rel=0.05)
    change = report.difference(report.best, "held-out")
    assert change.answers.interval[1] < 0
    assert change.texts[256].interval[1] < 0
    assert verdict(report).startswith(f"attention_factor={factor:g} is better than the default")
    command = shlex.split(report.convert)
    assert command[:4] == ["yarncli", "convert", str(model), "OUT"]
    command[3] = tmp_path / "out"
    invoke(*command[1:], code=0)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["rope_parameters"]["attention_factor"] == factor
    assert written["max_position_embeddings"] == 2048


@pytest.mark.full
def test_where_nothing_is_planted_nothing_is_better(tuned, stories):
    report = fit(tuned, budget=4, text=[stories], lengths=(1024,), prompts=6, texts=2, **AGAIN)
    assert not report.better
    assert "better than the default" in verdict(report)
    assert "kept" in verdict(report)
    assert shlex.split(report.convert)[4:] == [
        "--factor", "8", "--original-length", "256", "--replace-scaling",
    ]  # fmt: skip


def test_numbers_are_those_of_plain_models(planted, stories, tmp_path):
    """Losses, differences, intervals and KL, computed again from transformers' own logits."""
    model = planted(2.2)
    asked = {"budget": 1, "text": [stories], "prompts": 3, "texts": 3, "lengths": (256, 300)}
    report = fit(model, **asked, **AGAIN)
    assert report.best == "attention_factor=0.9983"
    shutil.copytree(model, tmp_path / "other")
    config = json.loads((model / "config.json").read_text())
    for spelling in ("rope_parameters", "rope_scaling"):
        config[spelling]["attention_factor"] = 0.9983
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    models = [
        AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32)
        for d in (model, tmp_path / "other")
    ]
    answers, kl, texts = {}, [], []
    for item in items_of(model, stories):
        usual, other = (losses_of(m, item) for m in models)
        if item.part == "held-out" and item.what == "answer":
            answers.setdefault(item.number, []).append((usual.sum(), other.sum(), len(usual)))
        elif item.part == "held-out" and item.compared:
            kl += kl_of(*models, item.ids)
        elif item.part == "held-out":
            texts += (other - usual).tolist()
    mine, change = (f(report.best, "held-out") for f in (report.numbers, report.difference))
    places = [
        [float(sum(column)) for column in zip(*found, strict=True)] for found in answers.values()
    ]
    tokens = sum(count for *_, count in places)
    assert mine.answers.value == pytest.approx(sum(o for _, o, _ in places) / tokens, abs=1e-4)
    gains = [(other - usual) / count for usual, other, count in places]
    assert len({count for *_, count in places}) == 1  # or the textbook's interval is not ours
    half = 4.3027 * statistics.stdev(gains) / math.sqrt(3)
    value = statistics.fmean(gains)
    assert change.answers.value == pytest.approx(value, abs=1e-4)
    assert change.answers.interval == pytest.approx((value - half, value + half), abs=1e-3)
    assert mine.kl.value == pytest.approx(statistics.fmean(kl), abs=1e-4)
    assert report.numbers("default", "held-out").kl.value == 0
    assert change.texts[300].value == pytest.approx(statistics.fmean(texts), abs=1e-4)


def items_of(demo, stories):
    from yarncli.evaluation.passkey import make_codec
    from yarncli.evaluation.texts import read_texts

    codec = make_codec(demo, False)
    stretches = read_texts([stories], codec).stretches(300, 3)
    return [*answer_items(codec, (256, 300), 3, seed=0), *text_items(stretches, 256)]


def losses_of(model, item):
    with torch.inference_mode():
        logits = torch.log_softmax(model(torch.tensor([item.ids])).logits[0].double(), -1)
    places = range(item.first, len(item.ids) - 1)
    return torch.tensor([-float(logits[place, item.ids[place + 1]]) for place in places])


def kl_of(one, other, ids):
    with torch.inference_mode():
        p, q = (
            torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), -1) for m in (one, other)
        )
    return (p.exp() * (p - q)).sum(-1)[:-1].tolist()


def test_what_is_searched_on_is_not_what_decides(demo, stories):
    items = items_of(demo, stories)
    parts = {part: [i for i in items if i.part == part] for part in ("search", "held-out")}
    tokenizer = AutoTokenizer.from_pretrained(demo)
    keys = {
        part: {tokenizer.decode(i.ids[i.first + 1 :]).strip() for i in found if i.what == "answer"}
        for part, found in parts.items()
    }
    assert len(keys["search"]) == len(keys["held-out"]) == 6
    assert all(key.isdigit() and len(key) == 5 for found in keys.values() for key in found)
    assert not keys["search"] & keys["held-out"]
    texts = {part: {i.ids for i in found if i.what == "text"} for part, found in parts.items()}
    assert texts["search"]
    assert texts["held-out"]
    assert not texts["search"] & texts["held-out"]
    assert all(len(item.ids) in (256, 300) for item in items)


# ---------------------------------------------------------------- verdicts, on numbers of our own


def measured(part, answers, text=(1.0, 1.0, 1.0)):
    """Measurements of a setting: the losses of answers by their numbers, and of text blocks."""
    found = [
        Measurement(part=part, what="answer", number=n, length=512, tokens=5, nll=(5 * loss,))
        for n, loss in enumerate(answers)
    ]
    blocks = tuple(64 * loss for loss in text)
    kl = tuple(0.0 for _ in text)
    return [
        *found,
        Measurement(part=part, what="text", number=0, length=193, tokens=192, nll=blocks, kl=kl),
    ]  # fmt: skip


def report_of(**settings):
    """A report of settings, each with its losses on the search and on the held-out part."""
    recorded = {"model": "m", "method": "yarn", "factor": 8.0, "original_length": None,
                "replace_scaling": False, "usual": {"attention_factor": 1.2}}  # fmt: skip
    return FitReport(
        recorded,
        {
            name.replace("f", "attention_factor=", 1) if name != "default" else name: [
                *measured("search", search, text), *measured("held-out", held_out, text),
            ]
            for name, (search, held_out, text) in settings.items()
        },
    )  # fmt: skip


EVEN = (1.0, 1.0, 1.0)
HARD = (4.0, 1.0, 2.0, 3.0)  # prompts differ far more from each other than two settings do


def moved(by):
    """The losses of `HARD`, moved by almost the same."""
    return tuple(loss + by + 0.01 * (-1) ** n for n, loss in enumerate(HARD))


def test_a_paired_gain_is_seen_although_prompts_differ_more():
    report = report_of(default=(HARD, HARD, EVEN), f1=(moved(-0.2), moved(-0.2), EVEN))
    assert report.best == "attention_factor=1"
    assert report.better
    assert report.convert == "yarncli convert m OUT --factor 8 --attention-factor 1"
    change = report.difference(report.best, "held-out").answers
    assert change.value == pytest.approx(-0.2)
    # Four differences of -0.2 ± 0.01: a standard error of 0.01 · √(4/3) / 2.
    half = 3.1824 * 0.01 * math.sqrt(4 / 3) / 2
    assert change.interval == pytest.approx((-0.2 - half, -0.2 + half))


def test_a_gain_of_the_search_alone_is_none():
    report = report_of(default=(HARD, HARD, EVEN), f1=(moved(-0.2), moved(0.001), EVEN))
    assert report.best == "attention_factor=1"
    assert not report.better
    assert "beyond chance" in verdict(report)
    assert report.convert == "yarncli convert m OUT --factor 8"


def test_what_is_worse_on_the_held_out_part_is_not_better():
    report = report_of(default=(HARD, HARD, EVEN), f1=(moved(-0.2), moved(0.2), EVEN))
    assert not report.better


def test_the_best_of_the_search_alone_is_held_against_the_default():
    """The second best may look better on the held-out part: choosing it there would be a look."""
    report = report_of(
        default=(HARD, HARD, EVEN),
        f1=(moved(-0.3), moved(0.001), EVEN),
        f2=(moved(-0.2), moved(-0.2), EVEN),
    )
    assert report.best == "attention_factor=1"
    assert not report.better


def test_answers_at_the_price_of_texts_are_no_gain():
    worse = (1.1, 1.11, 1.1)
    report = report_of(default=(HARD, HARD, EVEN), f1=(moved(-0.2), moved(-0.2), worse))
    assert report.best == "default"  # it is not even followed in the search
    assert "The default is kept" in verdict(report)
    slipped = {**report.measurements}
    slipped["attention_factor=1"] = [
        *measured("search", moved(-0.2), EVEN), *measured("held-out", moved(-0.2), worse),
    ]  # fmt: skip
    report = FitReport(report.settings, slipped)
    assert report.best == "attention_factor=1"
    assert not report.better
    assert "texts get worse at positions up to 193" in verdict(report)


def test_a_setting_that_was_not_measured_to_the_end_has_no_say():
    report = report_of(default=(HARD, HARD, EVEN), f1=(moved(-0.2), moved(-0.2), EVEN))
    cut = {**report.measurements}
    cut["attention_factor=1"] = cut["attention_factor=1"][:3]
    assert FitReport(report.settings, cut).best == "default"
    assert not FitReport({}, {}).better


# ---------------------------------------------------------------------------------- the search


def minimum(**places):
    """A score that is lowest at `places`, and the settings that were scored."""
    usual = {"attention_factor": 1.2, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0}
    seen = []

    def score(changes):
        if (values := {**usual, **changes}) in seen:
            return None
        seen.append(values)
        return sum(math.log(values[name] / place) ** 2 for name, place in places.items())

    return score, seen, usual


@pytest.mark.parametrize("place", [0.7, 0.95, 1.18, 1.25, 2.0])
def test_one_number_is_found_by_a_grid_and_then_finer(place):
    score, seen, usual = minimum(attention_factor=place)
    search(axes_of("temperature", "yarn"), usual, score, 20)
    values = [setting["attention_factor"] for setting in seen]
    assert values[:5] == [1.2, 0.9917, 1.091, 1.32, 1.452]
    assert len(values) == len(set(values)) <= 21
    assert min(abs(math.log(v / place)) for v in values) <= math.log(1.1) / 8 + 1e-3


def test_several_numbers_are_found_together():
    """As on the demo: `beta_fast` 4 with an attention factor of 1.1 (reference run)."""
    score, seen, usual = minimum(attention_factor=1.1, beta_fast=4.0, beta_slow=1.0, factor=8.0)
    search(axes_of("all", "yarn"), usual, score, 20)
    best = min(seen, key=lambda values: abs(math.log(values["attention_factor"] / 1.1))
               + abs(math.log(values["beta_fast"] / 4)))  # fmt: skip
    assert best["beta_fast"] == 4.0
    assert best["attention_factor"] == pytest.approx(1.1, rel=0.02)
    assert len(seen) == 21
    assert all(values["factor"] >= 8 or values == {} for values in seen[:10])


def test_the_budget_is_a_number_of_settings():
    for budget in (1, 3, 7):
        score, seen, usual = minimum(attention_factor=0.9)
        search(axes_of("temperature", "yarn"), usual, score, budget)
        assert len(seen) == 1 + budget


def test_what_cannot_be_measured_costs_nothing():
    score, seen, usual = minimum(attention_factor=0.9)
    search(axes_of("temperature", "yarn"), usual,
           lambda c: None if c.get("attention_factor", 0) > 1.2 else score(c), 4)  # fmt: skip
    assert len(seen) == 5


def test_names_of_settings_say_what_an_override_takes():
    for changes in ({}, {"beta_fast": 4.0, "attention_factor": 1.098}, {"factor": 11.31}):
        assert changes_of_name(name_of_changes(changes)) == changes
    assert name_of_changes({"beta_fast": 4.0, "attention_factor": 1.1}) == (
        "attention_factor=1.1,beta_fast=4"
    )
    assert name_of_changes({}) == "default"


def test_only_what_a_method_has_is_searched():
    assert [axis.name for axis in axes_of("all", "ntk")] == ["factor"]
    assert [axis.name for axis in axes_of("betas", "ntk-by-parts")] == ["beta_fast", "beta_slow"]
    for tune, method, words in (
        ("temperature", "ntk", "ntk has no temperature to tune. Give --method yarn"),
        ("betas", "linear", "linear has no betas to tune. Give --method yarn"),
        ("all", "dynamic", "dynamic adapts to the text"),
        ("all", "longrope", "longrope has fixed factors"),
        ("all", "x", "unknown"),
    ):
        with pytest.raises(UsageError, match=words):
            axes_of(tune, method)


# ------------------------------------------------------------------------- the command, its file


def test_a_run_goes_on_where_it_was_interrupted(found, stories, tmp_path):
    report, model, out = found
    again = tmp_path / "run.jsonl"
    lines = out.read_bytes().splitlines(keepends=True)
    again.write_bytes(b"".join(lines[:-9]) + lines[-9][:20])
    asked = {"budget": 6, "text": [stories], "out": again, "resume": True, **AGAIN, **SMALL}
    resumed = fit(model, **asked)
    assert resumed.best == report.best
    assert resumed.better
    for name in report.measurements:
        one, other = (r.difference(name, "search").answers for r in (report, resumed))
        assert one.value == pytest.approx(other.value, abs=1e-5)
    assert len(again.read_bytes().splitlines()) == len(lines)
    assert read_fit_report(again).to_json()["best"] == resumed.to_json()["best"]
    with pytest.raises(UsageError, match="other settings"):
        fit(model, **{**asked, "budget": 7})


def test_figure_of_a_file(found, tmp_path):
    _, _, out = found
    invoke("plot", out, out, "--out", tmp_path / "figure.svg", code=0)
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    for text in ("1/√t, the scale of the attention temperature", "0.1 ln 8 + 1", "held-out"):
        assert f"<!-- {text} -->" in drawn
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(out.read_bytes()[:-5])
    done = invoke("plot", cut, "--out", tmp_path / "figure.png", code=0)
    assert "interrupted" in done.stderr
    cut.write_bytes(out.read_bytes().splitlines(keepends=True)[0])
    assert "no results" in invoke("plot", cut, "--out", tmp_path / "x.png", code=2).stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("part", "x"), ("what", "x"), ("tokens", 0), ("nll", [1]), ("nll", []), ("number", "1")],
)
def test_a_line_that_is_none_is_refused(found, tmp_path, key, value):
    head, first, *_ = found[2].read_text(encoding="utf-8").splitlines()
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{head}\n{json.dumps({**json.loads(first), key: value})}\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a result file"):
        read_fit_report(path)


def test_command_prints_both_tables_and_the_next_step(tuned, stories):
    arguments = ("fit", tuned, "--factor", 8, "--original-length", 256, "--replace-scaling",
                 "--budget", 1, "--prompts", 2, "--lengths", "200,300")  # fmt: skip
    done = invoke(*arguments, "--texts", 2, code=0)
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "search"
    assert lines[-1].startswith(f"Write it with: yarncli convert {tuned} OUT --factor 8")
    assert "answers at 200" in done.stdout
    assert "At most 1 settings and the default" in done.stderr
    assert "were written by the model" in done.stderr
    done = invoke(*arguments, "--text", stories, "--tune", "betas", "--json", code=0)
    assert "samples" not in done.stderr
    document = json.loads(done.stdout)
    assert {"default", "best", "better", "candidates", "convert"} <= document.keys()
    assert document["default"]["values"] == {"beta_fast": 32.0, "beta_slow": 1.0}
    assert document["candidates"][0]["name"] == "beta_fast=4"
    low, high = document["default"]["held_out"]["text_loss_by_length"]["300"]["interval"]
    assert low < document["default"]["held_out"]["text_loss_by_length"]["300"]["mean"] < high


def test_an_interruption_says_what_is_kept(tuned, tmp_path, monkeypatch):
    from yarncli.evaluation import fit as module

    out = tmp_path / "run.jsonl"
    read, calls = module._Run._read, itertools.count()

    def stop(run, name, item):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return read(run, name, item)

    monkeypatch.setattr(module._Run, "_read", stop)
    arguments = ("fit", tuned, "--factor", 8, "--original-length", 256, "--replace-scaling",
                 "--prompts", 2, "--lengths", 200, "--texts", 2)  # fmt: skip
    done = invoke(*arguments, "--out", out, code=130)
    assert f"{out} has what was measured; the same command with --resume" in done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1 + 3
    calls = itertools.count(3)
    assert "nothing was kept" in invoke(*arguments, code=130).stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"factor": None}, "such as --factor 8"),
        ({"factor": 0.5}, "at least 1"),
        ({"factor": 1}, "nothing needs to change"),
        ({"tune": "x"}, "There is no tune 'x'. Known: temperature"),
        ({"budget": 0}, "--budget must be at least 1"),
        ({"prompts": 1}, "--prompts must be at least 2"),
        ({"texts": 1}, "--texts must be at least 2"),
        ({"lengths": (4096,)}, "4,096 tokens are more than the wanted window of 2,048"),
        ({"lengths": (20,)}, "20 is too short"),
        ({"method": "nope"}, "unknown"),
        ({"resume": True}, "--resume needs --out"),
    ],
)
def test_what_cannot_be_searched_is_refused(demo, changes, words):
    with pytest.raises((UsageError, CheckpointError), match=words):
        fit(demo, FitOptions(factor=8), **changes)


def test_texts_that_are_too_short_are_refused(demo, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("Ospa is big. " * 40)
    with pytest.raises(UsageError, match="Give a longer --text"):
        fit(demo, factor=8, text=[short], lengths=(300,))
    short.write_text("Ospa is big. " * 120)
    with pytest.raises(UsageError, match="one piece of 500 tokens, but two are needed"):
        fit(demo, factor=8, text=[short], lengths=(500,))


def test_models_that_cannot_be_extended_are_refused(tuned, tmp_path):
    with pytest.raises(CheckpointError, match="already extended"):
        fit(tuned, factor=16)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedArchitectureError, match="gpt2"):
        fit(tmp_path, factor=4)
