"""What of a stranger's checkpoint never reaches transformers; said before torch is imported."""

from __future__ import annotations

from pathlib import Path

from yarncli.checkpoint.files import read_file, walk_files
from yarncli.checkpoint.source import MAX_JSON_SIZE
from yarncli.errors import CheckpointError
from yarncli.jsontext.text import JsonText

# Keys of a config by which transformers fetches code from the Hub: `org/kernel`.
_KERNELS = ("attn_implementation", "experts_implementation")


def refuse_remote_code(directory: Path, name: str, trusted: bool) -> None:
    """Refuse a checkpoint that brings or asks for Python code, unless the user trusts it.

    Args:
        directory: of the checkpoint.
        name: config.json or tokenizer_config.json.
        trusted: whether the user passed --trust-remote-code.

    Raises:
        CheckpointError: it does, or the file cannot be read.
    """
    path = directory / name
    if trusted or not path.exists():
        return
    config = JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path)).value
    if config.get("auto_map"):
        raise CheckpointError(
            f"{directory} brings its own Python code ({name}: auto_map), which yarncli does not "
            "run by default. Read that code, then pass --trust-remote-code."
        )
    for key in _KERNELS:
        if "/" in str(config.get(key, "")):
            raise CheckpointError(
                f"{path}: {key} names a kernel on the Hub. A kernel is code, which yarncli does "
                "not run by default. Remove the key, or pass --trust-remote-code."
            )


def refuse_what_is_no_file(directory: Path) -> None:
    """Refuse pipes, devices and broken links, which transformers would wait for or read forever.

    Raises:
        CheckpointError: there is one.
    """
    try:
        for file in walk_files(directory.resolve()):
            if file.problem and not (directory / file.name).is_file():
                raise CheckpointError(f"{directory / file.name} {file.problem}. Remove it.")
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from error
