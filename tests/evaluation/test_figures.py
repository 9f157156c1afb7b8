"""What the figures of measurements draw, asked of matplotlib's own objects."""

import math
from itertools import pairwise

import matplotlib.colors
import pytest
from matplotlib.figure import Figure

from yarncli.errors import UsageError
from yarncli.evaluation.losses import PerplexityReport, WindowLoss
from yarncli.evaluation.regress import RegressReport, TextDivergence
from yarncli.evaluation.report import Cell, PasskeyReport
from yarncli.evaluation.variants import CONTROL, DYNAMIC_YARN, NONE
from yarncli.figures import literal
from yarncli.figures import passkey as passkey_figure
from yarncli.figures import perplexity as perplexity_figure
from yarncli.figures import regress as regress_figure
from yarncli.figures.lines import Curve, draw_curves, mark_windows, put_legend
from yarncli.figures.saving import new_figure
from yarncli.figures.styles import STYLES, method_of, styles_of
from yarncli.rope.methods import METHODS
from yarncli.rope.parameters import ROPE_TYPES

NAMES = [NONE, *METHODS]
LENGTHS = [2048, 4096, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304, 131072, 262144]
# Okabe and Ito, "Color Universal Design", 2008, as R's palette.colors("Okabe-Ito") has them.
OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00",
             "#CC79A7", "#999999"}  # fmt: skip


def recorded(names):
    """What a report says of its settings: 8,192 tokens extended to 131,072."""
    return {name: {"original": 8192, "window": 8192 if name == NONE else 131072, "rope": {}}
            for name in names}  # fmt: skip


def passkey(names, lengths=LENGTHS, model="org/m"):
    cells = {
        name: [Cell(length=n, depth=d / 4, trial=0, key="1", text="1", correct=(n + d) % 3 > 0)
               for n in lengths for d in range(5)]
        for name in names
    }  # fmt: skip
    return PasskeyReport({"model": model, "variants": recorded(names)}, cells)


def perplexity(names, lengths=LENGTHS, model="org/m"):
    losses = {
        name: [WindowLoss(length=n, window=0, tokens=256, nll=(120.0, 130.0 + i, 125.0, 128.0))
               for n in lengths]
        for i, name in enumerate(names)
    }  # fmt: skip
    settings = {"model": model, "layout": "nested", "variants": recorded(names)}
    return PerplexityReport(settings, losses)


def regression(names, model="org/m"):
    text = TextDivergence(
        text=0, kl=(0.1, 0.2) * 64, agrees=(True, True, False, True) * 32,
        before=(2.0, 2.5) * 64, after=(2.1, 2.4) * 64,
    )  # fmt: skip
    settings = {"model": model, "length": 128, "variants": recorded(names)}
    return RegressReport(settings, {name: [text] for name in names})


DRAWN = {
    "passkey": (passkey, passkey_figure.plot_passkey),
    "perplexity": (perplexity, perplexity_figure.plot_perplexity),
    "regress": (regression, regress_figure.plot_regress),
}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws reports of one kind, and gives the figure instead of saving it."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def draw(kind, *reports) -> Figure:
        DRAWN[kind][1](list(reports), tmp_path / "figure.svg")
        return figures[-1]

    return draw


def data_lines(figure):
    """The curves: lines with a marker that is not one of an interval."""
    marks = {style.marker for style in STYLES.values()}
    return [line for axes in figure.axes for line in axes.lines if line.get_marker() in marks]


def test_every_method_and_type_has_a_look_of_its_own():
    assert {*METHODS, NONE, DYNAMIC_YARN} <= STYLES.keys()
    looks = [*STYLES.values()]
    assert {look.colour for look in looks} <= OKABE_ITO - {"#F0E442"}
    assert len({look.dash for look in looks}) == len({look.marker for look in looks}) == len(looks)
    for rope_type in ROPE_TYPES:
        about = {"rope": {"model": {"rope_type": rope_type}}}
        assert method_of("as it is", about) == (NONE if rope_type == "default" else rope_type)
    assert method_of(CONTROL, {"rope": {"model": {"rope_type": "yarn"}}}) == NONE
    assert method_of("served", {"rope": {"a": {"rope_type": "su"}}}) == "longrope"
    assert [method_of("as it is", odd) for odd in (None, {"rope": 4}, {"rope": {"a": 1}})] == [
        NONE
    ] * 3


def test_what_has_no_method_gets_looks_that_no_other_has():
    found = styles_of(["yarn", "a", "b", "a", "yarn"])
    assert len({(style.colour, style.dash) for style in found}) == 3
    assert (found[0].colour, found[0].fill) == (found[4].colour, "full")
    assert found[4].fill == found[3].fill == "none"
    assert len(styles_of([str(n) for n in range(30)])) == 30


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_method_keeps_its_look_in_every_figure(drawn, kind, count):
    names = NAMES[-count:]
    lines = data_lines(drawn(kind, DRAWN[kind][0](names)))
    found = {}
    for line in lines:
        found.setdefault(line.get_color(), set()).add((line.get_marker(), line.get_fillstyle()))
    assert found == {STYLES[name].colour: {(STYLES[name].marker, "full")} for name in names}


def test_the_order_of_the_settings_changes_no_look(drawn):
    for names in (["yarn", "ntk"], ["ntk", "linear", "yarn"]):
        lines = {
            line.get_label(): line for line in data_lines(drawn("perplexity", perplexity(names)))
        }
        assert lines["yarn"].get_color() == STYLES["yarn"].colour
        assert lines["ntk"].get_marker() == STYLES["ntk"].marker


def test_the_same_method_of_two_models_is_told_apart_by_its_marker(drawn):
    long = "org/" + "A-very-long-name-" * 8
    reports = [perplexity(["yarn"], model="org/a"), perplexity(["yarn"], model=long)]
    figure = drawn("perplexity", *reports)
    first, second = data_lines(figure)
    assert first.get_color() == second.get_color()
    assert (first.get_fillstyle(), second.get_fillstyle()) == ("full", "none")
    assert max(len(text.get_text()) for text in figure.legends[0].get_texts()) <= 60


@pytest.mark.parametrize("kind", ["passkey", "perplexity"])
@pytest.mark.parametrize(("count", "lengths"), [(1, 1), (5, 12)])
def test_no_legend_lies_on_the_data_and_no_names_on_each_other(drawn, kind, count, lengths):
    figure = drawn(kind, DRAWN[kind][0](NAMES[:count], LENGTHS[:lengths]))
    figure.draw_without_rendering()
    assert not [axes for axes in figure.axes if axes.get_legend()]
    [legend] = figure.legends
    box = legend.get_window_extent().padded(-2)  # its frame, which is not drawn
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1
    for axes in figure.axes:
        assert not box.overlaps(axes.get_tightbbox())
        named = [label for label in axes.get_xticklabels() if label.get_text()]
        places = [label.get_window_extent().x1 for label in named]
        # At 45° a line of text is 1.4 times its height wide.
        apart = 1.4 * named[0].get_fontsize() * figure.dpi / 72 if named else 0
        assert all(b - a >= 0.75 * apart for a, b in pairwise(places))


@pytest.mark.parametrize("kind", ["passkey", "perplexity"])
def test_as_many_ticks_as_can_be_told_apart(drawn, kind):
    figure = drawn(kind, DRAWN[kind][0](["yarn"], range(1, 3000)))
    for axes in figure.axes:
        if axes.get_xscale() == "log":
            places = [math.log2(tick) for tick in axes.get_xticks()]
            first, last = map(math.log2, axes.get_xlim())
            assert min(b - a for a, b in pairwise(places)) >= 0.0049 * (last - first)
            assert 50 < len(places) <= 201


@pytest.mark.parametrize("by", ["depth", "task"])
def test_many_rows_have_names_that_do_not_overlap(drawn, by):
    report = passkey(["yarn"], [4096])
    about = {"length": 4096, "trial": 0, "key": "1", "text": "1", "correct": True}
    report.cells["yarn"] = [
        Cell(depth=n / 800 if by == "depth" else 0.5, task=f"t{n}" if by == "task" else "passkey",
             **about)
        for n in range(801)
    ]  # fmt: skip
    figure = drawn("passkey", report)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) > 15
    assert all(above.y0 >= below.y1 - 2 for above, below in pairwise(boxes))


@pytest.mark.parametrize("kind", DRAWN)
def test_more_runs_than_a_figure_can_show_are_refused(drawn, kind):
    with pytest.raises(UsageError, match=r"61 runs to draw, and a figure holds 60\. .*FILE\.csv"):
        drawn(kind, DRAWN[kind][0]([f"s{n}" for n in range(61)]))


@pytest.mark.parametrize("count", range(1, 9))
def test_no_place_of_the_grid_is_empty(drawn, count):
    figure = drawn("passkey", passkey(NAMES[:count], [4096, 16384]))
    *panels, lines = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    assert len(panels) == count
    grid = lines.get_subplotspec().get_gridspec()
    taken = sum(
        len(spec.rowspan) * len(spec.colspan)
        for spec in (axes.get_subplotspec() for axes in (*panels, lines))
    )
    assert taken == grid.nrows * grid.ncols
    assert all(axes.collections or axes.lines for axes in figure.axes)


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("count", [1, 4])
def test_every_number_has_its_interval(drawn, kind, count):
    figure = drawn(kind, DRAWN[kind][0](NAMES[:count]))
    points = sum(len(line.get_xdata()) for line in data_lines(figure))
    bars = sum(
        len(bar.get_segments())
        for axes in figure.axes
        for container in axes.containers
        for bar in container[2]
    )
    assert points == bars > 0


def test_windows_stand_at_their_own_length(drawn):
    figure = drawn("passkey", passkey(["yarn"], [4096, 65536, 262144]))
    heatmap, _, lines = figure.axes
    for axes in (heatmap, lines):
        assert axes.get_xscale() == "log"
        marks = {line.get_xdata()[0] for line in axes.lines if len({*line.get_xdata()}) == 1}
        assert marks >= {8192, 131072}
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:] == [
        "original window 8,192", "new window 131,072",
    ]  # fmt: skip


def test_a_window_beyond_all_lengths_is_seen_too(drawn):
    [axes] = drawn("perplexity", perplexity(["yarn"], [4096])).axes
    assert axes.get_xlim()[0] < 4096 < 131072 < axes.get_xlim()[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4,096"]


def test_the_map_rises_evenly_and_what_was_not_asked_has_no_colour(drawn):
    report = passkey(["yarn"], [2048, 8192])
    report.cells["yarn"].pop()
    [mesh] = drawn("passkey", report).axes[0].collections
    assert mesh.get_array().mask.sum() == 1
    shades = mesh.cmap([n / 20 for n in range(21)])[:, :3]
    # ITU-R BT.709 on linear light: how bright a colour looks in greyscale.
    linear = ((shades + 0.055) / 1.055) ** 2.4
    brightness = linear @ [0.2126, 0.7152, 0.0722]
    assert all(b > a for a, b in pairwise(brightness))
    assert matplotlib.colors.same_color(mesh.cmap(0.0), matplotlib.colormaps["cividis"](0.0))


def test_a_large_range_of_perplexities_has_numbers_between_its_powers(drawn):
    report = perplexity(["yarn"], [2048, 4096])
    report.losses["yarn"][1] = WindowLoss(
        length=4096, window=0, tokens=256, nll=(320.0, 330.0, 325.0, 328.0)
    )
    figure = drawn("perplexity", report)
    [axes] = figure.axes
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    minor = [label.get_text() for label in axes.get_yticklabels(minor=True)]
    assert {f"{n}" for n in (20, 50) if low < n < high} <= {*minor}


def test_curves_without_a_report(tmp_path):
    """As another figure draws them: by name alone, some without intervals."""
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    curves = [Curve(name, [(512, 1.0, None), (1024, 2.0, (1.5, 2.5))]) for name in ("a", "b", "c")]
    draw_curves(axes, curves)
    mark_windows(axes, [(0, 0)])
    put_legend(axes, len(curves))
    figure.savefig(tmp_path / "a.png")
    assert len({line.get_color() for line in data_lines(figure)}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    places = [line.get_xdata()[0] for line in data_lines(figure)]
    assert places == sorted(places)
    assert math.prod(places) ** (1 / 3) == pytest.approx(512)


def test_long_names_keep_both_ends():
    assert literal("model-of-many-words: yarn", 15) == "model-…ds: yarn"
    assert len(literal("x" * 500)) == 200
    assert literal("short", 15) == "short"
