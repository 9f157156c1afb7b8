"""Import an engine's Python without its kernels, servers, drivers and layers.

`install(names)` makes every module at or below these names importable: whatever is asked of it is
a `Stub`, which can be called, subclassed, subscripted, used as a decorator and counted with (as 1,
the number of devices).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


class Stub:
    """Anything."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take anything."""

    def __getattr__(self, name: str) -> Any:
        if _is_dunder(name):
            raise AttributeError(name)
        return Stub()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function that it decorates, or another stub."""
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType | type):
            return args[0]
        return Stub()

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (type("StubBase", (_Base,), {}),)

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __subclasscheck__(self, subclass: Any) -> bool:
        return False

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, item: Any) -> bool:
        return False

    def __getitem__(self, key: Any) -> Any:
        return Stub()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget it."""

    def __delattr__(self, name: str) -> None:
        """Forget it."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: Any) -> None:
        """Nothing to close."""

    def __or__(self, other: Any) -> Any:
        return Any

    __ror__ = __or__

    def __int__(self) -> int:
        return 1

    __index__ = __int__

    def __float__(self) -> float:
        return 1.0

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: Any) -> bool:
        return (isinstance(other, int) and other == 1) or other is self


def _as_one(function: Callable[[Any, Any], Any], is_right: bool) -> Callable[[Any, Any], Any]:
    def apply(self: Stub, other: Any) -> Any:
        other = 1 if isinstance(other, Stub) else other
        return function(other, 1) if is_right else function(1, other)

    return apply


class _Number(int):
    """A number that is also the function that gives it."""

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        return int(self)


class Alone(Stub):
    """The parallel state of one process on one device."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("is_") and name.endswith("_rank"):
            return True
        if name.endswith("group"):
            return Alone()
        if name.endswith(("size", "rank")):
            return _Number(name.endswith("size"))
        return super().__getattr__(name)


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow"):
    setattr(Stub, f"__{_name}__", _as_one(getattr(operator, _name), False))
    setattr(Stub, f"__r{_name}__", _as_one(getattr(operator, _name), True))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Stub, f"__{_name}__", _as_one(getattr(operator, _name), False))


class _Base:
    """What a class is derived from instead of a stub."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take anything."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take anything."""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if _is_dunder(name):
            raise AttributeError(name)
        return Stub()


class _StubModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if _is_dunder(name):
            raise AttributeError(name)
        return Stub()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(
        self, names: Iterable[str], kept: Iterable[str], given: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.names, self.kept, self.given = tuple(names), tuple(kept), given

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        is_kept = any(_is_below(fullname, n) or _is_below(n, fullname) for n in self.kept)
        if is_kept and fullname not in self.given:
            return None
        if any(_is_below(fullname, name) for name in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _StubModule(spec.name)
        module.__version__ = "0.0.0"
        vars(module).update(self.given.get(spec.name, {}))
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def _is_below(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")


def install(
    names: Iterable[str],
    kept: Iterable[str] = (),
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Make modules importable as stubs.

    Args:
        names: these, and all below them.
        kept: these, all below and above them, are imported as they are.
        given: module → what it holds after all.
    """
    sys.meta_path.insert(0, _Finder(names, kept, given or {}))


def package(name: str, *paths: str, **given: Any) -> None:
    """Register a package whose own `__init__` is not run; what is not given there is a stub."""
    module = _StubModule(name)
    module.__path__ = list(paths)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    vars(module).update(given)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)
