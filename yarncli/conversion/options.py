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

# These options do not change the content of the result, so no step records them.
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
    """The context length that the model was trained with, if the config does not say it."""
    beta_fast: float | None = None
    """yarn: do not change dimensions that turn more often than this over the original length."""
    beta_slow: float | None = None
    """yarn: fully interpolate dimensions that turn less often than this."""
    attention_factor: float | None = None
    """yarn, longrope: multiply cos and sin by this number instead of the method's own."""
    truncate: bool | None = None
    """yarn: whether the ends of the ramp are rounded to whole dimensions."""
    rope_theta: float | None = None
    """ntk: use this base instead of the one that follows from the length."""
    low_freq_factor: float | None = None
    """llama3: fully interpolate wavelengths above original length / this number."""
    high_freq_factor: float | None = None
    """llama3: keep wavelengths below original length / this number."""
    short_factor: Sequence[float] | None = None
    """longrope: one factor per frequency, for texts up to the original length."""
    long_factor: Sequence[float] | None = None
    """longrope: one factor per frequency, for longer texts."""
    rescale: bool = False
    """Extend the existing scaling further, by the same method."""
    replace_scaling: bool = False
    """Remove the existing scaling and start from `original_length`."""
    sliding_window: SlidingWindow | None = None
    """Also set the sliding window of attention to this many tokens, or switch it "off"."""
    assume_like: str | None = None
    """Read an unknown model type as if it were this one."""
    spelling: Spelling = "both"
    """Write `rope_scaling` (legacy), `rope_parameters` (v5), or both if the model allows it."""
    engines: Sequence[str] = ()
    """Ids of engines: write spelling and fields that all of them read as planned, or refuse."""
    bake: bool = False
    """Move the attention factor into the weights as well."""
    weights: WeightsMode = "copy"
    """Copy the weight files into the output, or link them."""
    config_only: bool = False
    """Leave the weights and their index out of the output."""
    from_: str | Path | None = None
    """Write the RoPE of this checkpoint into a GGUF file."""
    in_place: bool = False
    """Change the source itself; the old config files are kept as `*.orig`."""
    dry_run: bool = False
    """Decide everything and write nothing."""
    overwrite: bool = False
    """Replace the output if it already holds a checkpoint."""
    fsync: bool = False
    """Flush the output to the disk, to survive a power failure."""

    @property
    def target(self) -> Target:
        """The extension that the options ask for."""
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
        """The given options that decide what is written, by their long names."""
        given = given_options(self)
        if engines := given.pop("engines", None):
            given["for"] = list(engines)
        given.pop("from_", None)  # a path; the step records the checkpoint instead
        return {
            name: list(value) if isinstance(value, Sequence) and type(value) is not str else value
            for name, value in given.items()
            if name not in _ABOUT_THE_RUN and name != "config_only"
        }

    def require_consistent(self, out: Path | None) -> None:
        """Refuse options that contradict each other or the output.

        Raises:
            UsageError: there is a contradiction.
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
                "--bake changes weights, so they cannot be linked or left out. Do not give "
                "--config-only or --weights with it."
            )
