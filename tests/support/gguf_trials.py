"""Small changes of a grown model, and whether llama.cpp makes of each what yarncli foretells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.gguf_files import Arrays, write_gguf
from support.gguf_grown import typed
from support.llamacpp import Job, Outcome
from support.llamacpp import run as run_jobs
from yarncli.gguf.facts import FREQS, LONG, SHORT, WINDOW, Gguf, Tensor, Typed
from yarncli.gguf.loading import Failure, expected_factors
from yarncli.gguf.runtime import Computed, run, run_windowed

TOKENS = [(7 * i) % 60 + 1 for i in range(32)]
# Every key that changes the rotation of some architecture, with numbers that are nobody's default.
YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.1,
    "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0,
    "rope.scaling.yarn_ext_factor": 0.7, "rope.scaling.yarn_attn_factor": 1.3,
    "rope.scaling.yarn_log_multiplier": 0.05, "rope.scaling.alpha": 3.0,
    "rope.freq_base_swa": 77.0,
}  # fmt: skip
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0,
          "rope.scaling.attn_factor": 1.25}  # fmt: skip
LISTS = {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 64}

# Two changes can take away what a model needs apart from RoPE, of which yarncli says nothing.
_LACKS = {"window": ("key not found in model",), "part": ("has wrong shape",)}

Model = tuple[dict[str, Typed], Arrays]


def trials(name: str, model: Model) -> dict[str, Model]:
    """The model plain, and changed in one respect each."""
    keys, arrays = model
    gguf = as_gguf(*model)
    row, sizes = gguf.row, gguf.sizes()
    assert row is not None
    assert sizes is not None
    freqs = np.linspace(1, 3, expected_factors(row, sizes), dtype=np.float32)
    if name == "step35":  # its file has as many as the layers with a window could use
        freqs = np.linspace(1, 3, sizes.rotary_dim, dtype=np.float32)

    def changed(**settings: Any) -> Model:
        return with_settings(name, keys, settings), arrays

    found = {
        "plain": model,
        "linear": changed(**LINEAR),
        "yarn": changed(**YARN),
        "switch": changed(**{"rope.scaling.finetuned": False}),
        "window": changed(**{WINDOW: None if row.windowed else 16}),
    }
    if row.rotates != "none":
        found["tensor"] = keys, {**arrays, FREQS: freqs}
        found["lists"] = changed(**LISTS)[0], {**arrays, LONG: freqs * 2, SHORT: freqs}
    if not row.mla:
        found["part"] = changed(**{"rope.dimension_count": sizes.rotary_dim // 2})
    if "blk.1.attn_k.weight" in arrays:
        found["scale"] = keys, {**arrays, "blk.1.attn_k.scale": np.full(1, 2, np.float32)}
    return found


def faults(models: Mapping[str, Model], folder: Path) -> Iterator[str]:
    """Run the trials of one architecture, and give what is otherwise than yarncli foretells."""
    jobs = [
        Job(str(write_gguf(folder / f"{n}.gguf", *model)), TOKENS, watch=True)
        for n, model in enumerate(models.values())
    ]
    outcomes = dict(zip(models, run_jobs(jobs), strict=True))
    for job in jobs:
        Path(job.path).unlink()
    for name, model in models.items():
        if any(words in outcomes[name].said for words in _LACKS.get(name, ())):
            continue
        found = [*disagreements(model, outcomes[name])]
        if name != "plain" and not found and outcomes["plain"].ran:
            found += compared(name, model, outcomes[name], outcomes["plain"])
        yield from (f"{name}: {fault}" for fault in found)


def with_settings(
    name: str, keys: Mapping[str, Typed], settings: Mapping[str, Any]
) -> dict[str, Typed]:
    """The keys with others set, or removed where the value is `None`."""
    gone = {f"{name}.{key}" for key in settings}
    kept = {key: value for key, value in keys.items() if key not in gone}
    added = {f"{name}.{k}": typed(v) for k, v in settings.items() if v is not None}
    return kept | added


def as_gguf(keys: Mapping[str, Typed], arrays: Arrays) -> Gguf:
    """What a reader makes of a model."""
    return Gguf(keys, {
        name: Tensor("F32", array.shape[::-1],
                     tuple(array.tolist()) if name.startswith("rope_") else None)
        for name, array in arrays.items()
    })  # fmt: skip


def disagreements(model: Model, outcome: Outcome) -> Iterator[str]:
    """What llama.cpp does with a model, where yarncli foretells something else."""
    gguf = as_gguf(*model)
    found, row = run(gguf), gguf.row
    assert row is not None
    if isinstance(found, Failure):
        kinds = {
            "no RoPE": outcome.ran and not outcome.rotations,
            "aborts": outcome.aborted,
            "refuses": not outcome.ran and not outcome.aborted,
        }
        if not kinds[found.kind]:
            yield f"{found.kind} ({found.because}): {_said(outcome)}"
        return
    if not outcome.ran:
        yield f"runs: {_said(outcome)}"
        return
    windowed = gguf.windowed_blocks
    if windowed is not None and not row.compress and windowed != set(outcome.windowed):
        yield f"windowed {sorted(windowed)}: {outcome.windowed}"
    sliding = run_windowed(gguf)
    for rotation in outcome.rotations:
        layer = rotation["layer"]
        wanted = sliding if layer in outcome.windowed else found
        if row.compress:
            wanted = found if gguf.get("attention.compress_ratios")[layer] else sliding
        assert isinstance(wanted, Computed)
        yield from _differences(gguf, wanted, rotation)
    yield from _layers(gguf, outcome)


def _said(outcome: Outcome) -> str:
    if outcome.ran:
        return f"runs, {len(outcome.rotations)} rotations"
    how = "aborts" if outcome.aborted else "refuses"
    return f"{how}: {outcome.said.strip().splitlines()[-1].rpartition('llama.cpp/')[2]}"


def _differences(gguf: Gguf, wanted: Computed, rotation: Mapping[str, Any]) -> Iterator[str]:
    row, inv_freq, step = gguf.row, rotation["inv_freq"], rotation["step"]
    assert row is not None
    where = f"{rotation['name']} of layer {rotation['layer']}"
    if rotation["error"] > 1e-3:
        yield f"{where} is no rotation: {rotation['error']}"
    same = len(inv_freq) == len(wanted.inv_freq) and all(
        abs(math.remainder(a - b, 2 * math.pi / step)) < 1e-5 + 1e-4 * abs(b)
        for a, b in zip(inv_freq, wanted.inv_freq, strict=True)
    )
    if not same:
        yield f"{where} {[*map(_short, wanted.inv_freq)]}: {[*map(_short, inv_freq)]}"
    if not math.isclose(rotation["scale"], wanted.attention_factor, rel_tol=1e-4):
        yield f"{where} × {wanted.attention_factor:.5g}: × {rotation['scale']:.5g}"
    is_mrope = rotation["mode"] & 8
    if is_mrope and not gguf.is_mrope:
        yield f"{where} is multimodal"
    pairing = "neox" if is_mrope else row.rotates
    if rotation["pairing"] != pairing and rotation["width"] > 2 and not _is_indexer(rotation):
        yield f"{where} {pairing}: {rotation['pairing']}"


def _is_indexer(rotation: Mapping[str, Any]) -> bool:
    """Whether it belongs to what chooses tokens to attend to; its heads are the widest here."""
    return bool(rotation["head"] == 64)


def _short(number: float) -> str:
    return f"{number:.4g}"


def _layers(gguf: Gguf, outcome: Outcome) -> Iterator[str]:
    """Which layers rotate, and what happens to the result."""
    row = gguf.row
    assert row is not None
    rotated = {rotation["layer"] for rotation in outcome.rotations}
    attention = {int(layer) for layer in outcome.softmax}
    blocks = set(range(gguf.get("block_count")))  # graniteswitch has one more for its router
    if row.full_nope and gguf.window and not rotated <= set(outcome.windowed):
        yield f"only {outcome.windowed} rotate: {sorted(rotated)}"
    if not row.hybrid and not blocks <= attention:
        yield f"attention in every layer: {sorted(attention)}"
    if not (row.nope or (row.full_nope and gguf.window)) and rotated != attention & blocks:
        yield f"every layer rotates: {sorted(rotated)} of {sorted(attention)}"
    normed = {rotation["normed"] for rotation in outcome.rotations}
    if normed != {row.late_norm}:
        yield f"norm after the rotation {row.late_norm}: {normed}"


def compared(name: str, model: Model, outcome: Outcome, plain: Outcome) -> Iterator[str]:
    """What changes from the plain model, where yarncli foretells something else."""
    gguf = as_gguf(*model)
    found, row = run(gguf), gguf.row
    assert row is not None
    if not (outcome.ran and isinstance(found, Computed)):
        return
    for layer, scale in plain.softmax.items():
        ratio, wanted = outcome.softmax[layer] / scale, found.softmax_scale_ratio
        if not math.isclose(ratio, wanted, rel_tol=1e-4):
            yield f"softmax of layer {layer} × {wanted:.5g}: × {ratio:.5g}"
    if name == "scale" and "blk.1.attn_k_norm.weight" not in gguf.tensors:
        sizes = [r["size"] for r in outcome.rotations if r["layer"] == 1]
        before = [r["size"] for r in plain.rotations if r["layer"] == 1]
        doubled = any(abs(a / b - 2) < 0.01 for a, b in zip(sizes, before, strict=True))
        if sizes and doubled != row.k_scale:
            yield f"attn_k.scale counts {row.k_scale}: {doubled}"
