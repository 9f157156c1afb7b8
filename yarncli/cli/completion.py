"""The values that a shell can complete; their lists are imported only when it asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

_ENGINES = ("yarncli.engines.registry", "ENGINES")
_METHODS = ("yarncli.rope.methods", "METHODS")
_RULES = ("yarncli.rules.catalogue", "RULES")
# Option, or "command option" → the module and the name of the list of its values.
_LISTS = {
    "method": _METHODS,
    "engine": _ENGINES,
    "for_": _ENGINES,
    "engines explain": _ENGINES,
    "check explain": _RULES,
    "ignore": _RULES,
    "allow": ("yarncli.publishing.options", "ALLOWABLE"),
    "assume_like": ("yarncli.config.families.table", "FAMILIES"),
    "layout": ("yarncli.baking.layouts", "LAYOUTS"),
    "trainer": ("yarncli.training.trainers", "recipe_names"),
    "tasks": ("yarncli.evaluation.tasks", "TASKS"),
    "dtype": ("yarncli.evaluation.settings", "DTYPES"),
    "device": ("yarncli.evaluation.settings", "DEVICES"),
    "compare": ("yarncli.evaluation.variants", "comparable"),
    "override": ("yarncli.evaluation.variants", "SETTINGS"),
}
_WITH_COMMAS = frozenset({"for_", "compare", "tasks", "override"})


def completer(command: str, name: str) -> Callable[[Any, str], Any] | None:
    """The function that completes the values of a parameter; None if there is no list of them.

    Args:
        command: the name of the command.
        name: the name of the parameter.
    """
    place = _LISTS.get(f"{command} {name}") or _LISTS.get(name)
    return partial(_complete, name, place) if place else None


def _complete(name: str, place: tuple[str, str], ctx: Any, incomplete: str) -> list[Any]:
    """The values that start like `incomplete`, in any case, as items for the shell."""
    from typer.core import CompletionItem  # type: ignore[attr-defined]

    return [CompletionItem(value) for value in _values(name, place, incomplete)]


def _values(name: str, place: tuple[str, str], incomplete: str) -> list[str]:
    head, begun = "", incomplete
    if name in _WITH_COMMAS:
        before, comma, begun = incomplete.rpartition(",")
        head = before + comma
    words: Any = getattr(import_module(place[0]), place[1])
    words = words() if callable(words) else words
    if name == "override":
        setting, equals, begun = begun.partition("=") if "=" in begun else ("", "", begun)
        head += setting + equals
        if equals:
            if setting != "method":
                return []
            words = getattr(import_module(_METHODS[0]), _METHODS[1])
        else:
            words = [f"{word}=" for word in words]
    return [head + word for word in words if word.casefold().startswith(begun.casefold())]
