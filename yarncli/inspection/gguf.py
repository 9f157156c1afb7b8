"""What `inspect` shows of a GGUF file: its header, and what llama.cpp computes from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.gguf.contents import read_contents
from yarncli.gguf.dead import DeadKey, dead_keys
from yarncli.gguf.extension import decide_extension
from yarncli.gguf.facts import Gguf, Typed
from yarncli.gguf.header import GgufTensor
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_extension
from yarncli.gguf.reading import GgufRope, read_gguf
from yarncli.gguf.runtime import Computed, run, run_windowed
from yarncli.gguf.source import later_shards, open_gguf
from yarncli.inspection.dimensions import Dimension
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.rope import formulas
from yarncli.rope.parameters import HAVE_RAMP

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The tensors of one type."""

    tensors: int
    """Number of tensors."""
    parameters: int
    """Number of elements."""
    nbytes: int | None
    """Bytes; `None` if the type is not known."""

    def to_json(self) -> dict[str, Any]:
        """The entry of `inspect --json`."""
        return {"tensors": self.tensors, "parameters": self.parameters, "bytes": self.nbytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufDescription:
    """Everything inspect knows about one GGUF file."""

    name: str
    """The name of the file."""
    version: int
    """Version of the format."""
    files: int
    """Number of files of the model."""
    gguf: Gguf
    """Its keys, and the tensors of all its files."""
    types: Mapping[str, Stored]
    """Type of tensors → what is stored with it, the largest first."""
    rope: GgufRope | Failure
    """What llama.cpp computes, or why it does not."""
    windowed: Computed | None
    """The same for layers that attend within a window; `None` if there are none."""
    dead: tuple[DeadKey, ...]
    """Keys without effect."""
    plan: RopePlan | None
    """The conversion that is previewed."""
    after: Computed | None
    """What llama.cpp would compute after that conversion."""

    @property
    def keys(self) -> dict[str, Typed]:
        """The keys that have to do with positions, by their full names."""
        words = ("rope.", "context_length", "sliding_window")
        return {n: v for n, v in self.gguf.keys.items() if any(word in n for word in words)}

    def dimensions(self) -> list[Dimension]:
        """The dimension pairs as trained, and as llama.cpp computes them now or after the plan.

        The list is empty if llama.cpp computes nothing.
        """
        if isinstance(self.rope, Failure) or self.rope.rope_theta <= 0:
            return []
        after = (self.after or self.rope.computed).inv_freq
        plain = formulas.default_inv_freq(self.rope.rope_theta, 2 * len(after))
        original = self.plan.original_length if self.plan else self.rope.original_length
        factor = max((a / b for a, b in zip(plain, after, strict=True) if b), default=1.0)
        regimes = formulas.regimes(plain, after, factor, has_ramp=self._has_ramp)
        waves = formulas.wavelengths(plain)
        turns = formulas.rotations(plain, original or self.rope.window)
        return [
            Dimension(
                index=i, wavelength=waves[i], rotations=turns[i], regime=regimes[i],
                inv_freq=plain[i], inv_freq_after=after[i],
            )
            for i in range(len(plain))
        ]  # fmt: skip

    @property
    def _has_ramp(self) -> bool:
        if self.plan is not None:
            return any(scope.after.rope_type in HAVE_RAMP for scope in self.plan.scopes)
        assert not isinstance(self.rope, Failure)  # otherwise there are no dimensions
        return self.rope.parameters is not None and self.rope.parameters.rope_type in HAVE_RAMP

    def to_json(self, *, table: bool = False) -> dict[str, Any]:
        """The document of `inspect --json` for a GGUF file.

        Args:
            table: also list the dimension pairs.
        """
        found: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "source": self.name,
            "format": f"GGUF {self.version}",
            "architecture": self.gguf.architecture,
            "files": self.files,
            "types": {name: stored.to_json() for name, stored in self.types.items()},
            "keys": {name: _plain(value) for name, value in self.keys.items()},
            "rope": None if isinstance(self.rope, Failure) else _rope_json(self.rope),
            "not_computed": self.rope.because if isinstance(self.rope, Failure) else None,
            "windowed": self.windowed and _computed_json(self.windowed),
            "dead_keys": [
                {"name": key.name, "why": key.why, "misleads": key.misleads} for key in self.dead
            ],
            "plan": self.plan and self.plan.to_json(),
            "after": self.after and _computed_json(self.after),
        }
        if table:
            found["dimensions"] = [row.to_json() for row in self.dimensions()]
        return found


def inspect_gguf(
    source: str | Path, target: Target | None = None, *, original_length: int | None = None
) -> GgufDescription:
    """Read the header of a GGUF file, or of all files of a split model.

    Args:
        source: a local file, or `hf://org/name/file.gguf`.
        target: the conversion to preview.
        original_length: the window in training, tokens, if the file does not say it.

    Raises:
        CheckpointError: the file cannot be read, or the preview is refused.
        HubError: the Hub cannot be reached.
    """
    file = open_gguf(source)
    gguf = read_contents(file)
    plan = after = None
    if target is not None:
        plan = decide_extension(file, gguf, target, original_length=original_length)
        replaces = target.rescale or target.replace_scaling
        found = run(plan_extension(gguf, plan, replaces=replaces).applied(gguf))
        assert isinstance(found, Computed)  # because the plan checked it
        after = found
    windowed = run_windowed(gguf) if gguf.window else None
    headers = [file.header, *(part.header for part in later_shards(file))]
    return GgufDescription(
        name=file.name,
        version=file.header.version,
        files=file.split_count,
        gguf=gguf,
        types=_types([tensor for header in headers for tensor in header.tensors.values()]),
        rope=read_gguf(gguf),
        windowed=windowed if isinstance(windowed, Computed) else None,
        dead=dead_keys(gguf),
        plan=plan,
        after=after,
    )


def _types(tensors: list[GgufTensor]) -> dict[str, Stored]:
    counts: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    sizes: dict[str, int | None] = {}
    for tensor in tensors:
        name, before = tensor.type_name, sizes.get(tensor.type_name, 0)
        counts[name] += 1
        elements[name] += math.prod(tensor.shape)
        sizes[name] = None if before is None or tensor.nbytes is None else before + tensor.nbytes
    return {
        name: Stored(tensors=counts[name], parameters=count, nbytes=sizes[name])
        for name, count in elements.most_common()
    }


def _plain(value: Typed) -> Any:
    found = value.value
    return list(found) if isinstance(found, tuple) else found


def _rope_json(rope: GgufRope) -> dict[str, Any]:
    return {
        "rope_type": rope.parameters.rope_type if rope.parameters else None,
        "rope_theta": rope.rope_theta,
        "head_dim": rope.head_dim,
        "rotary_dim": rope.rotary_dim,
        "factor": rope.parameters.resolved_factor() if rope.parameters else None,
        "original_context_length": rope.original_length,
        **_computed_json(rope.computed),
    }


def _computed_json(computed: Computed) -> dict[str, Any]:
    return {
        "inv_freq": list(computed.inv_freq),
        "attention_factor": computed.attention_factor,
        "softmax_scale_ratio": computed.softmax_scale_ratio,
        "served_length": computed.served_length,
    }
