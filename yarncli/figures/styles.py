"""The style of each method: the same colour, dash and marker in every figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from yarncli.evaluation.variants import CONTROL, DYNAMIC_YARN, NONE
from yarncli.rope.methods import by_rope_type
from yarncli.rope.parameters import canonical_rope_type

Fill = Literal["full", "none", "left", "right", "top", "bottom"]
_FILLS: tuple[Fill, ...] = ("full", "none", "left", "right", "top", "bottom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a line is drawn."""

    colour: str
    """As `#rrggbb`."""
    dash: tuple[float, ...]
    """Lengths of strokes and gaps in turn, in line widths; empty for a solid line."""
    marker: str
    """The letter of the marker in matplotlib."""
    fill: Fill = "full"
    """Which part of the marker is filled."""

    @property
    def options(self) -> dict[str, Any]:
        """The style as options of `Axes.plot`."""
        dash = (0, self.dash) if self.dash else "-"
        return {"color": self.colour, "ls": dash, "marker": self.marker, "fillstyle": self.fill,
                "markerfacecoloralt": "white"}  # fmt: skip


# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too pale for a line, and
# with the grey that R's `palette.colors("Okabe-Ito")` adds. Dashes and markers distinguish the
# methods in greyscale, and those that share a colour.
STYLES: Mapping[str, Style] = {
    NONE: Style(colour="#000000", dash=(), marker="o"),
    "yarn": Style(colour="#0072B2", dash=(6, 1.5), marker="s"),
    "ntk": Style(colour="#D55E00", dash=(5, 1.5, 1, 1.5), marker="^"),
    "ntk-by-parts": Style(colour="#56B4E9", dash=(3, 1.2), marker="D"),
    "linear": Style(colour="#009E73", dash=(1, 1.2), marker="P"),
    "dynamic": Style(colour="#E69F00", dash=(5, 1.5, 1, 1.5, 1, 1.5), marker="v"),
    "llama3": Style(colour="#CC79A7", dash=(9, 2, 3, 2), marker="X"),
    "longrope": Style(colour="#999999", dash=(2, 2), marker="*"),
    DYNAMIC_YARN: Style(colour="#0072B2", dash=(3, 1.2, 1, 1.2), marker="<"),
    "proportional": Style(colour="#000000", dash=(10, 2), marker=">"),
}


def method_of(name: str, about: object) -> str:
    """The method of a setting, as a key of `STYLES`.

    Args:
        name: of the setting, as in the report.
        about: what the report records of it.
    """
    if name in STYLES or name == CONTROL:
        return NONE if name == CONTROL else name
    scopes = about.get("rope") if isinstance(about, dict) else None
    values = scopes.values() if isinstance(scopes, dict) else ()
    types = [str(scope.get("rope_type")) for scope in values if isinstance(scope, dict)]
    found = [method_of_type(rope_type) for rope_type in types]
    return next((method for method in found if method != NONE), NONE)


def method_of_type(rope_type: str) -> str:
    """The method that writes a RoPE type, as a key of `STYLES`."""
    rope_type = canonical_rope_type(rope_type)
    if rope_type == "default":  # ntk writes it, but so does every model that is not extended
        return NONE
    method = by_rope_type(rope_type)
    name = method.name if method else rope_type
    return name if name in STYLES else NONE


def styles_of(names: Sequence[str]) -> list[Style]:
    """A style for each name: that of its method, and for other names a style that is not used yet.

    If a style is used again, it has the same colour, dash and marker, but another part of the
    marker is filled.
    """
    spare = [style for name, style in STYLES.items() if name not in names]
    others = list(dict.fromkeys(name for name in names if name not in STYLES))
    given = {name: (spare or [*STYLES.values()])[n % (len(spare) or len(STYLES))]
             for n, name in enumerate(others)}  # fmt: skip
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        fill = _FILLS[seen[name] % len(_FILLS)]
        seen[name] += 1
        found.append(replace(STYLES.get(name) or given[name], fill=fill))
    return found
