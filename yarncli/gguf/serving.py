"""How a GGUF file is served: the command line of llama-server, and a Modelfile of Ollama."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.gguf.source import GgufFile


@dataclass(frozen=True, slots=True)
class Serving:
    """A file that is to be served at its whole window."""

    path: str
    """Of the file; of a split model, of the first."""
    length: int
    """The window, tokens."""
    split_count: int = 1
    """Of how many files the model consists."""

    @classmethod
    def of(cls, file: GgufFile, output: Path | None, length: int) -> Serving:
        """What was made of a file: `output`, or the file itself where there is none."""
        path = output or file.path
        return cls(str(path) if path else file.name, length, file.split_count)

    @property
    def command(self) -> str:
        """The command line of llama.cpp's server."""
        return shlex.join(["llama-server", "-m", self.path, "-c", str(self.length)])

    @property
    def modelfile(self) -> str | None:
        """What `ollama create` takes; None of a split model, and of a file on the Hub.

        Ollama takes a path for a file only if it is absolute or begins with a dot.
        """
        if self.split_count > 1 or self.path.startswith("hf://"):
            return None
        told = self.path if Path(self.path).is_absolute() else f".{os.sep}{self.path}"
        return f"FROM {told}\nPARAMETER num_ctx {self.length}\n"

    def to_json(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        return {
            "launch": [{"engine": "llama.cpp", "launch": self.command}],
            "modelfile": self.modelfile,
        }
