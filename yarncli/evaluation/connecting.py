"""Connect to a model behind a server, and refuse options that cannot be used with a server."""

from __future__ import annotations

import os

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import UsageError
from yarncli.evaluation.opening import name_of, open_codec
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.server import Server, ServerSettings, ServerTokenizer
from yarncli.evaluation.settings import ServedSettings
from yarncli.evaluation.subjects import ServedSubject
from yarncli.progress import ProgressCallback


def refuse_server_contradictions(model: str | Checkpoint | None, options: ServedSettings) -> None:
    """Refuse options that cannot be used with a server, or only with one.

    Raises:
        UsageError: such an option is given.
    """
    if options.base_url is None:
        if model is None:
            raise UsageError(
                "Give MODEL, which is a directory or a Hub id, or --base-url of a server."
            )
        if (options.served_model, options.api_key_env) != (None, None):
            raise UsageError(
                "--model and --api-key-env are for a server. Give its --base-url as well."
            )
    elif options.override or options.compare or options.control or options.control_model:
        raise UsageError(
            "A server has one RoPE setting, so --override, --compare and --control cannot be used "
            "with --base-url. Start the server with each setting, save each run with --out, and "
            "compare the runs with: yarncli plot ONE.jsonl OTHER.jsonl"
        )


def connect(
    model: str | Checkpoint | None,
    options: ServedSettings,
    *,
    chat: bool | None,
    concurrency: int,
    progress: ProgressCallback | None,
) -> ServedSubject:
    """Connect to the server of `options.base_url`.

    Args:
        model: the served model; None if it is not known.
        options: the address of the server, and the tokenizer.
        chat: whether to use the chat template; None uses it if there is one.
        concurrency: number of requests at a time.
        progress: called with the progress of fetching.

    Raises:
        UsageError: the environment variable holds no key, or the chat template is not known.
        YarncliError: as `Server` and `open_codec`.
    """
    assert options.base_url is not None
    settings = ServerSettings(
        base_url=options.base_url,
        model=options.served_model,
        api_key=_api_key(options.api_key_env),
        chat=chat is True,
        concurrency=concurrency,
        timeout=options.timeout,
    )
    source = options.tokenizer or model
    codec = token = None
    if source is not None:
        codec = open_codec(source, options, chat, progress)
        # A rendered template already begins with this token, and the server would add it again.
        token = codec.tokenizer.bos_token if codec.frame is not None else None
    elif chat:
        raise UsageError("--chat needs the chat template. Give MODEL or --tokenizer SOURCE.")
    server = Server(settings, bos_token=token or "")
    tokenizer = ServerTokenizer(
        base_url=settings.base_url, model=server.model, api_key=settings.api_key
    )
    return ServedSubject(
        name=server.model if model is None else name_of(model),
        server=server,
        codec=codec or TextCodec(tokenizer),
        checkpoint=None if model is None else open_checkpoint(model),
    )


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"The environment variable {variable} is not set.")
    if not key.isascii():
        raise UsageError(
            f"The environment variable {variable} does not hold a key: its value is not ASCII."
        )
    return key
