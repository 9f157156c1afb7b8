"""The one message for an optional dependency that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from yarncli.errors import MissingExtraError

_EXTRA_OF = {
    "torch": "eval",
    "transformers": "eval",
    "accelerate": "eval",
    "tokenizers": "serve",
    "openai": "serve",
    "jinja2": "serve",
    "matplotlib": "plot",
}


def installed(*modules: str) -> bool:
    """Whether all of `modules` can be imported, without importing them."""
    return all(find_spec(module) is not None for module in modules)


def require_extra(feature: str, *modules: str) -> None:
    """Check that `modules` can be imported, without importing them.

    Args:
        feature: what the user asked for, as the subject of the message ("check-passkey").
        modules: top-level import names.

    Raises:
        MissingExtraError: names the first missing module and the pip line that brings it.
    """
    for module in modules:
        if not installed(module):
            extra = _EXTRA_OF[module]
            raise MissingExtraError(
                f"{feature} needs {module}, which is not installed. "
                f"Install it with: pip install 'yarncli[{extra}]'"
            )
