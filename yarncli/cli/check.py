"""`yarncli check`: what is wrong with the RoPE part of a model repository."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli check ./model", "Check config, tokenizer, weight index and shard headers."),
    ("yarncli check ./models", "Check every checkpoint in a folder and below it."),
    ("yarncli check */config.json --strict", "Check many configs; warnings fail too."),
    ("yarncli check hf://Qwen/Qwen3-8B", "Check a model on the Hub; no weights are fetched."),
    ("yarncli check ./model --engine vllm", "Fail if vLLM would not do what is meant."),
    ("yarncli check . --format sarif > rope.sarif", "A report for code scanning."),
    ("yarncli check ./model --fix", "Mend what is certain, and say what was changed."),
    ("yarncli check model.gguf --against ./model", "Whether a GGUF file computes like that."),
    ("yarncli check --explain v5-only", "What a rule is about."),
]

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH...",
        show_default=False,
        help="Config files, checkpoint directories or folders of them, GGUF files, hf://org/name, "
        "or hf://org/name/file.gguf.",
    ),
]


def check(
    paths: Paths = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended with certainty.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="ID", help="Leave out a rule; may be repeated."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="ID", help="What this engine misreads is an error; repeatable."
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Check the whole directory of each file given."),
    ] = False,
    require_weights: Annotated[
        bool,
        typer.Option("--require-weights", help="Weights that are not there are an error."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="CHECKPOINT",
            help="GGUF: what a file computes other than this checkpoint is an error.",
        ),
    ] = None,
    format: Annotated[
        Literal["text", "github", "sarif"],
        typer.Option(
            "--format", help="How to print: github for annotations, sarif for code scanning."
        ),
    ] = "text",
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain a rule and stop.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Tell what is wrong with the RoPE part of configs, checkpoints and GGUF files.

    Ends with 1 if there are errors, or if --fix changed a file. Configs of other models pass in
    silence. Nothing is fetched without hf://.
    """
    from yarncli.cli import check_print
    from yarncli.rules.check import CheckOptions
    from yarncli.rules.check import check as check_all

    if explain is not None:
        check_print.print_rule(explain)
        return
    report = check_all(
        paths or [],
        CheckOptions(
            fix=fix,
            strict=strict,
            ignore=tuple(ignore or ()),
            engines=tuple(engine or ()),
            whole=whole,
            require_weights=require_weights,
            against=against,
        ),
    )
    check_print.print_report(report, "json" if json else format)
    report.require_passed()
