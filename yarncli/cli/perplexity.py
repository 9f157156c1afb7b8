"""`yarncli perplexity`: whether more context helps a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli perplexity ./model-128k --text book.txt", "Measure with more and more context."),
    (
        "yarncli perplexity ./model --text book.txt --override method=yarn,factor=4",
        "Try an extension.",
    ),
    (
        "yarncli perplexity ./model --text book.txt --compare none,ntk,yarn --lengths 4k,16k",
        "Compare methods.",
    ),
    (
        "yarncli perplexity ./model --text book.txt --lengths 4k --sliding 256",
        "Slide a window, as in the paper.",
    ),
    (
        "yarncli perplexity ./model --text book.txt --base-url http://localhost:8000/v1",
        "Ask a server (vLLM, SGLang).",
    ),
    (
        "yarncli perplexity ./model --text book.txt --by-position",
        "Show where in a long text it fails.",
    ),
    (
        "yarncli perplexity ./model --text book.txt --by-position --override factor=8 "
        "--attention-factors 1,1.1,1.2,1.3",
        "Compare attention factors, as in A.2 of the paper.",
    ),
]


def perplexity(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A checkpoint directory or a Hub id; with --base-url its tokenizer is used.",
        ),
    ] = None,
    text: options.TextFiles = None,
    lengths: Annotated[
        str | None, typer.Option(metavar="LIST", help="Context lengths in tokens: 4k,8k,32k.")
    ] = None,
    sliding: Annotated[
        int | None,
        typer.Option(metavar="STRIDE", help="Slide a window over the texts by this many tokens."),
    ] = None,
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Read whole windows; report the loss by position.")
    ] = False,
    attention_factors: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="With --override: attention factors √(1/t), such as 1,1.1."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            parser=options.parse_length,
            help="Read at most this many tokens of the texts.",
            show_default="8 × the longest context",
        ),
    ] = None,
    max_perplexity: Annotated[
        float | None,
        typer.Option(min=0, help="Exit 1 if the perplexity at any length is above this."),
    ] = None,
    override: options.Override = None,
    compare: options.Compare = None,
    control: options.Control = False,
    control_model: options.ControlModel = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attn_implementation: options.AttnImplementation = None,
    adapter: options.Adapter = None,
    trust_remote_code: options.TrustRemoteCode = False,
    base_url: options.BaseUrl = None,
    served_model: options.ServedModel = None,
    api_key_env: options.ApiKeyEnv = None,
    timeout: options.Timeout = 600,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every result to this JSONL file.")
    ] = None,
    resume: options.Resume = False,
    plot: options.Plot = None,
    json: options.Json = False,
) -> None:
    """Measure how well a model predicts texts, with more and more context.

    The same last tokens of a passage are predicted with every length of context, so only the
    context makes a difference. More context helps where perplexity falls.
    """
    from yarncli.cli import console
    from yarncli.cli.perplexity_print import announce, show
    from yarncli.evaluation.perplexity import PerplexityOptions, evaluate_perplexity

    if plot is not None:
        from yarncli.figures.saving import check_figure

        check_figure(plot)
    asked = PerplexityOptions(
        text=text or [],
        lengths=options.read_lengths(lengths),
        sliding=sliding,
        by_position=by_position,
        attention_factors=options.read_numbers(attention_factors),
        tokens=tokens,
        max_perplexity=max_perplexity,
        override=override,
        compare=options.read_names(compare),
        control=control,
        control_model=control_model,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        attn_implementation=attn_implementation,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        base_url=base_url,
        served_model=served_model,
        api_key_env=api_key_env,
        timeout=timeout,
        out=out,
        resume=resume,
    )
    report = evaluate_perplexity(model, asked, progress=console.ProgressBars(), begin=announce)
    show(report, plot=plot, json=json)
    report.require_perplexity()
