"""vLLM: the config as transformers 5 loads it, rotary classes of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import (
    ORIGINAL,
    deepseek_yarn,
    longrope_scale_by_lengths,
    mla_softmax,
    refuse_integer_factor,
    transformers_used,
    uses_deepseek_rope,
)
from yarncli.engines.types import Engine, Launch, LoaderError, Model, Reading, Used
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

# models/registry.py sends these through transformers' own modelling code.
_TRANSFORMERS_BACKEND = frozenset(
    """
    arcee cwm flex_olmo glm gpt_bigcode gpt_neox hunyuan_v1_dense hunyuan_v1_moe mellum
    nanbeige olmo olmo2 olmo3 phi seed_oss smollm3 starcoder2 vaultgemma
    """.split()
)
_NOT_MULTIPLIED = frozenset({"default", "longrope", "llama3", "yarn"})
_LENGTH_KEYS = """
    max_position_embeddings n_positions max_seq_len seq_length max_sequence_length max_seq_length
    seq_len
    """.split()


def _parameters(model: Model) -> dict[str, RopeParameters]:
    """The scopes as transformers 5 reads them; vLLM insists that `type` and `rope_type` agree.

    Raises:
        LoaderError: they do not, or transformers 5 does not load the config.
        EngineCrash: the factor of a linear scope is an integer.
    """
    for name in model.rope.scopes:
        block = model.winning_block(name)
        new, old = block.get("rope_type"), block.get("type")
        if new and old and new != old:
            raise LoaderError(f"rope_type is {new!r} and type is {old!r}; it insists on one.")
    parameters = version_5(model)
    refuse_integer_factor(model, parameters)
    return parameters


def read(model: Model) -> Reading:
    """What vLLM 0.33 computes and serves.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
    """
    parameters = _parameters(model)
    served = served_length(model, parameters)
    notes: list[str] = []
    faults: list[str] = []
    if model.rope.model_type in _TRANSFORMERS_BACKEND:
        notes.append("runs transformers' own modelling code for this model")
        scopes = {name: transformers_used(model, p) for name, p in parameters.items()}
        return Reading(scopes, served_length=served, notes=tuple(notes))
    scopes = {}
    for name, p in parameters.items():
        scopes[name] = _used(model, p, served, notes)
        rows = _table_rows(model, p)
        if rows < served:
            faults.append(f"its table of angles ends at {rows:,} tokens")
    faults = list(dict.fromkeys(faults))
    return Reading(scopes, served_length=served, notes=tuple(notes), faults=tuple(faults))


def served_length(model: Model, parameters: Mapping[str, RopeParameters]) -> int:
    """The default `--max-model-len`: the smallest length field, multiplied for some types.

    Reference: vLLM `config/model.py`, `_get_and_verify_max_len`.
    """
    first = next(iter(parameters.values()))
    if first.rope_type == "longrope":
        return int(model.text.get(ORIGINAL) or first.max_position_embeddings)
    stated = model.text.get("model_max_length")
    if isinstance(stated, int) and stated:
        length: int = stated
    else:
        found = [v for v in map(model.text.get, _LENGTH_KEYS) if type(v) is int]
        length = min([*found, first.max_position_embeddings])
    for p in parameters.values():
        if p.rope_type not in _NOT_MULTIPLIED and not model.rope.model_type.startswith("gemma3"):
            length = int(length * p.resolved_factor())
    return length


def _table_rows(model: Model, p: RopeParameters) -> int:
    """How many positions the precomputed cos/sin table has."""
    start = p.original_length if p.rope_type == "yarn" else p.max_position_embeddings
    return int(start * p.resolved_factor()) if p.rope_type in ("yarn", "linear") else start


def _used(model: Model, p: RopeParameters, served: int, notes: list[str]) -> Used:
    if uses_deepseek_rope(model) and p.rope_type != "default":
        return deepseek_yarn(p, _deepseek_softmax(p, notes))
    match p.rope_type:
        case "dynamic":
            return Used(_dynamic(p, notes))
        case "longrope":
            return _longrope(p, served, notes)
        case "yarn" if model.rope.model_type == "gpt_oss":
            notes.append("gpt-oss: attention_factor and mscale are dropped")
            p = replace(p, attention_factor=None, mscale=None, mscale_all_dim=None)
        case "yarn" if model.rope.model_type == "deepseek_v4":
            return Used(p)  # its mscale is switched off in code
    return Used(p, p.effective_attention_factor())


def _deepseek_softmax(p: RopeParameters, notes: list[str]) -> float:
    if p.attention_factor != 1.0:
        return mla_softmax(p)
    notes.append("attention_factor 1.0 switches mscale_all_dim's softmax scale off")
    return 1.0


def _dynamic(p: RopeParameters, notes: list[str]) -> RopeParameters:
    """A fixed base from `max_trained_positions`; without that key no scaling at all."""
    trained = p.extra.get("max_trained_positions") or p.max_position_embeddings
    theta = formulas.dynamic_theta(
        p.rope_theta, p.rotary_dim, p.resolved_factor(), p.max_position_embeddings, trained
    )
    if theta == p.rope_theta:
        notes.append("dynamic does nothing: its base does not follow the length of the text")
    return replace(p, rope_type="default", rope_theta=theta)


def _longrope(p: RopeParameters, served: int, notes: list[str]) -> Used:
    long = served > p.original_length
    chosen = p.long_factor if long else p.short_factor
    notes.append(
        f"uses the {'long' if long else 'short'} factors for every text at this maximum length"
    )
    stated = p.extra.get("long_mscale" if long else "short_mscale")
    scale = stated if stated is not None else longrope_scale_by_lengths(p)
    return Used(replace(p, short_factor=chosen, long_factor=chosen), scale)


def launch(parts: Launch) -> str:
    """`vllm serve`, with `--hf-overrides` where fields must change."""
    words = ["vllm", "serve", parts.model.source, "--max-model-len", str(parts.length)]
    return shlex.join([*words, *parts.override_words("--hf-overrides")])


def read_older(model: Model) -> Reading:
    """What vLLM computed before: `attn_factor` multiplies, `attention_factor` is lost.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
    """
    parameters = _parameters(model)
    notes: list[str] = []
    first = next(iter(parameters.values()))
    served = served_length(model, parameters)
    if first.rope_type == "yarn":
        served = int(first.original_length * first.resolved_factor())
    scopes = {}
    for name, p in parameters.items():
        scopes[name] = _used(model, p, served, notes)
        if p.rope_type == "yarn" and not uses_deepseek_rope(model):
            multiplier = p.extra.get("attn_factor", 1.0)
            scopes[name] = Used(p, formulas.get_mscale(p.resolved_factor()) * multiplier)
    return Reading(scopes, served_length=served, notes=tuple(notes))


_ABOUT = (
    "linear and dynamic multiply max_position_embeddings by the factor; yarn, llama3 and longrope "
    "take it as it is.",
    "dynamic does not scale; a linear factor must be a float.",
    "longrope: long factors for every text once the maximum exceeds the original window; "
    "`attention_factor` is not read, `short_mscale`/`long_mscale` are.",
    "MLA models: every scaling becomes DeepSeek's YaRN.",
)

ENGINES = (
    Engine(
        id="vllm",
        name="vLLM",
        versions="0.33",
        read=read,
        launch=launch,
        override="v5",
        merges="nested",
        about=("`attention_factor` and the mscale pair as in transformers.", *_ABOUT),
    ),
    Engine(
        id="vllm-older",
        name="vLLM, older",
        versions="before it honoured attention_factor",
        read=read_older,
        launch=launch,
        override="v5",
        merges="nested",
        about=(
            "yarn: m(s) × `attn_factor`; `attention_factor` and mscale are not read; the length is "
            "original × factor.",
            *_ABOUT[1:],
        ),
    ),
)
