"""What trainers' own parsers accepted, as recorded, is what `recipe` writes now."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from support.checkpoints import ROOT
from yarncli import recipe
from yarncli.training.trainers import trainers

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "trainer_parsers.py"))
RECORD = json.loads(SCRIPT["RECORD"].read_text())
PARSED = [name for name, trainer in trainers().items() if trainer.evidence == "parsed"]


def test_there_is_a_record_of_each() -> None:
    assert RECORD.keys() == {*PARSED}
    for name, entry in RECORD.items():
        assert trainers()[name].versions in entry["versions"].values()


@pytest.mark.parametrize("variant", SCRIPT["VARIANTS"])
@pytest.mark.parametrize("trainer", PARSED)
def test_the_files_are_those_that_were_parsed(
    trainer: str, variant: str, conv: Path, tmp_path: Path
) -> None:
    options = SCRIPT["VARIANTS"][variant]
    recipe(conv, tmp_path / "r", trainer=trainer, train_length=1024, **options)
    found = SCRIPT["given"](tmp_path / "r" / "train.yaml", conv)
    assert found == RECORD[trainer]["given"][variant]


def test_the_parsers_understood_what_was_meant() -> None:
    for variant, lora in (("full", False), ("lora", True)):
        axolotl, llamafactory, swift = (RECORD[name]["understood"][variant] for name in PARSED)
        assert (axolotl["sequence_len"], axolotl["excess_length_strategy"]) == (1024, "raise")
        assert axolotl["plugins"] == ["yarncli_guard.Guard"]
        assert axolotl["lora_r"] == (16 if lora else None)
        assert axolotl["fsdp_version"] == (None if lora else 2)
        assert (llamafactory["rope_scaling"], llamafactory["cutoff_len"]) == (None, 1024)
        assert llamafactory["finetuning_type"] == variant
        assert (swift["rope_scaling"], swift["max_model_len"]) == (None, None)
        assert (swift["max_length"], swift["truncation_strategy"]) == (1024, "split")
        assert swift["tuner_type"] == variant
        assert {axolotl["adam_beta2"], llamafactory["adam_beta2"], swift["adam_beta2"]} == {0.95}
