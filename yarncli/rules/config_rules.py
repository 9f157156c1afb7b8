"""All rules of one config.json, and those on limits of single methods and on other lengths."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.config.attention_keys import DUAL_CHUNK
from yarncli.jsontext.text import JsonText, Path, format_path
from yarncli.planning.lengths import CONFIG_LENGTHS
from yarncli.rope.parameters import WIDEST_HEAD
from yarncli.rules.config_view import ConfigView, finite, whole
from yarncli.rules.finding import Edit, Finding, Severity
from yarncli.rules.length_rules import LENGTH_RULES
from yarncli.rules.place_rules import PLACE_RULES
from yarncli.rules.refusal_rules import refused_by_engines
from yarncli.rules.scaling_rules import SCALING_RULES
from yarncli.rules.spelling_rules import SPELLING_RULES

_ORIGINAL = "original_max_position_embeddings"


def check_config(view: ConfigView) -> list[Finding]:
    """Everything wrong with one config, in the order of its lines."""
    found = [finding for rule in CONFIG_RULES for finding in rule(view)]
    unread = {finding.path for finding in found if finding.rule.id == "unread-block"}
    found = [f for f in found if f.rule.id != "copy-differs" or f.path not in unread]
    if not any(finding.severity == "error" for finding in found):
        found += view.refusal()
    if not any(finding.severity == "error" for finding in found):
        found += refused_by_engines(view)
    return sorted(found, key=lambda finding: finding.line or 0)


def unknown_model_type(view: ConfigView) -> Iterator[Finding]:
    """The defaults of the model type are not known."""
    if view.family is None:
        kind = str(view.text.value["model_type"])[:60]
        inner = str(view.top("model_type"))[:60] if view.base else ""
        inside = f" (text part {format_path(view.base)}: {inner!r})" if inner else ""
        yield view.finding(
            "unknown-model-type",
            ("model_type",),
            f"model_type {kind!r}{inside} is not known; rules that need its defaults did not run.",
        )


def beta_order(view: ConfigView) -> Iterator[Finding]:
    """The ramp's ends are swapped."""
    for block in view.blocks:
        fast, slow = block.number("beta_fast"), block.number("beta_slow")
        if block.rope_type == "yarn" and (fast or 32.0) < (slow or 1.0):
            key = "beta_slow" if fast is None else "beta_fast"
            yield view.finding(
                "beta-order",
                (*block.path, key),
                f"{format_path(block.path)}: beta_fast {fast or 32.0:g} is smaller than "
                f"beta_slow {slow or 1.0:g}.",
            )


def no_ramp(view: ConfigView) -> Iterator[Finding]:
    """The two ends of llama3's ramp are equal, or swapped."""
    for block in view.blocks:
        low, high = block.number("low_freq_factor"), block.number("high_freq_factor")
        if block.rope_type == "llama3" and low and high and high <= low:
            path = (*block.path, "high_freq_factor")
            yield view.finding(
                "no-ramp",
                path,
                f"{format_path(path)} {high:g} is not above low_freq_factor {low:g}, so there is "
                f"no ramp: wavelengths above {_ORIGINAL} / {low:g} are scaled, all others kept.",
            )


def dual_chunk(view: ConfigView) -> Iterator[Finding]:
    """Dual chunk attention: the stated window needs it, and no current engine has it."""
    path = (*view.base, DUAL_CHUNK)
    block = view.text.get(path)
    if not block:
        return
    original = whole(block.get(_ORIGINAL)) if isinstance(block, dict) else None
    maximum = view.maximum
    edit = None
    if original and maximum:
        shorter = {(*view.base, view.length_key): original} if original < maximum else {}
        edit = Edit(shorter, (path,))
    trained = f"{original:,} tokens" if original else "a length that it does not state"
    yield view.finding(
        "dual-chunk",
        path,
        f"{format_path(path)} cannot be run: no current engine has dual chunk attention. The model "
        f"was trained with {trained}.",
        edit=edit,
    )


def longrope_lists(view: ConfigView) -> Iterator[Finding]:
    """A list needs one factor per rotary frequency.

    Where that number is not known, the two lists must at least be equally long.
    """
    for block in view.blocks if view.family else ():
        if block.rope_type != "longrope":
            continue
        lists = {k: block.values.get(k) for k in ("short_factor", "long_factor")}
        sizes = {k: len(v) for k, v in lists.items() if isinstance(v, list)}
        wanted = _frequencies(view) or max(sizes.values(), default=0)
        for key, size in sizes.items():
            if size != wanted:
                path = (*block.path, key)
                yield view.finding(
                    "longrope-lists",
                    path,
                    f"{format_path(path)} has {size} entries; {wanted} are needed.",
                )


def _frequencies(view: ConfigView) -> int | None:
    """Half the rotary dimension, where the config is flat and its head size is plain."""
    if view.family is None or view.family.is_mla or view.family.scopes:
        return None
    heads, hidden = finite(view.top("num_attention_heads")), finite(view.top("hidden_size"))
    head_dim = finite(view.top("head_dim")) or (hidden / heads if heads and hidden else None)
    partial = next(
        (p for key in view.family.partial_keys if (p := finite(view.top(key)))),
        view.family.partial_rotary_factor,
    )
    rotating = (head_dim or 0.0) * partial
    return int(rotating) // 2 if 0 < rotating <= WIDEST_HEAD else None


def length_float(view: ConfigView) -> Iterator[Finding]:
    """A length written as 65536.0, which strict config classes refuse."""
    keys = dict.fromkeys((view.length_key, _ORIGINAL, *CONFIG_LENGTHS))
    places: list[Path] = [(*view.base, key) for key in keys]
    places += [(*block.path, _ORIGINAL) for block in view.blocks]
    for path in places if view.family else ():
        value = view.text.get(path)
        length = whole(value)
        if type(value) is not float or length is None:
            continue
        declared = path == (*view.base, view.length_key)
        yield view.finding(
            "length-float",
            path,
            f"{format_path(path)} is {value}; write {length}."
            + (" transformers 5, vLLM and SGLang stop." if declared else ""),
            severity="error" if declared else "warning",
            edit=Edit({path: length}),
        )


def stale_length(view: ConfigView) -> Iterator[Finding]:
    """Length fields beside `max_position_embeddings` that engines read first."""
    maximum = view.maximum
    if view.family is None or maximum is None:
        return
    for base in dict.fromkeys((view.base, ())):
        for key in CONFIG_LENGTHS:
            path = (*base, key)
            value = finite(view.text.get(path))
            if value is not None and 0 < value < maximum:
                yield view.finding(
                    "stale-length",
                    path,
                    f"{format_path(path)} is {value:,.0f}, below {view.length_key} {maximum:,}.",
                    edit=Edit({path: maximum}),
                )


def sliding_window(view: ConfigView) -> Iterator[Finding]:
    """A scaling on layers that attend only within a sliding window."""
    if view.rope is None:
        return
    scopes = [scope for scope in view.rope.scopes.values() if scope.layers]
    scaled = [s for s in scopes if s.parameters.rope_type not in ("default", "proportional")]
    bounded = [s for s in scaled if s.windowed and s.parameters.resolved_factor() > 1]
    if not bounded:
        return
    scope = bounded[0]
    path: Path = scope.path or (*view.base, view.length_key)
    window = f" of {scope.window:,} tokens" if scope.window else ""
    every = len(bounded) == len(scopes)
    # In EXAONE 4 the full layers, which have no RoPE, attend to distant tokens; the model may have
    # been trained with this scaling.
    severity: Severity = "note" if every and view.rope.nope_layers else "warning"
    yield view.finding(
        "sliding-window",
        path,
        f"{'Every layer with RoPE' if every else f'Every layer of {scope.name}'} attends only "
        f"within a sliding window{window}; the scaling does not let it attend further.",
        severity=severity,
    )


def check_tokenizer(view: ConfigView, file: str, tokenizer: JsonText) -> Iterator[Finding]:
    """The tokenizer's limit against the window."""
    window = _window(view)
    limit = finite(tokenizer.value.get("model_max_length"))
    if window is None or limit is None or not 0 < limit < window:
        return
    from yarncli.rules.catalogue import RULES

    rule = RULES["tokenizer-limit"]
    path = ("model_max_length",)
    yield Finding(
        rule, severity=rule.severity, file=file, line=tokenizer.line(path), path=path,
        message=f"model_max_length is {limit:,.0f}; the model reads {window:,} tokens.",
        edit=Edit({path: window}),
    )  # fmt: skip


def _window(view: ConfigView) -> int | None:
    """The window in tokens; under linear and dynamic it is above `max_position_embeddings`."""
    if view.rope is None:
        return None
    from yarncli.planning.plan import window_of

    return window_of(view.rope)


CONFIG_RULES = (
    unknown_model_type,
    *PLACE_RULES,
    *SPELLING_RULES,
    *SCALING_RULES,
    *LENGTH_RULES,
    beta_order,
    no_ramp,
    dual_chunk,
    longrope_lists,
    length_float,
    stale_length,
    sliding_window,
)
