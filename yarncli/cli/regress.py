"""`yarncli regress`: what an extension costs on short texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli regress ./model ./model-128k --text book.txt", "Measure what the conversion costs."),
    (
        "yarncli regress ./model --override method=yarn,factor=4",
        "Measure it before anything is written.",
    ),
    (
        "yarncli regress ./model --compare ntk,yarn --override factor=4",
        "Find the method that costs less.",
    ),
    ("yarncli regress ./model ./model-128k --max-kl 0.05", "Exit 1 if the models differ by more."),
]


def regress(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            show_default=False,
            help="The original checkpoint: a directory or a Hub id.",
        ),
    ],
    converted: Annotated[
        str | None,
        typer.Argument(
            metavar="CONVERTED",
            show_default=False,
            help="The converted checkpoint: a directory or a Hub id.",
        ),
    ] = None,
    text: options.TextFiles = None,
    length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            parser=options.parse_length,
            help="Number of tokens of each text.",
            show_default="the original window, at most 4096",
        ),
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="Number of texts of that length.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed of the texts that BASE writes.")] = 0,
    max_kl: Annotated[
        float | None,
        typer.Option(min=0, help="Exit 1 if the mean KL per token, in nats, is above this."),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit 1 if the models agree on a smaller share of tokens."),
    ] = None,
    override: options.Override = None,
    compare: options.Compare = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    attn_implementation: options.AttnImplementation = None,
    adapter: options.Adapter = None,
    trust_remote_code: options.TrustRemoteCode = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every result to this JSONL file.")
    ] = None,
    resume: options.Resume = False,
    plot: options.Plot = None,
    json: options.Json = False,
) -> None:
    """Measure what an extension changes on texts within the original window.

    Compares all predictions of BASE and CONVERTED, token by token: the divergence (KL), how often
    the most likely token is the same, and perplexity before and after.
    """
    from yarncli.cli import console
    from yarncli.cli.regress_print import announce, show
    from yarncli.evaluation.regress import RegressOptions, regress

    if plot is not None:
        from yarncli.figures.saving import check_figure

        check_figure(plot)
    asked = RegressOptions(
        text=text or [],
        length=length,
        texts=texts,
        seed=seed,
        max_kl=max_kl,
        min_top1=min_top1,
        override=override,
        compare=options.read_names(compare),
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        attn_implementation=attn_implementation,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        out=out,
        resume=resume,
    )
    report = regress(base, converted, asked, progress=console.ProgressBars(), begin=announce)
    show(report, plot=plot, json=json)
    report.require()
