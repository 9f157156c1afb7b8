"""The body of a pull request for maintainers who did not ask for it: what, why, how checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from yarncli import __version__
from yarncli.checkpoint.files import kind_of
from yarncli.engines.judgement import judge
from yarncli.errors import CheckpointError
from yarncli.evaluation.tasks import PASSKEY
from yarncli.history import CONVERTED_FILES
from yarncli.hub.uploads import Copy, Upload
from yarncli.hub.writing import Remote
from yarncli.publishing.base import fetch
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.gguf_section import GgufParts
from yarncli.publishing.local import LocalModel
from yarncli.publishing.markdown import plain
from yarncli.publishing.results import Results
from yarncli.rope.methods import METHODS

_MOST_LINES = 60  # lines of a diff; a tokenizer's config may be long
_LONGEST = 16 << 20  # bytes; a larger file is not shown as a diff


def proposal(
    local: LocalModel,
    start: Remote,
    uploads: Mapping[str, Upload],
    copies: list[Copy],
    results: Results | None,
) -> str:
    """Write the body of a pull request as Markdown.

    Args:
        local: the proposed model.
        start: the present branch.
        uploads: the files that are sent, by name.
        copies: the files that come from another repository.
        results: the measurements, if there are any.

    Raises:
        HubError: a file of the branch cannot be fetched.
        OutputError: the Hub cache cannot be written.
    """
    parts = [
        [local.options.commit_description],
        ["## What", "", *_what(local, uploads, copies), *_changes(start, uploads)],
        ["## Why", "", _why(local)],
        _engines(local, start.repo_id),
        ["## How it was checked", "", *_checked(local, results)],
        [f"Made with yarncli {__version__}."],
    ]
    return "\n\n".join(text for part in parts if (text := "\n".join(part).strip())) + "\n"


def _what(local: LocalModel, uploads: Mapping[str, Upload], copies: list[Copy]) -> Iterator[str]:
    done = local.history.plan
    if done is None and isinstance(local.checkpoint, GgufRepository):
        yield "Adds GGUF files."
    elif done is None:
        yield "Corrects the RoPE configuration."
    else:
        method = METHODS.get(done.method)
        yield (
            f"Extends the context window from {done.original_length:,} to {done.length:,} tokens "
            f"with {method.label if method else done.method}, factor {done.factor:.6g}."
        )
    names = {*uploads, *(copy.name for copy in copies)}
    weights = any(kind_of(name) in ("shard", "weights") for name in names)
    yield f"Files: {', '.join(f'`{name}`' for name in sorted(names))}."
    if isinstance(local.checkpoint, GgufRepository):
        yield GgufParts(repository=local.checkpoint, name="").about_weights()
    elif not weights:
        yield "The weights are unchanged."
    elif local.history.baked:
        yield "The weights contain the attention temperature and are otherwise unchanged."


def _changes(start: Remote, uploads: Mapping[str, Upload]) -> Iterator[str]:
    """The changes in the config files, as a diff."""
    for name in CONVERTED_FILES:
        held = start.files.get(name)
        if name not in uploads or held is None or max(held.size, uploads[name].size) > _LONGEST:
            continue
        old = fetch(start.repo_id, start.commit, name).read_bytes()
        with uploads[name].open() as file:
            new = file.read()
        before, after = (data.decode(errors="replace").splitlines() for data in (old, new))
        diff = list(difflib.unified_diff(before, after, name, name, lineterm="", n=1))
        if len(diff) > _MOST_LINES:
            diff = [*diff[:_MOST_LINES], "…"]
        if diff:
            yield from ("", "```diff", *diff, "```")


def _why(local: LocalModel) -> str:
    done = local.history.plan
    if done is None and isinstance(local.checkpoint, GgufRepository):
        return "For programs that run GGUF files."
    if done is None:
        return "Engines do not read the present configuration as it is intended; see below."
    return (
        f"The model was not made for positions beyond {done.original_length:,} tokens. Without "
        "scaling of the rotary frequencies, engines refuse longer texts or the answers get bad. "
        "Scaling also changes how the model reads short texts, so decline this pull request if "
        "short texts are more important to your users."
    )


def _engines(local: LocalModel, name: str) -> list[str]:
    """The verdicts on engines; empty for an unknown model type."""
    if isinstance(local.checkpoint, GgufRepository):
        return list(GgufParts(repository=local.checkpoint, name=name).engines("##"))
    try:
        files = local.checkpoint
        found = judge(files.config().value, local.history, source=name, checkpoint=files)
    except CheckpointError:
        return []
    rows = [
        f"| {view.engine.name} | {view.engine.versions} | {view.status} | "
        f"{f'{view.served_length:,}' if view.served_length else '–'} |"
        for view in found.verdicts
    ]
    if not rows:
        return []
    head = ["| engine | versions | result | serves (tokens) |", "|---|---|---|---|"]
    told = f"Compared with the intended setting (according to {found.intended_from}):"
    return ["## What each engine does with it", "", told, "", *head, *rows]


def _checked(local: LocalModel, results: Results | None) -> Iterator[str]:
    warnings = sorted({found.rule.id for found in local.findings})
    yield (
        "- `yarncli check` finds no errors"
        + (f"; warnings: {', '.join(f'`{rule}`' for rule in warnings)}." if warnings else ".")
    )
    yield (
        "- The verdicts on engines follow from the released code of the versions named. No engine "
        "was run on this model."
    )
    if results is None or results.report is None or results.setting is None:
        yield "- Retrieval at the new length was not measured."
    else:
        found: dict[str, list[str]] = {}
        for row in results.report.tasks(results.setting):
            found.setdefault(row.task, []).append(f"{row.length:,} tokens {row.accuracy:.0%}")
        for task, shown in found.items():
            what = "Passkey retrieval" if task == PASSKEY else f"Task {plain(task)}"
            yield f"- {what}: {', '.join(shown)}."
    if results is not None and results.price is not None:
        yield f"- {results.price.told()}"
