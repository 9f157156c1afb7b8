"""`yarncli push`: publish a checkpoint or GGUF files on the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.cli.card import PATH_HELP, BaseModel, Licence, Results

EXAMPLES = [
    ("yarncli push ./model-yarn me/model-128k", "Publish in a private repository."),
    ("yarncli push ./model-yarn me/model-128k --dry-run", "Show what would be sent."),
    ("yarncli push ./fixed org/model --config-only --create-pr", "Offer a corrected config."),
    ("yarncli push ./quants me/model-128k-GGUF", "GGUF files of one model."),
    ("yarncli push ./config me/model-128k --from org/model", "Take the weights from the Hub."),
]
HEADINGS = {
    "public": "Repository and commit",
    "config_only": "Files",
    "results": "Model card",
    "allow_pickle": "Run",
}


def push(
    path: Annotated[str, typer.Argument(metavar="PATH", show_default=False, help=PATH_HELP)],
    target: Annotated[
        str,
        typer.Argument(metavar="ORG/NAME", show_default=False, help="The repository on the Hub."),
    ],
    public: Annotated[
        bool,
        typer.Option("--public/--private", help="Create it public, or push to a public one."),
    ] = False,
    revision: Annotated[
        str,
        typer.Option("--revision", metavar="BRANCH", help="Push to this branch; made if missing."),
    ] = "main",
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")
    ] = False,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="NAME", help="Give the commit this tag.")
    ] = None,
    commit_message: Annotated[
        str | None,
        typer.Option(
            "--commit-message", "-m", metavar="TEXT", help="First line of the commit message."
        ),
    ] = None,
    commit_description: Annotated[
        str,
        typer.Option(
            "--commit-description",
            metavar="TEXT",
            help="Text below the first line of the commit message.",
        ),
    ] = "",
    config_only: Annotated[
        bool,
        typer.Option(
            "--config-only", help="Send only the config files, yarncli.json and README.md."
        ),
    ] = False,
    copy_from: Annotated[
        str | None,
        typer.Option("--from", metavar="ORG/NAME", help="Take the weights from this Hub model."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="PATTERN", help="Send only these files; may be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="Leave out these files; may be repeated."
        ),
    ] = None,
    delete: Annotated[
        list[str] | None,
        typer.Option(
            "--delete", metavar="PATTERN", help="Delete these files on the Hub; may be repeated."
        ),
    ] = None,
    results: Results = None,
    base_model: BaseModel = None,
    licence: Licence = None,
    no_card: Annotated[bool, typer.Option("--no-card", help="Do not change README.md.")] = False,
    force_card: Annotated[
        bool,
        typer.Option("--force-card", help="Replace the Hub's README.md by the local one."),
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", hidden=True, help="The old form of --allow pickle.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="RULE", help="Treat this error as a warning; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files, sizes and the card's diff; send nothing.")
    ] = False,
    token_env: Annotated[
        str | None,
        typer.Option(
            "--token-env", metavar="VAR", help="Environment variable that holds the token."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: options.Json = False,
) -> None:
    """Publish a checkpoint or GGUF files: preflight, model card, one commit or a pull request.

    Nothing is sent if the preflight finds an error. After a failure, run the same command again: it
    continues where it stopped. Stdout has only the address of the commit or pull request.
    """
    from yarncli.cli import console, push_print
    from yarncli.publishing.options import PushOptions
    from yarncli.publishing.preflight import PreflightFailed
    from yarncli.publishing.push import push as publish

    if token_env is not None:
        push_print.use_token_of(token_env)
    chosen = PushOptions(
        public=public, create_pr=create_pr, config_only=config_only, revision=revision, tag=tag,
        commit_message=commit_message, commit_description=commit_description,
        allow=[*(allow or ()), *(["pickle"] if allow_pickle else [])], delete=delete or (),
        include=include or (), exclude=exclude or (), copy_from=copy_from, results=results,
        with_card=not no_card, force_card=force_card, licence=licence, base_model=base_model,
        dry_run=dry_run,
    )  # fmt: skip
    bars = push_print.PushBars()
    try:
        done = publish(
            path, target, chosen, progress=bars, notify=console.tell,
            confirm=lambda plan: push_print.agreed(plan, ask=not (yes or json)),
        )  # fmt: skip
    except PreflightFailed as failure:
        if json:
            console.print_json(failure.to_json())
        raise
    except KeyboardInterrupt:
        if bars.sending:
            console.note("Interrupted. The same command goes on from here.")
        raise
    if json:
        console.print_json(done.to_json())
    elif dry_run:
        push_print.show_plan(done.plan)
    elif done.commit:
        push_print.show_commit(done.plan, done.commit)
