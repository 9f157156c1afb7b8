"""A chat template turned into the text before and after the user's, rendered out of harm's way.

The template comes with the checkpoint: it is a program. It runs once, in a child process with
bounded time and memory; run as a script, this file is that child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SENTINEL = "YARNCLI-USER-TEXT"
_SECONDS = 20
_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """What stands around the user's text up to the beginning of the assistant's turn."""

    before: str
    after: str

    def render(self, user: str, answer_prefix: str) -> str:
        """The whole prompt; the assistant's turn begins with `answer_prefix`."""
        return f"{self.before}{user}{self.after}{answer_prefix}"


def render_frame(template: str, special_tokens: Mapping[str, str]) -> ChatFrame:
    """Render `template` around one user message, thinking switched off where it knows the switch.

    Args:
        template: Jinja source, as in tokenizer_config.json.
        special_tokens: `bos_token`, `eos_token`, … as the template may use them.

    Raises:
        CheckpointError: the template fails, takes too long or too much memory, or changes the text.
        MissingExtraError: jinja2 is not installed.
    """
    from yarncli.errors import CheckpointError
    from yarncli.extras import require_extra

    require_extra("A chat template", "jinja2")
    request = json.dumps({"template": template, "tokens": dict(special_tokens)})
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(Path(__file__))],
            input=request.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"The chat template did not finish within {_SECONDS} s. Use --no-chat."
        ) from error
    if child.returncode != 0:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"the process ended with {child.returncode}"
        raise CheckpointError(f"The chat template cannot be rendered: {reason}. Use --no-chat.")
    text = json.loads(child.stdout)
    if text.count(_SENTINEL) != 1:
        raise CheckpointError(
            "The chat template does not repeat the user's text exactly once. Use --no-chat."
        )
    before, after = text.split(_SENTINEL)
    return ChatFrame(before, after)


def _child() -> None:
    """Render the template of the request on stdin; the text goes to stdout as JSON."""
    import datetime

    try:
        import resource
    except ImportError:  # Windows: the parent's time limit remains
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    request = json.load(sys.stdin)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = fail
    # One fixed day: the same command must give the same prompts tomorrow.
    environment.globals["strftime_now"] = datetime.datetime(2025, 1, 1).strftime
    text = environment.from_string(request["template"]).render(
        messages=[{"role": "user", "content": _SENTINEL}],
        add_generation_prompt=True,
        enable_thinking=False,
        thinking=False,
        tools=None,
        documents=None,
        **request["tokens"],
    )
    json.dump(text, sys.stdout)


if __name__ == "__main__":
    _child()
