"""Rules on weights: the index, the shards it names and their headers; tensors are never read."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.checkpoint.completeness import lacks, layers_of
from yarncli.checkpoint.safetensors import Header, Index, is_lfs_pointer
from yarncli.checkpoint.source import INDEX_NAME, SINGLE_SHARD_NAME, Checkpoint
from yarncli.errors import WeightsError
from yarncli.jsontext.text import Path
from yarncli.rules.catalogue import RULES
from yarncli.rules.finding import Edit, Finding, Severity

# At most so many findings of one kind: each searches for its line in the index, which may be large.
_MANY = 20
_POINTER_SIZE = 1024  # bytes; a Git-LFS pointer is always smaller


def check_weights(checkpoint: Checkpoint, *, require_weights: bool = False) -> list[Finding]:
    """Everything wrong with the index and the shard headers of a checkpoint.

    Args:
        checkpoint: what `open_checkpoint` found.
        require_weights: whether weights that were not fetched are an error.

    Raises:
        HubError: a header cannot be fetched.
        CheckpointError: the index cannot be read at all.
    """
    found = [
        _finding(checkpoint, "lfs-pointer", name, "is a Git-LFS pointer; its content was not "
                 "checked.", severity="error" if require_weights else None)
        for name in lfs_pointers(checkpoint)
    ]  # fmt: skip
    # Without a usable index it is not known which files belong to the model, so nothing more can
    # be checked.
    pointers = {finding.file for finding in found}
    if checkpoint.where(INDEX_NAME) in pointers:
        return found
    try:
        index = checkpoint.index()
    except WeightsError as error:
        return [*found, _finding(checkpoint, "index-damaged", INDEX_NAME, str(error))]
    try:
        names = checkpoint.shard_names()
    except WeightsError as error:
        return [*found, _finding(checkpoint, "ambiguous-weights", SINGLE_SHARD_NAME, str(error))]
    if not names and require_weights and not any(f.is_weights for f in checkpoint.files):
        return [_finding(checkpoint, "shard-missing", SINGLE_SHARD_NAME, "has no weights.")]
    headers: dict[str, Header] = {}
    for name in names:
        if checkpoint.where(name) in pointers:
            continue
        if checkpoint.file(name) is None:
            continue
        try:
            headers[name] = checkpoint.header(name)
        except WeightsError as error:
            found.append(_finding(checkpoint, "shard-damaged", name, str(error)))
    found += _missing_shards(checkpoint, names, index)
    duplicates = list(_duplicates(checkpoint, headers))
    found += duplicates
    if index is not None:
        found += _disagreements(checkpoint, index, headers)
    layers = layers_of(checkpoint) if headers else None
    missing = list(lacks(checkpoint, headers, layers))
    # A new index, and a check of the total size, need the headers of all shards.
    whole = len(headers) == len(names) and {lack.rule for lack in missing} <= {"index-missing"}
    for lack in missing:
        can_index = lack.rule == "index-missing" and whole and not duplicates
        edit = _new_index(headers) if can_index else None
        found.append(_finding(checkpoint, lack.rule, lack.file, lack.message, edit=edit))
    if index is not None and whole:
        found += _total_size(checkpoint, index, headers)
    return found


def lfs_pointers(checkpoint: Checkpoint) -> Iterator[str]:
    """The names of local weight files that are Git-LFS pointers."""
    if checkpoint.is_remote:
        return
    for file in checkpoint.files:
        small = 0 < file.size < _POINTER_SIZE and not file.problem
        if file.is_weights and small and is_lfs_pointer(checkpoint.read_bytes(file.name)):
            yield file.name


def _finding(
    checkpoint: Checkpoint,
    rule: str,
    name: str,
    message: str,
    *,
    severity: Severity | None = None,
    path: Path = (),
    edit: Edit | None = None,
) -> Finding:
    found, where = RULES[rule], checkpoint.where(name)
    if not message.startswith(where):
        message = message if message[0].isupper() or path else f"{where} {message}"
    line = _line(checkpoint, path[-1]) if path else None
    return Finding(
        found, severity=severity or found.severity, file=where, line=line, path=path,
        message=message, edit=edit,
    )  # fmt: skip


def _line(checkpoint: Checkpoint, key: str | int) -> int | None:
    """The line of the index on which a key stands."""
    text = checkpoint.read_bytes(INDEX_NAME, limit=1 << 30)
    at = text.find(json.dumps(key).encode())
    return None if at < 0 else text.count(b"\n", 0, at) + 1


def _missing_shards(
    checkpoint: Checkpoint, names: tuple[str, ...], index: Index | None
) -> Iterator[Finding]:
    """One finding for each shard that is not there; the last of many stands for the rest."""
    placed: defaultdict[str, list[str]] = defaultdict(list)
    for tensor, shard in index.weight_map.items() if index else ():
        placed[shard].append(tensor)
    missing = [name for name in names if checkpoint.file(name) is None]
    for name in missing[:_MANY]:
        tensors = placed[name]
        yield _finding(
            checkpoint,
            "shard-missing",
            INDEX_NAME,
            f"The index places {_some(tensors)} in {name}, which is not there.",
            path=("weight_map", tensors[0]) if tensors else (),
        )
    if rest := missing[_MANY:]:
        message = f"The index names {len(rest):,} more files that are not there."
        yield _finding(checkpoint, "shard-missing", INDEX_NAME, message)


def _duplicates(checkpoint: Checkpoint, headers: Mapping[str, Header]) -> Iterator[Finding]:
    holders: dict[str, str] = {}
    twice: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, header in headers.items():
        for tensor in header.tensors:
            if tensor in holders:
                twice[holders[tensor], name].append(tensor)
            holders.setdefault(tensor, name)
    for (first, second), tensors in twice.items():
        message = f"{second} and {first} both hold {_some(tensors)}."
        yield _finding(checkpoint, "tensor-duplicate", second, message, path=())


def _disagreements(
    checkpoint: Checkpoint, index: Index, headers: Mapping[str, Header]
) -> Iterator[Finding]:
    promised: defaultdict[str, list[str]] = defaultdict(list)
    for tensor, shard in index.weight_map.items():
        if shard in headers and tensor not in headers[shard].tensors:
            promised[shard].append(tensor)
    for shard, tensors in itertools.islice(promised.items(), _MANY):
        holder = next((name for name, h in headers.items() if tensors[0] in h.tensors), None)
        instead = f" ({tensors[0]} is in {holder})" if holder else ""
        yield _finding(
            checkpoint,
            "tensor-missing",
            INDEX_NAME,
            f"The index places {_some(tensors)} in {shard}, which does not have "
            f"{'it' if len(tensors) == 1 else 'them'}{instead}.",
            path=("weight_map", tensors[0]),
        )
    for shard, header in headers.items():
        unlisted = [tensor for tensor in header.tensors if tensor not in index.weight_map]
        if unlisted:
            message = f"{shard} holds {_some(unlisted)}, which the index does not list."
            yield _finding(checkpoint, "tensor-unlisted", INDEX_NAME, message)


def _total_size(
    checkpoint: Checkpoint, index: Index, headers: Mapping[str, Header]
) -> Iterator[Finding]:
    total = sum(t.nbytes for header in headers.values() for t in header.tensors.values())
    if index.total_size is not None and index.total_size != total:
        path = ("metadata", "total_size")
        message = f"metadata.total_size is {index.total_size:,}; the tensors have {total:,} bytes."
        edit = Edit({path: total})
        yield _finding(checkpoint, "index-size", INDEX_NAME, message, path=path, edit=edit)


def _new_index(headers: Mapping[str, Header]) -> Edit:
    """The index that `save_pretrained` would have written for these shards."""
    weight_map = {tensor: name for name, header in headers.items() for tensor in header.tensors}
    total = sum(t.nbytes for header in headers.values() for t in header.tensors.values())
    values: dict[Path, Any] = {
        ("metadata",): {"total_size": total},
        ("weight_map",): dict(sorted(weight_map.items())),
    }
    return Edit(values)


def _some(tensors: list[str]) -> str:
    more = f" and {len(tensors) - 1:,} more" if len(tensors) > 1 else ""
    return f"{tensors[0][:160]}{more}" if tensors else "nothing"
