"""What an engine will do with a checkpoint, and how that compares with what is intended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from yarncli.engines.outer import ignored_block
from yarncli.engines.types import Engine, Model, NoReading, Status, Used
from yarncli.errors import ConfigError

# Engines compute in single precision and agree to about 1e-7; real differences start at 1e-3.
_TOLERANCE = 1e-5

_ODD_VALUE = (ArithmeticError, AttributeError, ConfigError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeView:
    """One scope as an engine computes it, with the intended numbers."""

    scope: str
    """Its name; `model` where there is one only."""
    inv_freq: tuple[float, ...]
    """Radians per token at `at_length` tokens."""
    attention_factor: float
    """What multiplies cos and sin."""
    softmax_scale_ratio: float
    """What multiplies the softmax scale 1/√d (MLA models)."""
    at_length: int
    """The longest text that is served and intended, tokens."""
    intended: Used
    """What the scope is to compute."""
    deviation: float
    """The largest relative difference from the intended frequencies."""
    deviation_at: int
    """The pair where it occurs."""
    deviation_length: int
    """The length of the text, tokens, where it occurs."""

    @property
    def attention_ratio(self) -> float:
        """Attention factor over the intended one."""
        return self.attention_factor / self.intended.attention_factor

    @property
    def softmax_ratio(self) -> float:
        """Softmax scale over the intended one."""
        return self.softmax_scale_ratio / self.intended.softmax_scale_ratio

    @property
    def is_exact(self) -> bool:
        """Whether all three numbers are those intended."""
        same = _same(self.attention_ratio) and _same(self.softmax_ratio)
        return same and self.deviation <= _TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsView:
    """Whether one engine loads weights of a format at all."""

    format: str
    """Its name, for people."""
    status: Literal["loads", "refuses", "misreads", "not judged"]
    """The verdict; "not judged" where nobody looked."""
    version: str = ""
    """Of the engine, as it was read for this; empty where nobody looked."""

    def describe(self) -> str:
        """In words, to follow the verdict on RoPE."""
        if self.status == "not judged":
            return "format not judged"
        verb = {"refuses": "does not load"}.get(self.status, self.status)
        return f"{verb} {self.format} weights ({self.version})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """What one engine will make of a checkpoint."""

    engine: Engine
    """The engine."""
    status: Status
    """The verdict in one word."""
    served_length: int | None = None
    """The longest text it accepts, tokens; `None` where it sets no limit or computes nothing."""
    length: int
    """The intended window, tokens."""
    scopes: tuple[ScopeView, ...] = ()
    """The numbers of each scope; none where there is no reading."""
    notes: tuple[str, ...] = ()
    """For people."""
    faults: tuple[str, ...] = ()
    """Those of the notes that make the result wrong although the numbers may agree."""
    launch: str | None = None
    """The command line that serves the model."""
    launch_is_exact: bool = False
    """Whether it makes everything as intended."""
    weights: WeightsView | None = None
    """Whether it loads the weights; `None` where they are not quantised, as all do then."""

    @property
    def has_reading(self) -> bool:
        """Whether the engine computes something that is known: not where it refuses, say."""
        return self.status in ("exact", "differs", "ignores")

    def summary(self) -> str:
        """One line: what is wrong, or that nothing is."""
        if self.status == "exact":
            # This line is about the config only: the weights have their own verdict.
            return f"RoPE as intended; {self.weights.describe()}" if self.weights else "as intended"
        if not self.has_reading:
            return self.notes[0] if self.notes else self.status
        wrong = [text for scope in self.scopes for text in _differences(scope, len(self.scopes))]
        if self.served_length is not None and self.served_length != self.length:
            wrong.append(f"serves {self.served_length:,} tokens instead of {self.length:,}")
        return "; ".join([*wrong, *self.faults]) or self.status

    def brief(self) -> dict[str, str]:
        """This engine's entry of `convert --json` and `bake --json`."""
        return {"engine": self.engine.id, "status": self.status, "summary": self.summary()}

    def to_json(self) -> dict[str, Any]:
        """This engine's entry of `engines --json`."""
        return {
            "engine": self.engine.id,
            "name": self.engine.name,
            "versions": self.engine.versions,
            "basis": self.engine.basis,
            "status": self.status,
            "served_length": self.served_length,
            "scopes": [_scope_json(scope) for scope in self.scopes],
            "notes": list(self.notes),
            "launch": self.launch,
            "launch_is_exact": self.launch_is_exact,
            "weights": self.weights and asdict(self.weights),
        }


def unknown_view(engine: Engine, reason: str) -> EngineView:
    """The verdict on a model that runs code which nobody examined; its length is 0."""
    return EngineView(engine=engine, status="unknown", length=0, notes=(reason,))


def view(engine: Engine, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """Judge one engine's reading of a model; the launch line is left out.

    Args:
        engine: the engine.
        model: the config.
        intended: what each scope is to compute; the intended window is `model.length`.
    """
    try:
        return _view(engine, model, intended)
    except NoReading as error:
        status, note = error.status, str(error)
    except _ODD_VALUE as error:
        # Rules compute with values as the file has them, as engines do; what one does with a value
        # of a type that no file should have was not examined.
        status = "unknown"
        note = f"Nobody examined what it does with a value of this kind ({type(error).__name__})."
    return EngineView(engine=engine, status=status, length=model.length, notes=(note,))


def _view(engine: Engine, model: Model, intended: Mapping[str, Used]) -> EngineView:
    reading = engine.read(model)
    lost = ignored_block(engine.id, model)
    if lost:
        reading = replace(reading, faults=(*reading.faults, lost))
    at = min(reading.served_length or model.length, model.length)
    scopes = tuple(
        _compare(name, used, intended[name], at, model.length)
        for name, used in reading.scopes.items()
        if name in intended
    )
    # A limit above the intended window is wrong too: the setting is not made for more positions.
    status: Status = "exact"
    wrong = [scope for scope in scopes if not scope.is_exact]
    ignored = all(_is_ignored(model, reading.scopes[s.scope], s.intended) for s in wrong)
    if (wrong or lost) and ignored:
        status = "ignores"
    elif wrong or reading.faults or reading.served_length not in (None, model.length):
        status = "differs"
    return EngineView(
        engine=engine,
        status=status,
        served_length=reading.served_length,
        length=model.length,
        scopes=scopes,
        notes=(*reading.faults, *reading.notes),
        faults=reading.faults,
    )


def as_intended(found: EngineView, intended: Mapping[str, Used]) -> EngineView:
    """The view of an engine whose launch line makes everything as intended.

    Args:
        found: with that line.
        intended: what each scope is to compute.
    """
    at = found.length
    scopes = (_compare(name, used, used, at, at) for name, used in intended.items())
    return EngineView(
        engine=found.engine,
        status="exact",
        served_length=at,
        length=at,
        scopes=tuple(scopes),
        launch=found.launch,
        launch_is_exact=True,
    )


def _compare(name: str, used: Used, intended: Used, at: int, window: int) -> ScopeView:
    worst, where, when = 0.0, 0, at
    # dynamic and longrope change with the length of the text, so a short text and a full one are
    # compared too.
    for length in dict.fromkeys((at, min(at, intended.parameters.original_length), window)):
        mine = used.parameters.inv_freq(length)
        right = intended.parameters.inv_freq(length)
        if len(mine) != len(right):
            worst, where, when = 1.0, min(len(mine), len(right)), length
            continue
        for pair, (a, b) in enumerate(zip(mine, right, strict=True)):
            off = abs(a - b) / (abs(b) or abs(a) or 1.0)
            if off > worst:
                worst, where, when = off, pair, length
    return ScopeView(
        scope=name,
        inv_freq=tuple(used.parameters.inv_freq(at)),
        attention_factor=used.attention_factor,
        softmax_scale_ratio=used.softmax_scale_ratio,
        at_length=at,
        intended=intended,
        deviation=worst,
        deviation_at=where,
        deviation_length=when,
    )


def _is_ignored(model: Model, used: Used, intended: Used) -> bool:
    """Whether the engine computes plain RoPE where something else was asked for."""
    p, asked = used.parameters, intended.parameters
    if p.rope_type != "default" or used.attention_factor != 1.0:
        return False
    defaults = {model.family.rope_theta, *(rule.rope_theta for rule in model.family.scopes), 1e4}
    if p.rope_theta == asked.rope_theta:
        return asked.rope_type != "default"
    return p.rope_theta in defaults


def _differences(scope: ScopeView, count: int) -> list[str]:
    found = []
    if scope.deviation > _TOLERANCE:
        short = f" at {scope.deviation_length:,} tokens"
        found.append(
            f"frequencies off by up to {_percent(scope.deviation)} (pair {scope.deviation_at}"
            f"{short if scope.deviation_length != scope.at_length else ''})"
        )
    if not _same(scope.attention_ratio):
        found.append(
            f"attention scale {scope.attention_factor:.4g} instead of "
            f"{scope.intended.attention_factor:.4g}"
        )
    if not _same(scope.softmax_ratio):
        found.append(
            f"softmax scale ×{scope.softmax_scale_ratio:.4g} instead of "
            f"×{scope.intended.softmax_scale_ratio:.4g}"
        )
    return [f"{scope.scope}: {text}" for text in found] if count > 1 else found


def _same(ratio: float) -> bool:
    return math.isclose(ratio, 1, rel_tol=_TOLERANCE)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:,.0f} %" if ratio >= 0.1 else f"{100 * ratio:.2g} %"


def _scope_json(scope: ScopeView) -> dict[str, Any]:
    return {
        "scope": scope.scope,
        "inv_freq": list(scope.inv_freq),
        "attention_factor": scope.attention_factor,
        "attention_factor_ratio": scope.attention_ratio,
        "softmax_scale_ratio": scope.softmax_scale_ratio,
        "at_length": scope.at_length,
        "largest_deviation": scope.deviation,
        "largest_deviation_pair": scope.deviation_at,
        "largest_deviation_length": scope.deviation_length,
    }
