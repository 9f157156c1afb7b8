"""Decide from config and headers everything that a bake will write; no weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any

from yarncli.baking.attention_factor import ScopeAttentionFactor
from yarncli.baking.copies import with_copies
from yarncli.baking.edits import TensorEdit, find_edits, is_cache_scale
from yarncli.baking.modules import BakeRequest, Module, find_modules
from yarncli.baking.parts import read_parts, write_parts
from yarncli.baking.settings import BakeSettings
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.safetensors import Header
from yarncli.checkpoint.source import Checkpoint
from yarncli.engines.judgement import Judgement, judge
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.history import (
    BAKED_MARKER,
    FILE_NAME,
    History,
    Step,
    describe_source,
    read_history,
)
from yarncli.history.weights import Baked, Side
from yarncli.jsontext.changes import FieldChange, changed_fields
from yarncli.jsontext.text import JsonText
from yarncli.options import given_options

SCHEMA_VERSION = 1
_DEFAULTS = BakeSettings()


@dataclass(frozen=True, kw_only=True)
class Baking:
    """Everything a bake will write, before anything is written."""

    checkpoint: Checkpoint
    """The source."""
    settings: BakeSettings
    """The settings that were asked for."""
    requests: tuple[BakeRequest, ...]
    """The settings completed from the model: one for each text model; most have one."""
    attention_factors: tuple[ScopeAttentionFactor, ...]
    """One per scope that has layers."""
    edits: tuple[TensorEdit, ...]
    """What changes in the weights."""
    config: tuple[JsonText, JsonText]
    """`config.json` of the source, and after the bake."""
    unbaked: JsonText
    """`config.json` before the bake, after a conversion in the same pass if there is one."""
    baked: Baked
    """What the bake moves into the weights."""
    history: History
    """All steps; this bake is the last."""
    notes: tuple[str, ...]
    """What a user should know about the result."""
    others: Mapping[str, bytes] = field(default_factory=dict)
    """Further config files that a conversion in the same pass writes."""

    @cached_property
    def patches(self) -> dict[str, tuple[Patch, ...]]:
        """Shard name → the byte ranges that change."""
        headers = self.checkpoint.headers()
        found: dict[str, list[Patch]] = {}
        for edit in self.edits:
            found.setdefault(edit.shard, []).extend(edit.patches(headers[edit.shard]))
        return {shard: tuple(patches) for shard, patches in found.items()}

    @property
    def model_type(self) -> str:
        """The model type of the config."""
        several = len(self.requests) > 1
        return (
            str(self.config[0].get(("model_type",)))
            if several
            else (self.requests[0].rope.model_type)
        )

    @property
    def nbytes(self) -> int:
        """Bytes that are multiplied."""
        return sum(edit.nbytes for edit in self.edits)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The config files to write."""
        return {
            **self.others,
            FILE_NAME: self.history.to_bytes(),
            "config.json": self.config[1].to_bytes(),
        }

    def judgement(self, engines: Iterable[str] = (), *, source: str | None = None) -> Judgement:
        """What engines will compute from the baked checkpoint.

        Args:
            engines: ids; empty for all.
            source: the name of the result in launch lines; None for no launch lines.
        """
        return self._judged(self.config[1], self.history, engines, source)

    def judgement_before(self) -> Judgement:
        """What engines compute from the unbaked checkpoint."""
        return self._judged(self.config[0], History(self.history.steps[:-1]), (), None)

    def _judged(
        self, config: JsonText, history: History, engines: Iterable[str], source: str | None
    ) -> Judgement:
        try:
            return judge(
                config.value,
                history,
                engines=engines,
                source=source or "SOURCE",
                assume_like=self.settings.assume_like,
                launch=source is not None,
                checkpoint=self.checkpoint,
            )
        except UnsupportedArchitectureError:
            if engines:
                raise
            # It can be baked, but not converted, because its frequencies in engines are not known.
            return Judgement(source="SOURCE", intended_from=FILE_NAME, verdicts=())

    def to_json(self) -> dict[str, Any]:
        """Everything that was decided, except the verdicts on engines."""
        return {
            "schema_version": SCHEMA_VERSION,
            "form": self.baked.form,
            "side": self.baked.side,
            "layout": self.baked.layout,
            "attention_factor": dict(self.baked.attention_factor),
            "bytes": self.nbytes,
            "edits": [edit.to_json() for edit in self.edits],
            "changes": [change.to_json() for change in self.history.steps[-1].replaced],
            "notes": list(self.notes),
        }


def decide_bake(
    checkpoint: Checkpoint,
    settings: BakeSettings = _DEFAULTS,
    *,
    config: JsonText | None = None,
    history: History | None = None,
    others: Mapping[str, bytes] | None = None,
) -> Baking:
    """Decide a bake from the config and the headers of the shards.

    The only weights that are read are tensors in two shards, to check that both copies are equal.

    Args:
        checkpoint: the source.
        settings: how to bake.
        config: `config.json` as a conversion in the same pass has written it.
        history: the steps so far, in that case.
        others: the other files that this conversion writes.

    Raises:
        CheckpointError: there is nothing to bake, it is baked already, or files are damaged.
        UnsupportedArchitectureError: it is not known how to bake this model exactly.
        UsageError: settings that do not fit the model.
        HubError: a tensor that two shards hold cannot be fetched.
    """
    original = checkpoint.config()
    current = config or original
    history = read_history(checkpoint) if history is None else history
    _refuse_baked(checkpoint, current, history)
    parts = read_parts(checkpoint, current, settings)
    headers = _headers(checkpoint)
    modules = [find_modules(headers, part.request) for part in parts]
    requests = [part.request for part in parts]
    if settings.side is None:  # the default depends on the tensors that the model has
        side = _default_side(requests, [*chain(*modules)])
        requests = [replace(request, side=side) for request in requests]
    edits = tuple(with_copies(chain(*map(find_edits, modules, requests)), checkpoint))
    attention_factors = tuple(chain.from_iterable(part.shown for part in parts))
    baked = Baked(
        form=settings.form,
        side=requests[0].side,
        layout=requests[0].layout.name,
        attention_factor={each.scope: each.factor for each in attention_factors},
    )
    written = write_parts(current, parts, settings).edited({(BAKED_MARKER,): baked.to_json()})
    # A conversion in the same pass has its own step, so this step starts from its result.
    replaced = tuple(changed_fields("config.json", current, written))
    return Baking(
        checkpoint=checkpoint,
        settings=settings,
        requests=tuple(requests),
        attention_factors=attention_factors,
        edits=edits,
        config=(original, written),
        unbaked=current,
        baked=baked,
        history=history.then(_step(checkpoint, settings, baked, replaced)),
        notes=tuple(_notes(checkpoint, requests)),
        others=others or {},
    )


def _step(
    checkpoint: Checkpoint,
    settings: BakeSettings,
    baked: Baked,
    replaced: tuple[FieldChange, ...],
) -> Step:
    # Options of one run, such as where to write, do not change the result and are not recorded.
    recorded = {each.name for each in fields(BakeSettings)}
    return Step(
        command="bake",
        source=describe_source(checkpoint),
        replaced=replaced,
        baked=baked,
        options={n: value for n, value in given_options(settings).items() if n in recorded},
    )


def refuse_engines(baking: Baking, engines: Sequence[str]) -> None:
    """Refuse the bake if one of these engines would not compute the result as intended.

    Raises:
        UsageError: an engine is not known.
        UnsupportedArchitectureError: an engine would differ; the message says how.
    """
    for view in baking.judgement(engines).verdicts if engines else ():
        if view.status != "exact":
            raise UnsupportedArchitectureError(
                f"{view.engine.id} would not compute the baked model as intended: "
                f"{view.summary()}. Name only engines that do, or leave them out and serve the "
                "unbaked checkpoint there."
            )


def _refuse_baked(checkpoint: Checkpoint, config: JsonText, history: History) -> None:
    if config.get((BAKED_MARKER,)) is not None or history.baked:
        raise CheckpointError(
            f"{checkpoint.name} is baked already: its weights hold the attention factor. Bake the "
            "checkpoint that it was made from."
        )


def _headers(checkpoint: Checkpoint) -> dict[str, Header]:
    headers = checkpoint.headers()
    if not headers:
        raise CheckpointError(
            f"{checkpoint.name} has no safetensors weights, so there is nothing to bake into. Save "
            "it with transformers' save_pretrained first."
        )
    return headers


def _default_side(requests: Sequence[BakeRequest], modules: list[Module]) -> Side:
    """Keys, because that changes the fewest bytes; queries if keys are cached with a scale.

    A key bias is often large and is cached with the keys, so it means queries as well.
    """
    request = requests[0]  # if there are several, all have the same layout
    if request.layout.clip:
        return "both"
    cached = request.quantisation is not None and request.quantisation.caches
    names = {name for module in modules for name in module.tensors}
    scaled = any(is_cache_scale(name) for name in names)
    biased = "k_proj.bias" in names
    return "q" if _has_queries(request) and (cached or scaled or biased) else "k"


def _has_queries(request: BakeRequest) -> bool:
    """Whether queries can hold the factor."""
    return any(edit.side == "q" for edit in request.layout.edits)


def _notes(checkpoint: Checkpoint, requests: Sequence[BakeRequest]) -> list[str]:
    found: list[str] = []
    names = {file.name for file in checkpoint.files}
    if "adapter_config.json" in names:
        found.append(
            "The directory holds an adapter. It was trained for the unbaked weights; scale it as "
            "well with --adapter DIRECTORY OUT."
        )
    shards = set(checkpoint.shard_names())
    # Weights beside the shards: other formats, or files left from an older save.
    stale = sorted(
        file.name
        for file in checkpoint.files
        if file.kind in ("shard", "weights")
        and file.name not in shards
        and not file.name.rpartition("/")[2].startswith("adapter_")
    )
    if stale:
        found.append(
            f"{', '.join(stale[:3])}{' and others' if len(stale) > 3 else ''} hold weights that "
            "are copied unchanged. An engine that loads them must not use this config.json."
        )
    if any(request.rope.is_mla for request in requests):
        found.append(
            "vLLM leaves out the softmax scale of latent attention (mscale_all_dim) if "
            "attention_factor is 1, so it computes another model than transformers."
        )
    power = {"k": 2, "q": 0, "both": 1}[requests[0].side]
    if power:
        grown = max(m**power for request in requests for m in request.factors.values())
        is_free = _has_queries(requests[0]) and not requests[0].layout.clip
        found.append(
            f"Keys become up to {grown:.4g} times larger. If you quantise the KV cache, "
            f"recalibrate it{' or use --side q' if is_free else ''}."
        )
    return found
