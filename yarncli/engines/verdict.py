"""What an engine will do with a checkpoint (`EngineView`), and how it compares with what is meant.

An engine is a value: its identity and a few pure functions. The comparison is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from yarncli.engines.loaders import LoaderError, Model
from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters

SCHEMA = 1

Status = Literal["exact", "differs", "ignores", "refuses", "crashes"]
Basis = Literal["run", "read"]

# Engines compute in single precision and agree to about 1e-7; real differences start at 1e-3.
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Used:
    """One scope as an engine computes it.

    `parameters` gives the frequencies. `attention_scale` multiplies cos and sin;
    `softmax_scale_ratio` multiplies the softmax scale 1/√d (MLA models).
    """

    parameters: RopeParameters
    attention_scale: float = 1.0
    softmax_scale_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """An engine's reading of a model.

    `served_length` is the longest text it accepts, in tokens; `None` where it sets no limit.
    `faults` are facts that make the result wrong although the numbers may agree; `notes` are
    for people only.
    """

    scopes: Mapping[str, Used]
    served_length: int | None = None
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class EngineCrash(Exception):
    """The engine accepts the config and fails later, at start-up or at the first token."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch line is made of.

    `fields` are config fields of the text part to override, `flags` words that `repair` found.
    """

    model: Model
    length: int
    fields: Mapping[str, Any] | None = None
    flags: tuple[str, ...] = ()


Repair = Callable[[Model, Mapping[str, Used], Reading], tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine in one range of versions.

    Attributes:
        id: what `--engine` takes.
        name: for people.
        versions: the versions described.
        basis: "run" if the tests run it, "read" if its rules are held against recorded values.
        read: what it makes of a model; raises `LoaderError` where it refuses, `EngineCrash` where
            it fails later.
        launch: the command line that serves the model.
        override: how it takes config fields on its command line: as transformers 5 spells them,
            as older versions do, or not at all.
        repair: words for the command line that make up for a misreading, `None` where none can.
        about: what there is to know about it, for the documentation.
    """

    id: str
    name: str
    versions: str
    basis: Basis
    read: Callable[[Model], Reading]
    launch: Callable[[Launch], str]
    override: Literal["v5", "legacy", "none"] = "none"
    about: tuple[str, ...] = ()
    repair: Repair | None = None


@dataclass(frozen=True, slots=True)
class ScopeView:
    """One scope in one engine, beside what was meant.

    `inv_freq` is in radians per token at `at_length` tokens. `deviation` is the largest relative
    difference from the intended frequencies, `deviation_at` the pair where it occurs and
    `deviation_length` the text length.
    """

    scope: str
    inv_freq: tuple[float, ...]
    attention_scale: float
    softmax_scale_ratio: float
    at_length: int
    intended: Used
    deviation: float
    deviation_at: int
    deviation_length: int

    @property
    def attention_ratio(self) -> float:
        """Attention scale over the intended one."""
        return self.attention_scale / self.intended.attention_scale

    @property
    def softmax_ratio(self) -> float:
        """Softmax scale over the intended one."""
        return self.softmax_scale_ratio / self.intended.softmax_scale_ratio

    @property
    def is_exact(self) -> bool:
        """Whether all three numbers are those intended."""
        ratios = (self.attention_ratio, self.softmax_ratio)
        same = all(math.isclose(r, 1, rel_tol=_TOLERANCE) for r in ratios)
        return same and self.deviation <= _TOLERANCE


@dataclass(frozen=True, slots=True)
class EngineView:
    """What one engine will make of a checkpoint.

    `length` is the window meant, in tokens. `launch_is_exact` says whether the launch line makes
    everything as intended.
    """

    engine: Engine
    status: Status
    served_length: int | None
    length: int
    scopes: tuple[ScopeView, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...] = ()
    launch: str | None = None
    launch_is_exact: bool = False

    def summary(self) -> str:
        """One line: what is wrong, or that nothing is."""
        if self.status == "exact":
            return "as intended"
        if self.status in ("refuses", "crashes"):
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
        }


def view(engine: Engine, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """Judge one engine's reading of a model; the launch line is left out.

    Args:
        engine: the engine.
        model: the config.
        intended: what is meant, per scope; its window is `model.length`.
    """
    try:
        reading = engine.read(model)
    except LoaderError as error:
        return EngineView(engine, "refuses", None, model.length, (), (str(error),))
    except EngineCrash as error:
        return EngineView(engine, "crashes", None, model.length, (), (str(error),))
    at = min(reading.served_length or model.length, model.length)
    scopes = tuple(
        _compare(name, used, intended[name], at, model.length)
        for name, used in reading.scopes.items()
        if name in intended
    )
    # A limit above the window meant is wrong too: positions are served that nothing was made for.
    short = reading.served_length is not None and reading.served_length != model.length
    notes = (*reading.faults, *reading.notes)
    status: Status = "exact"
    wrong = [scope for scope in scopes if not scope.is_exact]
    if wrong and all(_is_ignored(model, reading.scopes[s.scope], s.intended) for s in wrong):
        status = "ignores"
    elif wrong or short or reading.faults:
        status = "differs"
    return EngineView(
        engine,
        status,
        reading.served_length,
        model.length,
        scopes,
        notes,
        faults=reading.faults,
    )


def mscale_ratio(
    p: RopeParameters, *, mscale: float | None = None, mscale_all_dim: float | None = None
) -> float:
    """m(s·mscale) / m(s·mscale_all_dim) with an engine's defaults for what is not given.

    Reference: paper Eq. 22; DeepSeek-V2's modelling code.
    """
    factor = p.resolved_factor()
    top = p.mscale if p.mscale is not None else mscale
    bottom = p.mscale_all_dim if p.mscale_all_dim is not None else mscale_all_dim
    return get_mscale(factor, 1.0 if top is None else top) / get_mscale(factor, bottom or 0.0)


def mla_softmax(p: RopeParameters) -> float:
    """m(s·mscale_all_dim)²: DeepSeek's temperature on the softmax scale; 1 where not given.

    Reference: transformers `modeling_deepseek_v3.py`, `yarn_apply_mscale`.
    """
    return get_mscale(p.resolved_factor(), p.mscale_all_dim or 0.0) ** 2


def second_hand_softmax(model: Model, p: RopeParameters) -> float:
    """The softmax temperature of an MLA model in engines whose MLA code was not looked at.

    All known engines copy DeepSeek's, so it is assumed.
    """
    return mla_softmax(p) if model.rope.is_mla and p.rope_type == "yarn" else 1.0


def _compare(name: str, used: Used, intended: Used, at: int, window: int) -> ScopeView:
    worst, where, when = 0.0, 0, at
    # dynamic and longrope change with the length of the text, so a short text and a full one are
    # compared too.
    for length in dict.fromkeys((at, min(at, intended.parameters.original_length), window)):
        mine = used.parameters.inv_freq(length)
        meant = intended.parameters.inv_freq(length)
        if len(mine) != len(meant):
            worst, where, when = 1.0, min(len(mine), len(meant)), length
            continue
        for pair, (a, b) in enumerate(zip(mine, meant, strict=True)):
            off = abs(a - b) / (abs(b) or abs(a) or 1.0)
            if off > worst:
                worst, where, when = off, pair, length
    return ScopeView(
        name,
        tuple(used.parameters.inv_freq(at)),
        used.attention_scale,
        used.softmax_scale_ratio,
        at,
        intended,
        worst,
        where,
        when,
    )


def _is_ignored(model: Model, used: Used, intended: Used) -> bool:
    """Whether the engine computes plain RoPE where something else was asked for."""
    p, meant = used.parameters, intended.parameters
    if p.rope_type != "default" or used.attention_scale != 1.0:
        return False
    defaults = {model.family.rope_theta, *(rule.rope_theta for rule in model.family.scopes), 1e4}
    if p.rope_theta == meant.rope_theta:
        return meant.rope_type != "default"
    return p.rope_theta in defaults


def _differences(scope: ScopeView, count: int) -> list[str]:
    place = f"{scope.scope}: " if count > 1 else ""
    found = []
    if scope.deviation > _TOLERANCE:
        short = f" at {scope.deviation_length:,} tokens"
        found.append(
            f"{place}frequencies off by up to {_percent(scope.deviation)} (pair "
            f"{scope.deviation_at}"
            f"{short if scope.deviation_length != scope.at_length else ''})"
        )
    if not math.isclose(scope.attention_ratio, 1, rel_tol=_TOLERANCE):
        found.append(
            f"{place}attention scale {scope.attention_scale:.4g} instead of "
            f"{scope.intended.attention_scale:.4g}"
        )
    if not math.isclose(scope.softmax_ratio, 1, rel_tol=_TOLERANCE):
        found.append(
            f"{place}softmax scale ×{scope.softmax_scale_ratio:.4g} instead of "
            f"×{scope.intended.softmax_scale_ratio:.4g}"
        )
    return found


def _percent(ratio: float) -> str:
    return f"{100 * ratio:,.0f} %" if ratio >= 1 else f"{100 * ratio:.2g} %"


def _scope_json(scope: ScopeView) -> dict[str, Any]:
    return {
        "scope": scope.scope,
        "inv_freq": list(scope.inv_freq),
        "attention_scale": scope.attention_scale,
        "attention_scale_ratio": scope.attention_ratio,
        "softmax_scale_ratio": scope.softmax_scale_ratio,
        "at_length": scope.at_length,
        "largest_deviation": scope.deviation,
        "largest_deviation_pair": scope.deviation_at,
        "largest_deviation_length": scope.deviation_length,
    }
