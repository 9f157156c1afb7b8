"""What `inspect` shows of a checkpoint: plain data from config, headers and tokenizer files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.formats import count_parameters, read_cache_format, read_format
from yarncli.checkpoint.memory import (
    CachePart,
    bytes_per_number,
    kv_cache_bytes,
    kv_cache_parts,
    stated_dtype,
)
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.families.refused_types import tied_by_default
from yarncli.config.reading import RopeConfig, Scope, read_rope
from yarncli.config.weight_format import WeightFormat
from yarncli.engines.judgement import judge
from yarncli.engines.verdict import EngineView
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.gguf.detection import is_gguf_source
from yarncli.history import read_history
from yarncli.inspection.dimensions import Dimension, dimensions
from yarncli.planning.plan import make_plan, window_of
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.rope.methods import DEFAULT_METHOD
from yarncli.rope.parameters import RopeParameters

if TYPE_CHECKING:
    from yarncli.inspection.gguf import GgufDescription

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Weights:
    """What the shard headers say."""

    parameters: Mapping[str, int]
    """Stored elements, by dtype."""
    nbytes: int
    """Bytes of all tensors."""
    shards: int
    """Number of files."""
    unpacked: int | None
    """Parameters of the model after unpacking; `None` if the packing is not known."""

    def to_json(self) -> dict[str, Any]:
        """The entry of `inspect --json`."""
        parameters = dict(self.parameters)
        return {
            "parameters": parameters,
            "unpacked": self.unpacked,
            "bytes": self.nbytes,
            "shards": self.shards,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Everything inspect knows about one checkpoint."""

    name: str
    """The name of the checkpoint."""
    architecture: str | None
    """The first of the config's `architectures`."""
    made_for: str | None
    """What the model is made for other than writing text; `None` if nothing says so."""
    rope: RopeConfig
    """The RoPE part of the config."""
    weights: Weights | None
    """What the shard headers say; `None` without weights."""
    dtype: str | None
    """The config's dtype."""
    format: WeightFormat
    """How the weights are stored."""
    tied: bool
    """Whether the output head is the word embedding."""
    tokenizer_limit: int | None
    """`model_max_length` of the tokenizer, tokens; `None` if it has no limit."""
    kv_cache: tuple[CachePart, ...]
    """The parts of the KV cache of one sequence."""
    cache_format: str | None
    """The quantised format of the KV cache that the config asks for and vLLM uses; or `None`."""
    plan: RopePlan | None
    """The conversion that is previewed."""
    engines: tuple[EngineView, ...]
    """What each engine computes from the config; empty with a plan."""

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
        """Bytes of keys and values for one sequence of `length` tokens."""
        return kv_cache_bytes(self.kv_cache, length, self._itemsize)

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes that one more token adds, as long as the text fits in every window."""
        numbers = sum(part.width // part.tokens_per_entry for part in self.kv_cache)
        return int(self._itemsize * numbers)

    @property
    def _itemsize(self) -> float:
        return bytes_per_number(self.dtype, self.cache_format)

    def dimensions(self, scope: Scope) -> list[Dimension]:
        """The dimension pairs of one scope, before and after."""
        return dimensions(
            scope.parameters,
            self.parameters(scope),
            original_length=self.original_length,
            length=self.length,
        )

    def turning_dimensions(self, scope: Scope) -> int:
        """How many dimensions of a head really rotate.

        With "proportional" (Gemma 4) most dimensions have the frequency 0: the formula counts them,
        but they do not rotate.
        """
        inv_freq = self.parameters(scope).inv_freq(self.length)
        return 2 * sum(frequency != 0 for frequency in inv_freq)

    def to_json(self, *, table: bool = False) -> dict[str, Any]:
        """The document of `inspect --json`.

        Args:
            table: also list the dimension pairs of every scope.
        """
        rope = self.rope
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.name,
            "architecture": self.architecture,
            "model_type": rope.model_type,
            "dtype": self.dtype,
            "quantization": _method(self.format),
            "weight_format": self.format.name,
            "tied_word_embeddings": self.tied,
            "tokenizer_limit": self.tokenizer_limit,
            "weights": self.weights and self.weights.to_json(),
            "max_position_embeddings": rope.max_position_embeddings,
            "original_max_position_embeddings": rope.original_length,
            "original_source": rope.original_source,
            "spelling": rope.spelling_found,
            "kv_cache_bytes_per_token": self.kv_cache_bytes_per_token,
            "kv_cache_bytes": self.kv_cache_bytes(self.length),
            "kv_cache_format": self.cache_format,
            "length": self.length,
            "scopes": {s.name: self._scope_json(s, table) for s in rope.scopes.values()},
            "made_for": self.made_for,
            "own_code": rope.own_code,
            "attention_keys": [key.to_json() for key in rope.attention_keys],
            "notes": list(rope.notes),
            "engines": [view.brief() for view in self.engines],
            "plan": self.plan and self.plan.to_json(),
        }

    def _scope_json(self, scope: Scope, table: bool) -> dict[str, Any]:
        p = self.parameters(scope)
        original = p.original_max_position_embeddings or self.original_length
        found = {
            "rope_type": p.rope_type,
            "rope_theta": p.rope_theta,
            "rotary_dim": self.turning_dimensions(scope),
            "head_dim": p.head_dim,
            "layers": list(scope.layers),
            "windowed": scope.windowed,
            "window": scope.window,
            "factor": p.resolved_factor(),
            "original_max_position_embeddings": original,
            "max_position_embeddings": p.max_position_embeddings,
            "attention_factor": p.effective_attention_factor(),
            "inv_freq": p.inv_freq(self.length),
        }
        if table:
            found["dimensions"] = [row.to_json() for row in self.dimensions(scope)]
        return found


def inspect(
    source: str | Path | Checkpoint,
    *,
    method: str | None = None,
    length: int | None = None,
    factor: float | None = None,
    original_length: int | None = None,
    assume_like: str | None = None,
) -> Description | GgufDescription:
    """Read config, shard headers and tokenizer files of a checkpoint, or the header of a GGUF file.

    With `method`, `length` or `factor` it previews a conversion, and writes nothing.

    Args:
        source: a checkpoint, its directory or `config.json`, or a Hub id; or a GGUF file, local or
            `hf://org/name/file.gguf`.
        method: the method of the conversion to preview; by default `DEFAULT_METHOD`.
        length: the window to preview, tokens.
        factor: the same as a multiple of the original window.
        original_length: the window in training, tokens, if the config does not say it.
        assume_like: the known model type to read an unknown one as; by default the one that
            yarncli.json names.

    Raises:
        CheckpointError: the config or a header cannot be read, or the preview is refused.
        UsageError: contradictory options, or a factor below 1.
        HubError: the Hub cannot be reached.

    Example:
        >>> inspect("./model", factor=4).length  # doctest: +SKIP
        131072
    """
    target = None
    if (method, length, factor) != (None, None, None):
        target = Target(method or DEFAULT_METHOD, length=length, factor=factor)
    if is_gguf_source(source):
        from yarncli.inspection.gguf import inspect_gguf

        assert isinstance(source, str | Path)
        if assume_like is not None:
            raise UsageError("--assume-like is for checkpoints, and SOURCE is a GGUF file.")
        return inspect_gguf(source, target, original_length=original_length)
    return _inspect(open_checkpoint(source), target, original_length, assume_like)


def _inspect(
    checkpoint: Checkpoint,
    target: Target | None,
    original_length: int | None,
    assume_like: str | None,
) -> Description:
    config, history = checkpoint.config().value, read_history(checkpoint)
    if target:
        history.require_extendable(config)
    like = assume_like or history.assume_like
    options: dict[str, Any] = {"assume_like": like, "original_length": original_length}
    with _naming(made_for := _made_for(checkpoint, config)):
        rope = history.informed(read_rope(config, own_code=target is None, **options))
    tokenizer = checkpoint.optional_json("tokenizer_config.json")
    weights = read_format(checkpoint)
    judged: tuple[EngineView, ...] = ()
    if not target and not rope.own_code:
        found = judge(
            config, history, launch=False, assume_like=like, weights=weights, checkpoint=checkpoint
        )
        judged = found.verdicts
    return Description(
        name=checkpoint.name,
        architecture=_architecture(config),
        made_for=made_for,
        rope=rope,
        weights=read_weights(checkpoint, config, weights),
        dtype=stated_dtype(config, rope),
        format=weights,
        tied=_tied(config, rope.text(config).values),
        tokenizer_limit=_limit(tokenizer.value.get("model_max_length") if tokenizer else None),
        kv_cache=kv_cache_parts(config, rope),
        cache_format=read_cache_format(checkpoint),
        plan=make_plan(rope, target) if target else None,
        engines=judged,
    )


# The end of an architecture's name → the purpose of models that do not write text.
_PURPOSES = {
    "SequenceClassification": "classification or reranking",
    "TokenClassification": "classification of tokens",
    "QuestionAnswering": "extracting answers",
    "MaskedLM": "filling in masked words",
    "RewardModel": "rating texts",
}


@contextmanager
def _naming(made_for: str | None) -> Iterator[None]:
    """Add the purpose of a model to the message that RoPE does not apply to it."""
    try:
        yield
    except UnsupportedArchitectureError as error:
        if made_for is None:
            raise
        raise UnsupportedArchitectureError(f"{error} The model is made for {made_for}.") from error


def _made_for(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str | None:
    if checkpoint.file("modules.json") or checkpoint.file("config_sentence_transformers.json"):
        return "embeddings or reranking (sentence-transformers)"
    name = _architecture(config)
    return next((what for end, what in _PURPOSES.items() if str(name).endswith(end)), None)


def _architecture(config: Mapping[str, Any]) -> Any:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names else None


def _limit(value: Any) -> int | None:
    """The tokenizer's limit; transformers writes 1e30 for "none"."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < 10**18 else None


def _tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Whether the embeddings are tied: as the config says, else as the class in transformers."""
    for values in (config, text):
        if values.get("tie_word_embeddings") is not None:
            return bool(values["tie_word_embeddings"])
    return config.get("model_type") in tied_by_default()


def _method(weights: WeightFormat) -> str | None:
    """The quantisation method alone; `None` without quantisation."""
    return weights.method.partition("+")[0].removesuffix("-bare") or None


def read_weights(
    checkpoint: Checkpoint, config: Mapping[str, Any], weights: WeightFormat
) -> Weights | None:
    """What the shard headers say; None without shards.

    Args:
        checkpoint: the checkpoint with the shards.
        config: the JSON object of config.json.
        weights: the format of the weights.

    Raises:
        WeightsError: a shard is missing, damaged, or a Git-LFS pointer.
        HubError: a header cannot be fetched.
    """
    headers = checkpoint.headers()
    if not headers:
        return None
    counts: Counter[str] = Counter()
    nbytes = 0
    for header in headers.values():
        for tensor in header.tensors.values():
            counts[tensor.dtype] += tensor.parameters
            nbytes += tensor.nbytes
    unpacked = count_parameters(headers.values(), config, weights)
    return Weights(
        parameters=dict(counts.most_common()),
        nbytes=nbytes,
        shards=len(headers),
        unpacked=unpacked,
    )
