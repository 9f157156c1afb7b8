"""Rules on the RoPE of a GGUF file: what llama.cpp refuses, misreads or does not read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from yarncli.config.families.table import FAMILIES
from yarncli.gguf.dead import dead_keys
from yarncli.gguf.facts import (
    ATTN_FACTOR,
    CONTEXT,
    FACTOR,
    FREQS,
    KEY_TYPES,
    LONG,
    OLD_FACTOR,
    ORIGINAL,
    SHORT,
    THETA,
    TYPE,
    Gguf,
    Typed,
    typed,
)
from yarncli.gguf.intended import Intended
from yarncli.gguf.loading import TYPES, Failure, failures
from yarncli.gguf.plan import GgufPlan
from yarncli.gguf.reading import compare
from yarncli.gguf.runtime import RUNTIME_THETA, STILL, Computed, run, run_windowed, scaling_factor
from yarncli.rules.catalogue import RULES
from yarncli.rules.finding import Finding, Severity

SPLIT_COUNT = "split.tensors.count"
_LARGEST = 3e38  # just below the largest number in single precision
_RULE_OF = {
    "type": "gguf-type-unknown",
    "value type": "gguf-value-type",
    "tensor": "gguf-tensor-refused",
    "factors": "gguf-factors-damaged",
    "other": "gguf-not-loaded",
}


def check_gguf(
    gguf: Gguf, *, where: str, against: Intended | None = None, tensor_count: int | None = None
) -> list[Finding]:
    """Everything wrong with the RoPE of a file.

    Args:
        gguf: the file; of a split model with the tensors of all its files.
        where: what to call it.
        against: the checkpoint that it should compute like.
        tensor_count: how many tensors all files of a split model hold; `None` if it has one file.
    """
    found = [_of_failure(gguf, where, failure) for failure in _failures(gguf)]
    found += _splits(gguf, where, tensor_count)
    computed = run(gguf)
    if isinstance(computed, Computed) and computed.rotation is None:
        found += _factors(gguf, where) or [_no_numbers(gguf, where)]
    elif isinstance(computed, Computed):
        for rule in (_ignored_tensor, _factors, _scaled_twice, _scaling, _longrope, _theta,
                     _windowed, _dead):  # fmt: skip
            found += rule(gguf, where)
        if against is not None:
            found += _against(gguf, where, computed, against)
    return found


def _finding(
    where: str,
    rule: str,
    key: str,
    message: str,
    *,
    severity: Severity | None = None,
    plan: GgufPlan | None = None,
) -> Finding:
    known = RULES[rule]
    return Finding(
        known, severity=severity or known.severity, file=where, line=None,
        path=(key,) if key else (), message=message, gguf_edit=plan,
    )  # fmt: skip


def _set(keys: Mapping[str, Typed]) -> GgufPlan:
    return GgufPlan(keys=keys, drop=())


def _failures(gguf: Gguf) -> Iterator[Failure]:
    seen = set()
    for failure in failures(gguf, gguf.row, gguf.sizes()):
        if (failure.fault, failure.key) not in seen:
            seen.add((failure.fault, failure.key))
            yield failure


def _of_failure(gguf: Gguf, where: str, failure: Failure) -> Finding:
    does = {
        "refuses": "llama.cpp does not load the file",
        "aborts": "llama.cpp aborts when it loads the file, and a server ends with it",
        "no RoPE": "llama.cpp computes no RoPE from the file",
    }[failure.kind]
    plan = None
    old = gguf.keys.get(failure.key)
    if old is not None and failure.fault == "type":
        small = str(old.value).lower()
        plan = _set({failure.key: Typed("str", small)}) if small in TYPES else None
    if old is not None and failure.fault == "value type":
        plan = _retyped(gguf, failure.key, old)
    severity: Severity | None = "note" if failure.kind == "no RoPE" else None
    message = f"{does}: {failure.because}."
    return _finding(
        where, _RULE_OF[failure.fault], failure.key, message, severity=severity, plan=plan
    )


def _retyped(gguf: Gguf, name: str, old: Typed) -> GgufPlan | None:
    """The same number with the type that llama.cpp reads; `None` where that type cannot hold it."""
    key = name.removeprefix(gguf.name(""))
    kind, value = KEY_TYPES[key], old.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if kind == "f32" and abs(value) < _LARGEST:
        return _set({name: typed(key, value)})
    if kind == "u32" and 0 <= value < 2**32 and value == int(value):
        return _set({name: Typed("u32", int(value))})
    return None


def _splits(gguf: Gguf, where: str, tensor_count: int | None) -> Iterator[Finding]:
    stated = gguf.keys.get(SPLIT_COUNT)
    if stated is None or tensor_count is None or stated.value == tensor_count:
        return
    plan = _set({SPLIT_COUNT: Typed(stated.type, tensor_count)})
    message = f"{SPLIT_COUNT} is {stated.value}; the files hold {tensor_count} tensors."
    yield _finding(where, "gguf-split-count", SPLIT_COUNT, message, plan=plan)


def _ignored_tensor(gguf: Gguf, where: str) -> Iterator[Finding]:
    row = gguf.row
    for name in (FREQS, LONG, SHORT):
        if row and row.rope_freqs == "loaded" and name in gguf.tensors:
            message = f"llama.cpp's graph of {row.name} loads {name} and does not use it."
            yield _finding(where, "gguf-tensor-refused", name, message, severity="warning")


def _factors(gguf: Gguf, where: str) -> list[Finding]:
    found = []
    row = gguf.row
    for name in (FREQS, LONG, SHORT):
        ignored = name == FREQS and row is not None and row.rope_freqs != "used"
        values = None if name not in gguf.tensors or ignored else gguf.factors(name)
        bad = [n for n, k in enumerate(values or ()) if not 0 < k < math.inf]
        if values and bad:
            message = f"{name} holds {values[bad[0]]} at place {bad[0]}; factors must be positive."
            found.append(_finding(where, "gguf-factors-damaged", name, message))
    return found


def _no_numbers(gguf: Gguf, where: str) -> Finding:
    theta, factor = gguf.get(THETA, RUNTIME_THETA), scaling_factor(gguf)
    message = (
        f"llama.cpp computes no usable frequencies from θ {theta:g} and the factor {factor:g}: the "
        "model silently writes nonsense."
    )
    return _finding(where, "gguf-not-loaded", gguf.name(THETA), message)


def _scaled_twice(gguf: Gguf, where: str) -> Iterator[Finding]:
    kind, factor = gguf.get(TYPE, "linear"), scaling_factor(gguf)
    row = gguf.row
    used = FREQS in gguf.tensors and row is not None and row.rope_freqs == "used"
    values = gguf.factors(FREQS) if used else None
    changes = any(not math.isclose(k, 1) and k < STILL / 2 for k in values or ())
    if changes and factor != 1:
        message = (
            f"{FREQS} changes the frequencies, and {kind} by {factor:g} changes them again: "
            "llama.cpp applies both."
        )
        yield _finding(where, "gguf-scaled-twice", FREQS, message)


def _scaling(gguf: Gguf, where: str) -> Iterator[Finding]:
    kind, factor, window = gguf.get(TYPE), scaling_factor(gguf), int(gguf.get(CONTEXT))
    if kind is None and factor != 1 and not {LONG, SHORT} & gguf.tensors.keys():
        key = FACTOR if gguf.has(FACTOR) else OLD_FACTOR
        message = f"{gguf.name(key)} is {factor:g} without a type, so llama.cpp uses linear."
        yield _finding(where, "gguf-type-missing", gguf.name(key), message)
    original = int(gguf.get(ORIGINAL, 0))
    if kind == "yarn" and factor > 1 and not original:
        message = (
            f"{gguf.name(ORIGINAL)} is missing, so llama.cpp takes {window:,} as the original "
            f"window. If {window:,} is the extended one, the original is {window / factor:,.0f}."
        )
        yield _finding(where, "gguf-original-missing", gguf.name(ORIGINAL), message)
    meant = int(min(original * factor, 2.0**32) + 0.5) if factor > 1 else 0
    if kind in ("yarn", "linear") and factor > 1 and original and window < meant < 2**32:
        plan = _set({gguf.name(CONTEXT): Typed("u32", meant)})
        message = (
            f"{gguf.name(CONTEXT)} is {window:,}; {kind} by {factor:g} over {original:,} gives "
            f"{meant:,} tokens, but servers accept no more than {window:,}."
        )
        yield _finding(where, "gguf-context-not-raised", gguf.name(CONTEXT), message, plan=plan)


def _longrope(gguf: Gguf, where: str) -> Iterator[Finding]:
    lists = [name for name in (LONG, SHORT) if name in gguf.tensors]
    if not lists or (gguf.row and gguf.row.rope_freqs == "loaded"):
        return
    factor, original = scaling_factor(gguf), gguf.get(ORIGINAL, gguf.get(CONTEXT))
    if factor != 1:
        message = f"The factors of {lists[0]} are divided by {factor:g} once more."
        yield _finding(where, "gguf-longrope", gguf.name(FACTOR), message, severity="warning")
    if gguf.factors(LONG) != gguf.factors(SHORT):
        message = f"With a context above {original:,} tokens, every text uses the long list."
        yield _finding(where, "gguf-longrope", LONG, message)


def _theta(gguf: Gguf, where: str) -> Iterator[Finding]:
    family = FAMILIES.get(gguf.architecture.replace("-", "_"))
    if gguf.has(THETA) or family is None or family.rope_theta == RUNTIME_THETA:
        return
    message = (
        f"{gguf.name(THETA)} is missing, so llama.cpp takes 10000; models of "
        f"{gguf.architecture} have {family.rope_theta:g}."
    )
    yield _finding(where, "gguf-theta-missing", gguf.name(THETA), message)


def _windowed(gguf: Gguf, where: str) -> Iterator[Finding]:
    scale = gguf.get(ATTN_FACTOR, 1.0)
    if gguf.window and not math.isclose(scale, 1.0, rel_tol=1e-6):
        name = gguf.name(ATTN_FACTOR)
        layers = f"layers with a window of {gguf.window:,} tokens"
        message = f"{name} is {scale:.5g}: it also changes {layers}."
        yield _finding(where, "gguf-windowed-temperature", name, message)


def _dead(gguf: Gguf, where: str) -> Iterator[Finding]:
    for dead in dead_keys(gguf):
        own = dead.name.startswith(gguf.name(""))
        if dead.misleads:
            rule = "gguf-dead-key" if own else "gguf-foreign-key"
            message = f"{dead.name} is {gguf.keys[dead.name].value}, which changes nothing: "
            yield _finding(where, rule, dead.name, f"{message}{dead.why}.")


def _against(gguf: Gguf, where: str, computed: Computed, against: Intended) -> Iterator[Finding]:
    found = compare(computed, against.setting, against.length)
    faults = []
    if not found.ratios:
        pairs = against.setting.rotary_dim // 2
        faults.append(f"it rotates {len(computed.inv_freq)} pairs of dimensions, not {pairs}")
    if found.worst is not None:
        ratio = found.ratios[found.worst]
        faults.append(f"the frequency of pair {found.worst} is {ratio:.4g} times the right one")
    if not math.isclose(found.attention_factor, 1.0, rel_tol=1e-6):
        right = against.setting.effective_attention_factor()
        faults.append(f"the attention factor is {computed.attention_factor:.5g}, not {right:.5g}")
    if against.windowed and gguf.window:
        other = run_windowed(gguf)
        alike = isinstance(other, Computed) and compare(other, against.windowed, against.length)
        if not alike or not alike.rotates_alike:
            faults.append(f"layers with a window of {gguf.window:,} tokens are rotated differently")
    if found.window:
        faults.append(f"the window is {computed.served_length:,}, not {against.length:,} tokens")
    if faults:
        message = f"llama.cpp computes something else than {against.name}: {'; '.join(faults)}."
        yield _finding(where, "gguf-differs", "", message)
