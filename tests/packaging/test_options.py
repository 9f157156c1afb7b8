"""Options given in Python are refused as the command line refuses its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import yarncli
from support.checkpoints import DEMO
from support.program import invoke
from yarncli.evaluation.session import PasskeyOptions
from yarncli.options import checked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spelling": "nope"}, "There is no spelling 'nope'. Known: both"),
        ({"weights": "nope"}, "There is no weights 'nope'"),
        ({"config_only": "no"}, "config_only is 'no'; it must be True or False"),
        ({"method": "ntk", "rope_theta": True}, "rope_theta is True"),
        ({"method": "ntk", "rope_theta": "4"}, "rope_theta is '4'"),
        ({"truncate": 1}, "truncate is 1"),
        ({"length": float("nan")}, "length is nan; it must be a whole number"),
        ({"length": 10**400}, "length is 1000"),
        ({"factor": 10**400}, "factor is 1000"),
        ({"factor": np.float32(4)}, "factor is np.float32"),
        ({"engines": "vllm"}, "engines is 'vllm'; it must be a list"),
        ({"method": "longrope", "short_factor": [True] * 16}, "short_factor is"),
        ({"method": "longrope", "short_factor": np.ones(16)}, "short_factor is"),
        ({"beta_slow": -1.0}, "beta_slow is -1.0"),
        ({"beta_slow": 5e-324}, "beta_slow is 5e-324"),
        ({"beta_fast": 1e308}, "beta_fast is 1e"),
        ({"method": "llama3", "low_freq_factor": 0.0}, "low_freq_factor is 0.0"),
        ({"factor": 1e308}, "not a number of at least 1"),
        ({"replace_scaling": True, "original_length": 0}, "original-length 0"),
    ],
)
def test_a_conversion_refuses_what_no_option_can_be(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(yarncli.YarncliError, match=message):
        yarncli.convert(DEMO, tmp_path / "out", **{"factor": 4, **changes})
    assert not (tmp_path / "out").exists()


def test_other_records_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(yarncli.UsageError, match=r"There is no side 'x'\. Known: k, q, both"):
        yarncli.bake(DEMO, tmp_path / "out", side="x", attention_factor=1.1)
    with pytest.raises(yarncli.UsageError, match="engines is 'vllm'"):
        yarncli.check(DEMO, engines="vllm")
    with pytest.raises(TypeError, match="lenght"):
        yarncli.plan(DEMO, lenght=512)
    assert checked(PasskeyOptions(), {"out": "run.jsonl"}).out == Path("run.jsonl")


def test_a_factor_list_of_any_kind_is_recorded_as_a_list(tmp_path: Path) -> None:
    lists = {"short_factor": range(1, 17), "long_factor": tuple(range(2, 18))}
    yarncli.convert(DEMO, tmp_path / "out", method="longrope", factor=4, **lists)
    record = json.loads((tmp_path / "out" / "yarncli.json").read_text())
    assert record["steps"][0]["options"]["short_factor"] == list(range(1, 17))


def test_an_opened_checkpoint_is_seen_as_it_is_now(demo: Path) -> None:
    opened = yarncli.open_checkpoint(demo)
    yarncli.convert(opened, in_place=True, method="ntk", factor=4)
    with pytest.raises(yarncli.CheckpointError, match="already extended"):
        yarncli.convert(opened, in_place=True, method="ntk", factor=8)
    assert yarncli.inspect(opened).rope.original_length == 256
    assert yarncli.judge(opened, engines=["vllm"]).intended_from == "yarncli.json"
    assert yarncli.check([opened, demo]).passed


def test_a_config_file_has_the_history_beside_it(demo: Path, tmp_path: Path) -> None:
    invoke("convert", demo, "--in-place", "--method", "ntk", "--factor", 4, code=0)
    result = invoke("convert", demo / "config.json", tmp_path / "out", "--factor", 8, code=3)
    assert "already extended" in result.stderr


def test_undo_takes_nothing_else(demo: Path, tmp_path: Path) -> None:
    invoke("convert", demo, "--in-place", "--factor", 4, code=0)
    before = (demo / "config.json").read_bytes()
    for more in (["--dry-run"], [tmp_path / "out"], ["--method", "ntk"]):
        assert "--undo takes back" in invoke("convert", demo, "--undo", *more, code=2).stderr
    assert (demo / "config.json").read_bytes() == before
    invoke("convert", demo, "--undo", "--in-place", code=0)


def test_a_fix_beside_a_nan_is_told_as_json(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"model_type": "llama", "max_position_embeddings": 1024, "rope_scaling": {"type": "yarn",'
        ' "factor": 4, "original_max_position_embeddings": 256, "zz": NaN}}'
    )
    result = invoke("check", config, "--fix", "--json", code=1)
    changes = json.loads(result.stdout)["changes"]
    assert "NaN" not in result.stdout
    assert ["rope_scaling", "factor"] in [change["path"] for change in changes]


def test_unpaired_surrogates_survive(tmp_path: Path) -> None:
    config = {"model_type": "llama", "max_position_embeddings": 256, "note": "\ud800"}
    config["rope_scaling"] = {"rope_type": "linear", "factor": 2.0, "zz": "\ud800"}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    invoke("convert", tmp_path / "model", tmp_path / "out", "--rescale", "--factor", 8, code=0)
    written = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert (written["note"], written["rope_scaling"]["zz"]) == ("\ud800", "\ud800")
    invoke("inspect", tmp_path / "out", code=0)
