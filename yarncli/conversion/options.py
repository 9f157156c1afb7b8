"""What a caller can decide about a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from yarncli.errors import UsageError
from yarncli.options import given_options
from yarncli.planning.sliding import SlidingWindow
from yarncli.planning.target import Target
from yarncli.planning.writing import Spelling
from yarncli.rope.methods import DEFAULT_METHOD, option_names

WeightsMode = Literal["copy", "hardlink", "symlink"]

# They say how and where to write, not what: the result is the same, so no step records them.
_ABOUT_THE_RUN = frozenset({"weights", "bake", "in_place", "dry_run", "overwrite", "fsync"})


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What a caller can decide about a conversion; exactly one of `length` and `factor`."""

    method: str = DEFAULT_METHOD
    """How to extend the context: a name of `yarncli.rope.methods.METHODS`."""
    length: int | None = None
    """The context length to reach, tokens."""
    factor: float | None = None
    """The context length to reach, as a multiple of the original one."""
    original_length: int | None = None
    """The context length that the model was trained with, where the config does not tell it."""
    beta_fast: float | None = None
    """yarn: dimensions that turn more often over the original length are kept."""
    beta_slow: float | None = None
    """yarn: dimensions that turn less often are fully interpolated."""
    attention_factor: float | None = None
    """yarn, longrope: multiply cos and sin by this instead of what the method derives."""
    truncate: bool | None = None
    """yarn: whether the ends of the ramp are rounded to whole dimensions."""
    rope_theta: float | None = None
    """ntk: the new base, instead of the one the length gives."""
    low_freq_factor: float | None = None
    """llama3: wavelengths above original length / this are scaled fully."""
    high_freq_factor: float | None = None
    """llama3: wavelengths below original length / this are kept."""
    short_factor: Sequence[float] | None = None
    """longrope: one factor per frequency, for texts up to the original length."""
    long_factor: Sequence[float] | None = None
    """longrope: one factor per frequency, for longer texts."""
    rescale: bool = False
    """Extend the scaling that the model has, by its own method."""
    replace_scaling: bool = False
    """Drop the scaling that the model has and start from `original_length`."""
    sliding_window: SlidingWindow | None = None
    """Also widen the window that every layer attends within, tokens, or switch it "off"."""
    assume_like: str | None = None
    """Read an unknown model type as if it were this one."""
    spelling: Spelling = "both"
    """Write `rope_scaling` (legacy), `rope_parameters` (v5), or both where the model can."""
    engines: Sequence[str] = ()
    """Ids of engines: choose spelling and fields that all of them read as planned, or refuse."""
    bake: bool = False
    """Move the attention factor into the weights as well."""
    weights: WeightsMode = "copy"
    """How the weight files get into the output."""
    config_only: bool = False
    """Leave weights and weight index out of the output."""
    from_: str | Path | None = None
    """Write the RoPE of this checkpoint into a GGUF file."""
    in_place: bool = False
    """Change the source itself; config files are kept as `*.orig`."""
    dry_run: bool = False
    """Decide everything and write nothing."""
    overwrite: bool = False
    """Replace the output if it exists and holds a checkpoint."""
    fsync: bool = False
    """Survive a power cut too: flush the output to the disk."""

    @property
    def target(self) -> Target:
        """What is asked of the plan."""
        return Target(
            method=self.method,
            length=self.length,
            factor=self.factor,
            rescale=self.rescale,
            replace_scaling=self.replace_scaling,
            sliding_window=self.sliding_window,
            options={name: getattr(self, name) for name in option_names()},
        )

    @property
    def recorded(self) -> dict[str, Any]:
        """The options given that decide what is written, by their long names."""
        given = given_options(self)
        if engines := given.pop("engines", None):
            given["for"] = list(engines)
        given.pop("from_", None)  # a path; the step that has it says what lies there
        return {
            name: list(value) if isinstance(value, Sequence) and type(value) is not str else value
            for name, value in given.items()
            if name not in _ABOUT_THE_RUN and name != "config_only"
        }

    def require_consistent(self, out: Path | None) -> None:
        """Refuse options that contradict each other, or the output.

        Raises:
            UsageError: they do.
        """
        if (out and self.in_place) or not (out or self.in_place or self.dry_run):
            raise UsageError("Give what to write, OUT, or --in-place, and only one of them.")
        if self.bake and self.in_place:
            raise UsageError(
                "--bake writes a copy. To change SOURCE itself, convert it with --in-place, "
                "and then run: yarncli bake SOURCE --in-place"
            )
        if self.bake and (self.config_only or self.weights != "copy"):
            raise UsageError(
                "--bake changes weights, so they can neither be left out nor linked. Leave out "
                "--config-only and --weights."
            )
