"""Which files of a checkpoint are sent, and which are never sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from yarncli.checkpoint.directory import JOURNAL_NAME, PENDING_NAME
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.leftovers import TRAINING
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.history import FILE_NAME as HISTORY
from yarncli.publishing.options import PushOptions

README = "README.md"
# These files together state how to run a model, so they are sent together.
CONFIG_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", HISTORY)

# Patterns for a whole name or for any part of a path. They take precedence over --include.
_BACKUPS = ("*.orig", "*.orig.[0-9]*", JOURNAL_NAME, PENDING_NAME, "*~", "*.bak")
_SCRATCH = ("*.tmp", "*.incomplete", "*.lock", ".ds_store", ".git", ".cache", "__pycache__")
_TOOLS = (
    "venv", "node_modules", "mlruns", "logs", "*.egg-info", "site-packages", "lightning_logs",
)  # fmt: skip
_SECRETS = (
    ".env", ".env.*", ".envrc", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx",
    "*.ppk", "*.keystore", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".ssh", ".aws",
    ".azure", ".gcloud", ".kube", ".docker", ".gnupg", ".netrc", "_netrc", ".npmrc", ".pypirc",
    ".pgpass", ".git-credentials", ".bash_history", ".zsh_history", ".python_history",
    "credentials", "credentials.*", "client_secret*", "service-account*", "service_account*",
    "passwords*", "secret", "secrets", "secrets.*", "token", "token.*", "*[._-]token",
    "*[._-]token.*",
)  # fmt: skip
_KINDS = {
    "a backup or journal of yarncli": _BACKUPS,
    "scratch": _SCRATCH,
    "training state": TRAINING,
    "of a tool": _TOOLS,
    "possibly a secret": _SECRETS,
}
_PICKLE = re.compile(r"\.(bin|pt|pth|pkl|pickle|ckpt)$", re.IGNORECASE)


@dataclass(frozen=True)
class FileSelection:
    """The files to send, and the others: name → reason."""

    files: tuple[SourceFile, ...]
    left_out: dict[str, str]


def select_files(checkpoint: Checkpoint, options: PushOptions) -> FileSelection:
    """Choose the files to send.

    Args:
        checkpoint: a local checkpoint, or that of `copy_from`.
        options: the options of the caller.

    Raises:
        UsageError: no file is left to send.
    """
    chosen, left_out = [], {}
    for file in checkpoint.files:
        if reason := reason_to_stay(file.name, options):
            left_out[file.name] = reason
        else:
            chosen.append(file)
    if not chosen:
        raise UsageError(f"No file of {checkpoint.name} is left to send. Check --include.")
    return FileSelection(tuple(chosen), left_out)


def is_pickle(name: str) -> bool:
    """Whether loading the file may run code."""
    return _PICKLE.search(name) is not None


def reason_to_stay(name: str, options: PushOptions) -> str:
    """Why a file is not sent; empty if it is sent."""
    if options.config_only and name not in (*CONFIG_FILES, README):
        return "--config-only"
    for kind, patterns in _KINDS.items():
        if any(fnmatchcase(part.lower(), p) for part in name.split("/") for p in patterns):
            return kind
    if _is_hidden(name) and name not in options.include:
        return "hidden; give --include with its name to send it"
    if options.include and not any(fnmatchcase(name, pattern) for pattern in options.include):
        return "not in --include"
    return "--exclude" if any(fnmatchcase(name, pattern) for pattern in options.exclude) else ""


def _is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden; the Hub's own file does not count."""
    return name != ".gitattributes" and any(part.startswith(".") for part in name.split("/"))
