"""The findings against publishing GGUF files, made before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.gguf.intended import Intended, intended_beside
from yarncli.publishing.gguf import GgufFiles, GgufRepository, find_gguf_files
from yarncli.publishing.gguf_metadata import parents_note
from yarncli.publishing.options import PushOptions
from yarncli.publishing.preflight import about_file, about_licence, finding, heeding
from yarncli.publishing.selection import FileSelection
from yarncli.rules.finding import Finding
from yarncli.rules.sources import check_source


def refuse_options(options: PushOptions) -> None:
    """Refuse options that are only for checkpoints.

    Raises:
        UsageError: such an option is given.
    """
    for flag, given in (("from", options.copy_from), ("config-only", options.config_only)):
        if given:
            raise UsageError(
                f"--{flag} is only for checkpoints, and these are GGUF files. Leave it out."
            )


def gguf_preflight(
    repository: GgufRepository, selection: FileSelection, options: PushOptions
) -> list[Finding]:
    """All findings about the files to send: those of `check`, and those of push.

    Args:
        repository: the files.
        selection: the files to send.
        options: the options of the caller.
    """
    found = [*_about_models(repository, repository, selection)]
    for file in selection.files:
        found += about_file(repository, file)
    if not repository.history.origin:
        found += about_licence(repository, options)
    if not options.base_model and (told := parents_note(repository)):
        found.append(finding("gguf-base", repository.name, told))
    return [*heeding(found, options.allow)]


def preflight_beside(
    checkpoint: Checkpoint, selection: FileSelection, options: PushOptions
) -> list[Finding]:
    """The findings about GGUF files beside a checkpoint, also whether they compute like it."""
    assert checkpoint.directory is not None  # what is pushed is here
    files = find_gguf_files(checkpoint.directory, checkpoint.files)
    against = intended_beside(checkpoint) if files.models else None
    return [*heeding(_about_models(checkpoint, files, selection, against), options.allow)]


def _about_models(
    checkpoint: Checkpoint,
    files: GgufFiles,
    selection: FileSelection,
    against: Intended | None = None,
) -> Iterator[Finding]:
    sent = {file.name: str(checkpoint.path(file.name)) for file in selection.files}
    for name, why in files.faults.items():
        if name in sent:
            yield finding("gguf-unfit", sent[name], why)
    for model in files.models:
        where = str(checkpoint.path(model.names[0]))
        missing = [name for name in model.names if name not in sent]
        if len(missing) == len(model.names):
            continue
        if missing:
            yield finding(
                "gguf-parts", where,
                f"{where} is the first of {len(model.names)} files, but {missing[0]} would not be "
                "sent.",
            )  # fmt: skip
        yield from check_source(where, against=against).findings
        if model.history.unbelieved:
            yield finding(
                "gguf-record", where,
                f"The record in {where} (yarncli.plan) describes another setting than the file "
                "has.",
            )  # fmt: skip
    for name, why in files.beside.items():
        if name in sent:
            yield finding("gguf-beside", sent[name], f"{why} It is sent as well.")
