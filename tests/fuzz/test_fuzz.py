"""Random configs, indexes and headers: inspect, check and convert say yes or one foreseen no."""

from __future__ import annotations

import copy
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarncli.conversion.convert import plan
from yarncli.errors import YarncliError
from yarncli.inspection.description import inspect
from yarncli.rope.methods import METHODS
from yarncli.rules.check import check

SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
# longrope needs factor lists.
COMPUTED = [name for name, method in METHODS.items() if "long_factor" not in method.options]
PUBLISHED: list[dict[str, Any]] = list(
    json.loads((Path(__file__).parents[1] / "rules" / "published.json").read_text()).values()
)

numbers = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2, 4, 4.0, 0.5, 1e-300, 1e300, 2**31, 2**63, 10**30, 10**390, 8192, 32768]
    ),
    st.integers(),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)
ROPE_TYPES = [
    "default", "linear", "dynamic", "yarn", "llama3", "longrope", "su", "mrope", "proportional",
    "ntk", "",
]  # fmt: skip
rope_dicts = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.one_of(st.sampled_from(ROPE_TYPES), scalars),
        "type": st.one_of(st.sampled_from(ROPE_TYPES), scalars),
        "factor": st.one_of(st.sampled_from([1, 2.0, 4, 8.0]), scalars),
        "original_max_position_embeddings": st.one_of(st.sampled_from([2048, 8192]), scalars),
        "rope_theta": st.one_of(st.sampled_from([1e4, 500000]), scalars),
        "beta_fast": scalars,
        "beta_slow": scalars,
        "attention_factor": scalars,
        "attn_factor": scalars,
        "mscale": scalars,
        "mscale_all_dim": scalars,
        "truncate": scalars,
        "low_freq_factor": scalars,
        "high_freq_factor": scalars,
        "short_factor": st.one_of(st.lists(numbers, max_size=3), scalars),
        "long_factor": st.one_of(st.lists(numbers, max_size=3), scalars),
        "partial_rotary_factor": scalars,
        "mrope_section": values,
        "full_attention": values,
        "sliding_attention": values,
    },
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A published config with some values replaced, removed or added."""
    config = copy.deepcopy(draw(st.sampled_from(PUBLISHED)))
    place = config
    while isinstance(place.get("text_config"), dict) and draw(st.booleans()):
        place = place["text_config"]
    for key in draw(st.lists(st.sampled_from(sorted(place) or ["x"]), max_size=2)):
        place[key] = draw(values)
    for key in draw(st.lists(st.sampled_from(["rope_scaling", "rope_parameters"]), max_size=2)):
        place[key] = draw(rope_dicts)
    for key in draw(st.lists(st.sampled_from(sorted(place) or ["x"]), max_size=1)):
        del place[key]
    return config


def write_model(place: Path, config: bytes) -> Path:
    (place / "config.json").write_bytes(config)
    (place / "tokenizer_config.json").write_text('{"model_max_length": 4096}')
    return place


def survive(place: Path, method: str) -> None:
    """Run everything on a directory; only foreseen errors may come out."""
    for action in (
        lambda: json.dumps(inspect(place).to_json()),
        lambda: plan(place, method=method, factor=4.0),
        lambda: plan(place, method=method, length=131072, rescale=True),
    ):
        refusal = ""
        try:
            action()
        except YarncliError as error:
            refusal = str(error)
        assert len(refusal) < 1500
    report = check(str(place))
    json.dumps(report.to_json(), allow_nan=False)
    assert all(f.message and len(f.message) < 1500 for f in report.findings)


def mend(place: Path) -> None:
    """--fix makes nothing worse, and has nothing to do the second time."""
    before = check(str(place))
    after = check(str(place), fix=True)
    assert after.count("error") <= before.count("error")
    again = check(str(place), fix=True)
    assert again.changes == ()
    assert again.findings == after.findings


def fuzz_config(config: dict[str, Any], method: str) -> None:
    data = json.dumps(config).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        place = write_model(Path(folder), data)
        survive(place, method)
        mend(place)


def fuzz_bytes(data: bytes, at: int, junk: bytes) -> None:
    at %= len(data) + 1
    with tempfile.TemporaryDirectory() as folder:
        place = write_model(Path(folder), data[:at] + junk + data[at + len(junk) :])
        survive(place, "yarn")


def fuzz_index(index: Any, config: dict[str, Any], shard: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = write_model(Path(folder), json.dumps(config).encode())
        (place / SHARD).write_bytes(shard)
        (place / INDEX).write_text(json.dumps(index))
        survive(place, "yarn")
        mend(place)


def fuzz_header(header: Any, data: int, config: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        place = write_model(Path(folder), json.dumps(config).encode())
        (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
        survive(place, "yarn")


entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "F4", "I64"]), scalars),
        "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), values),
        "data_offsets": st.one_of(st.lists(st.integers(-1, 64), max_size=3), values),
    },
)
headers = st.one_of(
    values,
    st.dictionaries(st.one_of(st.just("__metadata__"), st.text(max_size=8)), entries, max_size=4),
)
indexes = st.one_of(
    values,
    st.fixed_dictionaries(
        {
            "metadata": st.one_of(values, st.fixed_dictionaries({"total_size": numbers})),
            "weight_map": st.one_of(
                values,
                st.dictionaries(
                    st.one_of(st.sampled_from(["a.weight", "b.weight"]), st.text(max_size=8)),
                    st.one_of(st.just(SHARD), scalars),
                    max_size=4,
                ),
            ),
        }
    ),
)

# name: the strategies of one fuzz function, how many examples `make test` runs
FUZZED: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...], int]] = {
    "config": (fuzz_config, (configs(), st.sampled_from(COMPUTED)), 250),
    "bytes": (
        fuzz_bytes,
        (
            st.sampled_from([json.dumps(c, indent=1).encode() for c in PUBLISHED[:12]]),
            st.integers(0, 10**6),
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b'"', b"}", b"[[", b"9" * 50, b"1e"])
            ),
        ),
        150,
    ),
    "index": (fuzz_index, (indexes,), 100),
    "header": (fuzz_header, (headers, st.integers(0, 64)), 100),
}


def run(name: str, scale: int, config: dict[str, Any], shard: bytes) -> None:
    function, strategies, examples = FUZZED[name]
    extra = {"index": (config, shard), "header": (config,)}.get(name, ())

    @settings(max_examples=examples * scale)
    @given(st.tuples(*strategies))
    def fuzz(drawn: tuple[Any, ...]) -> None:
        function(*drawn, *extra)

    fuzz()


@pytest.mark.parametrize("name", FUZZED)
def test_nothing_but_foreseen_errors(
    name: str, config: dict[str, Any], shard: bytes, record_property: Callable[[str, Any], None]
) -> None:
    record_property("inputs", FUZZED[name][2])
    run(name, 1, config, shard)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FUZZED)
def test_nothing_but_foreseen_errors_for_longer(
    name: str, config: dict[str, Any], shard: bytes, record_property: Callable[[str, Any], None]
) -> None:
    record_property("inputs", 5 * FUZZED[name][2])
    run(name, 5, config, shard)  # each reads a whole directory; test_mutations.py makes many more
