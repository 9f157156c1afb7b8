"""What a context-extension method is; the methods themselves are the values of `methods.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from yarncli.rope.parameters import RopeParameters

# Keys of an old scaling that are carried but not interpreted; a new scaling drops them.
_SCALING_EXTRA = frozenset({"attn_factor", "extrapolation_factor", "short_mscale", "long_mscale"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What is asked of a method, the same for all scopes of a model."""

    factor: float
    """New window / original window."""
    original_length: int
    """Original window, tokens."""
    maximum: int
    """What `max_position_embeddings` becomes."""
    options: Mapping[str, Any]
    """The method's own settings under transformers' names; `None` is "not given"."""
    mrope: bool
    """Whether the model uses multimodal RoPE."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given."""
        return {name: value for name, value in self.options.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """All that is known about one method of `convert`; see `METHODS` for how to add one."""

    name: str
    """What `--method` and `yarncli.json` call it."""
    label: str
    """What the model card calls it."""
    reference_url: str
    """The paper or the code that it comes from."""
    rope_type: str
    """The RoPE type that it writes."""
    apply: Callable[[RopeParameters, Extension], dict[str, Any]]
    """Plain setting and what is asked → the fields of `RopeParameters` that scale it.

    Its docstring says what becomes of the frequencies, as `docs/methods.md` shows it.
    """
    options: tuple[str, ...] = ()
    """The options of its own that it takes, under transformers' names."""
    attention_factor: str = ""
    """Its factor on cos and sin as the documentation shows it; empty for a method without one."""
    keeps_max: str = ""
    """Why `max_position_embeddings` must be the original window; empty where it is extended."""
    follows_text: bool = False
    """Whether its frequencies follow the length of the text, so that even factor 1 extends."""
    is_static: bool = False
    """Whether the user must be told that it also changes how short texts are read."""
    advice: str = ""
    """A further sentence for people who choose it."""
    mla_refusal: str = ""
    """Why a model with multi-head latent attention cannot take it; empty where it can."""
    rescaled_factor: Callable[[RopeParameters, int, int], float] | None = None
    """Computes the factor from the setting, the new and the present window (tokens).

    None where the factors are found by a search.
    """

    @property
    def leaves_mark(self) -> bool:
        """Whether a config shows that the method was applied: a new θ alone does not."""
        return self.rope_type != "default"

    def extended(self, before: RopeParameters, asked: Extension) -> RopeParameters:
        """The new setting of one scope: sizes and carried keys kept, the scaling replaced.

        Args:
            before: the setting to extend; its θ is what the model was trained with.
            asked: how far, and with which options.

        Raises:
            UsageError: an option that the method needs is missing.
            UnsupportedArchitectureError: too few rotary dimensions for the formula.
        """
        plain = RopeParameters(
            rope_type="default",
            rope_theta=before.rope_theta,
            head_dim=before.head_dim,
            max_position_embeddings=asked.maximum,
            partial_rotary_factor=before.partial_rotary_factor,
            extra={k: v for k, v in before.extra.items() if k not in _SCALING_EXTRA},
        )
        return replace(plain, rope_type=self.rope_type, **self.apply(plain, asked))

    def notes(self, *, before: int, maximum: int, length: int, is_mla: bool) -> list[str]:
        """Notes that the user should read before relying on the method.

        Args:
            before: `max_position_embeddings` as it was, tokens.
            maximum: what it becomes.
            length: the window the model is to read.
            is_mla: whether the model uses multi-head latent attention.
        """
        found = []
        if self.keeps_max and (maximum <= before or maximum < length):
            moved = f"goes from {before:,} to {maximum:,}, the original window"
            how = f"stays {maximum:,}" if maximum == before else moved
            sentence = f"max_position_embeddings {how}: {self.keeps_max}. {self.advice}"
            found.append(sentence.rstrip())
        if self.is_static and not is_mla:
            found.append(
                "The scaling applies to texts of every length, so accuracy on short texts drops a "
                "little."
            )
        return found
