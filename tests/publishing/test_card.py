"""The model card: what it says, what it keeps, and that the Hub's own reader understands it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from support.cards import card_on_hub, passkey_results, rendered
from yarncli.config.reading import read_rope
from yarncli.planning.rope_plan import parameters_to_json

OURS = "<!-- yarncli:begin"


def metadata(card):
    from huggingface_hub import ModelCard

    return ModelCard(card).data


def test_a_card_of_our_own_keeps_the_words_that_are_there(cli, model):
    card = cli("card", model, "--name", "me/long").stdout
    before = (model / "README.md").read_text()
    body = before.partition("\n---\n")[2].strip()
    assert body in card
    assert card.count(OURS) == 1
    data = metadata(card)
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "text-generation"
    assert data.library_name == "transformers"
    assert data.tags == ["passkey", "long-context", "yarn", "rope-scaling", "yarncli"]
    assert data.base_model is None  # a local directory is no model id


def test_the_card_tells_the_numbers(cli, model):
    card = cli("card", model, "--name", "me/long").stdout
    assert "from 256 to **2,048 tokens**" in card
    assert "| `max_position_embeddings` | 256 | 2,048 |" in card
    assert "| `factor` | – | 8 |" in card
    assert re.search(r"^- as intended: \d+ of \d+ \(.*; vLLM; .*\)$", card, re.M)
    assert "vllm serve me/long --max-model-len 2048" in card
    assert "yarncli convert model model-yarn --factor 8" not in card  # the name that was given
    assert "yarncli convert model long --factor 8" in card


def test_a_card_made_twice_is_the_same(cli, model):
    once = cli("card", model, "--name", "me/long").stdout
    (model / "README.md").write_text(once)
    assert cli("card", model, "--name", "me/long").stdout == once


@pytest.mark.parametrize(
    "second",
    [
        [],
        ["--length", "4k", "--rescale"],
        ["--length", "4k", "--method", "linear", "--replace-scaling", "--original-length", "256"],
    ],
    ids=["once", "rescaled", "replaced"],
)
def test_the_reproduction_gives_the_same_config(cli, demo, model, tmp_path, monkeypatch, second):
    monkeypatch.chdir(tmp_path)
    if second:
        cli("convert", model, "further", *second)
        model = tmp_path / "further"
    card = cli("card", model, "--name", "me/again").stdout
    (tmp_path / "model").symlink_to(demo)
    for line in re.findall(r"^yarncli (convert .*)$", card, re.M):
        cli(*line.split())
    assert (tmp_path / "again" / "config.json").read_bytes() == (model / "config.json").read_bytes()


def record(model, **changes):
    """Change the only step of yarncli.json; `plan` is merged into the plan."""
    path = model / "yarncli.json"
    history = json.loads(path.read_text())
    history["steps"][0]["plan"] |= changes.pop("plan", {})
    history["steps"][0] |= changes
    path.write_text(json.dumps(history))


@pytest.mark.parametrize(
    "plan", [{"scopes": 3}, {"factor": None}, {"length": "long"}, {"scopes": {"model": {}}}]
)
def test_a_plan_that_yarncli_did_not_write(hub, cli, model, plan):
    record(model, plan=plan)
    assert "yarncli.json holds a step" in cli("card", model, code=3).stderr
    assert "yarncli.json holds a step" in cli("push", model, "me/long", code=3).stderr
    assert not hub.requests("POST")


def test_recorded_names_do_not_break_the_card(cli, model):
    record(model, source="my model\n```\n# Gotcha", tool_version="<b>|1", plan={"method": "<img>|"})
    card = cli("card", model, "--name", "me/long").stdout
    tokens = rendered(card)
    titles = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert titles[-4:] == [
        "Which engines compute it as intended",
        "How to reproduce it",
        "Limitations",
        "Citation",
    ]
    inline = [child for token in tokens for child in token.children or ()]
    assert not [
        t
        for t in [*tokens, *inline]
        if t.type.startswith("html") and "details" not in t.content and "--" not in t.content
    ]
    assert "with <img>|, factor" in "".join(child.content for child in inline)
    (block,) = [t.content for t in tokens if t.type == "fence" and "yarncli convert" in t.content]
    assert block.startswith("yarncli convert 'my model ``` # Gotcha' long ")


def test_the_card_is_sound_markdown(cli, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl")
    tokens = rendered(cli("card", model, "--name", "me/long", "--results", results).stdout)
    assert [t.type for t in tokens].count("table_open") == 3
    assert {t.info for t in tokens if t.type == "fence"} == {"sh", "python", "bibtex"}
    folds = "".join(t.content for t in tokens if t.type == "html_block")
    assert folds.count("<details>") == folds.count("</details>") == 3


def test_line_ends_of_the_card_stay(hub, cli, model):
    (model / "README.md").write_bytes(b"---\r\nlicense: mit\r\n---\r\n# x\r\n")
    assert "\\r" not in cli("card", model).stdout
    cli("push", model, "me/long")
    card = card_on_hub(hub)
    assert card.count("\r\n") == card.count("\n") > 50


def test_an_incomplete_run_is_named(cli, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl")
    head, *cells = results.read_text().splitlines(keepends=True)
    results.write_text(head + "".join(cells[:3]))
    assert "holds 3 of 4 prompts" in cli("card", model, "--results", results).stderr
    results.write_text(head)
    assert "holds no results yet" in cli("card", model, "--results", results, code=2).stderr


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "text-generation"),
        (
            {"architectures": ["XForConditionalGeneration"], "vision_config": {}},
            "image-text-to-text",
        ),
        ({"architectures": ["AudioForConditionalGeneration"]}, None),
        ({"architectures": "odd"}, None),
    ],
)
def test_the_task_is_stated_where_it_is_certain(cli, model, config, task):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    (model / "README.md").unlink()
    assert metadata(cli("card", model).stdout).pipeline_tag == task


def test_results_become_a_model_index_and_a_table(cli, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl")
    card = cli("card", model, "--results", results, "--name", "me/long").stdout
    entries = metadata(card).eval_results
    found = {e.dataset_args["context_length"]: e.metric_value for e in entries}
    assert found == {256: 1.0, 2048: 0.5}
    assert {(e.task_type, e.dataset_type, e.metric_type) for e in entries} == {
        ("text-generation", "passkey", "accuracy")
    }
    assert "| 2,048 | 0.50 |" in card
    assert "yarncli check-passkey long --lengths 256,2048 --depths 2 --trials 1 --seed 7\n" in card
    assert "![Passkey retrieval over length and depth](passkey.png)" in card


def two_settings(path, demo):
    """Results of the unscaled demo and of YaRN with factor 8, as check-passkey compares them."""
    base = read_rope(json.loads((demo / "config.json").read_text())).scopes["model"].parameters
    rope = {
        "none": parameters_to_json(base),
        "yarn": {
            **parameters_to_json(base), "rope_type": "yarn", "factor": 8.0,
            "original_max_position_embeddings": 256, "max_position_embeddings": 2048,
        },
    }  # fmt: skip
    head, *cells = map(json.loads, passkey_results(path).read_text().splitlines())
    head["settings"]["variants"] = {
        name: {"original": 256, "window": 2048, "rope": {"model": rope[name]}} for name in rope
    }
    lines = [head]
    lines += [{**cell, "variant": "none", "correct": False} for cell in cells]
    lines += [{**cell, "variant": "yarn"} for cell in cells]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_only_the_published_setting_becomes_a_result(cli, demo, model, tmp_path):
    results = two_settings(tmp_path / "r.jsonl", demo)
    found = cli("card", model, "--results", results)
    entries = metadata(found.stdout).eval_results
    assert {e.dataset_config: e.metric_value for e in entries} == {"256": 1.0, "2048": 0.5}
    assert "No setting in" not in found.stderr
    assert "Setting: none" in found.stdout  # in the table, all of them
    (tmp_path / "x4").mkdir()
    cli("convert", demo, tmp_path / "x4" / "model-yarn", "--factor", "4")
    other = cli("card", tmp_path / "x4" / "model-yarn", "--results", results)
    assert metadata(other.stdout).eval_results is None
    assert "No setting in" in other.stderr


def test_the_results_survive_the_clients_own_update(cli, model, tmp_path):
    """`huggingface_hub.metadata_update` reads all results and writes them again."""
    from huggingface_hub.repocard_data import (
        eval_results_to_model_index,
        model_index_to_eval_results,
    )

    card = cli("card", model, "--results", passkey_results(tmp_path / "r.jsonl")).stdout
    index = yaml.safe_load(card.split("---\n")[1])["model-index"]
    name, results = model_index_to_eval_results(index)
    again = eval_results_to_model_index(name, results)
    found = {r["dataset"]["config"]: r["metrics"][0]["value"] for r in again[0]["results"]}
    assert found == {"256": 1.0, "2048": 0.5}
    assert len(again[0]["results"]) == 2


def test_results_of_others_stay(cli, model, tmp_path):
    index = [
        {"name": "m", "results": [
            {"task": {"type": "text-generation"}, "dataset": {"type": "mmlu", "name": "MMLU"},
             "metrics": [{"type": "accuracy", "value": 0.3}]}]}
    ]  # fmt: skip
    (model / "README.md").write_text(f"---\nmodel-index: {json.dumps(index)}\n---\n# x\n")
    results = passkey_results(tmp_path / "r.jsonl")
    once = cli("card", model, "--results", results).stdout
    (model / "README.md").write_text(once)
    entries = metadata(cli("card", model, "--results", results).stdout).eval_results
    assert sorted(e.dataset_type for e in entries) == ["mmlu", "passkey", "passkey"]


def test_the_figure_goes_with_the_card(hub, cli, model, tmp_path):
    pytest.importorskip("matplotlib")
    results = passkey_results(tmp_path / "r.jsonl")
    cli("push", model, "me/long", "--results", results)
    repo = hub.repos["me/long"]
    figure = hub.blob(repo.commits[repo.refs["main"]]["passkey.png"]).read_bytes()
    assert figure.startswith(b"\x89PNG")
    hub.log.clear()
    cli("push", model, "me/long", "--results", results)
    assert not hub.requests("POST")


@pytest.fixture
def derived(hub, cli, demo, tmp_path):
    """A conversion of a Hub model, whose card came along."""
    base = shutil.copytree(demo, tmp_path / "base")
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\nlanguage: [en]\n"
        "base_model: org/grandparent\nnew_version: org/next\ntags: [chat]\n"
        "extra_gated_prompt: please\nmodel-index: [{name: m, results: []}]\n"
        "---\n# Base\nIts words.\n"
    )
    (base / "LICENSE").write_text("the licence")
    (base / "NOTICE").write_text("the notice")
    hub.add_repo("org/base", base)
    cli("convert", "hf://org/base", tmp_path / "derived", "--factor", "8")
    return tmp_path / "derived"


def test_a_derived_model_gets_a_card_of_its_own(hub, cli, derived):
    cli("push", derived, "me/long")
    card = card_on_hub(hub)
    data = metadata(card).to_dict()
    assert data["base_model"] == "org/base"
    assert data["base_model_relation"] == "finetune"
    kept = (data["license"], data["license_name"], data["license_link"], data["language"])
    assert kept == ("other", "own", "LICENSE", ["en"])
    assert data["tags"] == ["chat", "yarn", "rope-scaling", "long-context", "yarncli"]
    assert not {"new_version", "extra_gated_prompt", "model-index"} & set(data)
    assert "Its words" not in card
    assert "# long\n" in card
    commit = hub.repos["org/base"].refs["main"]
    assert f"yarncli convert org/base@{commit} long --factor 8" in card
    hub.log.clear()
    cli("push", derived, "me/long")
    assert not hub.requests("POST")


def test_licence_files_of_the_base_are_not_lost(hub, cli, derived):
    for name in ("LICENSE", "NOTICE"):
        (derived / name).unlink()
    cli("push", derived, "me/long", "--exclude", "NOTICE")
    repo = hub.repos["me/long"]
    assert "NOTICE" not in repo.commits[repo.refs["main"]]
    cli("push", derived, "me/long")
    files = repo.commits[repo.refs["main"]]
    sent = [hub.blob(files[name]).read_bytes() for name in ("LICENSE", "NOTICE")]
    assert sent == [b"the licence", b"the notice"]


def test_an_edited_card_of_the_base_no_longer_speaks_for_the_base(hub, cli, derived):
    card = (derived / "README.md").read_text().replace("Its words", "My words")
    (derived / "README.md").write_text(card)
    cli("push", derived, "me/long")
    found = metadata(card_on_hub(hub)).to_dict()
    assert found["base_model"] == "org/base"
    assert not {"new_version", "model-index"} & set(found)
    assert "My words" in card_on_hub(hub)
    own = card_on_hub(hub).replace("base_model: org/base\n", "base_model: org/grandparent\n")
    (derived / "README.md").write_text(own)
    cli("push", derived, "me/long", "--force-card")
    assert metadata(card_on_hub(hub)).base_model == "org/grandparent"  # meant, after all


def test_a_card_of_the_base_that_cannot_be_read_is_no_obstacle(hub, cli, derived):
    base = hub.repos["org/base"]
    files = {**base.commits[base.refs["main"]], "README.md": hub.store(b"---\na: [\n---\n# x\n")}
    base.commits[base.refs["main"]] = files  # as it was at the commit that was converted
    shutil.rmtree(hub.cache)
    (derived / "README.md").unlink()
    told = cli("push", derived, "me/long", "--license", "mit").stderr
    assert "The card of org/base has no metadata" in told
    assert metadata(card_on_hub(hub)).base_model == "org/base"


def test_a_card_on_the_hub_that_cannot_be_read_is_named(hub, cli, model):
    hub.add_repo("me/long", {"README.md": b"---\na: [\n---\n# x\n"}, private=True)
    assert "README.md of the Hub, line" in cli("push", model, "me/long", code=3).stderr
    cli("push", model, "me/long", "--force-card")


@pytest.mark.parametrize("line", ["tags: {a: b}", "tags: [[a]]", "model-index: [{results: [3]}]"])
def test_odd_metadata_are_no_obstacle(cli, model, tmp_path, line):
    (model / "README.md").write_text(f"---\n{line}\n---\n# x\n")
    results = passkey_results(tmp_path / "r.jsonl")
    assert "- yarncli\n" in cli("card", model, "--results", results).stdout


def test_a_base_that_is_not_recorded_is_named(hub, cli, model):
    told = cli("push", model, "me/long").stderr
    assert "Give --base-model ORG/NAME" in told
    assert "Check that its text and metadata" in told
    again = cli("push", model, "me/long", "--base-model", "org/missing", code=5).stderr
    assert "org/missing: the Hub has no such model" in again
    assert "base_model" not in card_on_hub(hub)


def test_a_recorded_base_that_is_gone_is_told_and_named(hub, cli, derived):
    del hub.repos["org/base"]
    (derived / "README.md").unlink()
    found = cli("card", derived)
    assert "takes over nothing from the base model. org/base@" in found.stderr
    assert "base_model: org/base\n" in found.stdout


BEGIN = "<!-- yarncli:begin – `yarncli card` rewrites everything up to yarncli:end -->"
END = "<!-- yarncli:end -->"


@pytest.mark.parametrize(
    "written",
    [
        f"{BEGIN}\n## Context extension\n\nKEEP ME\n",
        f"{BEGIN}\nold\n\nKEEP ME\n\n{BEGIN}\nold\n{END}\n",
        f"{END}\nKEEP ME\n",
        f"# x\n\n{END}\n\nKEEP ME\n\n{BEGIN}\n",
        f"```md\n{BEGIN}\nKEEP ME\n{END}\n```\n",
        f"~~~~\n```\n{BEGIN}\nKEEP ME\n{END}\n~~~\n~~~~\n",
        f"Write {BEGIN} KEEP ME {END} into it.\n",
    ],
)
def test_words_stay_whatever_the_marks_around_them(cli, model, written):
    (model / "README.md").write_text(f"---\nlicense: mit\n---\n{written}")
    sizes = []
    for _ in range(3):
        found = cli("card", model)
        (model / "README.md").write_text(found.stdout)
        assert "KEEP ME" in found.stdout
        sizes.append(len(found.stdout))
    assert sizes[0] == sizes[1] == sizes[2]
    alone = "```" not in written and "Write" not in written
    assert ("only one of the two marks" in found.stderr) == alone


def test_a_mark_in_code_that_nothing_closes_is_a_mark(cli, model):
    """Else each run would add one more part below."""
    (model / "README.md").write_text("---\nlicense: mit\n---\n```sh\nls\n")
    first = cli("card", model).stdout
    (model / "README.md").write_text(first)
    assert cli("card", model).stdout == first


GROUP = "license: other\nlicense_name: own\nlicense_link: LICENSE\n"


@pytest.mark.parametrize(
    ("mine", "options", "expected"),
    [
        ("license: mit\n", [], {"license": "mit"}),
        ("license_name: theirs\n", [], {"license_name": "theirs"}),
        ("", [], {"license": "other", "license_name": "own", "license_link": "LICENSE"}),
        (GROUP, ["--license", "mit"], {"license": "mit"}),
        ("", ["--license", "other"],
         {"license": "other", "license_name": "own", "license_link": "LICENSE"}),
    ],
)  # fmt: skip
def test_the_fields_on_the_licence_come_from_one_source(hub, cli, derived, mine, options, expected):
    (derived / "README.md").write_text(f"---\n{mine}tags: [mine]\n---\n# Mine\n")
    found = yaml.safe_load(cli("card", derived, *options).stdout.split("---\n")[1])
    assert {k: v for k, v in found.items() if k.startswith("license")} == expected


def test_what_the_user_states_counts_more_than_the_card(hub, cli, derived):
    text = "---\nbase_model: org/other\nlicense: mit\n---\n# Mine\n"
    (derived / "README.md").write_text(text)
    kept = metadata(cli("card", derived).stdout)
    assert kept.base_model == "org/other"
    stated = metadata(cli("card", derived, "--base-model", "org/base").stdout)
    assert stated.base_model == "org/base"


def test_what_was_written_on_the_hub_stays(hub, cli, derived):
    cli("push", derived, "me/long")
    written = card_on_hub(hub).replace("# long\n", "# Long\n\nWritten on the Hub.\n")
    written = written.replace("license: other", "license: other  # a comment")
    files = {**hub.repos["me/long"].commits[hub.repos["me/long"].refs["main"]]}
    files["README.md"] = hub.store(written.encode())
    hub.repos["me/long"].commit(files)
    (derived / "generation_config.json").write_text("{}")
    cli("push", derived, "me/long")
    assert card_on_hub(hub) == written


def test_a_local_card_that_differs_is_named_and_sent_by_force(hub, cli, model):
    cli("push", model, "me/long")
    before = card_on_hub(hub)
    (model / "README.md").write_text("---\nlicense: mit\nlanguage: de\n---\n# Neu\n")
    result = cli("push", model, "me/long")
    assert "differs from the local one and is kept" in result.stderr
    assert "language: de" in card_on_hub(hub)  # what the Hub's card does not say is added
    assert card_on_hub(hub).partition("\n---\n")[2] == before.partition("\n---\n")[2]
    cli("push", model, "me/long", "--force-card")
    assert "# Neu" in card_on_hub(hub)
    assert metadata(card_on_hub(hub)).license == "mit"


def test_no_card_leaves_it_alone(hub, cli, model):
    hub.add_repo("me/long", {"README.md": b"mine"}, private=True)
    cli("push", model, "me/long", "--no-card")
    assert card_on_hub(hub) == "mine"


def test_metadata_that_is_no_yaml_is_named(cli, model):
    (model / "README.md").write_text("---\nlicense: [mit\ntags: x\n---\n# x\n")
    result = cli("card", model, code=3)
    assert "README.md" in result.stderr
    assert "not valid YAML" in result.stderr


@pytest.mark.parametrize(
    ("block", "changes", "expected"),
    [
        ("a: 1\n# c\nb: 2\n", {"a": 3}, "a: 3\n# c\nb: 2\n"),
        ("a:\n- 1\n- 2\nb: 2\n", {"a": [3]}, "a:\n- 3\nb: 2\n"),
        ("a:\n  x: 1\n\n  y: 2\nb: 2\n", {"a": None}, "a: null\nb: 2\n"),
        ("ab: 1\n", {"a": 3}, "ab: 1\na: 3\n"),
        ("'a': 1\nx: {a: 5}\n", {"a": 3}, "a: 3\nx: {a: 5}\n"),
        ("t: |\n  a: 9\na: 1\n", {"a": 3}, "t: |\n  a: 9\na: 3\n"),
        ("gone:\n- x: 1\n  y: 2\nb: 2\n", {}, "b: 2\n"),
        ("gone: 1\nb: 2\n", {"gone": 3}, "gone: 3\nb: 2\n"),
    ],
)
def test_other_lines_of_the_metadata_stay(block, changes, expected):
    from yarncli.hub.cards import with_metadata

    card = with_metadata(f"---\n{block}---\n# x\n", changes, without=["gone"])
    assert card == f"---\n{expected}---\n# x\n"


def test_a_card_without_metadata_gets_some():
    from yarncli.hub.cards import read_metadata, with_metadata

    assert with_metadata("# x\n", {"a": 1}) == "---\na: 1\n---\n\n# x\n"
    assert read_metadata("# x\n", "README.md") == {}
