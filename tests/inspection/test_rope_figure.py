"""What the RoPE figure draws, asked of matplotlib's own objects."""

import json
import math

import pytest
from matplotlib.figure import Figure

from yarncli.checkpoint.source import open_checkpoint
from yarncli.figures.rope import plot_rope
from yarncli.figures.styles import STYLES
from yarncli.inspection.description import inspect
from yarncli.rope.methods import METHODS

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 2,
    "max_position_embeddings": 8192, "rope_theta": 500000.0, "vocab_size": 1000,
}  # fmt: skip
SCALED = {"rope_type": "longrope", "factor": 16.0, "original_max_position_embeddings": 8192,
          "short_factor": [1.0] * 64, "long_factor": [1 + n / 4.2 for n in range(64)]}  # fmt: skip


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws a Llama with other keys, and gives the figure unsaved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def draw(changes=(), **asked) -> Figure:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | dict(changes)))
        plot_rope(inspect(open_checkpoint(tmp_path), **asked), tmp_path / "rope.svg")
        return figures[-1]

    return draw


def spans(axes) -> dict[str, tuple[float, float]]:
    """The shaded stretches by their names."""
    return {
        patch.get_label(): (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
    }


def by_parts(low_turns: float, high_turns: float) -> tuple[int, int]:
    """The first pair below `high_turns` over 8,192 tokens, and the first below `low_turns`."""
    turns = [8192 * 500000.0 ** (-n / 64) / (2 * math.pi) for n in range(64)]
    return (
        next(n for n, t in enumerate(turns) if t < high_turns),
        next(n for n, t in enumerate(turns) if t < low_turns),
    )


@pytest.mark.parametrize("method", [m for m in METHODS if m != "longrope"])
def test_the_regimes_of_every_method(drawn, method):
    figure = drawn(method=method, factor=16.0)
    found = [spans(axes) for axes in figure.axes]
    assert found[0] == found[1]
    if method == "linear":
        assert found[0] == {"interpolated": (-0.5, 63.5)}
    elif method == "llama3":
        # Kept above 4 turns over the original window, interpolated below 1.
        first, past = by_parts(1.0, 4.0)
        assert found[0] == {
            "ramp": (first - 0.5, past - 0.5), "interpolated": (past - 0.5, 63.5)
        }  # fmt: skip
    elif method in ("yarn", "ntk-by-parts"):
        # The ends are the correction dimensions of 32 and 1 turns, rounded outwards, where the
        # ramp is still 0 and already 1 (reference code, `find_correction_range`).
        first, past = by_parts(1.0, 32.0)
        assert found[0] == {
            "ramp": (first - 0.5, past - 0.5), "interpolated": (past - 0.5, 63.5)
        }  # fmt: skip
    else:  # pair 0 is kept by a new base, and there is no ramp
        assert found[0] == {"rescaled": (0.5, 63.5)}
    before, after = figure.axes[0].lines[:2]
    style = STYLES[method]
    assert (after.get_color(), after.get_marker()) == (style.colour, style.marker)
    assert before.get_color() == STYLES["none"].colour


def test_other_ends_of_the_ramp_move_it(drawn):
    scaling = {"rope_type": "yarn", "factor": 16.0, "beta_fast": 8.0, "beta_slow": 2.0,
               "original_max_position_embeddings": 8192, "truncate": False}  # fmt: skip
    figure = drawn({"max_position_embeddings": 131072, "rope_scaling": scaling})
    first, past = by_parts(2.0, 8.0)
    assert spans(figure.axes[0])["ramp"] == (first - 0.5, past - 0.5)
    label = figure.axes[0].get_xlabel()
    assert label == (
        f"dimension pair (kept 0–{first - 1}, ramp {first}–{past - 1}, interpolated {past}–63)"
    )


def test_longrope_has_what_its_list_says(drawn):
    figure = drawn({"max_position_embeddings": 131072, "rope_scaling": SCALED})
    # The factor of pair 63 is 16, that of pair 0 is 1.
    assert spans(figure.axes[0]) == {"rescaled": (0.5, 62.5), "interpolated": (62.5, 63.5)}


def test_a_scattered_list_is_counted(drawn):
    factors = [(1.0, 3.0)[n % 2] for n in range(64)]
    figure = drawn({"max_position_embeddings": 131072,
                    "rope_scaling": SCALED | {"long_factor": factors}})  # fmt: skip
    label = figure.axes[0].get_xlabel()
    assert label == "dimension pair (kept 32 of 64, rescaled 32 of 64)"


def test_what_is_not_scaled_is_one_curve_on_white(drawn):
    figure = drawn()
    assert [spans(axes) for axes in figure.axes] == [{}, {}]
    assert [line.get_label() for line in figure.axes[0].lines] == ["not scaled"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["not scaled", "original window 8,192"]


def test_windows_are_at_their_own_length_and_the_legend_off_the_data(drawn):
    figure = drawn(factor=16.0)
    _, wavelengths = figure.axes
    assert wavelengths.get_yscale() == "log"
    levels = {line.get_label(): line.get_ydata()[0] for line in wavelengths.lines}
    assert levels["original window 8,192"] == 8192
    assert levels["new window 131,072"] == 131072
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent().padded(-2)
    assert box.y0 >= 0
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_pairs_that_stand_still_are_said(drawn):
    full = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    figure = drawn(
        {
            "model_type": "gemma4_text",
            "head_dim": 128,
            "global_head_dim": 128,
            "sliding_window": 512,
            "rope_theta": None,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": full,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        }
    )
    full, _, sliding, waves = figure.axes
    assert full.get_xlabel() == "dimension pair (kept 0–15, still 16–63)"
    assert sliding.get_xlabel() == "dimension pair (kept 0–63)"
    assert {line.get_label(): line.get_ydata()[0] for line in waves.lines}[
        "sliding window 512"
    ] == 512
