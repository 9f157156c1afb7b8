"""The values that the rules of an engine are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from yarncli.config.families.family import Family
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import RopeConfig
from yarncli.rope.parameters import RopeParameters

Basis = Literal["run", "read"]
Status = Literal["exact", "differs", "ignores", "refuses", "crashes", "unsupported", "unknown"]


class NoReading(Exception):
    """There are no numbers for a model in an engine; the message says why."""

    status: ClassVar[Status]


class LoaderError(NoReading):
    """The loader in question does not accept the config."""

    status = "refuses"


class EngineCrash(NoReading):
    """The engine accepts the config and fails later, at start-up or at the first token."""

    status = "crashes"


class NotSupported(NoReading):
    """The engine has no code for the model, at the version that was examined."""

    status = "unsupported"


class NotKnown(NoReading):
    """What the engine does with this model or setting was not examined; never guess."""

    status = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A config as every engine gets it."""

    source: str
    """What to call the checkpoint in launch lines."""
    config: Mapping[str, Any]
    """The JSON object of `config.json`."""
    text: Mapping[str, Any]
    """The values of the text part."""
    rope: RopeConfig
    """What transformers 5 reads. If it refuses the config, the same without the RoPE block, of
    which only sizes and layers are valid."""
    refusal: str
    """Why transformers 5 reads nothing; empty where it does."""
    is_ours: bool = False
    """Whether the reason is a value with which yarncli does not compute, but transformers may."""
    length: int
    """The intended window, tokens."""
    assume_like: str | None = None
    """The model type to treat an unknown one as."""

    @property
    def family(self) -> Family:
        """Defaults and rules of the text part's model type."""
        return self.rope.family

    @property
    def text_path(self) -> tuple[str, ...]:
        """Where the text part lies in the config."""
        return self.rope.text_path

    @property
    def override_path(self) -> tuple[str, ...]:
        """Place of the text part in a loaded config; old files have it at top level."""
        part: Any = self.config
        for key in self.text_path:
            part = part[key]
        wrapper = FAMILIES.get(str(part.get("model_type")))
        flat = wrapper is not None and wrapper.is_wrapper and self.assume_like is None
        return (*self.text_path, wrapper.text_key) if wrapper and flat else self.text_path

    @property
    def model_type(self) -> str:
        """The model type that decides how an engine loads the checkpoint."""
        return str(self.config.get("model_type") or self.rope.model_type)

    def block(self, key: str) -> Mapping[str, Any]:
        """`rope_scaling` or `rope_parameters` as it stands in the file; empty where it is none."""
        found = self.text.get(key)
        return found if isinstance(found, Mapping) else {}

    def winning_block(self, scope: str) -> Mapping[str, Any]:
        """The dict that transformers 5 reads for `scope`, as it stands in the file."""
        nested = self.block("rope_parameters").get(scope)
        flat = self.block("rope_scaling") or self.block("rope_parameters")
        if not self.family.scopes:
            return flat
        entry = nested if isinstance(nested, Mapping) else {}
        takes = any(rule.name == scope and rule.takes_flat for rule in self.family.scopes)
        return {**entry, **self.block("rope_scaling")} if takes else entry


@dataclass(frozen=True, slots=True)
class Used:
    """One scope as an engine computes it."""

    parameters: RopeParameters
    """What gives the frequencies."""
    attention_factor: float = 1.0
    """What multiplies cos and sin."""
    softmax_scale_ratio: float = 1.0
    """What multiplies the softmax scale 1/√d (MLA models)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An engine's reading of a model."""

    scopes: Mapping[str, Used]
    """What it computes, by name of the scope."""
    served_length: int | None = None
    """The longest text it accepts, tokens; `None` where it sets no limit."""
    notes: tuple[str, ...] = ()
    """For people only."""
    faults: tuple[str, ...] = ()
    """Facts that make the result wrong even if the numbers agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a launch line is made of."""

    model: Model
    """The config, with the name of its checkpoint."""
    length: int
    """The window to serve, tokens."""
    fields: Mapping[str, Any] | None = None
    """Config fields of the text part to override."""
    flags: tuple[str, ...] = ()
    """Words that `Engine.repair` found."""

    def override_words(self, option: str, *, outer: bool = False) -> list[str]:
        """`option` with the overridden fields as JSON of the whole config; no words without any.

        Args:
            option: its name.
            outer: state the fields beside the text part too.
        """
        fields = self.fields
        if not fields:
            return []
        for key in reversed(self.model.override_path):
            fields = {key: fields}
        return [option, json.dumps({**(self.fields or {}), **fields} if outer else fields)]


Repair = Callable[[Model, Mapping[str, Used], Reading], tuple[str, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine in one range of versions."""

    id: str
    """What `--engine` takes."""
    name: str
    """For people."""
    versions: str
    """The versions described."""
    basis: Basis = "read"
    """Either "run" if the tests run it, "read" if its rules are held against recorded values."""
    read: Callable[[Model], Reading]
    """What it makes of a model; raises `LoaderError` where it refuses, `EngineCrash` where it fails
    later."""
    launch: Callable[[Launch], str]
    """The command line that serves the model."""
    override: Literal["v5", "legacy", "none"] = "none"
    """How it takes config fields on its command line: as transformers 5 spells them, as older
    versions do, or not at all."""
    mends_refusals: bool = True
    """Whether overrides are applied before the config is checked, and so can end a refusal."""
    merges: Literal["flat", "nested", "all", "none"] = "none"
    """Which overridden dicts are merged with those of the loaded config, others being replaced:
    those of a config that is the text part itself, those of a text part inside one, or all."""
    deepest_override: int = 9
    """The longest path, in keys, to a text part whose fields can be overridden."""
    about: tuple[str, ...] = ()
    """Notes on the engine for the documentation."""
    settable: Callable[[Model, str], bool] | None = None
    """Whether a config field of a model can be overridden; `None` where all can."""
    repair: Repair | None = None
    """Command-line words that correct a misreading; `None` where none can."""
