import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarncli.errors import ConfigError
from yarncli.jsontext.text import JsonText

QWEN = """{
  "architectures": [
    "Qwen3ForCausalLM"
  ],
  "max_position_embeddings": 40960,
  "rms_norm_eps": 1e-06,
  "rope_scaling": null,
  "rope_theta": 1000000,
  "vocab_size": 151936
}
"""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=5)
INDENTS = st.sampled_from([None, 1, 2, 4, "\t"])


def test_an_edit_changes_only_the_named_spans():
    edited = JsonText.parse(QWEN, "config.json").edited(
        {
            ("max_position_embeddings",): 131072,
            ("rope_scaling",): {"rope_type": "yarn", "factor": 4.0},
            ("rope_parameters",): {"rope_type": "yarn"},
            ("rope_theta",): 1000000,
        }
    )
    assert (
        edited.text
        == """{
  "architectures": [
    "Qwen3ForCausalLM"
  ],
  "max_position_embeddings": 131072,
  "rms_norm_eps": 1e-06,
  "rope_parameters": {
    "rope_type": "yarn"
  },
  "rope_scaling": {
    "rope_type": "yarn",
    "factor": 4.0
  },
  "rope_theta": 1000000,
  "vocab_size": 151936
}
"""
    )


def test_objects_are_merged_key_by_key():
    text = '{\n    "a": {"factor": 4, "beta": 1e0, "gone": 3},\n    "z": 1\n}'
    edited = JsonText.parse(text, "x").edited({("a",): {"factor": 4.0, "beta": 1.0, "new": [1]}})
    assert edited.text == '{\n    "a": {"factor": 4.0, "beta": 1e0, "new": [1]},\n    "z": 1\n}'


def test_crlf_and_tabs_stay():
    edited = JsonText.parse('{\r\n\t"b": 1\r\n}\r\n', "x").edited({("a", "c"): True})
    assert edited.text == '{\r\n\t"a": {\r\n\t\t"c": true\r\n\t},\r\n\t"b": 1\r\n}\r\n'


def test_an_unsorted_object_grows_at_its_end():
    assert (
        JsonText.parse('{"z": 1, "b": 2}', "x").edited({("m",): 3}).text
        == '{"z": 1, "b": 2, "m": 3}'
    )


@given(OBJECTS, INDENTS)
def test_setting_what_is_there_changes_nothing(value, indent):
    text = JsonText.parse(json.dumps(value, indent=indent), "x")
    assert text.edited({(key,): item for key, item in value.items()}).text == text.text


@given(OBJECTS, OBJECTS, INDENTS)
def test_an_edit_gives_the_value_asked_for(before, after, indent):
    text = JsonText.parse(json.dumps(before, indent=indent), "x")
    gone = [(key,) for key in before if key not in after]
    edited = text.edited({(key,): item for key, item in after.items()}, gone)
    assert json.loads(edited.text) == after


def test_lines_are_counted_at_the_key():
    text = JsonText.parse(QWEN, "config.json")
    assert text.line(("rope_theta",)) == 8
    assert text.line(("architectures", 0)) == 3
    assert text.line(("rope_scaling", "factor")) == 7  # absent: the nearest parent


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5,000 digits"),
        (b"[" * 1_000_000, "nested"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested"),
        (b"[1]", "holds a list"),
        (b"", "is empty"),
        (b'\xff{"a": 1}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": }', "line 1, column 7"),
        (b" " * (16 * 1024 * 1024 + 1), "16,777,217 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_json_is_one_sentence(data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        JsonText.parse(data, "config.json")
    assert str(caught.value).startswith("config.json ")
    assert len(str(caught.value)) < 200


def test_a_key_cannot_be_set_inside_a_number():
    with pytest.raises(ConfigError, match=r"rope_scaling is not an object"):
        JsonText.parse('{"rope_scaling": 1.0}', "x").edited({("rope_scaling", "factor"): 2.0})
