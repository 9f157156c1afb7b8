"""METHODS is the only list: a method that is added to it is known everywhere."""

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from support.program import invoke
from yarncli.config.reading import read_rope
from yarncli.demo import write_demo
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.evaluation.variants import parse_override
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.rope.methods import METHODS, by_rope_type, keeps_max, option_names

ROOT = Path(__file__).parents[2]
NAME, URL = "positions-divided", "https://arxiv.org/abs/2306.15595v2"


def script(name):
    return runpy.run_path(str(ROOT / "scripts" / name))


@pytest.fixture
def added(monkeypatch):
    """Position interpolation once more, under another name."""
    method = replace(METHODS["linear"], name=NAME, label="Positions, divided", reference_url=URL)
    monkeypatch.setitem(METHODS, NAME, method)


@pytest.fixture
def converted(added, tmp_path):
    out = tmp_path / "out"
    result = invoke("convert", write_demo(tmp_path / "demo"), out, "--method", NAME, "--factor", 8)
    assert result.exit_code == 0, result.output
    return out


def test_convert_takes_a_method_that_was_added(converted):
    config = json.loads((converted / "config.json").read_text())
    assert config["rope_scaling"] == {"rope_type": "linear", "type": "linear", "factor": 8.0}
    assert config["max_position_embeddings"] == 256
    assert (
        json.loads((converted / "yarncli.json").read_text())["steps"][0]["plan"]["method"] == NAME
    )


def test_check_asks_it_whether_the_maximum_stays(converted):
    assert invoke("check", converted).exit_code == 0
    path = converted / "config.json"
    text = path.read_text().replace(
        '"max_position_embeddings": 256', '"max_position_embeddings": 300'
    )
    path.write_text(text)
    found = invoke("check", converted)
    assert "max-raised" in found.stdout
    assert "needs the original length 256 as max_position_embeddings; it is 300" in found.stdout


def test_the_card_names_it_and_links_its_paper(converted):
    card = invoke("card", converted, "--name", "me/long").stdout
    assert f"with [Positions, divided]({URL}), factor 8" in card
    assert f"--method {NAME}" in card


def test_the_tables_have_a_row_for_it(added):
    tables = script("method_tables.py")
    assert f"| `{NAME}` | θ^(−2i/d) / s (paper Eq. 10–11) | – | [Positions" in tables["render"](
        "methods.md"
    )
    assert f"| `{NAME}` | rope_type linear, factor | original window: " in tables["render"](
        "config.md"
    )
    rows = {
        line.split(" | ")[0]: line for line in script("engine_matrix.py")["render"]().split("\n")
    }
    assert rows[f"| {NAME}"].partition(" | ")[2] == rows["| linear"].partition(" | ")[2]


def test_trials_and_messages_know_it(added):
    assert parse_override(f"method={NAME},factor=2").target.method == NAME
    told = run_error(parse_override, "method=so,factor=2")
    assert f"longrope, {NAME}, dynamic-yarn." in told
    refused = invoke("convert", "x", "y", "--method", "so", "--factor", 2)
    assert f"longrope, {NAME}." in refused.stderr
    assert f"Known: {', '.join(METHODS)}." in run_error(Target, "so")


def run_error(function, *arguments):
    with pytest.raises(UsageError) as caught:
        function(*arguments)
    return str(caught.value)


def test_what_refuses_its_rope_type_refuses_it(added):
    rope = read_rope({"model_type": "phi3", "max_position_embeddings": 4096})
    with pytest.raises(UnsupportedArchitectureError, match=f"phi3 cannot take {NAME}: its config"):
        make_plan(rope, Target(NAME, factor=2.0))


def test_one_that_leaves_no_mark_is_not_applied_twice(monkeypatch, tmp_path):
    monkeypatch.setitem(METHODS, "base", replace(METHODS["ntk"], name="base"))
    model = write_demo(tmp_path / "demo")
    assert invoke("convert", model, "--in-place", "--method", "base", "--factor", 2).exit_code == 0
    again = invoke("convert", model, "--in-place", "--method", "base", "--factor", 4)
    assert again.exit_code != 0
    assert "changed its rope_theta (method base)" in again.stderr


def test_the_pages_are_current():
    tables = script("method_tables.py")
    for name in tables["TABLES"]:
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert page == tables["render"](name), "Run `make docs` (scripts/method_tables.py)."
        rows = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
        assert [name for name in rows if name in METHODS] == list(METHODS)


@pytest.mark.parametrize(
    ("rope_type", "method", "stays"),
    [
        ("yarn", "yarn", False),
        ("default", "ntk", False),
        ("linear", "linear", True),
        ("dynamic", "dynamic", True),
        ("llama3", "llama3", False),
        ("longrope", "longrope", False),
    ],
)
def test_a_rope_type_belongs_to_a_method(rope_type, method, stays):
    assert by_rope_type(rope_type).name == method
    assert keeps_max(rope_type) is stays


def test_proportional_rope_belongs_to_none():
    assert by_rope_type("proportional") is None
    assert not keeps_max("proportional")


def test_every_option_is_one_of_convert():
    shown = invoke("convert", "--help").stdout
    for name in option_names():
        assert f"--{name.replace('_', '-')}" in shown
    assert option_names() == (
        "beta_fast", "beta_slow", "truncate", "attention_factor", "rope_theta",
        "low_freq_factor", "high_freq_factor", "short_factor", "long_factor",
    )  # fmt: skip
