"""Which θ engines assume if a config states none."""

from __future__ import annotations

from yarncli.engines.tables import default_theta, get_row
from yarncli.engines.types import Model

_READERS = {
    "transformers-5": "transformers 5",
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llama.cpp": "llama.cpp",
    "transformers-4.57": "transformers 4",
    "exllamav3": "exllamav3",
    "mlx-lm": "mlx-lm",
}


def assumed_thetas(model: Model, scope: str) -> dict[str, list[str]]:
    """The θ that engines assume if a file states none, as text → engines.

    Engines whose default is not known are left out.

    Args:
        model: the config.
        scope: of which layers.
    """
    found: dict[str, list[str]] = {}
    stopping: list[str] = []
    for engine, name in _READERS.items():
        theta, row = default_theta(engine, model, scope), get_row(engine, model.rope.model_type)
        if theta is not None:
            found.setdefault(f"{theta:,.0f}", []).append(name)
        elif row and "theta" in row.failure("no theta"):
            stopping.append(name)
    says = {_verb(names, "take") + f" {theta}": names for theta, names in found.items()}
    return says | ({_verb(stopping, "stop"): stopping} if stopping else {})


def _verb(names: list[str], verb: str) -> str:
    return f"{verb}s" if len(names) == 1 else verb
