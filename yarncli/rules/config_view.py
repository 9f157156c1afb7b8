"""One config.json as the rules see it: its text, the RoPE dicts in it, and how they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from yarncli.config.families.family import Family
from yarncli.config.families.refused_types import UNSUPPORTED, no_rope_types
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import RopeConfig, find_text, read_rope
from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.jsontext.fields import MOST
from yarncli.jsontext.text import JsonText, Path
from yarncli.rope.parameters import canonical_rope_type
from yarncli.rules.catalogue import RULES
from yarncli.rules.finding import Edit, Finding, Severity

if TYPE_CHECKING:
    from yarncli.history.weights import Baked

BLOCK_KEYS = ("rope_scaling", "rope_parameters")
_MOST_SCOPES = 20  # entries of a nested rope_parameters that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One RoPE dict."""

    spelling: Literal["legacy", "v5"]
    """legacy for `rope_scaling`, v5 for `rope_parameters`."""
    path: Path
    """Its place in the file."""
    scope: str | None = None
    """Its label inside a nested `rope_parameters`; `None` elsewhere."""
    values: Mapping[str, Any]
    """Its keys and values as the file has them."""

    @property
    def rope_type(self) -> str | None:
        """The method as transformers 5 reads it; None where none is named."""
        named = self.values.get("rope_type") or self.values.get("type")
        return canonical_rope_type(named) if isinstance(named, str) else None

    def number(self, key: str) -> float | None:
        """A finite number; None for anything else, which other rules report."""
        return finite(self.values.get(key))


@dataclass(frozen=True, kw_only=True)
class ConfigView:
    """What the rules of one config work on."""

    file: str
    """The file as the user knows it."""
    text: JsonText
    """What stands in the file."""
    base: Path = ()
    """Path of the text part; empty where it is the whole config."""
    family: Family | None
    """What is known about the model type; `None` where it is unknown."""
    blocks: tuple[Block, ...] = ()
    """The RoPE dicts of the text part."""
    rope: RopeConfig | None = None
    """The config as transformers 5 reads it; `None` where that is impossible."""
    refused: str = ""
    """Why it is impossible; empty where it is possible, or a model type is not known."""
    planned_maximum: int | None = None
    """What `yarncli.json` says was written as `max_position_embeddings`, tokens, if anything."""
    bakes: Sequence[Baked] = ()
    """What `yarncli.json` says was moved into the weights of the model, one for each time."""

    @property
    def length_key(self) -> str:
        """The family's name for `max_position_embeddings`."""
        names = self.family.names if self.family else {}
        name = names.get("max_position_embeddings", "max_position_embeddings")
        return name if self.top(name) is not None else "max_position_embeddings"

    @property
    def maximum(self) -> int | None:
        """`max_position_embeddings`, or the family's default; None where neither is an integer."""
        found = self.top(self.length_key)
        if found is None and self.family:
            return self.family.max_position_embeddings
        return whole(found)

    def top(self, key: str) -> Any:
        """A value of the text part; None where there is none."""
        return self.text.get((*self.base, key))

    def legacy(self) -> Block | None:
        """The `rope_scaling` dict, where there is one."""
        return next((b for b in self.blocks if b.spelling == "legacy"), None)

    def v5(self) -> list[Block]:
        """The dicts of `rope_parameters`: one, or one per scope."""
        return [b for b in self.blocks if b.spelling == "v5"]

    def finding(
        self,
        rule: str,
        path: Path,
        message: str,
        *,
        edit: Edit | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding at a JSON path of this file."""
        found = RULES[rule]
        line = self.text.line(path)
        return Finding(
            found, severity=severity or found.severity, file=self.file, line=line, path=path,
            message=message, edit=edit,
        )  # fmt: skip

    def refusal(self) -> Iterator[Finding]:
        """The finding for what the reader refuses and no rule has explained better."""
        if self.refused:
            named = re.match(r"[\w.\[\]]+", self.refused)
            path: Path = tuple(named[0].split(".")) if named else ()
            if self.text.get(path) is None:
                path = self.blocks[0].path if self.blocks else self.base or ("model_type",)
            # Without its text part a wrapper still loads, with the defaults of that part.
            severity: Severity = "warning" if self.family and self.family.is_wrapper else "error"
            yield self.finding("invalid-value", path, self.refused, severity=severity)


def view_config(
    file: str, text: JsonText, planned_maximum: int | None = None, bakes: Sequence[Baked] = ()
) -> ConfigView | None:
    """The config as the rules need it; None where it is no RoPE language model."""
    config = text.value
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return None
    view = ConfigView(file=file, text=text, family=FAMILIES.get(kind), bakes=bakes)
    if kind not in FAMILIES:
        if kind in UNSUPPORTED or kind in no_rope_types():
            return None
        from yarncli.config.own_code import text_base

        base = text_base(config)
        blocks = tuple(_blocks(text, base))
        # A text part has a name of its own, or a vocabulary; other models pass in silence.
        is_text = base or blocks or "vocab_size" in config
        return replace(view, base=base, blocks=blocks) if is_text else None
    try:
        family, base, _ = find_text(config, None)
    except ConfigError as error:
        return replace(view, refused=str(error))
    except UnsupportedArchitectureError:
        return None
    view = replace(view, base=base, family=family, blocks=tuple(_blocks(text, base)))
    try:
        rope = read_rope(config)
    except ConfigError as error:
        return replace(view, refused=str(error), planned_maximum=planned_maximum)
    except UnsupportedArchitectureError:
        return view if view.blocks else None
    return replace(view, rope=rope, planned_maximum=planned_maximum)


def _blocks(text: JsonText, base: Path) -> Iterator[Block]:
    scaling, parameters = (text.get((*base, key)) for key in BLOCK_KEYS)
    if isinstance(scaling, dict) and scaling:
        yield Block(spelling="legacy", path=(*base, "rope_scaling"), values=scaling)
    if isinstance(parameters, dict) and parameters:
        path: Path = (*base, "rope_parameters")
        nested = {k: v for k, v in parameters.items() if isinstance(v, dict)}
        if not nested:
            yield Block(spelling="v5", path=path, values=parameters)
        for scope, values in islice(nested.items(), _MOST_SCOPES):
            yield Block(spelling="v5", path=(*path, scope), scope=scope, values=values)


def finite(value: Any) -> float | None:
    """A JSON number as a float; None for anything else and for what no formula can take."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int) and value.bit_length() > 1000:
        return None
    return float(value) if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """A positive JSON integer, 4096.0 too; None for anything else."""
    if type(value) is float and value.is_integer() and value <= MOST:
        value = int(value)
    return value if type(value) is int and 0 < value < 2**63 else None
