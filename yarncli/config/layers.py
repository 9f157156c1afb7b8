"""Which layers attend within a window and which rotate, as transformers 5.23 decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yarncli.config.families.family import Family
from yarncli.errors import ConfigError
from yarncli.jsontext.fields import Fields

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
INDEXED, CHUNKED = "indexed_attention", "chunked_attention"

WINDOWED = frozenset({SLIDING, CHUNKED, "hybrid_sliding"})
# Tokens that such a layer compresses into one entry of its cache.
COMPRESSION = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
NO_ATTENTION = frozenset({LINEAR, "conv", "moe", "mlp"})

# Old names in files; transformers renames them on load.
_RENAMED = {
    "mamba": LINEAR,
    "attention": FULL,
    "deepseek_sparse_attention": INDEXED,
    "qwen_sparse_attention": INDEXED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Every layer's type, the window of the windowed ones, and which layers rotate."""

    types: tuple[str, ...]
    """The type of each layer under transformers' names (`full_attention`, …)."""
    windowed: tuple[bool, ...]
    """Which layers attend within `window`."""
    rotates: tuple[bool, ...]
    """Which layers use RoPE; False for attention without RoPE and for layers without attention."""
    attends: tuple[bool, ...]
    """Which layers have attention. Of layers that do not rotate, some have attention without RoPE
    and others have no attention."""
    window: int | None
    """The window of the windowed layers, tokens; `None` where no layer is windowed."""


def read_layers(fields: Fields, family: Family, count: int) -> Layers:
    """The layers of a text config with `count` layers.

    Raises:
        ConfigError: a field has the wrong type or length.
    """
    types = _layer_types(fields, family, count)
    window = _window(fields, family)
    attends = [kind not in NO_ATTENTION for kind in types]
    slides = attends if family.window_everywhere else [kind in WINDOWED for kind in types]
    windowed = [flag and window is not None for flag in slides]
    rotating = _ROPE_RULES[family.rope_rule](fields, types, windowed)
    rotates = [a and r for a, r in zip(attends, rotating, strict=True)]
    return Layers(
        types=types, windowed=tuple(windowed), rotates=tuple(rotates), attends=tuple(attends),
        window=window if any(windowed) else None,
    )  # fmt: skip


def _layer_types(fields: Fields, family: Family, count: int) -> tuple[str, ...]:
    if not family.layer_rule:
        return (FULL,) * count
    rule = _LAYER_RULES[family.layer_rule]
    given = None if family.layer_rule == "attn_layer_indices" else fields.strings("layer_types")
    if given is None:
        types = tuple(rule(fields, family, count))
    else:
        types = tuple(_RENAMED.get(kind, kind) for kind in given)
        if family.layer_rule == "dsa_and_sliding":
            sparse = fields.boolean("use_dsa", True)
            old, new = (FULL, INDEXED) if sparse else (INDEXED, FULL)
            types = tuple(new if kind == old else kind for kind in types)
        if family.layer_rule == "every_nth_interval_indexed":
            types = tuple(INDEXED if kind == FULL else kind for kind in types)
        if family.layer_rule in ("compress_ratios", "padded"):
            types = types[:count]
    if family.layer_rule == "every_nth_and_last" and types:
        types = (*types[:-1], FULL)  # Gemma 4 forces it on load, whatever the file says
    if len(types) != count:
        raise ConfigError(
            f"{fields.where('layer_types')} has {len(types)} entries; the model has {count} layers."
        )
    return types


def _window(fields: Fields, family: Family) -> int | None:
    if family.window_switch and not fields.boolean("use_sliding_window"):
        return None
    given = family.window_key in fields.values
    window = fields.integer(family.window_key, None if given else family.sliding_window)
    if family.layer_rule == "window_size_key" and fields.has("sliding_window_size"):
        window = (fields.integer("sliding_window_size") or 0) + 1
    if family.window_key == "local_attention" and window:
        window //= 2  # ModernBERT counts both sides
    return window or None


def _choose(flags: Sequence[bool], yes: str, no: str) -> list[str]:
    return [yes if flag else no for flag in flags]


def _period(fields: Fields, family: Family, *keys: str) -> int:
    for key in keys:
        if fields.has(key):
            return fields.positive(key, 1)
    return family.layer_period


def _every_nth(fields: Fields, family: Family, n: int) -> list[str]:
    """Every N-th layer is full, the others slide."""
    if not family.layer_period:
        return [FULL] * n
    period = _period(fields, family, *family.period_keys)
    return _choose([(i + 1) % period == 0 for i in range(n)], FULL, SLIDING)


def _every_nth_or_no_window(fields: Fields, family: Family, n: int) -> list[str]:
    if "sliding_window" in fields.values and not fields.has("sliding_window"):
        return [FULL] * n
    return _every_nth(fields, family, n)


def _first_of_n(fields: Fields, family: Family, n: int) -> list[str]:
    """The first of every N layers is full."""
    period = _period(fields, family, *family.period_keys)
    return _choose([i % period == 0 for i in range(n)], FULL, SLIDING)


def _from_max_window_layers(fields: Fields, family: Family, n: int) -> list[str]:
    """Qwen 2: layers from `max_window_layers` on slide, if a window is set."""
    first = fields.integer("max_window_layers", family.max_window_layers) or 0
    window = _window(fields, family)
    return _choose([window is not None and i >= first for i in range(n)], SLIDING, FULL)


def _alternating_below_max(fields: Fields, family: Family, n: int) -> list[str]:
    """Qwen 2 MoE: every other layer below `max_window_layers` slides."""
    last = fields.integer("max_window_layers", family.max_window_layers) or 0
    use = fields.boolean("use_sliding_window")
    return _choose([use and i % 2 == 0 and i < last for i in range(n)], SLIDING, FULL)


def _all_windowed(fields: Fields, family: Family, n: int) -> list[str]:
    return [SLIDING if _window(fields, family) else FULL] * n


def _interval(attention: str) -> Callable[[Fields, Family, int], list[str]]:
    def rule(fields: Fields, family: Family, n: int) -> list[str]:
        period = _period(fields, family, *family.period_keys)
        return _choose([(i + 1) % period == 0 for i in range(n)], attention, LINEAR)

    return rule


def _attn_layer_indices(fields: Fields, family: Family, n: int) -> list[str]:
    chosen = fields.integers("attn_layer_indices") or ()
    return _choose([i in chosen for i in range(n)], FULL, LINEAR)


def _full_attn_idxs(fields: Fields, family: Family, n: int) -> list[str]:
    chosen = fields.integers("full_attn_idxs")
    return _choose([chosen is None or i in chosen for i in range(n)], FULL, "conv")


def _dense_layers(fields: Fields, count: int) -> int:
    """`first_k_dense_replace`, at most the number of layers: a larger one would fill the memory."""
    dense = fields.integer("first_k_dense_replace", 0) or 0
    if not 0 <= dense <= count:
        where = fields.where("first_k_dense_replace")
        raise ConfigError(f"{where} is {dense}; the model has {count} layers.")
    return dense


def _cohere2_moe(fields: Fields, family: Family, n: int) -> list[str]:
    dense = _dense_layers(fields, n)
    first = _period(fields, family, "prefix_dense_sliding_window_pattern")
    rest = _period(fields, family, "sliding_window_pattern")
    if not fields.has("prefix_dense_sliding_window_pattern"):
        first = 1
    prefix = [(i + 1) % first == 0 for i in range(dense)]
    return _choose([*prefix, *((i + 1) % rest == 0 for i in range(n - dense))], FULL, SLIDING)


def _no_rope(fields: Fields, count: int) -> list[bool]:
    listed = fields.integers("no_rope_layers")
    if listed:
        return [bool(flag) for flag in listed]
    period = fields.positive("no_rope_layer_interval", 4)
    return [(i + 1) % period != 0 for i in range(count)]


def _chunked_where_rotating(fields: Fields, family: Family, n: int) -> list[str]:
    return _choose(_no_rope(fields, n), CHUNKED, FULL)


def _sliding_where_not_rotating(fields: Fields, family: Family, n: int) -> list[str]:
    window = _window(fields, family)
    return _choose([window is not None and not r for r in _no_rope(fields, n)], SLIDING, FULL)


def _compress_ratios(fields: Fields, family: Family, n: int) -> list[str]:
    csa, hca = COMPRESSION
    ratios = fields.integers("compress_ratios")
    if ratios is None:
        return [hca] * min(n, 2) + [csa if i % 2 else hca for i in range(max(n - 2, 0))]
    names = {0: SLIDING, **{ratio: kind for kind, ratio in COMPRESSION.items()}}
    unknown = sorted(set(ratios) - set(names))
    if unknown:
        raise ConfigError(
            f"{fields.where('compress_ratios')} holds {unknown[0]}; known ratios are 0, 4 and 128."
        )
    return [names[ratio] for ratio in ratios][:n]


def _dsa_and_sliding(fields: Fields, family: Family, n: int) -> list[str]:
    full = INDEXED if fields.boolean("use_dsa", True) else FULL
    slides = fields.boolean("use_sliding_window", True)
    return _choose([not slides or i < 2 or i % 4 == 1 for i in range(n)], full, SLIDING)


def _sparse_attention_config(fields: Fields, family: Family, n: int) -> list[str]:
    sparse = fields.mapping("sparse_attention_config")
    listed = sparse.integers("sparse_attention_freq") if sparse else None
    return [FULL] * n if listed is None else _choose(list(map(bool, listed)), "sparse", FULL)


def _attention_windows(fields: Fields, family: Family, n: int) -> list[str]:
    if "attention_windows" in fields.values and fields.is_list("attention_windows"):
        return _choose([bool(w) for w in fields.values["attention_windows"]], SLIDING, FULL)
    return _every_nth(fields, family, n)


def _layers_block_type(fields: Fields, family: Family, n: int) -> list[str]:
    """Zamba 2's default, which does not depend on the number of layers."""
    line = [LINEAR] + ([LINEAR] * 5 + ["hybrid"]) * 7
    line += [LINEAR] * 4 + ["hybrid"] + [LINEAR] * 3 + ["hybrid"] + [LINEAR] * 2
    return line


_LAYER_RULES: dict[str, Callable[[Fields, Family, int], list[str]]] = {
    "every_nth": _every_nth,
    "every_nth_and_last": _every_nth,
    "every_nth_or_no_window": _every_nth_or_no_window,
    "every_nth_interval": _interval(FULL),
    "every_nth_interval_indexed": _interval(INDEXED),
    "first_of_n": _first_of_n,
    "max_window_layers": _from_max_window_layers,
    "alternating_below_max": _alternating_below_max,
    "all_windowed": _all_windowed,
    "attn_layer_indices": _attn_layer_indices,
    "full_attn_idxs": _full_attn_idxs,
    "cohere2_moe": _cohere2_moe,
    "chunked_where_rotating": _chunked_where_rotating,
    "sliding_where_not_rotating": _sliding_where_not_rotating,
    "compress_ratios": _compress_ratios,
    "dsa_and_sliding": _dsa_and_sliding,
    "sparse_attention_config": _sparse_attention_config,
    "attention_windows": _attention_windows,
    "layers_block_type": _layers_block_type,
    "all_full": lambda f, m, n: [FULL] * n,
    "padded": lambda f, m, n: [FULL] * n,
    "all_linear": lambda f, m, n: [LINEAR] * n,
    "all_indexed": lambda f, m, n: [INDEXED] * n,
    # Full attention over the prompt; only what is generated slides.
    "reference_sliding": lambda f, m, n: (
        ["reference_sliding_attention" if _window(f, m) else FULL] * n
    ),
    "all_hybrid": lambda f, m, n: ["hybrid"] * n,
    "odd_linear": lambda f, m, n: _choose([i % 2 == 0 for i in range(n)], FULL, LINEAR),
    "sixth_and_last": lambda f, m, n: _choose(
        [(i + 1) % 6 == 0 or i == n - 1 for i in range(n)], FULL, SLIDING
    ),
    "flint": lambda f, m, n: _choose(
        [i < 2 or i % 4 == 1 or i == n - 1 for i in range(n)], FULL, SLIDING
    ),
    "fourth_from_end": lambda f, m, n: _choose(
        [(n - 1 - i) % 4 == 0 for i in range(n)], FULL, SLIDING
    ),
    "window_size_key": lambda f, m, n: _choose(
        [i == 0 or (i + 1) % 6 == 0 for i in range(n)], FULL, SLIDING
    ),
    "conv_mixed": lambda f, m, n: [
        FULL if i % 4 == 2 else SLIDING if i % 4 == 0 and i > 0 else "conv" for i in range(n)
    ],
    "fourth_full_rest_linear": lambda f, m, n: _choose(
        [i % 4 == 3 or (n < 4 and i == n - 1) for i in range(n)], FULL, LINEAR
    ),
}


def _always(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    return [True] * len(types)


def _windowed_only(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    return [kind in WINDOWED for kind in types]


def _windowed_or_no_window(
    fields: Fields, types: Sequence[str], windowed: Sequence[bool]
) -> list[bool]:
    if "sliding_window" in fields.values and not fields.has("sliding_window"):
        return [True] * len(types)
    return [kind in WINDOWED for kind in types]


def _cohere2_moe_rope(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    """Dense layers of the prefix rotate too, if all of them attend fully."""
    dense = _dense_layers(fields, len(types))
    listed = fields.strings("mlp_layer_types") or ("dense",) * dense
    forced = fields.integer("prefix_dense_sliding_window_pattern", 1) == 1
    prefix = {i for i, kind in enumerate(listed) if forced and kind == "dense"}
    return [kind in WINDOWED or i in prefix for i, kind in enumerate(types)]


def _listed_no_rope(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    flags = _no_rope(fields, len(types))
    if len(flags) < len(types):
        raise ConfigError(
            f"{fields.where('no_rope_layers')} has {len(flags)} entries; "
            f"the model has {len(types)} layers."
        )
    return flags[: len(types)]


def _layer_rope_theta(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    thetas = fields.numbers("layer_rope_theta")
    if thetas is None:
        return [True] * len(types)
    if len(thetas) < len(types):
        raise ConfigError(
            f"{fields.where('layer_rope_theta')} has {len(thetas)} entries; "
            f"the model has {len(types)} layers."
        )
    return [theta != 0 for theta in thetas[: len(types)]]


def _layer_rope_theta_nope(
    fields: Fields, types: Sequence[str], windowed: Sequence[bool]
) -> list[bool]:
    """Muse: without the list, every fourth layer counted from the end does not rotate."""
    if fields.has("layer_rope_theta"):
        return _layer_rope_theta(fields, types, windowed)
    return [(len(types) - 1 - i) % 4 != 0 for i in range(len(types))]


def _if_position_type(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    return [fields.text("position_embedding_type") == "rope"] * len(types)


def _if_mem_rope(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    return [fields.boolean("use_mem_rope")] * len(types)


def _not_cross(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    listed = fields.integers("cross_attention_layers")
    cross = tuple(range(3, 40, 5)) if listed is None else listed
    return [i not in cross for i in range(len(types))]


def _if_theta(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    """OLMo hybrid: a θ of `null` switches RoPE off."""
    block = fields.mapping("rope_parameters")
    off = block is not None and "rope_theta" in block.values and not block.has("rope_theta")
    return [not off] * len(types)


def _not_alibi(fields: Fields, types: Sequence[str], windowed: Sequence[bool]) -> list[bool]:
    return [not fields.boolean("alibi")] * len(types)


_ROPE_RULES: dict[str, Callable[[Fields, Sequence[str], Sequence[bool]], list[bool]]] = {
    "all": _always,
    "windowed": _windowed_only,
    "windowed_or_no_window": _windowed_or_no_window,
    "cohere2_moe": _cohere2_moe_rope,
    "no_rope_layers": _listed_no_rope,
    "layer_rope_theta": _layer_rope_theta,
    "layer_rope_theta_nope": _layer_rope_theta_nope,
    "position_embedding_type": _if_position_type,
    "use_mem_rope": _if_mem_rope,
    "not_cross_attention": _not_cross,
    "not_alibi": _not_alibi,
    "theta_not_null": _if_theta,
}
