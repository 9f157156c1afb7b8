"""Values of options: words out of lists, and records given in Python, checked the same way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from yarncli.errors import UsageError

Options = TypeVar("Options")

_WORDS = {
    bool: "True or False",
    int: "a whole number of at most 64 bits",
    float: "a number",
    str: "a string",
    NoneType: "None",
}


_FEW = 100  # words that a message lists; of more it names the similar ones


def choose(
    given: str, words: Iterable[str], what: str, *, aliases: Mapping[str, str] | None = None
) -> str:
    """The word of a list that is meant; capitals and punctuation do not count.

    Args:
        given: what the user wrote.
        words: the list.
        what: what the words are, in the singular, such as "engine".
        aliases: other names, and the word that each stands for.

    Raises:
        UsageError: it is none of them; names similar ones, or all.

    Example:
        >>> choose("vLLM", ["vllm", "sglang"], "engine"), choose("PI", ["linear"], "method",
        ...     aliases={"pi": "linear"})
        ('vllm', 'linear')
    """
    words = list(words)
    if given in words:
        return given
    known = {_plain(name): word for name, word in (aliases or {}).items()}
    known |= {_plain(word): word for word in words}
    if found := known.get(_plain(given)):
        return found
    from difflib import get_close_matches

    close = dict.fromkeys(known[name] for name in get_close_matches(_plain(given), known, n=3))
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if len(words) <= _FEW:
        hint += f" Known: {', '.join(words)}."
    if aliases and not close:
        hint += f" Other names: {', '.join(f'{name} ({word})' for name, word in aliases.items())}."
    raise UsageError(f"There is no {what} {given[:80]!r}.{hint}")


def _plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def checked(options: Options, changes: Mapping[str, Any]) -> Options:
    """A record of options with some set otherwise, every value of the type that its field says.

    Args:
        options: a frozen dataclass.
        changes: fields to set, by name; a string stands for a path, too.

    Raises:
        UsageError: names the option and its value.
        TypeError: there is no such option.
    """
    options = replace(options, **changes)  # type: ignore[type-var]
    for name, hint in get_type_hints(type(options)).items():
        value, kinds = getattr(options, name), get_args(hint) or (hint,)
        if isinstance(value, str) and Path in kinds and str not in kinds:
            options = replace(options, **{name: Path(value)})  # type: ignore[type-var]
        elif isinstance(value, str) and not _fits(value, hint) and (words := _words(hint)):
            options = replace(options, **{name: choose(value, words, name)})  # type: ignore[type-var]
        elif not _fits(value, hint):
            raise UsageError(f"{name} is {value!r:.80}; it must be {_named(hint)}.")
    return options


def given_options(options: Any) -> dict[str, Any]:
    """The fields with a default, of a dataclass of options, that differ from it."""
    usual = {field.name: field.default for field in fields(options) if field.default is not MISSING}
    return {n: value for n in usual if (value := getattr(options, n)) != usual[n]}


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        same = isinstance(value, tuple) and len(value) == len(inner)
        return same and all(map(_fits, value, inner))
    if kind in (Collection, Sequence):
        is_list = isinstance(value, kind) and not isinstance(value, (str, bytes))
        return is_list and all(_fits(item, inner[0]) for item in value)
    if hint in (int, float) and not (hint is float and isinstance(value, float)):
        return isinstance(value, int) and type(value) is not bool and value.bit_length() < 64
    return isinstance(value, hint)


def _words(hint: Any) -> list[str]:
    """The words that an option takes; none where it takes anything else."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [_words(each) for each in get_args(hint) if each is not NoneType]
        return [word for words in kinds for word in words] if all(kinds) else []
    return list(get_args(hint)) if get_origin(hint) is Literal else []


def _named(hint: Any) -> str:
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(_named, inner))
    if kind is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if kind is not None:
        return f"a list, each {' and '.join(dict.fromkeys(map(_named, inner)))}"
    return _WORDS.get(hint, f"a {hint.__name__}")
