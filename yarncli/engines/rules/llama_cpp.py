"""llama.cpp: what its converter writes into a GGUF file, then what the runtime does with that."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

from yarncli.engines.gguf import convert_to_gguf, full_scope, is_turned, sizes, used
from yarncli.engines.shared import unmeant
from yarncli.engines.tables import Row, find_row, named_classes
from yarncli.engines.types import Engine, Launch, LoaderError, Model, NotKnown, Reading, Used
from yarncli.errors import ConfigError
from yarncli.gguf.architectures import Architecture, Sliding
from yarncli.gguf.facts import ATTN_FACTOR, CONTEXT, FACTOR, FREQS, THETA, TYPE, Gguf, typed
from yarncli.gguf.runtime import RUNTIME_THETA
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """Converter and runtime together; the server accepts as many tokens as the file states.

    Raises:
        LoaderError: the converter, gguf-py or the runtime refuses the model.
        EngineCrash: the runtime aborts.
        NotSupported: there is no converter for the model.
        NotKnown: its converter was not examined, or the numbers are out of all range.
    """
    gguf = _file(model)
    row = find_row("llama.cpp", model)
    main = full_scope(model)
    scopes = {}
    for name in model.rope.scopes:
        try:
            scopes[name] = used(gguf, sizes(model, row, name), windowed=name != main)
        except ConfigError as error:
            raise NotKnown(f"Nobody examined what it computes here: {error}") from error
    length = int(gguf.get(CONTEXT))
    faults = unmeant(model) + ((_WINDOWED,) if _leaves_windowed_layers(model, gguf) else ())
    return Reading(scopes, served_length=length, notes=tuple(_notes(model, gguf)), faults=faults)


def _file(model: Model) -> Gguf:
    row = find_row("llama.cpp", model)
    row.require_class(model)
    _insist_on_head(model)
    for key in ("rope_scaling", "rope_parameters"):
        if model.text.get(key) is not None and not isinstance(model.text[key], Mapping):
            raise LoaderError(f"Its converter fails: {key} is not an object.")
    block = model.block("rope_scaling") or model.block("rope_parameters")
    if block.get("alpha") is not None:
        raise NotKnown(f"Nobody examined what its converter makes of alpha in {row.model_type}.")
    _insist_on_tried(model, row)
    try:
        gguf = convert_to_gguf(model, row)
    except ConfigError as error:
        raise NotKnown(f"Nobody examined what its converter writes here: {error}") from error
    if "inner_theta" not in row.entry:
        return gguf
    inner = model.block(row.entry["inner_theta"])
    if "rope_theta" not in inner:
        raise LoaderError(f"Its converter fails without {row.entry['inner_theta']}.rope_theta.")
    return gguf.changed({gguf.name(THETA): typed(THETA, inner["rope_theta"])})


def _insist_on_head(model: Model) -> None:
    """Insist on what makes the converter take a draft for EAGLE-3 (`conversion/llama.py:50`).

    Raises:
        NotKnown: it is missing.
    """
    is_eagle = any("Eagle3" in name for name in named_classes(model))
    if is_eagle and not (model.rope.num_hidden_layers == 1 and "draft_vocab_size" in model.text):
        raise NotKnown("Nobody examined what its converter makes of an EAGLE-3 draft of this kind.")


def _insist_on_tried(model: Model, row: Row) -> None:
    """Insist on a shape of the RoPE setting that was examined for the model type.

    Raises:
        LoaderError: the converter wants a key of the one dict where transformers 5 nests it.
        NotKnown: it was not.
    """
    unsure = row.entry.get("unsure")
    kinds = {scope.parameters.rope_type for scope in model.rope.scopes.values()}
    is_flat = "rope_scaling" in model.text or is_turned(model)
    if {"flat": is_flat, "turned": is_turned(model)}.get(str(unsure), unsure in kinds):
        raise NotKnown(f"Nobody examined {row.model_type} with a RoPE setting of this shape.")
    if unsure == "flat":
        raise LoaderError("Its converter fails: KeyError 'partial_rotary_factor'.")


_WINDOWED = "windowed layers are not scaled, though the config gives all layers one setting"


def _leaves_windowed_layers(model: Model, gguf: Gguf) -> bool:
    """Whether layers that share the scaled scope rotate otherwise, as they are windowed."""
    rule = _sliding(gguf)
    if rule is None or rule.scaled or model.family.scopes or not model.rope.windowed_layers:
        return False
    (scope,) = model.rope.scopes.values()
    scaled = gguf.get(FACTOR, 1.0) != 1.0
    return scaled and not set(scope.layers).isdisjoint(model.rope.windowed_layers)


def _row(gguf: Gguf) -> Architecture:
    """What llama.cpp's graph computes; every architecture that a converter writes has a graph."""
    assert gguf.row is not None, gguf.architecture
    return gguf.row


def _sliding(gguf: Gguf) -> Sliding | None:
    return _row(gguf).sliding


def _notes(model: Model, gguf: Gguf) -> list[str]:
    kind = model.rope.model_type
    p = model.rope.scopes[full_scope(model)].parameters
    written = gguf.get(TYPE)
    notes = []
    if not gguf.has(THETA) and p.rope_theta != RUNTIME_THETA:
        notes.append(f"its converter writes no θ for {kind}; the runtime takes 10000")
    if p.rope_type in ("linear", "yarn", "dynamic") and written in (None, "none"):
        what = "switches scaling off" if written else "writes no scaling"
        notes.append(f"its converter {what} for {kind}, whatever the setting")
    if p.rope_type == "llama3" and FREQS not in gguf.tensors:
        notes.append(f"llama3 is dropped for {kind}")
    if p.rope_type == "dynamic":
        notes.append("dynamic is dropped")
    if gguf.has("rope.scaling.yarn_attn_factor") and written == "yarn":
        notes.append("the runtime ignores yarn_attn_factor in the file and uses 0.1·ln(factor)+1")
    dead = not _row(gguf).betas and {p.beta_fast, p.beta_slow} - {None, 32.0, 1.0}
    if p.rope_type == "yarn" and dead:
        notes.append("custom betas are not read from the file")
    if p.rope_type == "yarn" and p.truncate is False:
        notes.append("truncate: false is not known")
    return notes


def launch(parts: Launch) -> str:
    """`llama-server` on the converted file."""
    words = ["llama-server", "-m", "MODEL.gguf", "-c", str(parts.length), *parts.flags]
    return shlex.join(words)


def repair(model: Model, intended: Mapping[str, Used], reading: Reading) -> tuple[str, ...] | None:
    """Flags that replace what the file lacks; `None` where no flag can."""
    gguf = _file(model)
    flags: list[str] = []
    if reading.faults:
        return None
    if reading.served_length is not None and reading.served_length < model.length:
        flags += ["--override-kv", f"{gguf.name(CONTEXT)}=int:{model.length}"]
    main = full_scope(model)
    # A flag reaches the full layers, a key of the file all of them.
    if any(not _same(intended[n], used) for n, used in reading.scopes.items() if n != main):
        return None
    asked, used = intended[main], reading.scopes[main]
    frequencies = _frequency_flags(asked, used, model.length, gguf)
    if frequencies is None or asked.softmax_scale_ratio != used.softmax_scale_ratio:
        return None
    if any("scal" in word for word in frequencies) and _is_mixed(model, gguf):
        return None
    natural = used.attention_factor
    if "--rope-scaling" in frequencies:
        p = asked.parameters
        natural = formulas.get_mscale(p.resolved_factor()) if p.rope_type == "yarn" else 1.0
    ratio = asked.attention_factor / natural
    if not math.isclose(ratio, 1.0, rel_tol=1e-6):
        if len(reading.scopes) > 1 or _row(gguf).softmax or _row(gguf).compress:
            return None  # the key would change sliding layers and the softmax scale too
        frequencies += ["--override-kv", f"{gguf.name(ATTN_FACTOR)}=float:{ratio:.7g}"]
    return (*flags, *frequencies)


def _is_mixed(model: Model, gguf: Gguf) -> bool:
    """Whether flags that scale would miss layers, or change the softmax scale of MLA."""
    windowed = _sliding(gguf) is not None and bool(model.rope.windowed_layers)
    return _row(gguf).softmax or (windowed and not model.family.scopes)


def _same(asked: Used, used: Used) -> bool:
    p, q = asked.parameters, used.parameters
    if p.rotary_dim != q.rotary_dim or asked.attention_factor != used.attention_factor:
        return False
    pairs = zip(p.inv_freq(1), q.inv_freq(1), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)


def _frequency_flags(intended: Used, used: Used, length: int, gguf: Gguf) -> list[str] | None:
    """Flags for the frequencies, empty where the file gives them already."""
    p, q = intended.parameters, used.parameters
    if p.rotary_dim != q.rotary_dim:
        return None
    lengths = {length, min(length, p.original_length)}
    pairs = [pair for n in lengths for pair in zip(p.inv_freq(n), q.inv_freq(n), strict=True)]
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs):
        return []
    if gguf.tensors or _row(gguf).compress:
        return None  # factors of a tensor would come on top, and the base is another
    return _scaling_flags(p, q, gguf.architecture)


def _scaling_flags(p: RopeParameters, q: RopeParameters, name: str) -> list[str] | None:
    # The key of θ, unlike --rope-freq-base, reaches windowed layers too.
    theta = ["--override-kv", f"{name}.rope.freq_base=float:{p.rope_theta:.10g}"]
    theta = theta if p.rope_theta != q.rope_theta else []
    match p.rope_type:
        case "default":
            return theta if q.rope_type == "default" else ["--rope-scaling", "none", *theta]
        case "linear":
            factor = f"{p.resolved_factor():.10g}"
            return ["--rope-scaling", "linear", "--rope-scale", factor, *theta]
        case "yarn" if p.truncate is not False:
            flags = ["--rope-scaling", "yarn", "--rope-scale", f"{p.resolved_factor():.10g}"]
            flags += ["--yarn-orig-ctx", str(p.original_length), *theta]
            for option in ("beta_fast", "beta_slow"):
                value = getattr(p, option)
                if value is not None:
                    flags += [f"--yarn-{option.replace('_', '-')}", f"{value:g}"]
            return flags
    return None


ENGINE = Engine(
    id="llama.cpp",
    name="llama.cpp",
    versions="v0.5.0, with transformers 5 beside its converter",
    read=read,
    launch=launch,
    about=(
        "yarn: the attention scale is always 0.1·ln(factor)+1 times the key "
        "`rope.scaling.attn_factor`, which the converter never writes; `attention_factor`, mscale, "
        "betas and truncate are lost.",
        "The server accepts at most max_position_embeddings tokens, for every type.",
        "llama3 is kept only in files of Llama-class models, except granite and SmolLM3; dynamic "
        "is always lost.",
    ),
    repair=repair,
)
