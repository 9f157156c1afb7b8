"""Typed reading of a JSON object. A wrong type is an error that names the path and the value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from yarncli.errors import ConfigError

_T = TypeVar("_T")

# The largest integer of a config (lengths, widths and counts). A double holds it exactly.
MOST = 2**53
# The most entries of a list (one per layer or per frequency), and the most keys of an object.
MOST_ENTRIES = 10_000


def json_path(path: tuple[str, ...]) -> str:
    """A path in `config.json` for messages.

    Example:
        >>> json_path(("rope_scaling", "factor"))
        'rope_scaling.factor'
    """
    return ".".join(path)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object, its path in the file, and the names that the file uses for some keys.

    A missing key and a key that is `null` both give the default.
    """

    values: Mapping[str, Any]
    path: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse more keys than any config has, because each engine's rules copy them.

        Raises:
            ConfigError: there are too many keys.
        """
        if len(self.values) > MOST_ENTRIES:
            where = json_path(self.path) or "The object"
            raise ConfigError(
                f"{where} has {len(self.values):,} keys; at most {MOST_ENTRIES:,} are read."
            )

    def has(self, key: str) -> bool:
        """Whether `key` exists with a value other than `null`."""
        return self._raw(key) is not None

    def integer(self, key: str, default: int | None = None) -> int | None:
        """An integer. 4096.0, which some trainers write, counts as an integer.

        Raises:
            ConfigError: it is something else.
        """
        value = self._raw(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer() and abs(value) <= MOST:
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > 63:
            raise self._wrong(key, "an integer of at most 64 bits")
        return value

    def positive(self, key: str, default: int, limit: int = MOST) -> int:
        """An integer from 1 to `limit`.

        Raises:
            ConfigError: it is something else.
        """
        value = self.integer(key, default)
        if value is None or not 1 <= value <= limit:
            shown = "positive" if value is None or value < 1 else f"at most {limit:,}"
            raise ConfigError(f"{self.where(key)} is {value}; it must be {shown}.")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number as a float. Integers are accepted.

        Raises:
            ConfigError: it is something else, not finite, or too large for a float.
        """
        value = self._raw(key)
        return default if value is None else self._float(key, value)

    def boolean(self, key: str, default: bool = False) -> bool:
        """`true` or `false`.

        Raises:
            ConfigError: it is something else.
        """
        value = self._raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """A string, or `None` if the key is missing.

        Raises:
            ConfigError: it is something else.
        """
        value = self._raw(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """A list of finite numbers.

        Raises:
            ConfigError: it is something else.
        """
        value = self._list(key)
        return None if value is None else tuple(self._float(key, item) for item in value)

    def integers(self, key: str) -> tuple[int, ...] | None:
        """A list of integers; `true` and `false` count as 1 and 0.

        Raises:
            ConfigError: it is something else.
        """
        value = self._list(key)
        if value is None:
            return None
        if not all(isinstance(item, int) for item in value):
            raise self._wrong(key, "a list of integers")
        return tuple(int(item) for item in value)

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of strings.

        Raises:
            ConfigError: it is something else.
        """
        value = self._list(key)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> Fields | None:
        """A JSON object, or `None` if the key is missing.

        Raises:
            ConfigError: it is something else.
        """
        value = self._raw(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a JSON object")
        return Fields(value, (*self.path, self.name(key)))

    def required(self, key: str, read: Callable[[Fields, str], _T | None]) -> _T:
        """The value that `read`, one of these methods, returns for a key that must exist.

        Raises:
            ConfigError: it is missing, or `read` refuses it.
        """
        value = read(self, key) if self.has(key) else None
        if value is None:
            raise ConfigError(f"{self.where(key)} is missing.")
        return value

    def is_list(self, key: str) -> bool:
        """Whether the value is a list (some old files list one θ per layer)."""
        return isinstance(self._raw(key), list)

    def where(self, key: str) -> str:
        """The JSON path of `key`, as shown to people."""
        return json_path((*self.path, self.name(key)))

    def name(self, key: str) -> str:
        """The file's own name for `key`."""
        name = self.names.get(key)
        return name if name is not None and name in self.values else key

    def _raw(self, key: str) -> Any:
        return self.values.get(self.name(key))

    def _list(self, key: str) -> list[Any] | None:
        value = self._raw(key)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, "a list")
        if value is not None and len(value) > MOST_ENTRIES:
            raise ConfigError(
                f"{self.where(key)} has {len(value):,} entries; at most {MOST_ENTRIES:,} are read."
            )
        return value

    def _float(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(key, "a finite number")
        return number

    def _wrong(self, key: str, expected: str) -> ConfigError:
        shown = repr(self._raw(key)) if not _is_huge(self._raw(key)) else "a very large integer"
        if len(shown) > 60:
            shown = shown[:57] + "..."
        return ConfigError(f"{self.where(key)} is {shown}; it must be {expected}.")


def _is_huge(value: Any) -> bool:
    """Whether an integer is so large that Python refuses to print it."""
    return isinstance(value, int) and value.bit_length() > 4096
