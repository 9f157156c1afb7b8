"""`yarncli check-passkey`: whether the model retrieves a key from anywhere in its window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli check-passkey ./model-128k", "Test lengths from the original window to the new one."),
    ("yarncli check-passkey ./model --lengths 4k,8k,32k --out run.jsonl", "Keep every answer."),
    (
        "yarncli check-passkey ./model --override method=yarn,factor=4",
        "Test a conversion before it is written.",
    ),
    ("yarncli check-passkey ./model --lengths 4k,16k --compare none,ntk,yarn", "Choose a method."),
    (
        "yarncli check-passkey ./model-128k --tasks multikey,tracking,common-words --trials 6",
        "Test more than one needle.",
    ),
    ("yarncli check-passkey ./model-128k --min-accuracy 0.9", "Exit 1 if a length is below 0.9."),
    ("yarncli check-passkey ./model --base-url http://localhost:8000/v1", "Ask a server."),
]
HEADINGS = {
    "tasks": "Test",
    "tokenizer": "Model",
    "base_url": "Server",
    "compare": "Comparison",
    "min_accuracy": "Output and gates",
    "resume": "Run",
}


def check_passkey(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A checkpoint directory or a Hub id; with --base-url its tokenizer is used.",
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Tasks like those of RULER: passkey,multikey,tracking,…"),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(metavar="LIST", help="Prompt lengths in tokens: 4k,8k,32k.")
    ] = None,
    depths: Annotated[
        int, typer.Option(min=1, help="Number of positions of the key, from start to end.")
    ] = 5,
    trials: Annotated[int, typer.Option(min=1, help="Number of keys per length and position.")] = 2,
    seed: Annotated[int, typer.Option(help="Random seed of the keys.")] = 0,
    keys: Annotated[
        Literal["digits", "words"], typer.Option(help="Hide five digits or two words.")
    ] = "digits",
    needle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the sentence that states the key; must contain {key}."
        ),
    ] = None,
    filler: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the surrounding text.")
    ] = None,
    answer_prefix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Beginning of the answer, which the model continues."),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(help="Ask through the chat template, or not.", show_default="if there is one"),
    ] = None,
    decode: Annotated[
        Literal["fast", "greedy"],
        typer.Option(help="greedy generates token by token: the same verdicts, but slower."),
    ] = "fast",
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attn_implementation: options.AttnImplementation = None,
    adapter: options.Adapter = None,
    trust_remote_code: options.TrustRemoteCode = False,
    base_url: options.BaseUrl = None,
    served_model: options.ServedModel = None,
    api_key_env: options.ApiKeyEnv = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Number of requests to the server at a time.")
    ] = 4,
    timeout: options.Timeout = 600,
    compare: options.Compare = None,
    override: options.Override = None,
    control: options.Control = False,
    control_model: options.ControlModel = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit 1 if the accuracy at any length is below this."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every answer to this JSONL file.")
    ] = None,
    plot: options.Plot = None,
    dump_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every prompt to this file.")
    ] = None,
    resume: options.Resume = False,
    json: options.Json = False,
) -> None:
    """Measure passkey retrieval over lengths and depths.

    Each prompt hides a key in filler text, asks for it, and has an exact number of tokens. An
    answer is right if greedy decoding gives the key. --tasks tests more than one key.
    """
    from yarncli.cli.check_passkey_print import ConsoleWatch, PasskeyBars, show
    from yarncli.evaluation.session import PasskeyOptions, evaluate_passkey

    if plot is not None:
        from yarncli.figures.saving import check_figure

        check_figure(plot)
    asked = PasskeyOptions(
        lengths=options.read_lengths(lengths),
        depths=depths,
        trials=trials,
        seed=seed,
        tasks=_tasks(tasks),
        keys=keys,
        needle=None if needle is None else _text(needle),
        filler=None if filler is None else " ".join(_text(filler).split()),
        answer_prefix=answer_prefix,
        chat=chat,
        tokenizer=tokenizer,
        override=override,
        compare=options.read_names(compare),
        control=control,
        control_model=control_model,
        dtype=dtype,
        device=device,
        attn_implementation=attn_implementation,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        base_url=base_url,
        served_model=served_model,
        api_key_env=api_key_env,
        concurrency=concurrency,
        timeout=timeout,
        decode=decode,
        out=out,
        resume=resume,
        dump_prompts=dump_prompts,
        min_accuracy=min_accuracy,
    )
    watch = ConsoleWatch()
    report = evaluate_passkey(model, asked, progress=PasskeyBars(watch), watch=watch)
    show(report, plot=plot, json=json, tasks=tasks is not None)
    report.require_accuracy()


def _tasks(text: str | None) -> list[str]:
    tasks = options.read_names(text)
    if text is not None and not tasks:
        raise UsageError(f"--tasks {text!r} names no task. Write for example passkey,multikey.")
    return tasks


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
