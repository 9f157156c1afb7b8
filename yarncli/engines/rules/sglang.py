"""SGLang: what its model files make of a config, by the table of running them.

A file is loaded by transformers 5 or by a config class of SGLang's own; its model file then hands
the setting to `get_rope`, or does not. The row of the model type tells which: the outcome of the
probe that is nearest to the config. What `get_rope` makes of single keys is written here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import refuse_aliases, version_5
from yarncli.engines.nearest import (
    TYPES,
    Setting,
    refuse_scaled_windows,
    refuse_unstated_share,
    spelling_of,
    with_keys,
)
from yarncli.engines.resolving import BLOCKS
from yarncli.engines.shared import (
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    refuse_null_head_dim,
    refuse_su,
    transformers_used,
    with_extrapolation,
)
from yarncli.engines.tables import Row, load_table, named_classes, row_of
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    NotSupported,
    Reading,
    Used,
)
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters, mla_softmax

_LENGTH_KEYS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length")
_ADVICE = {
    "linear integer factor": " Write the factor with a decimal point: 4.0.",
    "yarn no factor": " Give the factor.",
    "yarn factor null": " Give the factor.",
    "yarn betas null": " Leave the betas out.",
    "yarn attention_factor null": " Leave attention_factor out.",
    "yarn no original": f" Give {ORIGINAL}.",
    "llama3 no original": f" Give {ORIGINAL}.",
}
_ALONE = {"legacy": "rope_scaling alone", "v5": "rope_parameters alone"}
_MIXED_BATCHES = (
    "it chooses LongRoPE's list by the longest text of a batch, so a short text that is computed "
    "beside a long one gets the long list"
)


def read(model: Model) -> Reading:
    """SGLang 0.5.23.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
        NotSupported: neither it nor its transformers backend has the class.
        NotKnown: nobody examined this class or setting.
    """
    if model.text.get("dual_chunk_attention_config"):
        raise EngineCrash(
            "It has no attention backend for dual_chunk_attention_config. Remove that key and set "
            "max_position_embeddings to the window without it."
        )
    row = _row(model)
    for key in BLOCKS:
        if not isinstance(model.text.get(key) or {}, Mapping) or model.text.get(key) == []:
            raise NotKnown(f"{key} is no object. What SGLang makes of that was not examined.")
    if row is None or row.entry["rope"] == "backend":
        return _through_transformers(model)
    found = _Wiring(model, row).read()
    if not model.refusal:
        return found
    return replace(found, faults=(f"transformers 5 refuses the config: {model.refusal}",))


def _row(model: Model) -> Row | None:
    """The row of the model; `None` where the class is left to the transformers backend.

    Reference: SGLang `model_loader/utils.py:72-230`.
    """
    named, table = named_classes(model), load_table("sglang")
    types: Mapping[str, Any] = table["model_types"]
    entry = types.get(model.rope.model_type, {})
    examined = entry.get("classes", [entry.get("class")])
    # Some of its config classes rename the architecture that the file names.
    own = [name for name in named if name in table["architectures"] or name in examined]
    if named and not own and all(name in table["through_transformers"] for name in named):
        return None
    if "auto_map" in model.config and (not own or entry.get("rope") == "unsupported"):
        raise NotKnown("The checkpoint's own code would run in SGLang, which nobody examined.")
    if named and not own:
        raise NotSupported(f"SGLang {table['version']} has no class {named[0]}.")
    row = row_of("sglang", model)
    if own and own[0] not in examined:
        raise NotKnown(
            f"Nobody examined what {own[0]} of {row.release} does with a {row.model_type} config."
        )
    return row


def _through_transformers(model: Model) -> Reading:
    """A model whose rotary class is transformers' own."""
    refuse_aliases(model)
    parameters = version_5(model)
    notes = ["the rotary class of transformers 5 runs in it"]
    if any(p.rope_type == "longrope" for p in parameters.values()):
        notes.append(_MIXED_BATCHES)
    return Reading(
        {name: transformers_used(model, p) for name, p in parameters.items()},
        served_length=served_length(model),
        notes=tuple(notes),
    )


class _Wiring:
    """One config beside the row of its model type."""

    def __init__(self, model: Model, row: Row) -> None:
        self.row = row
        others = (row.outcome(f"llama3 {spelling}") for spelling in ("both", "v5", "legacy"))
        self.runs_yarn = any(line.startswith("yarn") for line in others)
        self.notes: list[str] = []
        self.spelling = spelling_of(model)
        if self.spelling == "both" and row.entry.get("wins") == "rope_parameters":
            model = with_keys(model, {}, without="rope_scaling")
        self.setting = Setting(model, row, self.spelling)
        self.model, self.block, self.kind = model, self.setting.block, self.setting.kind

    def read(self) -> Reading:
        """What the engine computes."""
        probe = ""
        self._refuse_yarn_keys()
        if self.kind == "longrope":
            # The config is validated, be its setting used or not.
            for scope in self.model.rope.scopes.values():
                refuse_null_head_dim(self.model, scope.parameters, "5")
        for defect in self.setting.defects():
            self._refuse(defect)
            if self.row.outcome(defect).startswith("plain"):
                probe = defect
        probe = probe or self.setting.nearest()
        if ORIGINAL in self.block and self.row.outcome(probe) == f"KeyError: '{ORIGINAL}'":
            probe = f"yarn {self.spelling}"  # the type in the probe was not what it missed
        self._refuse(probe)
        seen = self._as_seen(probe)
        if seen is self.model:
            refuse_su(self.kind)
        parameters = self._read(seen, probe)
        for p in parameters.values():
            refuse_unstated_share(self.model, self.row, self.block, p)
        refuse_scaled_windows(self.model, self.row, parameters, probe)
        scopes = {name: self._used(name, p, probe) for name, p in parameters.items()}
        return Reading(
            scopes,
            served_length=served_length(self.model, self.row),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _read(self, seen: Model, probe: str) -> dict[str, RopeParameters]:
        try:
            return version_5(seen)
        except LoaderError as error:
            if not self.row.outcome(probe):
                raise
            raise NotKnown(
                f"{self.row.release} reads what transformers 5 refuses ({error}); what it then "
                "computes was not examined."
            ) from error

    def _refuse_yarn_keys(self) -> None:
        block = self.block
        if self.kind != "yarn" or self.row.entry["rope"] == "ignores":
            return
        for key in ("attn_factor", "extrapolation_factor"):
            if key in block and block[key] is None:
                raise EngineCrash(f"{key} is null: TypeError at start-up. Leave it out.")
        if {"mscale", "mscale_all_dim"} & block.keys() and "mrope_section" in block:
            raise EngineCrash("mscale keys with multimodal RoPE: TypeError at start-up.")

    def _refuse(self, probe: str) -> None:
        """Tell of a failure, and what to do about it.

        Raises:
            EngineCrash: the probe gave an exception.
        """
        line = self.row.failure(probe)
        if not line:
            return
        advice = _ADVICE.get(probe, "")
        for spelling, words in _ALONE.items():
            other = self.row.outcome(f"{self.kind} {spelling}")
            if probe.endswith(self.spelling) and other.startswith(self.kind):
                advice = f" It does read {words}."
        raise EngineCrash(
            f"{self.row.release} fails on it for {self.row.model_type}: {line}.{advice}"
        )

    def _as_seen(self, probe: str) -> Model:
        """The config as the model file takes it, for transformers 5 to read."""
        line, block, text = self.row.outcome(probe), dict(self.block), self.model.text
        odd = probe in ("yarn no type", "yarn turned")
        if (odd or self.kind != "default") and self._is_plain(line):
            plain = {k: v for k, v in block.items() if k in ("rope_theta", "partial_rotary_factor")}
            return self._with_block({**plain, "rope_type": "default"})
        if self.runs_yarn and line.startswith("yarn"):
            # DeepSeek's attention (deepseek_v2.py, deepseek_v4.py) runs YaRN, whatever the type.
            block.pop("type", None)
            block = {**block, "rope_type": "yarn", "truncate": None}
            block.setdefault(ORIGINAL, self.model.rope.max_position_embeddings)
            return with_keys(self._with_block(block), {ORIGINAL: None})
        if self._is_missed():
            share = text.get("partial_rotary_factor", 1.0)
            whole = {"partial_rotary_factor": share, "rope_type": "default", **block}
            return self._with_block(whole, newer=True)
        nested_wins = self.row.outcome("yarn top original") == self.row.outcome("yarn both")
        if text.get(ORIGINAL) is not None and ORIGINAL in block and nested_wins:
            return with_keys(self.model, {ORIGINAL: None})
        return self.model

    def _is_missed(self) -> bool:
        """Whether transformers 5 misses a legacy setting that the engine reads."""
        scopes = self.model.family.scopes
        if self.spelling != "legacy" or any(rule.takes_flat for rule in scopes):
            return False
        if scopes:
            return bool(self.block) or "config" in self.row.entry
        read = {scope.parameters.rope_type for scope in self.model.rope.scopes.values()}
        return self.kind in TYPES and read == {"default"} and not self.model.refusal

    def _is_plain(self, line: str) -> bool:
        """Whether a line tells of plain RoPE; a stretched base that stays is written like it."""
        same = line == self.row.outcome(f"linear {self.spelling}")
        return line.startswith("plain") and (self.kind != "dynamic" or same)

    def _with_block(self, block: Mapping[str, Any], *, newer: bool = False) -> Model:
        """The config with another RoPE block in the place of its own."""
        scopes, text = self.model.family.scopes, self.model.text
        takes_flat = not scopes or any(rule.takes_flat for rule in scopes)
        if takes_flat and self.spelling != "v5" and not newer:
            return with_keys(self.model, {"rope_scaling": block})
        theta = block.get("rope_theta", text.get("rope_theta", self.row.entry.get("theta")))
        given = {"rope_theta": theta} if isinstance(theta, int | float) else {}
        if not scopes:
            whole = {**given, **block}
            return with_keys(self.model, {"rope_parameters": whole}, without="rope_scaling")
        plain = {"rope_type": "default", **given}
        whole = {rule.name: plain if rule.windowed else {**given, **block} for rule in scopes}
        old = self.model.block("rope_parameters")
        whole |= {r.name: old[r.name] for r in scopes if r.windowed and r.name in old}
        return with_keys(self.model, {"rope_parameters": whole}, without="rope_scaling")

    def _used(self, scope: str, p: RopeParameters, probe: str) -> Used:
        line = self.row.outcome(probe, scope)
        p = replace(p, rope_theta=self._theta(scope, p, line))
        if p.rope_type == "default":
            return Used(p)
        if self._is_plain(line):
            return Used(replace(p, rope_type="default"))
        match p.rope_type:
            case "dynamic":
                return self._dynamic(p)
            case "longrope":
                self.notes.append(_MIXED_BATCHES)
                stated = [p.extra.get(name) for name in ("long_mscale", "short_mscale")]
                scales = (scale for scale in stated if scale is not None)
                return Used(p, next(scales, longrope_scale_by_lengths(p)))
            case "yarn":
                return self._yarn(p)
        return Used(p, p.effective_attention_factor())

    def _theta(self, scope: str, p: RopeParameters, line: str) -> float:
        """θ, which some config classes and model files lose."""
        if "theta_key" in self.row.entry:
            return float(self.model.text.get(self.row.entry["theta_key"], self.row.entry["theta"]))
        if "theta=1.3086e+06" in self.row.outcome("theta top and block"):
            top = self.model.text.get(self.model.family.theta_keys[0])
            return float(top if top is not None else self.row.entry["theta"])
        inner = self.model.text.get(self.model.family.attention_key or "")
        if isinstance(inner, Mapping) and self.row.outcome("no theta") == "plain":
            return float(inner.get("rope_theta", p.rope_theta))
        usual = self.row.outcome(f"default {self.spelling}", scope)
        stretched = self.kind == "dynamic" and not self._is_plain(line)
        found = _theta_of(usual) if stretched else _theta_of(line) or _theta_of(usual)
        default = self.row.entry.get("theta")
        if found is None and not self.setting.states_theta() and isinstance(default, float):
            found = default
        # A line has four digits of a θ that is no round number.
        known = found is None or abs(found / p.rope_theta - 1) < 1e-3
        return p.rope_theta if known else float(found or 0.0)

    def _dynamic(self, p: RopeParameters) -> Used:
        alpha = p.extra.get("alpha")
        if alpha is not None:  # rope_variant.py, DynamicNTKAlphaRotaryEmbedding
            theta = formulas.ntk_theta(p.rope_theta, p.rotary_dim, float(alpha))
            return Used(replace(p, rope_type="default", rope_theta=theta))
        length = int(p.max_position_embeddings * p.resolved_factor())
        theta = formulas.dynamic_theta(
            p.rope_theta, p.rotary_dim, p.resolved_factor(), length, p.max_position_embeddings
        )
        self.notes.append(f"dynamic has a fixed base, right for texts of {length:,} tokens only")
        return Used(replace(p, rope_type="default", rope_theta=theta))

    def _yarn(self, p: RopeParameters) -> Used:
        """m(s), or the mscale pair, times `attn_factor`; `attention_factor` is not read."""
        if self.row.outcome("yarn both").endswith(" scale=1"):
            return Used(p)  # DeepSeek-V4's table has no scale
        usual = formulas.get_mscale(p.resolved_factor())
        pair = p.mscale is not None and p.mscale_all_dim is not None
        scale = mscale_ratio(p) if pair or self.runs_yarn else usual
        if self.row.outcome("yarn attention_factor") == "yarn":
            # configs/laguna.py:68-80 makes an attn_factor of it.
            scale = p.attention_factor if p.attention_factor is not None else scale
        else:
            scale *= float(p.extra.get("attn_factor", 1.0))
        share = p.extra.get("extrapolation_factor", 1.0)
        used = p if share == 1.0 else with_extrapolation(p, float(share))
        return Used(used, scale, mla_softmax(p) if self.runs_yarn else 1.0)


def _theta_of(line: str) -> float | None:
    found = re.search(r"theta=([\d.e+]+)", line)
    return float(found[1]) if found else None


def served_length(model: Model, row: Row | None = None) -> int:
    """The default `--context-length`: the first length field, multiplied for some types.

    Args:
        model: the config.
        row: what the engine does with its model type, where it has a class.

    Reference: SGLang `utils/hf_transformers/common.py`, `get_context_length`.
    """
    found = [v for v in map(model.text.get, _LENGTH_KEYS) if type(v) is int]
    length: int = (found or [model.rope.max_position_embeddings])[0]
    block = model.block("rope_scaling") or model.block("rope_parameters")
    kind, factor = block.get("rope_type") or block.get("type"), block.get("factor")
    multiplied = kind in ("linear", "dynamic") and not model.family.scopes
    if model.family.scopes and row and row.entry.get("spelling") == "rope_scaling":
        # OLMo 3's own config class keeps the dict; transformers would nest it and add the original
        # length, and then no factor is found.
        multiplied = bool(block) and kind != "llama3"
    if not multiplied or ORIGINAL in block or not isinstance(factor, int | float):
        return length
    return int(length * factor)


def launch(parts: Launch) -> str:
    """`sglang.launch_server`, with `--json-model-override-args` where fields must change.

    Loading copies the fields of a text part to the outer config (`hf_transformers/config.py:257`),
    and Qwen-VL models take them from there, the served length comes from the text part: both are
    stated.
    """
    words = ["python", "-m", "sglang.launch_server", "--model-path", parts.model.source]
    words += ["--context-length", str(parts.length)]
    return shlex.join([*words, *parts.override_words("--json-model-override-args", outer=True)])


ENGINE = Engine(
    id="sglang",
    name="SGLang",
    versions="0.5.23",
    read=read,
    launch=launch,
    override="v5",
    merges="flat",
    deepest_override=1,  # `config.update` would put a dict in the place of a second inner config
    mends_refusals=False,
    about=(
        "The model files were run to see which of them read the scaling. A class that was not run "
        "is unknown; a class that SGLang does not have runs in its transformers backend.",
        "`attention_factor` is not read: the scale is m(s), or the mscale pair, times "
        "`attn_factor`.",
        "linear and dynamic multiply max_position_embeddings by the factor, unless the dict has "
        "an original_max_position_embeddings.",
        "dynamic has one fixed base, which is right for a full window only; a linear factor must "
        "be a float.",
        "Multimodal RoPE with mscale keys fails at start-up.",
        "OLMo 3 with rope_parameters only loses θ and scaling.",
        "A config override is merged into the dict of the file: it cannot remove a key.",
    ),
)
