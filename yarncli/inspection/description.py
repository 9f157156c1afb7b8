"""A checkpoint as inspect shows it: plain data from config, headers and tokenizer files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.memory import CachePart, kv_cache_bytes, kv_cache_parts
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig, Scope, read_rope
from yarncli.engines.judgement import judge
from yarncli.engines.verdict import EngineView
from yarncli.history import read_history
from yarncli.planning.plan import Target, make_plan, window_of
from yarncli.planning.rope_plan import RopePlan
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

SCHEMA = 1

_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True, slots=True)
class Weights:
    """What the shard headers say; `parameters` counts stored elements per dtype."""

    parameters: Mapping[str, int]
    nbytes: int
    shards: int


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension pair: tokens per turn, turns over the original window, and what becomes of it.

    `inv_freq` is the trained (unscaled) frequency, `inv_freq_after` the one in use or planned.
    """

    index: int
    wavelength: float
    rotations: float
    regime: formulas.Regime
    inv_freq: float
    inv_freq_after: float


@dataclass(frozen=True, slots=True)
class Description:
    """Everything inspect knows about one checkpoint."""

    name: str
    architecture: str | None
    rope: RopeConfig
    weights: Weights | None
    dtype: str | None
    quantization: str | None
    tied: bool
    tokenizer_limit: int | None
    kv_cache: tuple[CachePart, ...]
    plan: RopePlan | None
    engines: tuple[EngineView, ...]

    @property
    def length(self) -> int:
        """The window in use, or the planned one: tokens."""
        return self.plan.length if self.plan else window_of(self.rope)

    @property
    def original_length(self) -> int:
        """The window the model was trained with, tokens."""
        return self.plan.original_length if self.plan else self.rope.original_length

    def parameters(self, scope: Scope) -> RopeParameters:
        """The setting of a scope after the plan, if there is one."""
        planned = {s.name: s.after for s in self.plan.scopes} if self.plan else {}
        return planned.get(scope.name, scope.parameters)

    def kv_cache_bytes(self, length: int) -> int:
        """Bytes of keys and values for one sequence of `length` tokens, unquantised."""
        return kv_cache_bytes(self.kv_cache, length, self._itemsize)

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes that one more token adds while it lies within every window."""
        return self._itemsize * sum(part.width // part.tokens_per_entry for part in self.kv_cache)

    @property
    def _itemsize(self) -> int:
        return _DTYPE_BYTES.get(self.dtype or "bfloat16", 2)


def describe(
    checkpoint: Checkpoint,
    *,
    target: Target | None = None,
    original_length: int | None = None,
    assume_like: str | None = None,
) -> Description:
    """Read config, shard headers and tokenizer files of a checkpoint; never weights.

    Args:
        checkpoint: what `open_checkpoint` found.
        target: a conversion to preview.
        original_length: the window the model was trained with, where the config does not say.
        assume_like: the model type to read an unknown one as.

    Raises:
        CheckpointError: the config or a header cannot be read, or the preview is refused.
    """
    config, history = checkpoint.config().value, read_history(checkpoint)
    if target:
        history.refuse_unmarked()
    rope = read_rope(config, assume_like=assume_like, original_length=original_length)
    tokenizer = checkpoint.optional_json("tokenizer_config.json")
    text = rope.text(config).values
    architectures = config.get("architectures")
    quantization = config.get("quantization_config") or text.get("quantization_config")
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype")
    return Description(
        name=checkpoint.name,
        architecture=architectures[0]
        if isinstance(architectures, list) and architectures
        else None,
        rope=rope,
        weights=_weights(checkpoint),
        dtype=dtype if isinstance(dtype, str) else None,
        quantization=_quantization(quantization),
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        tokenizer_limit=_limit(tokenizer.value.get("model_max_length") if tokenizer else None),
        kv_cache=kv_cache_parts(config, rope),
        plan=make_plan(rope, target) if target else None,
        engines=()
        if target
        else judge(config, history, assume_like=assume_like, launch=False).verdicts,
    )


def dimensions(description: Description, scope: Scope) -> list[Dimension]:
    """The per-dimension table of one scope, `rotary_dim // 2` rows."""
    after = description.parameters(scope)
    plain = _plain(scope.parameters)
    scaled = after.inv_freq(description.length)
    factor = after.resolved_factor()
    return [
        Dimension(i, *row)
        for i, row in enumerate(
            zip(
                formulas.wavelengths(plain),
                formulas.rotations(plain, description.original_length),
                formulas.regimes(plain, scaled, factor),
                plain,
                scaled,
                strict=True,
            )
        )
    ]


def _limit(value: Any) -> int | None:
    """The tokenizer's limit; transformers writes 1e30 for "none"."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < 10**18 else None


def _plain(parameters: RopeParameters) -> list[float]:
    """The frequencies before any scaling: what the model was trained with."""
    if parameters.rope_type == "proportional":
        return parameters.inv_freq()
    return formulas.default_inv_freq(parameters.rope_theta, parameters.rotary_dim)


def _weights(checkpoint: Checkpoint) -> Weights | None:
    headers = checkpoint.headers()
    if not headers:
        return None
    counts: Counter[str] = Counter()
    nbytes = 0
    for header in headers.values():
        for tensor in header.tensors.values():
            counts[tensor.dtype] += tensor.parameters
            nbytes += tensor.nbytes
    return Weights(dict(counts.most_common()), nbytes, len(headers))


def _quantization(found: Any) -> str | None:
    if not isinstance(found, dict):
        return None
    return str(found.get("quant_method") or found.get("quant_algo") or "unnamed")


def to_json(description: Description, *, table: bool = False) -> dict[str, Any]:
    """The whole description as plain data: the contract of `inspect --json`."""
    rope, weights = description.rope, description.weights
    return {
        "schema": SCHEMA,
        "source": description.name,
        "architecture": description.architecture,
        "model_type": rope.model_type,
        "dtype": description.dtype,
        "quantization": description.quantization,
        "tied_word_embeddings": description.tied,
        "tokenizer_limit": description.tokenizer_limit,
        "weights": weights
        and {
            "parameters": dict(weights.parameters),
            "bytes": weights.nbytes,
            "shards": weights.shards,
        },
        "max_position_embeddings": rope.max_position_embeddings,
        "original_max_position_embeddings": rope.original_length,
        "original_source": rope.original_source,
        "spelling": rope.spelling_found,
        "kv_cache_bytes_per_token": description.kv_cache_bytes_per_token,
        "kv_cache_bytes": description.kv_cache_bytes(description.length),
        "length": description.length,
        "scopes": {
            scope.name: _scope_json(description, scope, table) for scope in rope.scopes.values()
        },
        "notes": list(rope.notes),
        "engines": [view.brief() for view in description.engines],
        "plan": description.plan and description.plan.to_json(),
    }


def _scope_json(description: Description, scope: Scope, table: bool) -> dict[str, Any]:
    p = description.parameters(scope)
    found = {
        "rope_type": p.rope_type,
        "rope_theta": p.rope_theta,
        "rotary_dim": p.rotary_dim,
        "head_dim": p.head_dim,
        "layers": list(scope.layers),
        "windowed": scope.windowed,
        "window": scope.window,
        "factor": p.resolved_factor(),
        "original_max_position_embeddings": (
            p.original_max_position_embeddings or description.original_length
        ),
        "max_position_embeddings": p.max_position_embeddings,
        "attention_factor": p.effective_attention_factor(),
        "inv_freq": p.inv_freq(description.length),
    }
    if table:
        found["dimensions"] = [
            {name: getattr(row, name) for name in Dimension.__slots__}
            for row in dimensions(description, scope)
        ]
    return found
