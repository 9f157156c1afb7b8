"""`yarncli check-passkey`: does the model really read that far?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli check-passkey ./model-128k", "Lengths from the original window to the new one."),
    ("yarncli check-passkey ./model --lengths 4k,8k,32k --out run.jsonl", "Keep every answer."),
    ("yarncli check-passkey ./model --override method=yarn,factor=4", "Try before converting."),
    ("yarncli check-passkey ./model --lengths 4k,16k --compare none,ntk,yarn", "Choose a method."),
    (
        "yarncli check-passkey ./model-128k --tasks multikey,tracking,common-words --trials 6",
        "More than one needle.",
    ),
    ("yarncli check-passkey ./model-128k --min-accuracy 0.9", "Exit 1 if a length is below."),
    ("yarncli check-passkey ./model --base-url http://localhost:8000/v1", "Ask a server."),
]


def check_passkey(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A checkpoint directory or a Hub id; with --base-url its tokenizer is used.",
        ),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(metavar="LIST", help="Prompt lengths in tokens: 4k,8k,32k.")
    ] = None,
    depths: Annotated[int, typer.Option(min=1, help="Positions of the key, start to end.")] = 5,
    trials: Annotated[int, typer.Option(min=1, help="Keys per length and position.")] = 2,
    seed: Annotated[int, typer.Option(help="Decides the keys.")] = 0,
    tasks: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Tasks like RULER's: passkey,multikey,tracking,…"),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 1 if any length is below this.")
    ] = None,
    override: options.Override = None,
    compare: options.Compare = None,
    control: options.Control = False,
    control_model: options.ControlModel = None,
    keys: Annotated[
        Literal["digits", "words"], typer.Option(help="What has to be found.")
    ] = "digits",
    needle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text that tells the key, as {key}.")
    ] = None,
    filler: Annotated[Path | None, typer.Option(metavar="FILE", help="Text to hide it in.")] = None,
    answer_prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The beginning of the answer.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(help="Ask through the chat template.", show_default="if there is one"),
    ] = None,
    decode: Annotated[
        Literal["fast", "greedy"],
        typer.Option(help="greedy generates token by token: the same verdicts, slower."),
    ] = "fast",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attn_implementation: options.AttnImplementation = None,
    adapter: options.Adapter = None,
    trust_remote_code: options.TrustRemoteCode = False,
    base_url: options.BaseUrl = None,
    served_model: options.ServedModel = None,
    api_key_env: options.ApiKeyEnv = None,
    tokenizer: options.Tokenizer = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at a time.")] = 4,
    timeout: options.Timeout = 600,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every answer to this JSONL file.")
    ] = None,
    resume: options.Resume = False,
    plot: options.Plot = None,
    dump_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every prompt to this file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure passkey retrieval over lengths and depths.

    A key is hidden in filler text and asked for; each prompt has an exact number of tokens. The
    verdicts are those of greedy decoding. --tasks asks for more than one key.
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
        raise UsageError(f"--tasks {text!r} names no task. Write some, such as passkey,multikey.")
    return tasks


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
