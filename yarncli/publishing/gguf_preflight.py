"""The findings against publishing GGUF files, made before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.errors import UsageError
from yarncli.publishing.gguf import GgufRepository
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
    found = [*_about_models(repository, {file.name for file in selection.files})]
    for file in selection.files:
        found += about_file(repository, file)
    if not repository.history.origin:
        found += about_licence(repository, options)
    if not options.base_model and (told := parents_note(repository)):
        found.append(finding("gguf-base", repository.name, told))
    return [*heeding(found, options.allow)]


def _about_models(repository: GgufRepository, sent: set[str]) -> Iterator[Finding]:
    for name, why in repository.faults.items():
        if name in sent:
            yield finding("gguf-unfit", repository.where(name), why)
    for model in repository.models:
        where = repository.where(model.names[0])
        missing = [name for name in model.names if name not in sent]
        if len(missing) == len(model.names):
            continue
        if missing:
            yield finding(
                "gguf-parts", where,
                f"{where} is the first of {len(model.names)} files, but {missing[0]} would not be "
                "sent.",
            )  # fmt: skip
        yield from check_source(where).findings
        if model.history.unbelieved:
            yield finding(
                "gguf-record", where,
                f"The record in {where} (yarncli.plan) describes another setting than the file "
                "has.",
            )  # fmt: skip
    for name, why in repository.beside.items():
        if name in sent:
            yield finding("gguf-beside", repository.where(name), f"{why} It is sent as well.")
