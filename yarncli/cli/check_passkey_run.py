"""What `check-passkey` does around the library: options to values, files fetched, messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.cli import console
from yarncli.cli.check_passkey_view import LiveGrid, print_results
from yarncli.cli.fetching import fetch
from yarncli.cli.options import parse_length
from yarncli.errors import UsageError
from yarncli.evaluation import run
from yarncli.evaluation.passkey import Decode, Grid, TextCodec, make_codec
from yarncli.evaluation.prompts import KeyKind, Wording
from yarncli.evaluation.report import Cell, Report, ResultFile, refuse_existing
from yarncli.evaluation.server import Server, ServerSettings, ServerTokenizer
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.variants import (
    Choice,
    Variant,
    choose_variants,
    default_lengths,
    parse_override,
)
from yarncli.extras import require_extra


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
class VariantOptions:
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


def measure(
    model: str | None,
    questions: Questions,
    chosen: VariantOptions,
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
    subject: run.Subject
    if server.base_url is not None:
        subject = _served(model, questions, settings, server, server.base_url)
    else:
        assert model is not None
        subject = _local(model, questions, chosen, settings, decode)
    grid = _grid(questions, subject.variants)
    recorded = run.record_settings(subject, grid)
    opened = ResultFile(files.out, recorded, resume=files.resume) if files.out else None
    with opened or nullcontext():
        console.note(_cost(grid, subject.variants, opened))
        subject.require_fit(grid)
        with console.progress(grid.size, "Writing prompts", unit="prompts") as advance:
            prompts = grid.prompts(subject.builder(grid), advance)
        if files.dump_prompts:
            run.dump_prompts(files.dump_prompts, prompts)
        cells = run.ask_all(subject, prompts, opened, _watch(grid, subject.variants))
    for caveat in subject.caveats():
        console.warn(caveat)
    return Report(recorded, cells)


def show(report: Report, *, plot: Path | None, json: bool) -> None:
    """Print the result, and draw it where asked.

    Raises:
        OutputError: the figure cannot be written; the result has been printed before.
    """
    if json:
        console.print_json(report.to_json())
    else:
        print_results(report)
    if run.control_says_the_same(report):
        console.warn(
            "The control gave the same answer to every prompt, so this run does not show that the "
            "RoPE setting is live. Ask at lengths beyond the original window."
        )
    if plot is not None:
        from yarncli.figures.passkey import plot_passkey

        plot_passkey([report], plot)
        console.note(f"The figure is in {plot}.")


def gate(report: Report, min_accuracy: float | None) -> None:
    """Fail below `--min-accuracy`. Raises as `require_accuracy`."""
    if min_accuracy is not None:
        run.require_accuracy(report, min_accuracy)


def _check_options(
    model: str | None, chosen: VariantOptions, server: ServerOptions, files: Files
) -> None:
    """Refuse what cannot be done before anything is fetched, loaded or asked."""
    if files.resume and files.out is None:
        raise UsageError("--resume needs --out, the file of the run to go on with.")
    if files.out is not None:
        refuse_existing(files.out, resume=files.resume)
    if files.plot is not None:
        from yarncli.figures.passkey import check_figure

        check_figure(files.plot)
    if chosen.control and chosen.control_model:
        raise UsageError("Give --control or --control-model, not both.")
    if server.base_url is None:
        if model is None:
            raise UsageError("Give MODEL, a directory or a Hub id, or --base-url of a server.")
        if (server.model, server.api_key_env) != (None, None):
            raise UsageError("--model and --api-key-env are for a server. Name it by --base-url.")
    elif chosen != VariantOptions(None, None, False, None):
        raise UsageError(
            "A server has one RoPE setting, so --override, --compare and --control do not go with "
            "--base-url. Start it with the setting and compare the runs with yarncli plot."
        )


def _local(
    model: str,
    questions: Questions,
    chosen: VariantOptions,
    settings: LoadSettings,
    decode: Decode,
) -> run.LocalSubject:
    require_extra("check-passkey", "torch", "transformers")
    trusted = settings.trust_remote_code
    checkpoint = _fetched(model, trusted=trusted)
    run.local_directory(checkpoint)
    other = _fetched(chosen.control_model, trusted=trusted) if chosen.control_model else None
    choice = Choice(
        parse_override(chosen.override) if chosen.override else None,
        [name.strip() for name in (chosen.compare or "").split(",") if name.strip()],
        chosen.control,
        other,
    )
    variants = choose_variants(checkpoint, choice, max(_lengths(questions.lengths), default=0))
    directory = _tokenizer_directory(questions.tokenizer or model, trusted=trusted)
    codec = make_codec(directory, questions.chat, trust_remote_code=trusted)
    return run.LocalSubject(model, variants, codec, settings, decode)


def _served(
    model: str | None,
    questions: Questions,
    settings: LoadSettings,
    options: ServerOptions,
    base_url: str,
) -> run.ServedSubject:
    wanted = ServerSettings(
        base_url,
        options.model,
        _api_key(options.api_key_env),
        questions.chat is True,
        options.concurrency,
        options.timeout,
    )
    source = questions.tokenizer or model
    if source is None:
        if questions.chat:
            raise UsageError("--chat needs the chat template. Name MODEL or --tokenizer SOURCE.")
        connection = Server(wanted)
        tokenizer = ServerTokenizer(base_url, connection.model, wanted.api_key)
        return run.ServedSubject(connection.model, connection, TextCodec(tokenizer))
    require_extra("The tokenizer", "transformers")
    trusted = settings.trust_remote_code
    directory = _tokenizer_directory(source, trusted=trusted)
    codec = make_codec(directory, questions.chat, trust_remote_code=trusted)
    # A rendered template begins with the token that the server would add once more.
    token = codec.tokenizer.bos_token if codec.frame is not None else None
    connection = Server(wanted, token or "")
    checkpoint = open_checkpoint(model) if model is not None else None
    return run.ServedSubject(model or connection.model, connection, codec, checkpoint)


def _fetched(source: str, *, trusted: bool, weights: bool = True) -> Checkpoint:
    """The checkpoint with its files on this machine; without `weights`, only the small ones.

    Raises:
        UsageError: its code is trusted without saying which commit has been read.
    """
    checkpoint = open_checkpoint(source)
    unpinned = not Path(source).exists() and not re.search(r"@[0-9a-f]{40}$", source)
    if trusted and checkpoint.repo_id and unpinned:
        raise UsageError(
            "--trust-remote-code with a Hub id needs the full commit that you have read: "
            f"hf://{checkpoint.repo_id}@{checkpoint.commit}"
        )
    names = None if weights else tuple(f.name for f in checkpoint.files if not f.is_weights)
    return fetch(checkpoint, names)


def _tokenizer_directory(source: str, *, trusted: bool) -> Path:
    """Where a tokenizer lies; a directory of its own needs no config.json."""
    if Path(source).is_dir():
        return Path(source)
    return run.local_directory(_fetched(source, trusted=trusted, weights=False))


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"The environment variable {variable} is not set.")
    if not key.isascii():
        raise UsageError(f"The environment variable {variable} holds no key: it is not ASCII.")
    return key


def _lengths(text: str | None) -> list[int]:
    if text is None:
        return []
    lengths = {parse_length(part.strip()) for part in text.split(",") if part.strip()}
    if not lengths:
        raise UsageError(f"--lengths {text!r} names no length. Write some, such as 4k,8k,32k.")
    return sorted(lengths)


def _grid(questions: Questions, variants: Sequence[Variant]) -> Grid:
    lengths = _lengths(questions.lengths)
    if not lengths:
        if not all(variant.window for variant in variants):
            raise UsageError("Give --lengths; the server does not tell how far its model reads.")
        lengths = default_lengths(variants)
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
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _cost(grid: Grid, variants: Sequence[Variant], file: ResultFile | None) -> str:
    count = len(variants)
    text = f"{grid.size * count:,} prompts, {grid.tokens * count:,} tokens"
    if count > 1:
        text += f", {count} settings"
    answered = sum(len(cells) for cells in file.done.values()) if file else 0
    return f"{text}; {answered:,} are answered." if answered else f"{text}."


def _watch(grid: Grid, variants: Sequence[Variant]) -> run.Watch:
    def watch(variant: Variant, found: Sequence[Cell]) -> LiveGrid:
        return LiveGrid(variant.name if len(variants) > 1 else "Asking", grid, found)

    return watch
