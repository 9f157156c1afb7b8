"""What a current engine refuses, or fails on, from the same rules as `yarncli engines`."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.errors import CheckpointError
from yarncli.rules.config_view import BLOCK_KEYS, ConfigView
from yarncli.rules.finding import Finding

STOPS = ("refuses", "crashes")


def refused_by_engines(view: ConfigView) -> Iterator[Finding]:
    """transformers 5 stops: an error. vLLM alone stops: a warning, if anything serves the model.

    Args:
        view: the config; one that cannot be read has its own finding and gives none here.
    """
    if view.rope is None or not _may_stop(view):
        return
    from yarncli.engines.loaders import read_model
    from yarncli.engines.rules import transformers_5, vllm
    from yarncli.engines.verdict import view as judged

    try:
        model = read_model(view.text.value)
    except CheckpointError:
        return
    five = judged(transformers_5.ENGINE, model, {})
    # Without the class's name vLLM stops at a config that is only a part of a checkpoint.
    named = bool(view.text.value.get("architectures"))
    found = judged(vllm.ENGINE, model, {}) if named and five.status not in STOPS else five
    if found.status not in STOPS:
        return
    is_served = found is not five and (five.has_reading or _is_served(view))
    does = "refuses the config" if found.status == "refuses" else "fails when it starts"
    yield view.finding(
        "engine-stops",
        view.blocks[0].path if view.blocks else view.base or ("model_type",),
        f"{found.engine.name} {does}: {found.summary()}",
        severity="warning" if is_served else "error",
    )


def _may_stop(view: ConfigView) -> bool:
    """Whether the config has more than a plain θ, which every config class accepts."""
    family = view.family
    keys = any(view.text.get((*view.base, key)) is not None for key in BLOCK_KEYS)
    return bool(keys or view.base or (family and (family.scopes or family.mrope)))


def _is_served(view: ConfigView) -> bool:
    """Whether some engine computes the model, or may do so."""
    from yarncli.engines.judgement import judge

    found = judge(view.text.value, launch=False).verdicts
    return any(v.has_reading or v.status == "unknown" for v in found)
