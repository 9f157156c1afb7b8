"""The tokenizer of a checkpoint by its files alone, where transformers is not installed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.source import MAX_JSON_SIZE
from yarncli.errors import CheckpointError
from yarncli.extras import require_extra
from yarncli.jsontext.text import JsonText

_MAX_SIZE = 1 << 28  # bytes of tokenizer.json; those of large vocabularies have 35 MB
_SPECIAL = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


@dataclass(frozen=True, kw_only=True)
class FileTokenizer:
    """tokenizer.json as it stands, with the methods that transformers' tokenizers have."""

    tokens: Any
    """The tokenizer of the library tokenizers."""
    special_tokens_map: dict[str, str]
    """`bos_token` and the like, as tokenizer_config.json names them."""
    chat_template: str | dict[str, str] | None
    """Jinja source, or several by name; None for none."""
    eos_token_id: int | None = field(init=False)
    """Id of the token that ends a text; None if none is named."""

    def __post_init__(self) -> None:
        """Look up what ends a text."""
        end = self.tokens.token_to_id(self.eos_token) if self.eos_token else None
        object.__setattr__(self, "eos_token_id", end)

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text; None where none is named."""
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text; None where none is named."""
        return self.special_tokens_map.get("eos_token")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`."""
        ids: list[int] = self.tokens.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Text of token ids."""
        text: str = self.tokens.decode(ids, skip_special_tokens=skip_special_tokens)
        return text


def read_tokenizer(directory: Path) -> FileTokenizer:
    """The tokenizer in a directory; none of its code is run.

    Raises:
        CheckpointError: a file is damaged.
        MissingExtraError: tokenizers is not installed, or there is no tokenizer.json, which only
            transformers can do without.
    """
    require_extra("The tokenizer", "tokenizers")
    from tokenizers import AddedToken, Tokenizer

    path = directory / "tokenizer.json"
    if not path.exists():
        require_extra(f"{directory} has no tokenizer.json, and any other tokenizer", "transformers")
    config = _config(directory / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # as older versions wrote it
        config |= _config(directory / "special_tokens_map.json")
    try:
        tokens = Tokenizer.from_str(read_file(path, _MAX_SIZE).decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{path} cannot be loaded: {str(error).rstrip('.')}.") from error
    tokens.no_truncation()
    tokens.no_padding()
    special = {name: token for name in _SPECIAL if (token := _content(config.get(name)))}
    known = config.get("added_tokens_decoder") or {}
    added = [AddedToken(**each) for _, each in sorted(known.items(), key=lambda item: int(item[0]))]
    tokens.add_tokens([token for token in added if tokens.token_to_id(token.content) is None])
    named = [token for token in special.values() if tokens.token_to_id(token) is None]
    tokens.add_special_tokens(named)
    return FileTokenizer(
        tokens=tokens, special_tokens_map=special, chat_template=_template(directory, config)
    )


def _template(directory: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """The chat template: a file of its own goes before the config's."""
    path = directory / "chat_template.jinja"
    if path.exists():
        return read_file(path, MAX_JSON_SIZE).decode("utf-8", errors="replace")
    found = config.get("chat_template")
    if isinstance(found, list):
        return {each["name"]: each["template"] for each in found if {"name", "template"} <= {*each}}
    return found if isinstance(found, (str, dict)) else None


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path)).value


def _content(token: Any) -> str | None:
    """A token of a config: its text, or an object that has it."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
