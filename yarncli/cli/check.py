"""`yarncli check`: errors in the RoPE part of a model repository."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli check ./model", "Check config, tokenizer, weight index and shard headers."),
    ("yarncli check ./models", "Check every checkpoint in a folder and below it."),
    ("yarncli check */config.json --strict", "Check many configs; warnings fail too."),
    ("yarncli check hf://Qwen/Qwen3-8B", "Check a model on the Hub; no weights are fetched."),
    ("yarncli check ./model --engine vllm", "Fail if vLLM would not compute what is intended."),
    ("yarncli check . --format sarif > rope.sarif", "Write a report for code scanning."),
    ("yarncli check ./model --fix", "Repair what is certain, and list the changes."),
    ("yarncli check model.gguf --against ./model", "Compare a GGUF file with its checkpoint."),
    ("yarncli check --explain v5-only", "Explain a rule."),
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
        bool, typer.Option("--fix", help="Repair what can be repaired with certainty.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings as well.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="ID", help="Skip this rule; may be repeated."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="ID",
            help="Report as errors what this engine would compute differently; may be repeated.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Check the whole directory of each given file."),
    ] = False,
    require_weights: Annotated[
        bool,
        typer.Option("--require-weights", help="Report missing weights as an error."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="CHECKPOINT",
            help="GGUF: report as errors what differs from this checkpoint.",
        ),
    ] = None,
    format: Annotated[
        Literal["text", "github", "sarif"],
        typer.Option(
            "--format", help="Output format: github for annotations, sarif for code scanning."
        ),
    ] = "text",
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain a rule and stop.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find errors in the RoPE part of configs, checkpoints and GGUF files.

    Exits with 1 if there are errors, or if --fix changed a file. Configs that hold
    no language model with RoPE pass without a message. Only hf:// fetches anything.
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
