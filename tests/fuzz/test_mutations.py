"""Texts of a checkpoint, broken in a hundred thousand ways: each is read, or refused by name.

Every text is a sound one with some bytes changed, by a generator whose seed is the input's number,
so that a failure names what makes it again. YARNCLI_FUZZ_SEED starts from another number.
"""

from __future__ import annotations

import json
import os
import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.configs import TINY_LLAMA
from yarncli.checkpoint.safetensors import parse_header, parse_index
from yarncli.config.reading import read_rope
from yarncli.errors import YarncliError
from yarncli.evaluation.report import read_report
from yarncli.history import History, Step
from yarncli.history.weights import Baked
from yarncli.hub.cards import read_metadata, with_metadata
from yarncli.hub.failures import without_secrets
from yarncli.jsontext.changes import FieldChange
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.publishing.card import has_our_part, own_words

FIRST = int(os.environ.get("YARNCLI_FUZZ_SEED", "0"))
PUBLISHED = json.loads((Path(__file__).parents[1] / "rules" / "published.json").read_text())
PARTS = [
    b"", b"0", b"-0.0", b"1e308", b"1e-320", b"9" * 20, b"9" * 401, b"NaN", b"Infinity", b"null",
    b"true", b"[]", b"{}", b'""', b'"', b"\\", b"\\ud800", b"[" * 101, b"{", b"}", b"]", b":",
    b",", b"\n", b"\r\n", b"\t", b" ", b"\x00", b"\x1b[2J", b"\xff", b"\xef\xbb\xbf",
    "\u202e".encode(), b"../", b"/dev/zero", b"---\n", b"- ", b"? ", b"*a", b"&a ", b"<<: ",
    b"!!bool ", b"|\n", b"%", b"#", b"'", b"1:1", b"2001-99-99", b"<!-- yarncli:begin",
    b"<!-- yarncli:end -->", b"rope_theta", b"yarn", b"2147483648", b"-1",
]  # fmt: skip


def mutated(sample: bytes, chance: random.Random) -> bytes:
    """The sample with one to four places changed."""
    data = bytearray(sample)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(at + int(chance.expovariate(0.15)), len(data))
        match chance.randrange(6):
            case 0:
                data[at:to] = chance.choice(PARTS)
            case 1:
                data[at:at] = chance.choice(PARTS)
            case 2:
                del data[at:to]
            case 3 if data:
                data[at % len(data)] = chance.randrange(256)
            case 4:
                data[at:at] = data[at:to] * chance.randint(1, 3)
            case _:
                del data[at:]
    return bytes(data)


def read_json(data: bytes) -> None:
    text = JsonText.parse(data, "config.json")
    after = text.edited({("rope_scaling", "factor"): 4.0, ("seq_length",): 8}, [("rope_theta",)])
    assert after.value["seq_length"] == 8
    assert "rope_theta" not in after.value
    assert text.edited({("seq_length",): text.get(("seq_length",), 1)}).to_bytes()


def read_config(data: bytes) -> None:
    rope = read_rope(JsonText.parse(data, "config.json").value)
    make_plan(rope, Target(length=2 * rope.max_position_embeddings)).to_json()


def read_record(data: bytes) -> None:
    history = History.from_json(JsonText.parse(data, "yarncli.json").value, "yarncli.json")
    history.to_bytes()
    for step in history.steps:
        step.arguments()
        step.restored("config.json", JsonText.parse(b'{"a": {"b": [1, 2]}}', "config.json"))


def read_header(data: bytes) -> None:
    whole = struct.pack("<Q", len(data)) + data + bytes(64)
    header = parse_header(whole, file_size=len(whole), where="model.safetensors")
    assert sum(tensor.nbytes for tensor in header.tensors.values()) == 64


def read_index(data: bytes) -> None:
    index = parse_index(data, "index.json")
    assert not [name for name in index.weight_map.values() if ".." in name.split("/")]


def read_card(data: bytes) -> None:
    card = data.decode(errors="replace")
    has_our_part(card)
    own_words(card)
    kept = read_metadata(card, "README.md")
    made = with_metadata(card.replace("\r\n", "\n"), {"tags": ["yarn"]}, without=["license"])
    assert read_metadata(made, "README.md").keys() == {*kept, "tags"} - {"license"}


def read_results(data: bytes) -> None:
    path = Path("results.jsonl")
    path.write_bytes(data)
    report = read_report(path)
    for name in report.cells:
        report.lengths(name)


def read_answer(data: bytes) -> None:
    assert not re.search(r"\bhf_\w", without_secrets(data.decode(errors="replace")))


@dataclass(frozen=True)
class Text:
    """One kind of text: how it is read, and sound ones of it."""

    read: Callable[[bytes], None]
    samples: Sequence[bytes]
    full: int
    """How many inputs the full tests make; the default ones make a fiftieth."""


def dump(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


CONFIGS = [dump(config) for config in PUBLISHED.values() if len(dump(config)) < 3000]
PLAN = make_plan(read_rope(TINY_LLAMA), Target(factor=4.0))
RECORD = History(
    (
        Step(
            command="convert",
            source="org/x@" + "0" * 40,
            plan=PLAN,
            replaced=(FieldChange(file="config.json", path=("a", "b", 1), before=1, after=2),),
            options={"factor": 4.0, "truncate": False, "short_factor": [1.0, 2.0]},
        ),
        Step(
            command="bake",
            source="x",
            baked=Baked(form="neutral", side="k", layout="llama", attention_factor={"model": 1.1}),
        ),
    )
)
TENSORS = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    "b": {"dtype": "BF16", "shape": [16], "data_offsets": [32, 64]},
}
CELL = {"variant": "v", "length": 64, "depth": 0.5, "trial": 0, "key": "1", "text": "1",
        "correct": True}  # fmt: skip
RESULTS = [{"schema_version": 1, "settings": {"variants": {"v": {}}, "lengths": [64]}}, CELL, CELL]

TEXTS = {
    "json": Text(read_json, CONFIGS, 40_000),
    "config": Text(read_config, CONFIGS, 30_000),
    "record": Text(read_record, [RECORD.to_bytes()], 25_000),
    "header": Text(read_header, [dump(TENSORS), json.dumps(TENSORS).encode()], 25_000),
    "index": Text(
        read_index,
        [dump({"metadata": {"total_size": 64}, "weight_map": {"a": "a.safetensors", "b": "b/c"}})],
        25_000,
    ),
    "card": Text(
        read_card,
        [
            (DEMO / "README.md").read_bytes(),
            b"---\nlicense: mit\ntags:\n- a\n- b\nmodel-index:\n- name: x\n  results: []\n---\nhi\n"
            b"<!-- yarncli:begin -->\nx\n<!-- yarncli:end -->\n",
        ],
        15_000,
    ),
    "results": Text(
        read_results, [b"".join(json.dumps(r).encode() + b"\n" for r in RESULTS)], 5000
    ),
    "answer": Text(read_answer, [b"bad hf_abcdefgh at https://x.y/z?a=b&c=d for you"], 10_000),
}


def fuzz(name: str, count: int) -> None:
    text = TEXTS[name]
    refused = 0
    for number in range(FIRST, FIRST + count):
        chance = random.Random(number)
        data = mutated(chance.choice(text.samples), chance)
        try:
            text.read(data)
        except YarncliError as error:
            said = str(error)
        except Exception as error:
            error.add_note(f"input {number} of {name}: {data!r}")
            raise
        else:
            continue
        refused += 1
        assert 0 < len(said) < 3000, (number, data)
    assert name == "answer" or 0 < refused < count  # else nothing of the reading is tried


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TEXTS)
def test_broken_texts(name: str, record_property: Callable[[str, object], None]) -> None:
    count = TEXTS[name].full // 50
    record_property("inputs", count)
    fuzz(name, count)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TEXTS)
def test_many_broken_texts(name: str, record_property: Callable[[str, object], None]) -> None:
    record_property("inputs", TEXTS[name].full)
    fuzz(name, TEXTS[name].full)
