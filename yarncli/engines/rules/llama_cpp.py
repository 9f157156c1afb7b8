"""llama.cpp: what its converter writes into a GGUF file, then what the runtime does with that."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import longrope_scale_by_lengths, mla_softmax
from yarncli.engines.types import Engine, Launch, LoaderError, Model, NotKnown, Reading, Used
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

# The architecture name in the file, where it is not the model type.
_ARCHITECTURES = {
    "cohere": "command-r",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek2",
    "ernie4_5_moe": "ernie4_5-moe",
    "exaone_moe": "exaone-moe",
    "falcon_h1": "falcon-h1",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "glm": "chatglm",
    "glm4_moe": "glm4moe",
    "glm_moe_dsa": "glm-dsa",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "granitemoehybrid": "granitehybrid",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "kimi_k2": "deepseek2",
    "lfm2_moe": "lfm2moe",
    "llama4_text": "llama4",
    "mimo_v2_flash": "mimo2",
    "minimax_m2": "minimax-m2",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "modernbert": "modern-bert",
    "olmo3": "olmo2",
    "phi": "phi2",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl_text": "qwen2vl",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_vl_text": "qwen3vl",
    "step3p5": "step35",
}
_SAME_NAME = frozenset(
    """
    afmoe apertus arcee bitnet cohere2 dbrx dots1 ernie4_5 eurobert exaone4 falcon gemma gemma2 glm4
    granite granitemoe jais2 lfm2 llama minicpm3 mistral4 nemotron olmo olmo2 olmoe phi3 phimoe
    qwen2 qwen3 seed_oss smollm3 stablelm starcoder2
    """.split()
)
# Converters that write no RoPE key at all; the first set not even θ.
_WRITES_NO_THETA = frozenset({"gemma", "gemma2", "gpt_neox", "falcon", "glm", "stablelm", "phi"})
_WRITES_NO_SCALING = _WRITES_NO_THETA | {"dbrx"}
# Converters that switch scaling off after writing it.
_FORCES_NONE = frozenset(
    """
    cohere cohere2 cohere2_moe exaone_moe eurobert modernbert hunyuan_v1_dense
    hunyuan_v1_moe
    """.split()
)
# Types whose converter writes `rope_freqs.weight` for llama3 and whose graph loads it.
_ROPE_FREQS = frozenset(
    """
    apertus arcee exaone4 exaone_moe granite granitemoe granitemoehybrid llama llama4_text
    ministral3 mistral mixtral
    """.split()
)
_LINEAR_ONLY = frozenset({"gemma3_text", "gemma3n_text"})
_LONGROPE = frozenset({"phi3", "minicpm3"})
_LOG_MULTIPLIER = frozenset({"deepseek2", "glm-dsa", "mistral3", "mistral4"})
_BETA_KEYS = frozenset({"mistral3"})
_RUNTIME_THETA = 10000.0

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Gguf:
    """The RoPE part of a GGUF file."""

    architecture: str
    """The GGUF name of the architecture."""
    keys: Mapping[str, Value]
    """Its keys without `{architecture}.`."""
    tensors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Its tensors of frequency factors, by name."""


def architecture(model_type: str) -> str | None:
    """The GGUF name of a model type; `None` where its converter is not known here."""
    if model_type in _SAME_NAME:
        return model_type
    return _ARCHITECTURES.get(model_type)


def convert_to_gguf(model: Model, p: RopeParameters) -> Gguf:
    """What `convert_hf_to_gguf.py` writes for one RoPE setting.

    Reference: `conversion/base.py`, `TextModel.set_gguf_parameters`; `generate_extra_tensors` of
    the Llama and Phi-3 classes.

    Raises:
        LoaderError: the converter refuses the setting.
        NotKnown: the architecture's converter is not known.
    """
    kind = model.rope.model_type
    name = architecture(kind)
    if name is None:
        raise NotKnown(f"yarncli has no rule for what its converter writes for {kind}.")
    if kind in _LINEAR_ONLY and p.rope_type not in ("default", "linear", "proportional"):
        raise LoaderError(f"its converter takes linear scaling only for {kind}.")
    keys: dict[str, Value] = {"context_length": p.max_position_embeddings}
    if kind not in _WRITES_NO_THETA:
        keys["rope.freq_base"] = p.rope_theta
    if kind in _WRITES_NO_SCALING:
        return Gguf(name, keys)
    tensors: dict[str, tuple[float, ...]] = {}
    match p.rope_type:
        case "linear":
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": p.resolved_factor()}
        case "yarn":
            keys |= _yarn_keys(p, name)
        case "llama3" if kind in _ROPE_FREQS:
            plain = formulas.default_inv_freq(p.rope_theta, p.rotary_dim)
            ratios = tuple(a / b for a, b in zip(plain, p.inv_freq(), strict=True))
            tensors["rope_freqs.weight"] = ratios
        case "longrope":
            keys["rope.scaling.type"] = "longrope"
            if kind in _LONGROPE:
                tensors["rope_factors_short.weight"] = p.short_factor or ()
                tensors["rope_factors_long.weight"] = p.long_factor or ()
                keys["rope.scaling.original_context_length"] = p.original_length
            if kind == "phi3":
                keys["rope.scaling.attn_factor"] = longrope_scale_by_lengths(p)
    if kind in _FORCES_NONE:
        keys["rope.scaling.type"] = "none"
    return Gguf(name, keys, tensors)


def _yarn_keys(p: RopeParameters, name: str) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": p.resolved_factor(),
        "rope.scaling.original_context_length": p.original_length,
    }
    stated = p.attention_factor if p.attention_factor is not None else p.extra.get("attn_factor")
    if stated is not None:
        keys["rope.scaling.yarn_attn_factor"] = stated
    for key in ("beta_fast", "beta_slow"):
        value = getattr(p, key)
        if value is not None:
            keys[f"rope.scaling.yarn_{key}"] = value
    if name in _LOG_MULTIPLIER and p.mscale_all_dim:
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * p.mscale_all_dim
    return keys


def run(gguf: Gguf, p: RopeParameters) -> Used:
    """What the runtime computes from a file, given the sizes of `p`.

    Reference: `llama-context.cpp` and `ggml-cpu/ops.cpp`: the net attention scale is
    m(s) · `rope.scaling.attn_factor`; `yarn_attn_factor` is overwritten, custom betas are not
    read, the ramp always ends at whole dimensions.
    """
    keys = gguf.keys
    theta = float(keys.get("rope.freq_base", _RUNTIME_THETA))
    kind = keys.get("rope.scaling.type", "none")
    scale = float(keys.get("rope.scaling.attn_factor", 1.0))
    base = replace(_plain(p), rope_theta=theta)
    if p.rope_type == "proportional":
        return Used(p)  # Gemma 4's tensor of factors stops the tail
    if kind == "linear":
        factor = float(keys["rope.scaling.factor"])
        return Used(replace(base, rope_type="linear", factor=factor), scale)
    if kind == "yarn":
        factor = float(keys["rope.scaling.factor"])
        betas = gguf.architecture in _BETA_KEYS
        yarn = replace(
            base,
            rope_type="yarn",
            factor=factor,
            original_max_position_embeddings=int(keys["rope.scaling.original_context_length"]),
            beta_fast=float(keys.get("rope.scaling.yarn_beta_fast", 32.0)) if betas else None,
            beta_slow=float(keys.get("rope.scaling.yarn_beta_slow", 1.0)) if betas else None,
        )
        if "rope.scaling.yarn_log_multiplier" in keys:
            return Used(yarn, scale, mla_softmax(p))  # it takes mscale = mscale_all_dim for granted
        return Used(yarn, formulas.get_mscale(factor) * scale)
    if "rope_freqs.weight" in gguf.tensors:
        factors = gguf.tensors["rope_freqs.weight"]
    elif "rope_factors_long.weight" in gguf.tensors:
        long = p.max_position_embeddings > p.original_length
        factors = gguf.tensors[f"rope_factors_{'long' if long else 'short'}.weight"]
    else:
        return Used(base, scale)
    return Used(
        replace(base, rope_type="longrope", short_factor=factors, long_factor=factors), scale
    )


def _plain(p: RopeParameters) -> RopeParameters:
    return RopeParameters(
        rope_type="default", rope_theta=p.rope_theta, head_dim=p.head_dim,
        max_position_embeddings=p.max_position_embeddings,
        partial_rotary_factor=p.partial_rotary_factor,
    )  # fmt: skip


def read(model: Model) -> Reading:
    """Converter and runtime together; the server accepts as many tokens as the file states.

    Raises:
        LoaderError: the converter does not load the config.
        NotKnown: the converter is not known here.
    """
    scopes: dict[str, Used] = {}
    notes: list[str] = []
    parameters = version_5(model)
    for name, p in parameters.items():
        gguf = convert_to_gguf(model, p)
        if model.rope.scopes[name].windowed and model.rope.model_type in ("olmo3", "gemma3_text"):
            scopes[name] = Used(_plain(p))  # sliding layers are never scaled
            continue
        scopes[name] = run(gguf, p)
        notes += _notes(model, p, gguf)
    length = next(iter(parameters.values())).max_position_embeddings
    return Reading(scopes, served_length=length, notes=tuple(dict.fromkeys(notes)))


def _notes(model: Model, p: RopeParameters, gguf: Gguf) -> list[str]:
    kind = model.rope.model_type
    notes = []
    if kind in _WRITES_NO_SCALING and p.rope_type != "default":
        notes.append(f"its converter writes no scaling for {kind}")
    if kind in _WRITES_NO_THETA and p.rope_theta != _RUNTIME_THETA:
        notes.append(f"its converter writes no θ for {kind}; the runtime takes 10000")
    if kind in _FORCES_NONE and p.rope_type != "default":
        notes.append(f"its converter switches scaling off for {kind}")
    if p.rope_type == "llama3" and "rope_freqs.weight" not in gguf.tensors:
        notes.append(f"llama3 is dropped for {kind}")
    if p.rope_type == "dynamic":
        notes.append("dynamic is dropped")
    if p.rope_type == "yarn" and "rope.scaling.yarn_attn_factor" in gguf.keys:
        notes.append("the file's yarn_attn_factor is dead: the runtime overwrites it with m(s)")
    if p.rope_type == "yarn" and not {p.beta_fast, p.beta_slow} <= {None, 32.0, 1.0}:
        notes.append("custom betas are not read from the file")
    if p.rope_type == "yarn" and p.truncate is False:
        notes.append("truncate: false is not known")
    return notes


def launch(parts: Launch) -> str:
    """`llama-server` on the converted file."""
    words = ["llama-server", "-m", "MODEL.gguf", "-c", str(parts.length), *parts.flags]
    return shlex.join(words)


def repair(model: Model, intended: Mapping[str, Used], reading: Reading) -> tuple[str, ...] | None:
    """Flags that make up for what the file lacks; `None` where none can."""
    name = architecture(model.rope.model_type)
    flags: list[str] = []
    if reading.served_length is not None and reading.served_length < model.length:
        flags += ["--override-kv", f"{name}.context_length=int:{model.length}"]
    scaled = [n for n in reading.scopes if not model.rope.scopes[n].windowed] or [*reading.scopes]
    if len(scaled) > 1:
        return None
    asked, used = intended[scaled[0]], reading.scopes[scaled[0]]
    frequencies = _frequency_flags(asked, used, model.length)
    if frequencies is None or asked.softmax_scale_ratio != used.softmax_scale_ratio:
        return None
    natural = used.attention_factor
    if "--rope-scaling" in frequencies:
        p = asked.parameters
        natural = formulas.get_mscale(p.resolved_factor()) if p.rope_type == "yarn" else 1.0
    ratio = asked.attention_factor / natural
    if not math.isclose(ratio, 1.0, rel_tol=1e-6):
        if len(reading.scopes) > 1 or asked.softmax_scale_ratio != 1.0:
            return None  # the key would change sliding layers and the softmax scale too
        frequencies += ["--override-kv", f"{name}.rope.scaling.attn_factor=float:{ratio:.7g}"]
    return (*flags, *frequencies)


def _frequency_flags(intended: Used, used: Used, length: int) -> list[str] | None:
    """Flags for the frequencies, empty where the file gives them already."""
    p, q = intended.parameters, used.parameters
    if p.rotary_dim != q.rotary_dim:
        return None
    lengths = {length, min(length, p.original_length)}
    pairs = [pair for n in lengths for pair in zip(p.inv_freq(n), q.inv_freq(n), strict=True)]
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs):
        return []
    if q.rope_type == "longrope":
        return None  # no flag takes the file's tensor of factors away
    theta = ["--rope-freq-base", f"{p.rope_theta:.10g}"] if p.rope_theta != q.rope_theta else []
    match p.rope_type:
        case "default":
            return [*(["--rope-scaling", "none"] if q.rope_type != "default" else []), *theta]
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
    versions="August 2026",
    read=read,
    launch=launch,
    about=(
        "yarn: the attention scale is always m(s) × the key `rope.scaling.attn_factor`, which the "
        "converter never writes; `attention_factor`, mscale, betas and truncate are lost.",
        "The server accepts at most max_position_embeddings tokens, for every type.",
        "llama3 survives in Llama-class files only; dynamic never.",
    ),
    repair=repair,
)
