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
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 1 if any length is below this.")
    ] = None,
    override: Annotated[
        str | None,
        typer.Option(metavar="SETTING", help="Evaluate a conversion: method=yarn,factor=4."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="LIST", help="Several methods: none,linear,ntk,yarn.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also run with the scaling off, from yarncli.json.")
    ] = False,
    control_model: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="The control is this checkpoint.")
    ] = None,
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
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    attn_implementation: Annotated[
        str | None, typer.Option(metavar="NAME", help="As in transformers.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="A PEFT adapter to put on top.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask an OpenAI-compatible server: …/v1.")
    ] = None,
    served_model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model's name on the server.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="Variable that holds the server's key.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Where the tokenizer is, if elsewhere.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for one answer.")] = 600,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every answer to this JSONL file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a PNG or SVG.")] = None,
    dump_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every prompt to this file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure passkey retrieval over lengths and depths.

    A key is hidden in filler text and asked for; each prompt has an exact number of tokens. The
    verdicts are those of greedy decoding.
    """
    from yarncli.cli.check_passkey_print import ConsoleWatch, PasskeyBars, show
    from yarncli.evaluation.session import PasskeyOptions, evaluate_passkey

    if plot is not None:
        from yarncli.figures.passkey import check_figure

        check_figure(plot)
    asked = PasskeyOptions(
        lengths=_lengths(lengths),
        depths=depths,
        trials=trials,
        seed=seed,
        keys=keys,
        needle=None if needle is None else _text(needle),
        filler=None if filler is None else " ".join(_text(filler).split()),
        answer_prefix=answer_prefix,
        chat=chat,
        tokenizer=tokenizer,
        override=override,
        compare=[name.strip() for name in (compare or "").split(",") if name.strip()],
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
    report = evaluate_passkey(model, asked, progress=PasskeyBars(), watch=ConsoleWatch())
    show(report, plot=plot, json=json)
    report.require_accuracy()


def _lengths(text: str | None) -> list[int]:
    if text is None:
        return []
    lengths = [options.parse_length(part.strip()) for part in text.split(",") if part.strip()]
    if not lengths:
        raise UsageError(f"--lengths {text!r} names no length. Write some, such as 4k,8k,32k.")
    return lengths


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
