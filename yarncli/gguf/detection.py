"""Whether a SOURCE is a GGUF file, told before anything else is imported."""

from __future__ import annotations

from pathlib import Path

ENDING = ".gguf"


def is_gguf_source(source: object) -> bool:
    """Whether a command is to read a source as a GGUF file.

    A local file is one by its first bytes, whatever its name: Ollama's have no ending. A damaged
    file with the ending counts, too: what reads GGUF files says what is wrong with it.

    Args:
        source: as the user gave it.
    """
    if not isinstance(source, str | Path):
        return False
    given = str(source)
    if given.startswith("hf://"):  # a repository may have a name with that ending
        return given.endswith(ENDING) and given.count("/") > 3
    if given.endswith(ENDING):
        return not Path(given).is_dir()
    if given.endswith(".json") or "\0" in given:
        return False
    path = Path(given)
    if not path.is_file():
        return False
    from yarncli.gguf.source import looks_like_gguf

    return looks_like_gguf(path)


def is_gguf_folder(source: object) -> bool:
    """Whether a source is a directory of GGUF files and no checkpoint."""
    if not isinstance(source, str | Path) or not str(source) or "\0" in str(source):
        return False
    path = Path(source)
    if not path.is_dir() or (path / "config.json").exists():
        return False
    return any(entry.suffix == ENDING for entry in path.iterdir())
