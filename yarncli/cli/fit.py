"""`yarncli fit`: which temperature, betas and factor suit this model?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.evaluation.candidates import Tune
from yarncli.rope.methods import DEFAULT_METHOD

EXAMPLES = [
    ("yarncli fit ./model --factor 8 --text book.txt", "Which temperature suits the model."),
    (
        "yarncli fit ./model --factor 4 --text book.txt --tune all --budget 30",
        "Betas, factor, too.",
    ),
    ("yarncli fit ./model --factor 8 --lengths 4k,16k --prompts 8", "Shorter prompts, and fewer."),
    ("yarncli fit ./model --factor 8 --out run.jsonl --resume", "Go on after an interruption."),
]


def fit(
    model: options.Model,
    factor: Annotated[
        float | None,
        typer.Option(help="The window to reach, as a multiple of the original one."),
    ] = None,
    tune: Annotated[
        Tune,
        typer.Option(
            help="Search the attention factor 1/√t, yarn's betas, or these and factors larger than "
            "--factor."
        ),
    ] = "temperature",
    budget: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Try at most so many settings besides the default; not minutes, so that every "
            "machine finds the same.",
        ),
    ] = 20,
    method: options.MethodOption = DEFAULT_METHOD,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Tokens of the prompts: 4k,32k.",
            show_default="the original window and the new one",
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(metavar="N", help="Held-out prompts per length; the search asks half.")
    ] = 16,
    text: options.TextFiles = None,
    texts: Annotated[int, typer.Option(metavar="N", help="How many stretches of the texts.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides the keys of the prompts.")] = 0,
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
    """Search the temperature, betas and factor that suit this model, before it is converted.

    Settings are compared by how likely they make the answers of passkey prompts. The best of them
    and the default (the method with its own values) are then measured on other prompts and texts:
    a difference within chance is not called better. The last line writes what is left.
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
