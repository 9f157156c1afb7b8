"""`yarncli fit`: the attention factor, betas and factor that suit a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.evaluation.candidates import Tune
from yarncli.rope.methods import DEFAULT_METHOD

EXAMPLES = [
    (
        "yarncli fit ./model --factor 8 --text book.txt",
        "Find the attention factor that suits the model.",
    ),
    (
        "yarncli fit ./model --factor 4 --text book.txt --tune all --budget 30",
        "Search betas and factor, too.",
    ),
    (
        "yarncli fit ./model --factor 8 --lengths 4k,16k --prompts 8",
        "Use shorter and fewer prompts.",
    ),
    ("yarncli fit ./model --factor 8 --out run.jsonl --resume", "Continue after an interruption."),
]


def fit(
    model: options.Model,
    factor: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR", help="The window to reach, as a multiple of the original window."
        ),
    ] = None,
    tune: Annotated[
        Tune,
        typer.Option(
            help="Search the attention factor √(1/t), yarn's betas, or all of these and factors "
            "larger than --factor."
        ),
    ] = "temperature",
    budget: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help="Try at most this many settings besides the default. It is a number, not a time, "
            "so that every machine finds the same result.",
        ),
    ] = 20,
    method: options.MethodOption = DEFAULT_METHOD,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Prompt lengths in tokens: 4k,32k.",
            show_default="the original window and the new one",
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(help="Held-out prompts per length; the search uses half as many.")
    ] = 16,
    text: options.TextFiles = None,
    texts: Annotated[int, typer.Option(help="Number of passages of the texts.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed of the keys of the prompts.")] = 0,
    original_length: options.OriginalLength = None,
    replace_scaling: options.ReplaceScaling = False,
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
    """Search the attention factor, betas and factor that suit this model, before it is converted.

    The search compares how probable each setting makes the right answers of passkey prompts. The
    best setting and the default (the method with its own values) are then measured on other prompts
    and texts; a difference that may be chance does not count. The last line is the command that
    converts the model with the chosen setting.
    """
    from yarncli.cli import console
    from yarncli.cli.fit_print import announce, interrupted, show
    from yarncli.evaluation.fit import FitOptions, fit

    if plot is not None:
        from yarncli.figures.saving import check_figure

        check_figure(plot)
    asked = FitOptions(
        factor=factor,
        method=method,
        tune=tune,
        budget=budget,
        lengths=options.read_lengths(lengths),
        prompts=prompts,
        text=text or [],
        texts=texts,
        seed=seed,
        original_length=original_length,
        replace_scaling=replace_scaling,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        attn_implementation=attn_implementation,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        out=out,
        resume=resume,
    )
    try:
        report = fit(model, asked, progress=console.ProgressBars(), begin=announce)
    except KeyboardInterrupt:
        interrupted(out)
        raise
    show(report, plot=plot, json=json)
