"""What `check-passkey` does around the library: what to run, and where the answers go."""

from __future__ import annotations

import json as json_module
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli import console
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.cli.check_passkey_view import LiveGrid, print_results
from yarncli.cli.options import parse_length
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluate import variants as library
from yarncli.evaluate.passkey import (
    Decode,
    Grid,
    LoadSettings,
    TextCodec,
    local_cells,
    make_codec,
    require_accuracy,
)
from yarncli.evaluate.prompts import KeyKind, Wording
from yarncli.evaluate.report import Cell, Report, ResultFile
from yarncli.evaluate.server import Server, ServerSettings, ServerTokenizer
from yarncli.evaluate.variants import Variant
from yarncli.extras import require_extra

_OWN = "as it is"


@dataclass(frozen=True)
class Questions:
    """The options that decide what is asked."""

    lengths: str | None
    depths: int
    trials: int
    seed: int
    keys: KeyKind
    needle: Path | None
    filler: Path | None
    chat: bool | None
    tokenizer: str | None


@dataclass(frozen=True)
class Variants:
    """The options that decide under which RoPE settings."""

    override: str | None
    compare: str | None
    control: bool
    control_model: str | None


@dataclass(frozen=True)
class ServerOptions:
    """The options of `--base-url`."""

    base_url: str | None
    model: str | None
    api_key_env: str | None
    concurrency: int
    timeout: float


@dataclass(frozen=True)
class Files:
    """Where results go."""

    out: Path | None
    resume: bool
    plot: Path | None
    dump_prompts: Path | None


Ask = Callable[[Variant, Grid, TextCodec, set[tuple[int, float, int]]], Iterator[Cell]]


def measure(
    model: str | None,
    questions: Questions,
    chosen: Variants,
    settings: LoadSettings,
    server: ServerOptions,
    files: Files,
    decode: Decode,
) -> Report:
    """Run the evaluation that the options describe.

    Raises:
        UsageError: options that contradict each other or cannot be used.
        YarncliError: whatever loading, asking or writing meets; completed cells are in `--out`.
    """
    _check_options(model, chosen, server, files)
    checkpoint = _fetched(model, settings) if model else None
    if server.base_url is None:
        require_extra("check-passkey", "torch", "transformers")
        assert checkpoint is not None
        variants, sources = _variants(checkpoint, chosen, questions)
        codec = _codec(checkpoint, questions, settings)
        ask = _local(sources, settings, decode)
    else:
        connection, codec = _connect(checkpoint, questions, settings, server)
        variants = [_served(checkpoint)]
        ask = _remote(connection)
    grid = _grid(questions, variants)
    recorded = _settings(model, questions, variants, grid, settings, server, decode, codec)
    if files.dump_prompts:
        _dump(files.dump_prompts, grid, codec)
    console.note(
        f"{grid.size * len(variants):,} prompts, {grid.tokens * len(variants):,} tokens"
        + (f", {len(variants)} settings." if len(variants) > 1 else ".")
    )
    return _run(variants, grid, codec, ask, recorded, files)


def show(report: Report, *, plot: Path | None, json: bool) -> None:
    """Print the result, and draw it where asked."""
    if plot is not None:
        from yarncli.figures.passkey import plot_passkey

        plot_passkey([report], plot)
        console.note(f"The figure is in {plot}.")
    if json:
        console.print_json(report.to_json())
        return
    print_results(report)
    _warn_if_dead(report)


def gate(report: Report, min_accuracy: float | None) -> None:
    """Fail where a setting that is meant to work is below `--min-accuracy`.

    Raises:
        CheckFailed: it is.
    """
    if min_accuracy is None:
        return
    for name, cells in report.cells.items():
        if name not in (library.NONE, library.CONTROL):
            require_accuracy(cells, min_accuracy, name if len(report.cells) > 1 else "")


def _check_options(
    model: str | None, chosen: Variants, server: ServerOptions, files: Files
) -> None:
    if files.resume and files.out is None:
        raise UsageError("--resume needs --out, the file of the run to go on with.")
    if files.out is not None and files.out.exists() and not files.resume:
        raise UsageError(
            f"{files.out} already exists. Continue that run with --resume, or choose another name."
        )
    if files.plot is not None:
        from yarncli.figures.passkey import check_format

        check_format(files.plot)
    if chosen.control and chosen.control_model:
        raise UsageError("Give --control or --control-model, not both.")
    if server.base_url is None:
        if model is None:
            raise UsageError("Give MODEL, a directory or a Hub id, or --base-url of a server.")
    elif chosen != Variants(None, None, False, None):
        raise UsageError(
            "A server has one RoPE setting, so --override, --compare and --control do not go with "
            "--base-url. Start it with the setting and compare the runs with yarncli plot."
        )


def _fetched(source: str, settings: LoadSettings) -> Checkpoint:
    """The checkpoint with its files on this machine."""
    checkpoint = open_checkpoint(source)
    unpinned = not Path(source).exists() and not re.search(r"@[0-9a-f]{40}$", source)
    if settings.trust_remote_code and checkpoint.repo_id and unpinned:
        raise UsageError(
            "--trust-remote-code with a Hub id needs the full commit that you have read: "
            f"hf://{checkpoint.repo_id}@{checkpoint.commit}"
        )
    missing = checkpoint.missing_bytes()
    if missing:
        console.note(f"Fetching {console.format_bytes(missing)} into the Hub cache.")
    with console.progress(missing, "Fetching") as advance:
        return checkpoint.download(progress=advance)


def _directory(checkpoint: Checkpoint) -> Path:
    if checkpoint.directory is None:
        raise CheckpointError(
            f"{checkpoint.name} is a config without weights. Name the checkpoint's directory."
        )
    return checkpoint.directory


def _variants(
    checkpoint: Checkpoint, chosen: Variants, questions: Questions
) -> tuple[list[Variant], dict[str, Checkpoint]]:
    """What to run, first the setting in question, and the checkpoint of each."""
    override = library.parse_override(chosen.override) if chosen.override else None
    if chosen.compare:
        methods = [name.strip() for name in chosen.compare.split(",") if name.strip()]
        if len(set(methods)) != len(methods) or not methods:
            raise UsageError(f"--compare {chosen.compare}: name each method once.")
        longest = max(_lengths(questions.lengths) or [0])
        if not longest and (override is None or not _has_target(override)):
            raise UsageError("--compare needs --lengths, or --override factor=N, to extend to.")
        variants = library.compared(checkpoint, methods, override, longest)
    elif override:
        name = override.target.method
        variants = [library.overridden(checkpoint.config(), override, name)]
    else:
        variants = [library.as_it_is(checkpoint, _OWN)]
    sources = {variant.name: checkpoint for variant in variants}
    if chosen.control and override and not chosen.compare:
        # The checkpoint as it stands is the control of a setting that is not written anywhere.
        variants.append(library.as_it_is(checkpoint, library.CONTROL))
    elif chosen.control:
        variants.append(library.control(checkpoint))
    if chosen.control_model:
        other = _fetched(chosen.control_model, LoadSettings())
        variants.append(library.as_it_is(other, library.CONTROL))
        sources[library.CONTROL] = other
    sources.setdefault(library.CONTROL, checkpoint)
    return variants, sources


def _has_target(override: library.Override) -> bool:
    return override.target.length is not None or override.target.factor is not None


def _local(sources: dict[str, Checkpoint], settings: LoadSettings, decode: Decode) -> Ask:
    def ask(
        variant: Variant, grid: Grid, codec: TextCodec, done: set[tuple[int, float, int]]
    ) -> Iterator[Cell]:
        checkpoint = sources[variant.name]
        headers = checkpoint.headers()
        parameters = sum(t.parameters for h in headers.values() for t in h.tensors.values())
        return local_cells(
            _directory(checkpoint),
            grid,
            settings=settings,
            codec=codec,
            config=variant.config,
            parameters=parameters,
            decode=decode,
            done=done,
            on_fallback=lambda reason: console.note(
                f"This model has {reason}, so each prompt was read on its own: slower, as exact."
            ),
        )

    return ask


def _remote(connection: Server) -> Ask:
    def ask(
        variant: Variant, grid: Grid, codec: TextCodec, done: set[tuple[int, float, int]]
    ) -> Iterator[Cell]:
        builder = codec.builder(grid, answer_prefix=not connection.settings.chat)
        return connection.cells(grid.prompts(builder, done))

    return ask


def _connect(
    checkpoint: Checkpoint | None,
    questions: Questions,
    settings: LoadSettings,
    server: ServerOptions,
) -> tuple[Server, TextCodec]:
    assert server.base_url is not None
    key = None
    if server.api_key_env is not None:
        key = os.environ.get(server.api_key_env)
        if not key:
            raise UsageError(f"The environment variable {server.api_key_env} is not set.")
    wanted = ServerSettings(
        server.base_url, server.model, key, questions.chat is True, server.concurrency,
        server.timeout,
    )  # fmt: skip
    connection = Server(wanted)
    if checkpoint is None and questions.tokenizer is None:
        return connection, TextCodec(ServerTokenizer(server.base_url, connection.model, key))
    require_extra("The tokenizer", "transformers")
    codec = _codec(checkpoint, questions, settings)
    token = codec.tokenizer.bos_token if codec.frame is not None else None
    return replace(connection, bos_token=token or ""), codec


def _codec(
    checkpoint: Checkpoint | None, questions: Questions, settings: LoadSettings
) -> TextCodec:
    if questions.tokenizer is not None:
        checkpoint = _tokenizer_source(questions.tokenizer)
    assert checkpoint is not None
    return make_codec(
        _directory(checkpoint), questions.chat, trust_remote_code=settings.trust_remote_code
    )


def _tokenizer_source(source: str) -> Checkpoint:
    """Of a Hub model, only what is not weights is fetched."""
    checkpoint = open_checkpoint(source)
    return checkpoint.download(tuple(f.name for f in checkpoint.files if not f.is_weights))


def _served(checkpoint: Checkpoint | None) -> Variant:
    """What is behind a server, as far as MODEL tells."""
    if checkpoint is None:
        return Variant("served", None, 0, 0, {})
    return library.as_it_is(checkpoint, "served")


def _lengths(text: str | None) -> list[int]:
    if text is None:
        return []
    return sorted({parse_length(part.strip()) for part in text.split(",") if part.strip()})


def _grid(questions: Questions, variants: list[Variant]) -> Grid:
    lengths = _lengths(questions.lengths)
    if not lengths:
        if not all(variant.window for variant in variants):
            raise UsageError("Give --lengths; the server does not tell how far its model reads.")
        lengths = library.default_lengths(variants)
    wording = Wording()
    if questions.needle is not None:
        wording = replace(wording, needle=_text(questions.needle))
    if questions.filler is not None:
        wording = replace(wording, filler=" ".join(_text(questions.filler).split()))
    return Grid(
        tuple(lengths), questions.depths, questions.trials, questions.seed, questions.keys, wording
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _settings(
    model: str | None,
    questions: Questions,
    variants: list[Variant],
    grid: Grid,
    settings: LoadSettings,
    server: ServerOptions,
    decode: Decode,
    codec: TextCodec,
) -> dict[str, Any]:
    """What is recorded with the results and compared by `--resume`."""
    where: dict[str, Any] = (
        {
            "decode": decode,
            "dtype": settings.dtype,
            "device": settings.device,
            "attn_implementation": settings.attn_implementation,
            "adapter": settings.adapter,
        }
        if server.base_url is None
        else {
            "base_url": server.base_url,
            "served_model": server.model,
            "concurrency": server.concurrency,
        }
    )
    return {
        "model": model or server.model or server.base_url,
        **grid.to_json(),
        "chat": codec.frame is not None or questions.chat is True,
        **where,
        "variants": {
            v.name: {"original": v.original, "window": v.window, "rope": v.rope} for v in variants
        },
    }


def _dump(path: Path, grid: Grid, codec: TextCodec) -> None:
    from yarncli.checkpoint.output import atomic_write

    lines = [
        json_module.dumps(
            {
                "length": prompt.length,
                "depth": prompt.depth,
                "trial": prompt.trial,
                "key": prompt.key,
                "prompt": prompt.text,
                "token_ids": list(prompt.token_ids),
                "answer_ids": list(prompt.answer_ids),
            },
            ensure_ascii=False,
        )
        for prompt in grid.prompts(codec.builder(grid))
    ]
    atomic_write(path, "".join(line + "\n" for line in lines).encode())


def _run(
    variants: list[Variant],
    grid: Grid,
    codec: TextCodec,
    ask: Ask,
    settings: dict[str, Any],
    files: Files,
) -> Report:
    file = ResultFile(files.out, settings, resume=files.resume) if files.out else None
    cells: dict[str, list[Cell]] = {}
    try:
        for variant in variants:
            found = list(file.done.get(variant.name, [])) if file else []
            done = {cell.place for cell in found}
            title = variant.name if len(variants) > 1 else "Asking"
            with LiveGrid(title, grid, found) as live:
                for cell in ask(variant, grid, codec, done):
                    if file:
                        file.add(variant.name, cell)
                    found.append(cell)
                    live.add(cell)
            cells[variant.name] = sorted(found, key=lambda cell: cell.place)
    finally:
        if file:
            file.close()
    return Report(settings, cells)


def _warn_if_dead(report: Report) -> None:
    """A setting that changes nothing is not read by what ran the model."""
    names = list(report.cells)
    if library.CONTROL not in names or len(names) < 2:
        return
    texts = [
        {cell.place: cell.text for cell in report.cells[name]}
        for name in (names[0], library.CONTROL)
    ]
    if texts[0] == texts[1]:
        console.warn(
            "The control gave the same answer to every prompt: the RoPE setting may not be live."
        )
