"""Extend the context window of Hugging Face checkpoints, and prove that it worked.

The commands of the program are functions here: `yarncli.convert` is `yarncli convert`.
`docs/python-api.md` shows each. Importing the package costs nothing, as every name is imported
when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yarncli.baking.bake import bake
    from yarncli.baking.settings import BakeOptions
    from yarncli.checkpoint.source import open_checkpoint
    from yarncli.conversion.convert import convert, plan
    from yarncli.conversion.options import ConvertOptions
    from yarncli.engines.judgement import judge_checkpoint as judge
    from yarncli.errors import (
        CheckFailed,
        CheckpointError,
        ConfigError,
        HubError,
        MissingExtraError,
        NotComputedError,
        NotOnHubError,
        OutputError,
        UnknownArchitectureError,
        UnsupportedArchitectureError,
        UsageError,
        WeightsError,
        YarncliError,
    )  # fmt: skip
    from yarncli.evaluation.fit import FitOptions, fit
    from yarncli.evaluation.perplexity import PerplexityOptions, evaluate_perplexity
    from yarncli.evaluation.regress import RegressOptions, regress
    from yarncli.evaluation.session import PasskeyOptions, evaluate_passkey
    from yarncli.inspection.description import inspect
    from yarncli.publishing.card import card
    from yarncli.publishing.options import PushOptions
    from yarncli.publishing.push import push
    from yarncli.rules.check import CheckOptions, check
    from yarncli.training.finish import finish
    from yarncli.training.guarding import guard
    from yarncli.training.options import FinishOptions
    from yarncli.training.recipe import RecipeOptions, recipe

__version__ = "0.2.0"

__all__ = [
    "BakeOptions", "CheckFailed", "CheckOptions", "CheckpointError", "ConfigError",
    "ConvertOptions", "FinishOptions", "FitOptions", "HubError", "MissingExtraError",
    "NotComputedError", "NotOnHubError", "OutputError", "PasskeyOptions", "PerplexityOptions",
    "PushOptions", "RecipeOptions", "RegressOptions", "UnknownArchitectureError",
    "UnsupportedArchitectureError", "UsageError", "WeightsError", "YarncliError",
    "bake", "card", "check", "convert", "evaluate_passkey", "evaluate_perplexity", "finish",
    "fit", "guard", "inspect", "judge", "open_checkpoint", "plan", "push", "recipe", "regress",
]  # fmt: skip

# Where each name is defined; what is not here is in `errors`. Rooms are nouns, so that none has
# the name of a function: once imported, it would stand in its place.
_HOMES = {
    "bake": "baking.bake",
    "BakeOptions": "baking.settings",
    "card": "publishing.card",
    "check": "rules.check",
    "CheckOptions": "rules.check",
    "convert": "conversion.convert",
    "ConvertOptions": "conversion.options",
    "evaluate_passkey": "evaluation.session",
    "evaluate_perplexity": "evaluation.perplexity",
    "finish": "training.finish",
    "FinishOptions": "training.options",
    "fit": "evaluation.fit",
    "FitOptions": "evaluation.fit",
    "guard": "training.guarding",
    "inspect": "inspection.description",
    "judge": "engines.judgement",
    "open_checkpoint": "checkpoint.source",
    "PasskeyOptions": "evaluation.session",
    "PerplexityOptions": "evaluation.perplexity",
    "plan": "conversion.convert",
    "push": "publishing.push",
    "PushOptions": "publishing.options",
    "recipe": "training.recipe",
    "RecipeOptions": "training.recipe",
    "regress": "evaluation.regress",
    "RegressOptions": "evaluation.regress",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'yarncli' has no attribute {name!r}")
    module = import_module(f"yarncli.{_HOMES.get(name, 'errors')}")
    value = getattr(module, "judge_checkpoint" if name == "judge" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
