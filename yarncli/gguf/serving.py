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
    """A file to serve with its whole window."""

    path: str
    """Path of the file; for a split model, path of the first file."""
    length: int
    """The window, tokens."""
    split_count: int = 1
    """Number of files of the model."""

    @classmethod
    def of(cls, file: GgufFile, output: Path | None, length: int) -> Serving:
        """How to serve `output`, or the file itself if there is no output."""
        path = output or file.path
        return cls(str(path) if path else file.name, length, file.split_count)

    @property
    def command(self) -> str:
        """The command line of llama.cpp's server."""
        return shlex.join(["llama-server", "-m", self.path, "-c", str(self.length)])

    @property
    def modelfile(self) -> str | None:
        """The Modelfile for `ollama create`; None for a split model and for a file on the Hub.

        Ollama treats a text as a path only if it is absolute or begins with a dot.
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
