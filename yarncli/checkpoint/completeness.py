"""Whether the weights of a checkpoint are all there, judged by names, the index and headers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from yarncli.checkpoint.safetensors import Header
from yarncli.checkpoint.source import INDEX_NAME, SINGLE_SHARD_NAME, Checkpoint
from yarncli.errors import CheckpointError, WeightsError

# "model-00002-of-00007.safetensors", as save_pretrained names shards.
_NUMBERED = re.compile(r"(.+)-(\d{1,6})-of-(\d{1,6})\.safetensors")
# Sets of weights that have no index of ours: Mistral's own format, adapters.
_NO_INDEX = re.compile(r"(consolidated|adapter_model)\b")
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d{1,6})\.")
_OTHER_PART = re.compile(r"vision|visual|audio|speech|image|vae|mtp|draft|encoder", re.IGNORECASE)
_MOST_SHARDS = 10_000


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that the weights of a checkpoint lack."""

    rule: str
    """The rule of `check` that is about it."""
    file: str
    """The name of the file that the finding is about."""
    message: str
    """What is missing, in whole sentences."""


def lacks(
    checkpoint: Checkpoint, headers: Mapping[str, Header], layers: int | None
) -> Iterator[Lack]:
    """What is missing of a checkpoint that has safetensors weights.

    Files that the index names but that do not exist are not reported here: `Checkpoint.header`
    raises for them.

    Args:
        checkpoint: what `open_checkpoint` found.
        headers: shard name → header, of those that could be read.
        layers: how many layers the config says its text part has; `None` where that is not known.

    Raises:
        WeightsError: the index is damaged, or two sets of weights lie there.
    """
    index = checkpoint.index()
    named = checkpoint.shard_names()
    beside = [f.name for f in checkpoint.files if f.kind == "shard" and "/" not in f.name]
    beside = [name for name in beside if not _NO_INDEX.match(name)]
    if index is None and SINGLE_SHARD_NAME not in named and len(beside) > 1:
        yield Lack(
            "index-missing",
            INDEX_NAME,
            f"No {INDEX_NAME} says what is in the {len(beside)} weight files of "
            f"{checkpoint.name}; transformers does not load them.",
        )
    gone = _gone({*named, *beside})
    if gone:
        yield Lack("shard-missing", gone[0], f"{_some(gone)} not there.")
    if index is not None:
        unlisted = [name for name in beside if name not in named and _NUMBERED.fullmatch(name)]
        for name in unlisted:
            yield Lack(
                "shard-unlisted",
                name,
                f"{checkpoint.where(name)} is not named in the index beside it.",
            )
    if not gone and layers and len(headers) == len(named):
        missing = _missing_layers(headers.values(), layers)
        if missing:
            yield Lack(
                "layers-missing",
                INDEX_NAME if index else next(iter(headers)),
                f"The config has {layers} layers; the weights have no tensors for "
                f"{_ranges(missing)}.",
            )


def require_complete(checkpoint: Checkpoint, layers: int | None) -> None:
    """Refuse a checkpoint that has only a part of its weights.

    Weights that were not fetched (Git-LFS pointers) are assumed to be complete.

    Args:
        checkpoint: what `open_checkpoint` found; without any weights it passes.
        layers: how many layers the config says its text part has.

    Raises:
        WeightsError: something is missing; says what to do.
    """
    try:
        headers = {} if checkpoint.is_remote else checkpoint.headers()
    except WeightsError:
        headers = {}  # what reads the weights says what is wrong with them
    try:
        lack = next(lacks(checkpoint, headers, layers), None)
    except WeightsError:
        return
    if lack:
        raise WeightsError(
            f"{lack.message} Half a model cannot be converted; --config-only leaves the weights "
            "out. See everything that is wrong with: yarncli check SOURCE"
        )


def layers_of(checkpoint: Checkpoint) -> int | None:
    """How many layers the weights have by the config; `None` where that cannot be read."""
    from yarncli.config.reading import read_rope

    try:
        return read_rope(checkpoint.config().value).stored_layers
    except CheckpointError:
        return None


def _gone(names: Iterable[str]) -> list[str]:
    """Missing shards of a numbered set; a name like `…-00002-of-00007` states its size."""
    sets: defaultdict[tuple[str, str, int], set[int]] = defaultdict(set)
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            sets[match[1], match[3], len(match[2])].add(int(match[2]))
    found: list[str] = []
    for (stem, total, digits), numbers in sets.items():
        if int(total) <= _MOST_SHARDS:
            absent = sorted(set(range(1, int(total) + 1)) - numbers)
            found += [f"{stem}-{n:0{digits}}-of-{total}.safetensors" for n in absent]
    return found


def _missing_layers(headers: Iterable[Header], layers: int) -> list[int]:
    """Layers without any tensor; none where the names of the tensors do not count layers."""
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    for header in headers:
        for name in header.tensors:
            if match := _LAYER.search(name):
                stacks[name[: match.start(1)]].add(int(match[1]))
    texts = [found for stack, found in stacks.items() if not _OTHER_PART.search(stack)]
    wanted = set(range(layers))
    if not texts or any(wanted <= found for found in texts):
        return []
    return sorted(wanted - max(texts, key=len))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"


def _ranges(numbers: list[int]) -> str:
    """`layers 3, 8–12`: counted from 0, as the tensors are named."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs[:8]]
    more = f" and {len(runs) - 8} more groups" if len(runs) > 8 else ""
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(texts)}{more}"
