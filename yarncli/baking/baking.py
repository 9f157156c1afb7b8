"""Bake a checkpoint: decide everything from headers and config, then write it in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from yarncli.baking import quantised
from yarncli.baking.edits import TensorEdit, find_edits, is_cache_scale
from yarncli.baking.layouts import Layout
from yarncli.baking.modules import Module, Wanted, find_modules
from yarncli.baking.registry import choose_layout, find_entry
from yarncli.baking.temperature import MARKER, Temperature, decide, write_config
from yarncli.checkpoint import journal, output, rewrite
from yarncli.checkpoint.rewrite import FileCopy, Patch
from yarncli.checkpoint.safetensors import Header
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.errors import CheckpointError, OutputError, UnsupportedArchitectureError, UsageError
from yarncli.history import (
    FILE_NAME,
    Baked,
    Form,
    History,
    Side,
    Step,
    describe_source,
    given_options,
    read_history,
)
from yarncli.jsontext.changes import changed_fields
from yarncli.jsontext.text import JsonText

Progress = Callable[[int], None] | None


@dataclass(frozen=True)
class Options:
    """How to bake; see `yarncli bake --help`."""

    form: Form = "neutral"
    side: Side | None = None
    attention_factor: float | None = None
    layout: str | None = None
    assume_like: str | None = None


@dataclass(frozen=True)
class Baking:
    """Everything a bake will write, before anything is written.

    `config` is the source's `config.json` and what it becomes; `unbaked` lies between the two
    where a conversion happens in the same pass, and `others` are its further config files.
    """

    checkpoint: Checkpoint
    rope: RopeConfig
    options: Options
    side: Side
    layout: Layout
    temperatures: tuple[Temperature, ...]
    edits: tuple[TensorEdit, ...]
    config: tuple[JsonText, JsonText]
    unbaked: JsonText
    baked: Baked
    history: History
    notes: tuple[str, ...]
    others: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def patches(self) -> dict[str, tuple[Patch, ...]]:
        """Shard name → the byte ranges that change."""
        headers = self.checkpoint.headers()
        found: dict[str, list[Patch]] = {}
        for edit in self.edits:
            found.setdefault(edit.shard, []).extend(edit.patches(headers[edit.shard]))
        return {shard: tuple(patches) for shard, patches in found.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that are multiplied."""
        return sum(edit.nbytes for edit in self.edits)

    @property
    def files(self) -> dict[str, bytes]:
        """The config files to write."""
        return {
            **self.others,
            FILE_NAME: self.history.to_bytes(),
            "config.json": self.config[1].text.encode(),
        }


def prepare(
    checkpoint: Checkpoint,
    options: Options = Options(),
    *,
    config: JsonText | None = None,
    history: History | None = None,
    others: Mapping[str, bytes] | None = None,
) -> Baking:
    """Decide a bake; reads the config and the headers of the shards, no weights.

    Args:
        checkpoint: the source.
        options: how.
        config: `config.json` as a conversion in the same pass has written it.
        history: the steps so far, in that case.
        others: what else that conversion writes.

    Raises:
        CheckpointError: there is nothing to bake, it is baked already, or files are damaged.
        UnsupportedArchitectureError: it is not known how to bake this model exactly.
        UsageError: options that do not fit the model.
    """
    original = checkpoint.config()
    current = config or original
    history = read_history(checkpoint) if history is None else history
    _refuse_baked(checkpoint, current, history)
    rope = read_rope(current.value, assume_like=options.assume_like)
    text = current.get(rope.text_path) if rope.text_path else current.value
    entry = find_entry(rope.model_type, options.layout)
    layout = choose_layout(entry, text)
    if layout.nothing:
        raise CheckpointError(
            f"There is nothing to bake for this {rope.model_type} model: {layout.nothing}."
        )
    temperatures = decide(rope, options.form, options.attention_factor)
    wanted = Wanted(
        factors=_factors(rope, temperatures),
        side=options.side or "k",
        layout=layout,
        entry=entry,
        block=quantised.block_rows(current.value),
    )
    modules = find_modules(_headers(checkpoint), rope, text, wanted)
    if options.side is None:
        wanted = replace(wanted, side=_default_side(layout, modules, current.value))
    edits = tuple(find_edits(modules, rope, text, wanted))
    baked = Baked(
        form=options.form,
        side=wanted.side,
        layout=layout.name,
        attention_factor={each.scope: each.factor for each in temperatures},
    )
    written = write_config(
        _scale_clip(current, rope, layout, wanted),
        rope,
        temperatures,
        options.form,
        baked.to_json(),
        assume_like=options.assume_like,
    )
    step = Step(
        command="bake",
        source=describe_source(checkpoint),
        replaced=tuple(changed_fields("config.json", current, written)),
        baked=baked,
        options=given_options(options),
    )
    return Baking(
        checkpoint=checkpoint,
        rope=rope,
        options=options,
        side=wanted.side,
        layout=layout,
        temperatures=temperatures,
        edits=edits,
        config=(original, written),
        unbaked=current,
        baked=baked,
        history=history.then(step),
        notes=tuple(_notes(checkpoint, rope, wanted, temperatures)),
        others=others or {},
    )


def _refuse_baked(checkpoint: Checkpoint, config: JsonText, history: History) -> None:
    if config.get((MARKER,)) is not None or history.baked:
        raise CheckpointError(
            f"{checkpoint.name} is baked already: its weights carry the temperature. Bake the "
            "checkpoint it was made from."
        )


def _headers(checkpoint: Checkpoint) -> dict[str, Header]:
    headers = checkpoint.headers()
    if not headers:
        raise CheckpointError(
            f"{checkpoint.name} has no safetensors weights, so there is nothing to bake into. Save "
            "it with transformers' save_pretrained first."
        )
    return headers


def _factors(rope: RopeConfig, temperatures: tuple[Temperature, ...]) -> dict[int, float]:
    return {layer: each.factor for each in temperatures for layer in rope.scopes[each.scope].layers}


def _default_side(layout: Layout, modules: list[Module], config: Mapping[str, Any]) -> Side:
    """Keys, as that changes the fewest bytes; queries where keys are cached with a scale.

    A key bias is added before the cache too, and is often large: queries then, as well.
    """
    if layout.clip:
        return "both"
    quantisation = config.get("quantization_config")
    cached = isinstance(quantisation, Mapping) and quantisation.get("kv_cache_scheme")
    names = {name for module in modules for name in module.tensors}
    scaled = any(is_cache_scale(name) for name in names)
    biased = "k_proj.bias" in names
    has_q = any(edit.side == "q" for edit in layout.edits)
    return "q" if has_q and (cached or scaled or biased) else "k"


def _scale_clip(config: JsonText, rope: RopeConfig, layout: Layout, wanted: Wanted) -> JsonText:
    if not layout.clip:
        return config
    factors = set(wanted.factors.values())
    path = (*rope.text_path, *layout.clip)
    value = config.get(path)
    if len(factors) != 1 or type(value) not in (int, float):
        raise UnsupportedArchitectureError(
            f"{'.'.join(path)} clamps the projections of all layers, and it cannot be scaled by "
            "one factor here. The temperature cannot be baked."
        )
    return config.edited({path: value * factors.pop()})


def _notes(
    checkpoint: Checkpoint,
    rope: RopeConfig,
    wanted: Wanted,
    temperatures: tuple[Temperature, ...],
) -> list[str]:
    found: list[str] = []
    names = {file.name for file in checkpoint.files}
    if "adapter_config.json" in names:
        found.append(
            "The directory holds an adapter. It was trained for the weights as they are; scale it "
            "too with --adapter DIR OUT."
        )
    shards = set(checkpoint.shard_names())
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
            "are copied as they are. An engine that loads them must not use this config.json."
        )
    if rope.is_mla:
        found.append(
            "vLLM leaves out the softmax scale of latent attention (mscale_all_dim) where "
            "attention_factor is 1, so it computes another model than transformers."
        )
    power = {"k": 2, "q": 0, "both": 1}[wanted.side]
    if power:
        grown = max(each.factor**power for each in temperatures)
        found.append(f"Keys grow by up to ×{grown:.4g}; matters for quantised KV caches.")
    return found


def write_copy(
    baking: Baking,
    destination: Path,
    *,
    overwrite: bool = False,
    fsync: bool = False,
    verify: bool = False,
    progress: Progress = None,
) -> None:
    """Write the baked checkpoint to a new directory, whole or not at all.

    Every edited range is read back, and every shard is opened with safetensors' own reader.

    Args:
        baking: what `prepare` decided; its checkpoint must be local.
        destination: the directory to be.
        overwrite: replace an existing checkpoint directory.
        fsync: survive a power cut too.
        verify: compare every other byte of the shards with the source as well.
        progress: called with bytes done; `work` tells their sum.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file of the source cannot be carried over.
        WeightsError: a value leaves the range of its dtype.
        OutputError: something cannot be written, or does not read back.
    """
    checkpoint, files = baking.checkpoint, baking.files
    output.check_destination(destination, source=checkpoint.directory, overwrite=overwrite)
    carried = [file for file in checkpoint.files_to_copy() if file.name not in files]
    output.require_space(destination.absolute().parent, sum(file.size for file in carried))
    with output.output_directory(
        destination, source=checkpoint.directory, overwrite=overwrite, fsync=fsync
    ) as staging:
        for file in carried:
            (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
        rewrite.copy_files(
            [
                FileCopy(
                    checkpoint.path(file.name),
                    staging / file.name,
                    baking.patches.get(file.name, ()),
                )
                for file in carried
            ],
            progress=progress,
        )
        for name, data in files.items():
            (staging / name).write_bytes(data)
        _read_back(baking, staging, verify, progress)


def work(baking: Baking, *, verify: bool) -> int:
    """The number of bytes that `write_copy` reports as progress."""
    copied = sum(file.size for file in baking.checkpoint.files if file.name not in baking.files)
    patched = sum(patch.length for patches in baking.patches.values() for patch in patches)
    compared = sum(header.file_size for header in baking.checkpoint.headers().values())
    return copied + patched + (compared - patched if verify else 0)


def write_in_place(baking: Baking, *, progress: Progress = None) -> Path:
    """Bake the source itself under an undo journal (see `checkpoint.journal`).

    Returns:
        The backup of the old `config.json`.

    Raises:
        UsageError: the source is not a directory on this machine.
        CheckpointError: a file is shared with others, or a change is pending.
        OutputError: something cannot be written; the old state is back.
    """
    directory = baking.checkpoint.directory
    if directory is None or baking.checkpoint.is_remote:
        raise UsageError("--in-place needs a checkpoint directory on this machine.")
    files = baking.files
    config = files.pop("config.json")
    backup = journal.patch_in_place(directory, baking.patches, config, files, progress=progress)
    for name in baking.patches:
        _open(directory / name, baking.checkpoint.headers()[name])
    return backup


def _read_back(baking: Baking, staging: Path, verify: bool, progress: Progress) -> None:
    checks = [
        partial(_check_shard, baking, staging, name, verify) for name in baking.checkpoint.headers()
    ]
    rewrite.in_parallel(checks, progress=progress)
    for name, data in baking.files.items():
        if (staging / name).read_bytes() != data:
            raise OutputError(f"{name} does not read back as it was written. Run again.")


def _check_shard(
    baking: Baking, staging: Path, name: str, verify: bool, progress: Callable[[int], None]
) -> None:
    source, made = baking.checkpoint.path(name), staging / name
    patches = baking.patches.get(name, ())
    wrong = rewrite.first_wrong_patch(source, made, patches, progress=progress)
    if wrong is None and verify:
        wrong = rewrite.compare_outside(source, made, patches, progress=progress)
    if wrong is not None:
        raise OutputError(
            f"{name} does not read back as it was written, near byte {wrong}. The disk may be "
            "failing, or the source has changed meanwhile. Run again."
        )
    _open(made, baking.checkpoint.headers()[name])


def _open(path: Path, header: Header) -> None:
    """Insist that safetensors' own reader finds the tensors that should be there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())
    except SafetensorError as error:
        raise OutputError(f"safetensors cannot open the new {path.name}: {error}.") from error
    if names != set(header.tensors):
        raise OutputError(f"{path.name} holds other tensors than the source. Run again.")
