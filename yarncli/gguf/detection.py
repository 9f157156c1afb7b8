"""Whether a SOURCE is a GGUF file, decided before anything else is imported."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ENDING = ".gguf"


def is_gguf_source(source: object) -> bool:
    """Whether a command should read a source as a GGUF file.

    The first bytes of a local file decide, because Ollama's files have no ending. A damaged file
    with the ending .gguf counts as well, so that the reader of GGUF files can say what is wrong.

    Args:
        source: as the user gave it.
    """
    if not isinstance(source, str | Path):
        return False
    given = str(source)
    if given.startswith("hf://"):  # the name of a repository may end in .gguf as well
        return given.endswith(ENDING) and given.count("/") > 3
    if given.endswith(".json") or "\0" in given:
        return False
    with suppress(OSError):  # the code that opens it later says why it cannot be read
        return _is_local_file(Path(given))
    return False


def _is_local_file(path: Path) -> bool:
    if path.name.endswith(ENDING):
        return not path.is_dir()
    if not path.is_file():
        return False
    from yarncli.gguf.source import looks_like_gguf

    return looks_like_gguf(path)


def is_gguf_folder(source: object) -> bool:
    """Whether a source is a directory with GGUF files but without a checkpoint."""
    if not isinstance(source, str | Path) or not str(source) or "\0" in str(source):
        return False
    path = Path(source)
    with suppress(OSError):
        if path.is_dir() and not (path / "config.json").exists():
            return any(entry.suffix == ENDING for entry in path.iterdir())
    return False
