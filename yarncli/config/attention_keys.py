"""Keys outside the RoPE setting that change positions or attention, as far as they are known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from yarncli.config.families.family import Family
from yarncli.jsontext.fields import json_path

# What is known about each key, with the evidence; `families` are the model types for which someone
# read what it does. Without `neutral`, a key says nothing where it is null, false, 0 or empty.
KEYS_FILE = Path(__file__).parent / "families" / "attention_keys.json"

DUAL_CHUNK = "dual_chunk_attention_config"

# A key that is not listed but matches this pattern may change positions, too.
_SUSPECT = re.compile(
    r"(?:^|_|[dmx])rope|rotary|alibi|nope(?:_|$)|logn|ntk|yarn|pos_?emb|position|"
    r"(?:attn|attention)_(?:temp|scal|chunk|window|sparse)|"
    r"chunk_att|sliding|local_att|sparse_att|relative_att"
)
_THETA = re.compile(r"(?:theta|base|base_freq)$")
_BLOCKS = ("rope_scaling", "rope_parameters")
_SHOWN = 40  # characters of a value
_MOST = 40  # keys of one config that are reported


@dataclass(frozen=True, slots=True)
class AttentionKey:
    """A key that a config has, outside of what a RoPE setting says."""

    path: tuple[str, ...]
    """Its place below the text part."""
    value: str
    """Its value, shortened, as JSON."""
    changes: str
    """Its effect, as a text that follows "which"; empty for a key that is not listed."""
    judged: bool
    """Whether it is known what it does in this model type."""
    grows: bool = False
    """Whether what it does grows with the position, beyond the old window too."""

    def describe(self) -> str:
        """The key with its value, and what it does."""
        does = self.changes or "has a name that suggests positions, and was not examined"
        return f"{json_path(self.path)} ({self.value}) {does}"

    def to_json(self) -> dict[str, Any]:
        """The entry of `inspect --json`."""
        return {
            "path": json_path(self.path),
            "value": self.value,
            "changes": self.changes or None,
            "judged": self.judged,
        }


def find_keys(text: Mapping[str, Any], family: Family | None) -> tuple[AttentionKey, ...]:
    """The keys that change positions or attention, except those that the family's row reads.

    Args:
        text: the text part of a config.
        family: what is known about its model type; None where that is nothing.
    """
    found = [*_at_top(text, family), *_in_blocks(text, family)]
    return tuple(found[:_MOST])


def unjudged_keys(text: Mapping[str, Any], family: Family | None) -> tuple[AttentionKey, ...]:
    """Those of `find_keys` whose effect was not examined for this model type."""
    return tuple(key for key in find_keys(text, family) if not key.judged)


def _at_top(text: Mapping[str, Any], family: Family | None) -> Iterator[AttentionKey]:
    read = _read_by(family) if family else frozenset[str]()
    listed, harmless = _listed()
    for name, value in text.items():
        entry = listed.get(name)
        suspect = entry is None and name not in harmless and _SUSPECT.search(name)
        if name in read or not (entry or suspect) or _is_neutral(entry or {}, value, text):
            continue
        if family and _THETA.search(name) and value in list(_thetas(family)):
            continue  # read or not, the model has it
        yield _key((name[:80],), value, entry or {}, family)


def _in_blocks(text: Mapping[str, Any], family: Family | None) -> Iterator[AttentionKey]:
    """The one such key that stands inside a RoPE setting, once."""
    name = "llama_4_scaling_beta"
    for block in _BLOCKS:
        values = text.get(block)
        entry = _listed()[0][name]
        if isinstance(values, Mapping) and not _is_neutral(entry, values.get(name), values):
            yield _key((block, name), values[name], entry, family)
            return


def _key(
    path: tuple[str, ...], value: Any, entry: Mapping[str, Any], family: Family | None
) -> AttentionKey:
    families = entry.get("families", ())
    known = family is not None and ("*" in families or family.model_type in families)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return AttentionKey(
        path=path,
        value=shown,
        changes=entry.get("changes", ""),
        judged=known,
        grows=bool(entry.get("grows", False)),
    )


def _is_neutral(entry: Mapping[str, Any], value: Any, text: Mapping[str, Any]) -> bool:
    """Whether a key has no effect because of its value, or because of another key."""
    if "with" in entry and not text.get(entry["with"], True):
        return True
    if "unless" in entry and text.get(entry["unless"], True) is False:
        return True
    if value is None:
        return True
    if "neutral" in entry:
        as_bool = type(value) is bool
        return any(value == one and (type(one) is bool) == as_bool for one in entry["neutral"])
    return not value


@cache
def _listed() -> tuple[dict[str, dict[str, Any]], frozenset[str]]:
    document = json.loads(KEYS_FILE.read_text(encoding="utf-8"))
    return document["keys"], frozenset(document["harmless"])


def _thetas(family: Family) -> set[float]:
    """The values of θ that a model of the family has where its file gives none."""
    return {family.rope_theta, *(rule.rope_theta for rule in family.scopes)}


def _read_by(family: Family) -> frozenset[str]:
    """The keys that the row of a model type makes the reader take into account."""
    keys = {*family.theta_keys, *family.period_keys, *family.names.values()}
    keys |= {key for rule in family.scopes for key in rule.theta_keys}
    keys |= {family.rotary_dim_key, family.scaled_layers_key, family.attention_key}
    keys |= set(family.length_switches) | set(family.partial_keys)
    if family.layer_rule or family.window_everywhere or family.sliding_window:
        keys.add(family.window_key)
    if family.layer_rule == "window_size_key":
        keys.add("sliding_window_size")
    if family.scope_sizes_rule == "partial_rotary_factors":
        keys.add("partial_rotary_factors")
    return frozenset(keys)
