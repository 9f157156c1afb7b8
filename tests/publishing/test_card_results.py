"""What a card tells of measurements that regress, perplexity and check-passkey made."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from support.cards import card_on_hub
from yarncli.demo import write_demo_text
from yarncli.evaluation.perplexity import evaluate_perplexity
from yarncli.evaluation.regress import regress
from yarncli.evaluation.sentences import price_sentence
from yarncli.evaluation.session import evaluate_passkey


@pytest.fixture
def stories(tmp_path):
    pytest.importorskip("torch")  # with which they are read
    return write_demo_text(tmp_path / "stories.txt")


@pytest.fixture
def price(demo, model, stories, tmp_path):
    """Result file of regress and its report: the published model against its base."""
    out = tmp_path / "price.jsonl"
    return out, regress(demo, model, text=[stories], texts=4, length=256, out=out)


@pytest.fixture
def contexts(model, stories, tmp_path):
    out, lengths = tmp_path / "contexts.jsonl", [128, 256, 512]
    return out, evaluate_perplexity(model, text=[stories], lengths=lengths, tokens=2048, out=out)


def part(card, heading):
    return card.partition(f"### {heading}\n")[2].partition("\n### ")[0]


def test_price_and_contexts_are_told(cli, model, price, contexts):
    (file, report), (other, found) = price, contexts
    done = cli("card", model, "--results", file, "--results", other)
    cost = report.regression()
    told = part(done.stdout, "Price on short texts")
    assert cost.ratio.interval[0] > 1  # or the sentence is another
    assert told.strip().startswith(price_sentence(cost.ratio, 256).replace("texts", "Texts", 1))
    assert f"% worse in perplexity ({100 * (cost.ratio.interval[0] - 1):+.1f} to" in told
    assert f"{cost.kl.value:.3g} nats per token (KL, 95 % interval" in told
    assert f"same at {100 * cost.top1_agreement:.1f} % of the positions" in told
    assert "tokens of `stories.txt`" in told
    assert str(file.parent) not in done.stdout
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| .* \| ([\d,]+) \|$",
                      part(done.stdout, "Perplexity by context"), re.M)  # fmt: skip
    assert rows == [
        (str(r.length), f"{r.perplexity:.4g}", f"{r.tokens:,}") for r in found.results()
    ]
    assert "Nothing was measured" not in done.stdout
    assert not done.stderr


def test_results_that_are_not_given_again_stay(cli, model, price, contexts):
    files = ["--results", price[0], "--results", contexts[0]]
    once = cli("card", model, *files).stdout
    (model / "README.md").write_text(once)
    assert cli("card", model).stdout == once
    assert cli("card", model, "--results", price[0]).stdout == once


def test_another_setting_is_not_told(cli, demo, model, stories, tmp_path):
    files = [tmp_path / "price.jsonl", tmp_path / "contexts.jsonl"]
    texts = {"text": [stories], "override": "factor=4"}
    regress(demo, length=64, texts=1, out=files[0], **texts)
    evaluate_perplexity(demo, lengths=[64], tokens=64, out=files[1], **texts)
    done = cli("card", model, "--results", files[0], "--results", files[1])
    assert "### Price" not in done.stdout
    assert "### Perplexity" not in done.stdout
    assert "Nothing was measured at 2,048 tokens" in done.stdout
    said = " ".join(done.stderr.split())
    for file in files:
        assert f"No setting in {file} is the one in the config.json" in said
        assert f"The results in {file} are of" in said


def test_one_of_several_settings_is_the_published_one(cli, demo, model, stories, tmp_path):
    """Measured before it was written: `--compare ntk,yarn`, of which yarn was taken."""
    asked = {"compare": ("ntk", "yarn"), "override": "factor=8"}
    out = tmp_path / "price.jsonl"
    report = regress(demo, text=[stories], length=256, texts=3, out=out, **asked)
    told = part(cli("card", model, "--results", out).stdout, "Price on short texts")
    assert f"{report.regression('yarn').kl.value:.3g} nats" in told
    assert f"{report.regression('ntk').kl.value:.3g} nats" not in told


def test_a_run_that_was_not_completed_is_named(cli, model, price, contexts):
    for (file, _), said in ((price, "holds 2 of 4 texts"), (contexts, "holds a part of its")):
        head, *lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join([head, *lines[:2]]))
        assert said in " ".join(cli("card", model, "--results", file).stderr.split())
        file.write_bytes(head)
        assert "holds no results yet" in cli("card", model, "--results", file, code=2).stderr


def test_one_file_of_each_command(cli, model, price, tmp_path):
    shutil.copy(price[0], tmp_path / "again.jsonl")
    files = ["--results", price[0], "--results", tmp_path / "again.jsonl"]
    assert "are of the same command" in cli("card", model, *files, code=2).stderr


def test_tasks_without_the_passkey_are_a_table(cli, model, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "tasks.jsonl"
    asked = {"tasks": ("multikey", "tracking"), "lengths": [256], "depths": 2, "trials": 1}
    evaluate_passkey(model, out=out, **asked)
    done = cli("card", model, "--name", "me/long", "--results", out).stdout
    told = part(done, "Tasks by length")
    assert re.findall(r"^\| (\w+) \| 256 \| 0\.\d\d \| .* \| 2 \|$", told, re.M) == [
        "multikey", "tracking",
    ]  # fmt: skip
    assert "Effective length: not known, too few trials" in told
    assert "check-passkey long --lengths 256 --tasks multikey,tracking --depths 2" in told
    assert "### Passkey retrieval" not in done
    assert "model-index" not in done


def results_of(path, model, right):
    """A file of check-passkey on the checkpoint itself: 30 prompts per length, so many right."""
    settings = {"model": str(model), "tasks": ["passkey"], "lengths": [*right], "depths": 30,
                "trials": 1, "seed": 0,
                "variants": {"as it is": {"original": 256, "window": 2048}}}  # fmt: skip
    cells = [
        {"variant": "as it is", "length": length, "depth": n / 29, "trial": 0, "key": "12345",
         "text": "x", "correct": n < count, "task": "passkey"}
        for length, count in right.items() for n in range(30)
    ]  # fmt: skip
    head = {"schema_version": 1, "kind": "passkey", "settings": settings}
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *cells]))
    return path


def test_the_effective_length_is_told_with_its_rule(cli, model, tmp_path):
    file = results_of(tmp_path / "r.jsonl", model, {256: 30, 1024: 30, 2048: 20})
    told = part(cli("card", model, "--results", file).stdout, "Passkey retrieval")
    assert "**Effective length: 1,024 tokens** (the longest length at which" in told
    assert "85 % of the accuracy at the shortest length" in told


def test_a_pull_request_names_price_and_retrieval(hub, cli, demo, model, price, tmp_path):
    hub.add_repo("org/model", {path.name: path.read_bytes() for path in demo.iterdir()})
    file = results_of(tmp_path / "r.jsonl", model, {256: 30, 2048: 15})
    options = ["--config-only", "--create-pr", "--results", file, "--results", price[0]]
    cli("push", model, "org/model", *options)
    (pull,) = hub.pulls["org/model"]
    assert "- Passkey retrieval: 256 tokens 100%, 2,048 tokens 50%.\n" in pull.body
    assert "% worse in perplexity (" in pull.body


def test_push_takes_them_all(hub, cli, model, price, contexts):
    cli("push", model, "me/long", "--results", price[0], "--results", contexts[0])
    card = card_on_hub(hub)
    assert "### Price on short texts" in card
    assert "### Perplexity by context" in card
    assert "passkey.png" not in card
