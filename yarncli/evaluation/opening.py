"""Fetch what an evaluation reads, and refuse what must not reach transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from yarncli.checkpoint.contents import ADAPTER_WEIGHTS
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.passkey import TextCodec, make_codec
from yarncli.evaluation.settings import LoadSettings, TrialSettings
from yarncli.evaluation.subjects import local_directory
from yarncli.evaluation.trust import refuse_remote_code, refuse_what_is_no_file
from yarncli.history.adapters import adapter_config, require_plan
from yarncli.progress import ProgressCallback, unmeasured

_TOKENIZER = "tokenizer_config.json"


def name_of(source: str | Checkpoint) -> str:
    """A source as the user named it."""
    return source.name if isinstance(source, Checkpoint) else source


def fetched(
    source: str | Checkpoint,
    settings: LoadSettings,
    progress: ProgressCallback | None,
    *,
    weights: bool = True,
) -> Checkpoint:
    """The checkpoint with its files on this machine; without `weights`, only the small ones.

    Raises:
        UsageError: its code is trusted without saying which commit has been read.
        CheckpointError: it has code or files that must not be read.
        YarncliError: whatever finding and fetching it meets.
    """
    checkpoint = open_checkpoint(source)
    name = name_of(source)
    unpinned = not Path(name).exists() and not re.search(r"@[0-9a-f]{40}$", name)
    if settings.trust_remote_code and checkpoint.repo_id and unpinned:
        raise UsageError(
            "--trust-remote-code with a Hub id needs the full commit that you have read: "
            f"hf://{checkpoint.repo_id}@{checkpoint.commit}"
        )
    names = None if weights else tuple(f.name for f in checkpoint.files if not f.is_weights)
    local = checkpoint.download(names, progress=progress)
    _refuse(local_directory(local), "config.json" if weights else _TOKENIZER, settings)
    return local


def choose_settings(
    checkpoint: Checkpoint,
    options: TrialSettings,
    longest: int,
    progress: ProgressCallback | None,
) -> list[variants.Variant]:
    """The settings to measure, the one in question first; a control checkpoint is fetched.

    Args:
        checkpoint: whose settings they are.
        options: which.
        longest: of the lengths that are asked for, tokens; 0 where none are.
        progress: told how far fetching is.

    Raises:
        CheckpointError, UsageError: as `choose_variants` and `fetched`.
    """
    control = options.control_model
    choice = variants.Choice(
        override=variants.parse_override(options.override) if options.override else None,
        methods=options.compare,
        control=options.control,
        control_checkpoint=fetched(control, options, progress) if control else None,
    )
    return variants.choose_variants(checkpoint, choice, longest)


def adapter_warning(settings: Sequence[variants.Variant], options: LoadSettings) -> str:
    """Refuse an adapter that was trained for none of the settings that it is measured with.

    Args:
        settings: the one in question first; only those of its checkpoint count.
        options: name the adapter, if there is one.

    Returns:
        The warning that nothing records its setting; empty if something does.

    Raises:
        CheckpointError: it is no adapter, or was trained for another setting.
    """
    base = settings[0].checkpoint
    if options.adapter is None or base is None:
        return ""
    directory = Path(options.adapter)
    adapter_config(directory, ADAPTER_WEIGHTS, "adapter_model.bin")
    configs = [variant.config for variant in settings if variant.checkpoint == base]
    return require_plan(directory, base, configs)


def open_codec(
    source: str | Checkpoint,
    settings: LoadSettings,
    chat: bool | None,
    progress: ProgressCallback | None,
) -> TextCodec:
    """The tokenizer of a source; a directory that has only a tokenizer needs no config.json.

    Args:
        source: a directory, a Hub id or a checkpoint.
        settings: whether code is trusted.
        chat: whether texts go through its chat template; None where it has one.
        progress: told how far fetching is, and of "Loading the tokenizer".

    Raises:
        CheckpointError, UsageError: as `make_codec` and `fetched`.
    """
    directory = Path(name_of(source))
    if directory.is_dir():
        _refuse(directory, _TOKENIZER, settings)
    else:
        directory = local_directory(fetched(source, settings, progress, weights=False))
    with unmeasured(progress, "Loading the tokenizer"):
        return make_codec(directory, chat, trust_remote_code=settings.trust_remote_code)


def _refuse(directory: Path, name: str, settings: LoadSettings) -> None:
    """Refuse what must not reach transformers, which reads the file `name` first."""
    refuse_what_is_no_file(directory)
    refuse_remote_code(directory, name, settings.trust_remote_code)
