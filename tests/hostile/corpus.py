"""Checkpoints that somebody made to do harm: one function for each way, in `ITEMS` by name.

Every function gets a sound checkpoint of its own to spoil, and `canary`, a directory beside it
that nothing may touch.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import chdir
from hashlib import sha256
from pathlib import Path
from typing import Any

Spoil = Callable[[Path, Path], None]
ITEMS: dict[str, Spoil] = {}

SHARD = "model.safetensors"
INDEX = "model.safetensors.index.json"
JOURNAL = "yarncli-journal.bin"
PENDING = "config.json.yarncli-pending"
LEAVES = (
    "config.json", SHARD, "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    "README.md", "config.json.orig", "yarncli.json", "adapter_config.json", INDEX, JOURNAL, PENDING,
)  # fmt: skip


def item(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put a function into `ITEMS`, or once for each name, which it gets as the third argument."""

    def add(spoil: Callable[..., None]) -> Callable[..., None]:
        base = spoil.__name__.replace("_", " ")
        for name in names:
            ITEMS[f"{base}: {name}"] = lambda place, canary, name=name: spoil(place, canary, name)
        if not names:
            ITEMS[base] = spoil
        return spoil

    return add


def made(value: Any) -> Any:
    """A value of the corpus; what is large is made only when it is asked for."""
    return value() if callable(value) else value


def change(place: Path, **fields: Any) -> None:
    """Set fields of config.json; `rope=…` those of its rope_scaling."""
    path = place / "config.json"
    config = json.loads(path.read_text())
    config["rope_scaling"] |= fields.pop("rope", {})
    path.write_text(json.dumps(config | fields))


def put(place: Path, name: str, make: Callable[[Path], object]) -> None:
    path = place / name
    path.unlink(missing_ok=True)
    make(path)


# Links and things that are no files


@item(*LEAVES)
def link_to_the_canary(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: path.symlink_to(canary / "precious.json"))


@item(*LEAVES)
def relative_link_to_the_canary(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: path.symlink_to(f"../{canary.name}/precious.json"))


@item("config.json", SHARD, "README.md", "yarncli.json", "tokenizer_config.json", "a.txt")
def link_to_the_own_original_outside(place: Path, canary: Path, name: str) -> None:
    """What a careless `ln -s` leaves: the file itself, but elsewhere."""
    if (place / name).exists():
        shutil.copy(place / name, canary / f"own-{name}")
    else:
        (canary / f"own-{name}").write_text("{}")
    put(place, name, lambda path: path.symlink_to(canary / f"own-{name}"))


@item("config.json", SHARD, "README.md", "config.json.orig", "yarncli.json", "tokenizer.json")
def hard_link_to_the_canary(place: Path, canary: Path, name: str) -> None:
    if (place / name).exists():
        (canary / f"own-{name}").write_bytes((place / name).read_bytes())
    else:
        (canary / f"own-{name}").write_text("{}")
    put(place, name, lambda path: path.hardlink_to(canary / f"own-{name}"))


@item("config.json", SHARD, "README.md", "yarncli.json", "tokenizer.json")
def link_to_itself(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: path.symlink_to(path))


@item("config.json", SHARD, "README.md", "yarncli.json", "notes.txt")
def broken_link(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: path.symlink_to(canary / "not-there"))


@item("config.json", SHARD, "README.md", "yarncli.json", "tokenizer_config.json", "results.jsonl")
def link_to_endless_zeros(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: path.symlink_to("/dev/zero"))


@item("config.json", SHARD, "README.md", "yarncli.json", JOURNAL, PENDING, "results.jsonl")
def pipe(place: Path, canary: Path, name: str) -> None:
    put(place, name, os.mkfifo)


@item("config.json", SHARD, "README.md", "yarncli.json")
def socket_file(place: Path, canary: Path, name: str) -> None:
    def bind(path: Path) -> None:
        with chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # paths are short
            made.bind(path.name)

    put(place, name, bind)


@item(*LEAVES)
def directory_of_that_name(place: Path, canary: Path, name: str) -> None:
    put(place, name, lambda path: (path / "inside").mkdir(parents=True))


@item()
def directory_component_is_a_link_out(place: Path, canary: Path) -> None:
    (place / "sub").symlink_to(canary)


@item()
def index_names_a_shard_through_a_link(place: Path, canary: Path) -> None:
    shutil.copy(place / SHARD, canary / SHARD)
    (place / "sub").symlink_to(canary)
    index(place, f"sub/{SHARD}")


@item()
def index_names_a_linked_shard(place: Path, canary: Path) -> None:
    shutil.move(place / SHARD, canary / "w.safetensors")
    (place / "model-00001-of-00001.safetensors").symlink_to(canary / "w.safetensors")
    index(place, "model-00001-of-00001.safetensors")


@item()
def directory_loop(place: Path, canary: Path) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "up").symlink_to("..")
    (place / "sub" / "round").symlink_to("round")


@item()
def the_folder_is_a_link(place: Path, canary: Path) -> None:
    """That is the user's own doing: where the link leads may be changed."""
    shutil.move(place, place.with_name("real"))
    place.symlink_to("real")


@item()
def the_folder_is_a_link_to_itself(place: Path, canary: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(place)


@item()
def the_folder_may_not_be_read(place: Path, canary: Path) -> None:
    place.chmod(0)


# Names


NAMES = {
    "a new line": "a\nerror: all is well",
    "a carriage return": "a\rerror: all is well",
    "a screen that is cleared": "a\x1b[2J\x1b[H",
    "a title that is set": "a\x1b]0;owned\x07",
    "eight-bit controls": "a\x9b2J",
    "a bell": "a\x07",
    "text from the right": "a\u202egnp.exe",
    "isolates": "a\u2066b\u2069",
    "a line separator": "a\u2028b",
    "a zero width space": "a\u200bb",
    "bytes that are no UTF-8": os.fsdecode(b"a\xff\xfe"),
    "a dash": "--overwrite",
    "dots": "...",
    "a space": " ",
    "255 bytes": "a" * 255,
    "a backslash": "..\\..\\x",
    "a colon": "C:x",
    "markup": "[bold red]x[bold]",
    "braces": "{0}%s%n",
    "quotes": "';$(touch x)`x`\"",
}


@item(*NAMES)
def file_name_with(place: Path, canary: Path, name: str) -> None:
    (place / f"{NAMES[name][:250]}.json").write_text("{}")


@item(*NAMES)
def directory_name_with(place: Path, canary: Path, name: str) -> None:
    (place / NAMES[name]).mkdir()
    (place / NAMES[name] / "x.txt").write_text("x")


@item(*NAMES)
def shard_name_with(place: Path, canary: Path, name: str) -> None:
    shard = f"{NAMES[name][:240]}.safetensors"
    (place / SHARD).rename(place / shard)
    index(place, shard)


@item(*NAMES)
def link_text_with(place: Path, canary: Path, name: str) -> None:
    (place / "notes.txt").symlink_to(NAMES[name])


@item()
def names_as_deep_as_the_system_takes_them(place: Path, canary: Path) -> None:
    with chdir(place):
        for _ in range(15):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)


@item()
def two_thousand_files(place: Path, canary: Path) -> None:
    (place / "many").mkdir()
    for number in range(2000):
        (place / "many" / f"{number}.txt").touch()


def index(place: Path, shard: object, **more: Any) -> None:
    with (place / SHARD if (place / SHARD).exists() else next(_shards(place))).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        names = [name for name in json.loads(file.read(length)) if name != "__metadata__"]
    weights = {"weight_map": dict.fromkeys(names, shard), "metadata": {"total_size": 1}}
    (place / INDEX).write_text(json.dumps(weights | more))


def _shards(place: Path) -> Iterator[Path]:
    return (path for path in place.iterdir() if path.name.endswith(".safetensors"))


@item("../canary/own.safetensors", "/dev/zero", "/etc/passwd", "sub/../../x.safetensors", ".",
      "..", "", "a\0b", "x\n.safetensors", "config.json", "x" * 2000, "~/x.safetensors"
)  # fmt: skip
def index_places_weights_in(place: Path, canary: Path, name: str) -> None:
    index(place, name)


# Records, journals and markers of strangers


def step(**more: Any) -> dict[str, Any]:
    return {
        "command": "convert", "source": "x", "tool_version": "0.1", "plan": None, "replaced": [],
        "baked": None, "config_only": True, "options": {}, **more,
    }  # fmt: skip


def record(place: Path, *steps: Any, **more: Any) -> None:
    (place / "yarncli.json").write_text(json.dumps({"schema_version": 2, "steps": steps} | more))


OUTSIDE = ("../canary/precious.json", "/etc/hostname", "sub/../../canary/precious.json", "", ".",
           "..", "config.json/../../canary/precious.json", "a\0b", "README.md", SHARD,
           "tokenizer.json")  # fmt: skip


@item(*OUTSIDE)
def record_replaced_a_field_of(place: Path, canary: Path, name: str) -> None:
    changed = {"file": name, "path": ["kept"], "before": "owned", "after": True}
    record(place, step(replaced=[changed]))


STEPS: dict[str, Any] = {
    "a list": [],
    "null": None,
    "text": "x" * 100_000,
    "no command": {},
    "an unknown command": step(command="rm -rf"),
    "a source that is a command": step(source="$(touch owned)"),
    "a source that leaves the code block": step(source="x\n```\n<script>"),
    "an option that is none": step(options={"--in-place /": True}),
    "an option of a million words": step(options={"factor": ["x"] * 200_000}),
    "a version with controls": step(tool_version="\x1b[2J\n# owned\n"),
    "a plan of numbers": step(plan={"length": 1e308, "factor": -1}),
    "a huge path": step(replaced=[{"file": "config.json", "path": ["x"] * 50_000}]),
    "a path of negative places": step(replaced=[{"file": "config.json", "path": [-1]}]),
    "a bake of everything": step(command="bake", baked={"form": "neutral", "side": "k",
                                 "layout": "x", "attention_factor": {"model": 1e308}}),
    "a bake of nothing": step(command="bake", baked={"form": "neutral", "side": "k",
                              "layout": "x", "attention_factor": {"model": 1e-320}}),
}  # fmt: skip


@item(*STEPS)
def record_with(place: Path, canary: Path, name: str) -> None:
    record(place, STEPS[name])


@item()
def record_of_many_steps(place: Path, canary: Path) -> None:
    record(place, *[step()] * 20_000)


@item()
def record_of_another_schema(place: Path, canary: Path) -> None:
    record(place, schema_version=10**300)


JOURNAL_START = b"yarncli undo journal 2\n"


def journal_entry(fields: dict[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps(fields).encode()
    return struct.pack("<II", len(head), len(data)) + head + data


JOURNALS = {
    "a file through a link": {"name": "ld/precious.json", "size": 5, "offset": None},
    "a file above": {"name": "../canary/precious.json", "size": 5, "offset": None},
    "an absolute file": {"name": "/tmp/owned-by-yarncli", "size": 5, "offset": None},
    "a new file through a link": {"name": "ld/new", "size": 5, "offset": None},
    "a missing file through a link": {"name": "ld/precious.json", "size": 0, "offset": None,
                                      "missing": True},
    "a range beyond the end": {"name": SHARD, "size": 2**62, "offset": 2**62},
    "a negative range": {"name": SHARD, "size": 5, "offset": -5},
    "a name of 100 kB": {"name": "x" * 100_000, "size": 5, "offset": None},
    "no name": {"size": 5, "offset": None},
}  # fmt: skip


@item(*JOURNALS)
def journal_restores(place: Path, canary: Path, name: str) -> None:
    """With the marker of an interrupted change, as a cloned repository may hold both."""
    (place / "ld").symlink_to(f"../{canary.name}")
    fields = dict(JOURNALS[name])
    missing, data = fields.pop("missing", False), b"owned"
    if fields["offset"] is None:  # a whole file
        del fields["offset"]
        fields |= {"new": None, "owner": None if missing else [0o600, 0, 0], "existed": not missing}
        data = b"" if missing else data
    else:
        data += b"OWNED"  # old and new bytes
        fields["length"] = 5
    records = JOURNAL_START + journal_entry({"id": "0" * 32}) + journal_entry(fields, data)
    end = {"end": 1, "sha256": sha256(records).hexdigest(), "seal": "0" * 64}
    (place / JOURNAL).write_bytes(records + journal_entry(end))
    (place / "config.json").rename(place / PENDING)


@item("empty", "text", "cut off", "a length of 4 GiB", "an earlier version's")
def journal_is(place: Path, canary: Path, name: str) -> None:
    content = {
        "empty": b"",
        "text": b"hello",
        "cut off": JOURNAL_START + b"\x00\x00",
        "a length of 4 GiB": JOURNAL_START + struct.pack("<II", 2**32 - 1, 5),
        "an earlier version's": b"yarncli undo journal 1\n" + journal_entry({"end": 0}),
    }
    (place / JOURNAL).write_bytes(content[name])
    (place / "config.json").rename(place / PENDING)


@item()
def marker_without_a_journal(place: Path, canary: Path) -> None:
    (place / "config.json").rename(place / PENDING)


@item()
def marker_beside_the_config(place: Path, canary: Path) -> None:
    shutil.copy(place / "config.json", place / PENDING)


# YAML in README.md


def merges(levels: int, width: int) -> str:
    lines = "".join(
        f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * width)}], k{i}: 1}}\n"
        for i in range(1, levels + 1)
    )
    return "a0: &a0 {k0: 1}\n" + lines


def aliases(levels: int, width: int) -> str:
    lines = "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * width)}]\n" for i in range(1, levels + 1)
    )
    return 'a0: &a0 ["lol"]\n' + lines


YAML = {
    "merges": merges(11, 10),
    "two merges a level": merges(40, 2),
    "aliases": aliases(11, 10),
    "an alias to itself": "a: &a [*a]\n",
    "a merge of itself": "a: &a {<<: *a}\n",
    "an alias as a key": "a: &a x\n*a : y\n",
    "a merge written out": "<<: {license: mit}\n",
    "brackets": "a: " + "[" * 200_000 + "\n",
    "braces": "a: " + "{a: " * 100_000 + "\n",
    "dashes": "a:\n  " + "- " * 200_000 + "x\n",
    "question marks": "? " * 200_000 + "\n",
    "a number in base sixty": "a: 1" + ":1" * 200_000 + "\n",
    "hexadecimal digits": "a: 0x" + "f" * 200_000 + "\n",
    "5,000 digits": "license: 1" + "0" * 5000 + "\n",
    "400 digits": "license: 1" + "0" * 400 + "\n",
    "infinity": "license: .inf\ntags: [.nan]\n",
    "a call": "license: !!python/object/apply:os.system ['touch owned']\n",
    "a new object": "license: !!python/object/new:tuple [[1]]\n",
    "a name": "license: !!python/name:os.system\n",
    "a boolean that is none": "license: !!bool x\n",
    "a time that is none": "license: !!timestamp x\n",
    "a set": "license: !!set {a, b}\n",
    "bytes": "license: !!binary aGk=\n",
    "a day that is none": "license: 2001-99-99\n",
    "a directive": "%YAML 9.9\n",
    "a key twice": "license: mit\nlicense: gpl\n",
    "keys that are no texts": "1: a\nnull: b\n[a]: c\n",
    "many keys": "".join(f"k{i}: v\n" for i in range(80_000)),
    "many short items": "a:\n" + "- x\n" * 120_000,
    "a megabyte": "a: " + "x" * 1_000_000 + "\n",
    "a list": "- a\n- b\n",
    "flow style": "{license: mit}\n",
    "a margin": "  license: mit\n  tags: [x]\n",
    "a block": "license: |\n  mit\n---\n",
    "controls": 'license: "\\x1b[2J\\u202e"\ntags: ["\\0"]\n',
    "lone surrogates": 'license: "\\ud800"\n',
    "tags that are no list": "tags: {a: b}\nmodel-index: 5\n",
    "results that are none": "model-index: [1, null, {results: 5}, {results: [null]}]\n",
    "tabs": "a:\tb\n\tc: d\n",
    "nothing but anchors": "".join(f"k{i}: &a{i} v\n" for i in range(1000)),
}


@item(*YAML)
def card_metadata_with(place: Path, canary: Path, name: str) -> None:
    (place / "README.md").write_text(f"---\n{YAML[name]}---\nhello\n")


BEGIN = "<!-- yarncli:begin x -->"
CARDS = {
    "many begin marks": (BEGIN * 40_000).encode(),
    "many pairs of marks": f"{BEGIN}<!-- yarncli:end -->".encode() * 10_000,
    "marks the wrong way round": f"<!-- yarncli:end -->{BEGIN}".encode(),
    "many lines of dashes": b"---\n" * 200_000,
    "an endless front": b"---\n" + b"a: b\n" * 150_000,
    "two megabytes": b"x" * 2_000_000,
    "spaces": b" " * 900_000 + b"---",
    "bytes that are no UTF-8": b"---\nlicense: \xff\n---\n",
    "NUL bytes": b"\0" * 1000,
    "a byte order mark": b"\xef\xbb\xbf---\nlicense: mit\n---\n",
    "carriage returns": b"---\rlicense: mit\r---\r" * 1000,
    "an escape sequence": b"\x1b[2J\x1b]0;owned\x07",
    "one word": b"a" * 900_000,
    "nothing": b"",
}


@item(*CARDS)
def card_of(place: Path, canary: Path, name: str) -> None:
    (place / "README.md").write_bytes(CARDS[name])


# Numbers and JSON


EDGES = {
    "1e308": 1e308, "-1e308": -1e308, "1e-320": 1e-320, "-0.0": -0.0, "0": 0, "1": 1, "-1": -1,
    "0.5": 0.5, "2 to the 31st": 2**31, "2 to the 53rd": 2**53, "2 to the 63rd": 2**63,
    "400 digits": 10**399, "infinity": float("inf"), "not a number": float("nan"), "true": True,
    "text": "9" * 50, "a list": [1] * 3, "an object": {"a": 1},
}  # fmt: skip
FIELDS = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
    "max_position_embeddings", "rope_theta", "vocab_size", "sliding_window", "max_window_layers",
)  # fmt: skip
ROPE_FIELDS = (
    "factor", "beta_fast", "beta_slow", "attention_factor", "original_max_position_embeddings",
    "mscale", "mscale_all_dim", "rope_theta", "partial_rotary_factor", "attn_factor",
)  # fmt: skip


@item(*(f"{field} {edge}" for field in FIELDS for edge in EDGES))
def number(place: Path, canary: Path, name: str) -> None:
    field, _, edge = name.partition(" ")
    change(place, **{field: EDGES[edge]})


@item(*(f"{field} {edge}" for field in ROPE_FIELDS for edge in EDGES))
def rope_number(place: Path, canary: Path, name: str) -> None:
    field, _, edge = name.partition(" ")
    change(place, rope={field: EDGES[edge]})


MODELS: dict[str, Any] = {
    "longrope from one token": {"rope_scaling": {
        "rope_type": "longrope", "factor": 4.0, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 1}},
    "longrope divided by nothing": {"rope_scaling": {
        "rope_type": "longrope", "factor": 4.0, "short_factor": [1e-320] * 8,
        "long_factor": [0] * 8, "original_max_position_embeddings": 64}},
    "a million factors": lambda: {"rope_scaling": {
        "rope_type": "longrope", "short_factor": [1.0] * 400_000, "long_factor": [1.0]}},
    "a million layer types": lambda: {"model_type": "qwen3_next", "layer_types": ["x"] * 400_000},
    "a base of one": {"rope_theta": 1.0},
    "a stack of 1e308 layers": {"model_type": "hrm_text", "num_layers_per_stack": 1e308},
    "a dense prefix": {"model_type": "cohere2_moe", "first_k_dense_replace": 2**31},
    "a period of 2 to the 62nd": {"model_type": "gemma3_text", "sliding_window_pattern": 2**62},
    "a long list of attention layers": lambda: {"model_type": "lfm2",
                                        "full_attn_idxs": list(range(300_000))},
    "too few sources of caches": {"kv_source_layers": [0], "indexer_types": []},
    "code of its own": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"},
                        "model_type": "evil", "trust_remote_code": True},
    "an architecture with controls": {"architectures": ["\x1b[2J\u202e"], "torch_dtype": "\x07"},
    "a model type of a megabyte": {"model_type": "x" * 1_000_000},
    "a model type with controls": {"model_type": "\x1b[2J\nerror: all is well"},
    "a million keys": lambda: {f"k{i}": i for i in range(450_000)},
    "ninety thousand keys": lambda: {f"k{i}": i for i in range(90_000)},
    "unknown keys of a scaling": {"rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, **{f"factor{i}": i for i in range(9000)}}},
    "an unknown key of a megabyte": {"rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embedding" * 30_000: 1}},
    "many sections": {"rope_parameters": {f"s{i}": {"rope_type": "yarn"} for i in range(5000)}},
    "a string of ten megabytes": lambda: {"note": "\\n" * 5_000_000},
    "keys with controls": {"\x1b[2J": 1, "a\nb": float("inf"), "seq_length": float("-inf")},
    "dots in keys": {"rope_scaling.factor": 2, "": {"": {"": 1}}},
    "quantised by an unknown": {"quantization_config": {"quant_method": "\x1b[2J" * 1000}},
    "a text part of itself": {"text_config": {"text_config": {"text_config": {}}}},
}  # fmt: skip


@item(*MODELS)
def config_with(place: Path, canary: Path, name: str) -> None:
    change(place, **made(MODELS[name]))


JSONS = {
    "brackets": b"[" * 3_000_000,
    "closed brackets": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "keys in keys": b'{"a":' * 300_000 + b"1" + b"}" * 300_000,
    "a key twice": b'{"model_max_length": 1, "model_max_length": 2}',
    "9,000 digits": b'{"model_max_length": ' + b"9" * 9000 + b"}",
    "an exponent": b'{"model_max_length": 1e' + b"9" * 100_000 + b"}",
    "zeros": b'{"model_max_length": 0.' + b"0" * 1_000_000 + b"1}",
    "seven million values": lambda: b'{"a": [' + b"0," * 7_000_000 + b"0]}",
    "seventeen megabytes": lambda: b'{"a": "' + b"x" * 17_000_000 + b'"}',
    "a lone surrogate": b'{"a": "\\ud800", "\\udfff": 1}',
    "bytes that are no UTF-8": b'{"a": "\xff"}',
    "no value": b"",
    "NaN": b'{"model_max_length": NaN, "max_length": -Infinity}',
    "a list": b"[1]",
    "backslashes": lambda: b'{"a": "' + b"\\\\" * 4_000_000 + b'"}',
    "spaces": lambda: b" " * 10_000_000 + b"{}",
}
JSON_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "yarncli.json",
              "adapter_config.json")  # fmt: skip


@item(*(f"{name} {kind}" for name in JSON_FILES for kind in JSONS))
def json_in(place: Path, canary: Path, name: str) -> None:
    file, _, kind = name.partition(" ")
    (place / file).write_bytes(made(JSONS[kind]))


TEMPLATES = {
    "a loop": "{% for i in range(10**9) %}x{% endfor %}",
    "memory": "{{ 'x' * 10**10 }}",
    "a way out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "an import": "{% include '/etc/passwd' %}",
    "powers": "{{ 9**9**9 }}",
    "brackets": "{{ " + "(" * 5000 + " }}",
    "a megabyte": "x" * 1_000_000,
}


@item(*TEMPLATES)
def chat_template_with(place: Path, canary: Path, name: str) -> None:
    path = place / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATES[name]}))


# Weights


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def tensors(count: int) -> bytes:
    entry = '"t%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    return ("{" + ",".join(entry % (i, i, i + 1) for i in range(count)) + "}").encode()


HEADERS = {
    "a length of 2 to the 63rd": struct.pack("<Q", 2**63),
    "a length of 99 MB": struct.pack("<Q", 99_000_000) + b"{}",
    "no bytes": b"",
    "seven bytes": b"1234567",
    "not JSON": header(b"hello"),
    "brackets": header(b"[" * 2_000_000),
    "a list": header(b"[]"),
    "a huge shape": header(b'{"a":{"dtype":"U8","shape":[%d,%d],"data_offsets":[0,4]}}'
                           % (2**62, 2**62), b"0000"),
    "a shape of digits": header(b'{"a":{"dtype":"U8","shape":[0,%s],"data_offsets":[0,4]}}'
                                % (b"9" * 4000), b"0000"),
    "offsets of digits": header(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,%s]}}'
                                % (b"9" * 4000), b"0000"),
    "a long shape": header(b'{"a":{"dtype":"U8","shape":[%s1],"data_offsets":[0,1]}}'
                           % (b"1," * 100_000), b"0"),
    "an overlap": header(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
                         b'"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"0000"),
    "400,000 tensors": lambda: header(tensors(400_000), b"0" * 400_000),
    "60,000 tensors": lambda: header(tensors(60_000), b"0" * 60_000),
    "a name with controls": header(b'{"\\u001b[2J\\n":{"dtype":"U8","shape":[1],'
                                   b'"data_offsets":[0,1]}}', b"0"),
    "a name of a megabyte": header(b'{"%s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
                                   % (b"a." * 500_000), b"0"),
    "layers far apart": header(b'{"model.layers.999999.self_attn.k_proj.weight":{"dtype":"U8",'
                               b'"shape":[1],"data_offsets":[0,1]}}', b"0"),
    "metadata of a list": header(b'{"__metadata__":{"a":[1]}}'),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
}  # fmt: skip


@item(*HEADERS)
def shard_of(place: Path, canary: Path, name: str) -> None:
    (place / SHARD).write_bytes(made(HEADERS[name]))


@item()
def pickle_beside(place: Path, canary: Path) -> None:
    (place / "pytorch_model.bin").write_bytes(HEADERS["a pickle"])
    (place / SHARD).unlink()


@item()
def python_beside(place: Path, canary: Path) -> None:
    for name in ("modeling_evil.py", "sitecustomize.py", "torch.py", "json.py", "yaml.py"):
        (place / name).write_text(f"open({str(canary / 'owned')!r}, 'w')\n")
    change(
        place, auto_map={"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    )


INDEXES: dict[str, Any] = {
    "a list": [],
    "no map": {},
    "an empty map": {"weight_map": {}},
    "numbers": {"weight_map": {"a": 1}},
    "5,000 shards": {"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(5000)}},
    "3,000 shards": {"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(3000)}},
    "a million tensors": lambda: {"weight_map": {f"t{i}": SHARD for i in range(1_000_000)}},
    "a size of 400 digits": {"weight_map": {"a": SHARD}, "metadata": {"total_size": 10**399}},
    "a size of infinity": {"weight_map": {"a": SHARD}, "metadata": {"total_size": float("inf")}},
    "a tensor with controls": {"weight_map": {"\x1b[2J\n": SHARD}},
}


@item(*INDEXES)
def index_of(place: Path, canary: Path, name: str) -> None:
    (place / INDEX).write_text(json.dumps(made(INDEXES[name])))


# Results of check-passkey


HEAD = {"schema_version": 1, "settings": {"lengths": [64], "variants": {"as-is": {}}}}
CELL = {"variant": "as-is", "length": 64, "depth": 0.5, "trial": 0, "key": "1", "text": "1",
        "correct": True}  # fmt: skip
RESULTS: dict[str, list[Any]] = {
    "a huge length": [HEAD, {**CELL, "length": 10**300}],
    "a depth that is no number": [HEAD, {**CELL, "depth": float("nan")}],
    "an infinite depth": [HEAD, {**CELL, "depth": float("inf")}],
    "a negative length": [HEAD, {**CELL, "length": -5}],
    "variants of a list": [{**HEAD, "settings": {"variants": [[1]]}}],
    "a variant with controls": [HEAD, {**CELL, "variant": "\x1b[2J$\\frac{$"}],
    "formulas": [{**HEAD, "settings": {**HEAD["settings"], "model": "$\\frac{$ _^"}}, CELL],
    "many settings": [HEAD, *({**CELL, "variant": f"v{n}"} for n in range(300))],
    "many lengths": [HEAD, *({**CELL, "length": n} for n in range(1, 3000))],
    "many depths": [HEAD, *({**CELL, "depth": n / 3000} for n in range(3000))],
    "many tasks": [HEAD, *({**CELL, "task": f"t{n}"} for n in range(3000))],
    "another cell": [HEAD, {**CELL, "evil": 1}],
    "nothing": [],
}


@item(*RESULTS)
def results_with(place: Path, canary: Path, name: str) -> None:
    lines = (json.dumps(line) + "\n" for line in RESULTS[name])
    (place / "results.jsonl").write_text("".join(lines))


@item()
def results_of_brackets(place: Path, canary: Path) -> None:
    (place / "results.jsonl").write_text("[" * 1_000_000 + "\n")
