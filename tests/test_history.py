"""yarncli.json survives a round trip, and a hostile one gives one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import ConfigError
from yarncli.history import FILE_NAME, Provenance, Step, describe_source, read_provenance

STEPS = (
    Step(
        command="convert",
        source="org/name@" + "a" * 40,
        plan={"method": "yarn", "factor": 4.0},
        replaced=(
            {"file": "config.json", "path": ["rope_scaling"], "before": None, "after": {}},
            {"file": "config.json", "path": ["layers", 0, "é"], "after": 1},
        ),
        config_only=True,
    ),
    Step(command="bake", source="model", tool_version="9", baked={"power": 2}),
)


def test_round_trip(make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint()
    assert read_provenance(open_checkpoint(str(model))) is None
    (model / FILE_NAME).write_bytes(Provenance(STEPS).to_bytes())
    assert read_provenance(open_checkpoint(str(model))) == Provenance(STEPS)


def test_the_source_is_named_without_its_place(make_checkpoint: Callable[..., Path]) -> None:
    assert describe_source(open_checkpoint(str(make_checkpoint("my-model")))) == "my-model"


def broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = json.loads(Provenance(STEPS).to_bytes())
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("schema_version"),
        lambda d: d.update(schema_version=2),
        lambda d: d.update(schema_version=True),
        lambda d: d.update(schema_version="1"),
        lambda d: d.update(steps={}),
        lambda d: d.update(steps=[3]),
        lambda d: d["steps"][0].update(command=None),
        lambda d: d["steps"][0].update(plan=[]),
        lambda d: d["steps"][0].update(replaced=[3]),
        lambda d: d["steps"][0].update(replaced=[{"file": "x"}]),
        lambda d: d["steps"][0].update(replaced=[{"file": "x", "path": [1.5]}]),
        lambda d: d["steps"][0].update(replaced=[{"file": 1, "path": []}]),
        lambda d: d["steps"][1].update(baked=True),
        lambda d: d["steps"][1].pop("config_only"),
    ],
)
def test_hostile(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ConfigError, match=r"m/yarncli\.json"):
        Provenance.from_json(broken(change), "m/yarncli.json")


def test_unknown_keys_are_ignored() -> None:
    document = broken(lambda d: d["steps"][0].update(later="x"))
    assert Provenance.from_json(document, "x") == Provenance(STEPS)
