"""Draw docs/architecture.svg: the rooms of yarncli, and which room imports which.

A room is a folder of `yarncli/`, or a single module there. The imports are read from the source
with `ast`, without importing anything, so the picture also shows imports inside functions.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "yarncli"
PICTURE = ROOT / "docs" / "architecture.svg"

BOX, HEIGHT, GAP, FLOOR = 104, 44, 18, 84  # pixels; FLOOR is from one floor to the next
LANE = 14  # the width that an arrow needs to pass a floor

_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(dotted: str) -> str:
    """`yarncli.planning.plan` → `planning`; a name of the package itself → `__init__`."""
    name = dotted.split(".")[1]
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__"


def code_lines(path: Path) -> int:
    """Lines of a module without blank lines, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


@cache
def room_lines() -> dict[str, int]:
    """Room → its lines of code; the package's own modules, `__main__` too, are `__init__`."""
    found: dict[str, int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        room = "__init__" if room == "__main__" else room
        found[room] = found.get(room, 0) + code_lines(path)
    return found


@cache
def room_imports() -> dict[str, set[str]]:
    """Room → the other rooms that it imports; without `__init__`, which is not a room."""
    found: dict[str, set[str]] = {room: set() for room in room_lines() if room != "__init__"}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in found:
            rooms = {room_of(name) for name in imported(path) if name.startswith("yarncli.")}
            found[room] |= rooms - {room, "__init__"}
    return found


def floors(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """Room → floor, 0 on top; each room is directly below the lowest room that imports it."""
    importers = {room: {r for r, others in imports.items() if room in others} for room in imports}

    def floor(room: str) -> int:
        return max((floor(other) + 1 for other in importers[room]), default=0)

    return {room: floor(room) for room in imports}


def arrows(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from a chain of other imports."""

    def reached(room: str) -> set[str]:
        return imports[room].union(*map(reached, imports[room]))

    return [
        (room, other)
        for room in sorted(imports)
        for other in sorted(imports[room])
        if not any(other in reached(between) for between in imports[room])
    ]


class Layout:
    """The positions of all rooms, and of a lane on every floor that an arrow passes.

    Rows are ordered so that few arrows cross, then moved towards what they are linked with.
    """

    def __init__(self, imports: Mapping[str, set[str]]) -> None:
        """Place the rooms of `imports`."""
        level = floors(imports)
        self.rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
        for room in sorted(imports):
            self.rows[level[room]].append(room)
        self.ways = []  # every arrow as the list of the rooms and lanes on its way
        for room, other in arrows(imports):
            lanes = [f"{room}>{other}>{n}" for n in range(level[room] + 1, level[other])]
            for n, lane in enumerate(lanes, level[room] + 1):
                self.rows[n].append(lane)
            self.ways.append([room, *lanes, other])
        self.links = [link for way in self.ways for link in pairwise(way)]
        self._order()
        self.x = self._spread()
        left = min(self.x[name] - self.width(name) / 2 for row in self.rows for name in row)
        self.x = {name: x - left + GAP for name, x in self.x.items()}

    @staticmethod
    def width(name: str) -> int:
        """The width of a room or a lane."""
        return LANE if ">" in name else BOX

    def _neighbours(self, name: str) -> list[str]:
        return [a if b == name else b for a, b in self.links if name in (a, b)]

    def _crossings(self) -> int:
        place = {name: n for row in self.rows for n, name in enumerate(row)}
        found = 0
        for row in self.rows:
            between = [(place[a], place[b]) for a, b in self.links if a in row]
            found += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(between, 2))
        return found

    def _order(self) -> None:
        best, kept = self._crossings(), [list(row) for row in self.rows]
        for _ in range(20):
            for row in [*self.rows, *self.rows[::-1]]:
                place = {n: i / len(r) for r in self.rows for i, n in enumerate(r)}
                middle = {
                    name: sum(place[other] for other in self._neighbours(name))
                    / max(len(self._neighbours(name)), 1)
                    for name in row
                }
                row.sort(key=lambda name: (middle[name], name))
            if self._crossings() < best:
                best, kept = self._crossings(), [list(row) for row in self.rows]
        self.rows = kept
        self._swap()

    def _swap(self) -> None:
        """Exchange neighbours as long as that removes crossings."""
        best, improved = self._crossings(), True
        while improved:
            improved = False
            for row in self.rows:
                for n in range(len(row) - 1):
                    row[n : n + 2] = row[n + 1], row[n]
                    if self._crossings() < best:
                        best, improved = self._crossings(), True
                    else:
                        row[n : n + 2] = row[n + 1], row[n]

    def _spread(self) -> dict[str, float]:
        x = {name: 0.0 for row in self.rows for name in row}
        for _ in range(60):
            for row in self.rows:
                near = [[x[other] for other in self._neighbours(name)] for name in row]
                wanted = [sum(found) / max(len(found), 1) for found in near]
                x.update(zip(row, self._apart(row, wanted), strict=True))
        return x

    def _apart(self, row: list[str], wanted: list[float]) -> list[float]:
        """The positions nearest to `wanted` that keep the order and the distances of a row."""
        offset = [0.0]
        for a, b in pairwise(row):
            offset.append(offset[-1] + (self.width(a) + self.width(b)) / 2 + GAP)
        groups: list[list[float]] = []  # neighbours whose means are out of order share one value
        for goal, shift in zip(wanted, offset, strict=True):
            groups.append([goal - shift])
            while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
                last = groups.pop()
                groups[-1] += last
        flat = [_mean(group) for group in groups for _ in group]
        return [value + shift for value, shift in zip(flat, offset, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def render() -> str:
    """The picture, as SVG."""
    layout, lines = Layout(room_imports()), room_lines()
    top = {name: GAP + n * FLOOR for n, row in enumerate(layout.rows) for name in row}
    width = max(layout.x[n] + layout.width(n) / 2 for row in layout.rows for n in row) + GAP
    height = GAP * 2 + (len(layout.rows) - 1) * FLOOR + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" font-family="sans-serif" text-anchor="middle">',
        "<title>The rooms of yarncli and what they import</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0.5 8 4 0 7.5z" fill="#64748b"/>'
        "</marker></defs>",
        f'<rect width="{width:.0f}" height="{height}" rx="10" fill="#ffffff"/>',
    ]
    for way in layout.ways:
        x, y = layout.x[way[0]], top[way[0]] + HEIGHT
        path = f"M{x:.0f} {y}"
        for name in way[1:]:
            to, down = layout.x[name], top[name]
            bend = (down - y) / 2
            path += f"C{x:.0f} {y + bend:.0f} {to:.0f} {down - bend:.0f} {to:.0f} {down}"
            x, y = to, down
            if name != way[-1]:
                y += HEIGHT
                path += f"V{y}"
        parts.append(
            f'<path d="{path}" fill="none" stroke="#94a3b8" stroke-width="1.3" '
            'marker-end="url(#tip)"/>'
        )
    for row in layout.rows:
        for room in row:
            if ">" in room:
                continue
            x, y = layout.x[room], top[room]
            parts.append(
                f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6" '
                'fill="#eef2ff" stroke="#4f46e5"/>'
                f'<text x="{x:.0f}" y="{y + 19}" font-size="14" fill="#1e1b4b">{room}</text>'
                f'<text x="{x:.0f}" y="{y + 35}" font-size="11" fill="#64748b">'
                f"{_rounded(lines[room])}</text>"
            )
    return "\n".join([*parts, "</svg>", ""])


def _rounded(count: int) -> str:
    """Lines to the nearest hundred, so that a small change does not change the picture."""
    return f"{round(count, -2):,} lines" if count >= 100 else "under 100 lines"


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
