"""Turn a chat template into the text before and after the user's text, safely rendered.

The template comes with the checkpoint, and it is a program. It runs once, in a child process with
limited time and memory. This file, run as a script, is that child process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_USER = "YARNCLI-USER-TEXT"
_ANSWER = "YARNCLI-ANSWER-TEXT"
_MARK = "YARNCLI-END-OF-ANSWER "  # its space shows whether a template strips texts
_SECONDS = 20
_MEMORY = 1 << 30  # beside what is in use when the template starts

# What begins and ends a thought: `<think>`, `[THINK]`, `<|START_THINKING|>`, `<|channel>thought`.
_THOUGHT = r"(?:think|thought|reason|analysis)"
_BEGINS = re.compile(
    rf"[<\[](?![/<])[^<>\[\]\n]*{_THOUGHT}[^<>\[\]\n]*[>\]]|<\|?channel\|?>\s*{_THOUGHT}",
    re.IGNORECASE,
)
_ENDS = re.compile(
    rf"[<\[](?:/|\|?END_)[^<>\[\]\n]*{_THOUGHT}[^<>\[\]\n]*[>\]]|<channel\|>|<\|end\|>",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFrame:
    """What stands around the user's text, up to where the assistant's words begin."""

    before: str
    """The text before the user's text."""
    turn: str
    """The text after it, up to where the model starts to write; this may be inside a thought."""
    answer: str | None
    """The text after it, up to the place of the answer; None if that place is not known."""

    def render(self, user: str, answer_prefix: str) -> str:
        """The whole prompt; the answer begins with `answer_prefix` where it has a place."""
        if not answer_prefix or self.answer is None:
            return f"{self.before}{user}{self.turn}"
        return f"{self.before}{user}{self.answer}{answer_prefix}"

    @property
    def thinks_first(self) -> bool:
        """Whether the model takes over inside a thought."""
        return _is_thought(self.turn)


def render_frame(template: str, special_tokens: Mapping[str, str]) -> ChatFrame:
    """Render `template` around one user message, thinking switched off where it knows the switch.

    Where the answer begins is what `continue_final_message` of transformers says: behind a
    channel's header and behind a thought.

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
        reason = lines[-1] if lines else f"the process ended with exit code {child.returncode}"
        raise CheckpointError(f"The chat template cannot be rendered: {reason}. Use --no-chat.")
    return _frame(*json.loads(child.stdout))


def _frame(turn: str, continued: str | None) -> ChatFrame:
    """The frame in what `_turn_and_answer` gives."""
    from yarncli.errors import CheckpointError

    if turn.count(_USER) != 1:
        raise CheckpointError(
            "The chat template does not repeat the user's text exactly once. Use --no-chat."
        )
    before, after = turn.split(_USER)
    return ChatFrame(before=before, turn=after, answer=_place_of_answer(before, continued))


def _place_of_answer(before: str, continued: str | None) -> str | None:
    """The text between the user's and the answer in a rendered chat; None where there is none."""
    if continued is None or not continued.startswith(before + _USER):
        return None
    after = continued[len(before + _USER) :]
    if _USER in after or after.count(_ANSWER) != 1 or not after.endswith(_ANSWER):
        return None
    place = after.removesuffix(_ANSWER)
    return None if _is_thought(place) else place


def _is_thought(text: str) -> bool:
    """Whether the last thought that begins in `text` has not ended there."""
    begins = max((found.end() for found in _BEGINS.finditer(text)), default=0)
    ends = max((found.end() for found in _ENDS.finditer(text)), default=0)
    return begins > ends


def _child() -> None:
    """Render the template of the request on stdin; turn and answer go to stdout as JSON."""
    _limit()
    request = json.load(sys.stdin)
    json.dump(_turn_and_answer(request["template"], request["tokens"]), sys.stdout)


def _limit() -> None:
    """Bound this process; where the system has no such bounds, the parent's time limit remains."""
    try:
        import resource
    except ImportError:  # Windows
        return
    # The memory that the libraries use already depends on the machine, so it is added.
    maps = Path("/proc/self/statm")
    pages = int(maps.read_text().split()[0]) if maps.exists() else 0
    most = _MEMORY + pages * resource.getpagesize()
    with suppress(OSError, ValueError):  # macOS bounds no memory that is mapped, and may refuse
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _turn_and_answer(template: str, tokens: Mapping[str, str]) -> tuple[str, str | None]:
    """A question up to the model's turn, and up to a begun answer, as transformers renders them."""
    from jinja2.exceptions import TemplateError

    compiled = _environment().from_string(template)

    def render(as_parts: bool, *texts: str) -> str:
        contents = [[{"type": "text", "text": t}] if as_parts else t for t in texts]
        chat = zip(("user", "assistant"), contents, strict=False)
        return str(
            compiled.render(
                messages=[{"role": role, "content": content} for role, content in chat],
                tools=None,
                documents=None,
                add_generation_prompt=len(texts) == 1,
                enable_thinking=False,
                thinking=False,
                **tokens,
            )
        )

    # Templates of models that see pictures may take a text only as a list of parts.
    turn, as_parts = render(False, _USER), False
    if _USER not in turn:
        turn, as_parts = render(True, _USER), True
    # What a stranger's program may raise where it continues nothing.
    failures = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
    if "content" not in template:
        return turn, None
    try:
        return turn, _cut(render(as_parts, _USER, _ANSWER + _MARK))
    except failures:
        return turn, None


def _cut(rendered: str) -> str | None:
    """A rendered chat up to the end of the answer; None where the answer is not in it."""
    place = rendered.rfind(_MARK.strip())
    if place < 0 or _ANSWER not in rendered:
        return None
    whole = rendered.startswith(_MARK, place)  # else the template strips the texts
    return rendered[:place] if whole else rendered[:place].rstrip()


def _environment() -> Any:
    """What a chat template finds in transformers (5.23, `_cached_compile_jinja_template`).

    A test compares the two; without transformers a server can be asked with what is small.
    """
    import datetime
    from importlib.metadata import version

    import jinja2.ext
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if tuple(map(int, version("jinja2").split(".")[:3])) < (3, 1, 6):
        raise RuntimeError("jinja2 before 3.1.6 lets templates out of their sandbox")

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what a model said, and changes nothing of it."""

        tags = {"generation"}  # noqa: RUF012 as the class above it has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller: Any) -> Any:
            return caller()

    def fail(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def now(form: str) -> str:
        """The same command must give the same prompts tomorrow."""
        return datetime.datetime(2025, 1, 1).strftime(form)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals |= {"raise_exception": fail, "strftime_now": now, **_guarded()}
    return made


def _guarded() -> dict[str, Any]:
    """`dict` and `namespace` without a way to what Python hangs on classes."""
    from jinja2 import utils
    from jinja2.exceptions import SecurityError

    class Namespace(utils.Namespace):
        """One that takes no name of Python's own."""

        def __init__(*args: Any, **names: Any) -> None:  # a template may name one `self`
            own, *given = args
            attributes = dict(*given, **names)
            for name in attributes:
                _refuse(name)
            utils.Namespace.__init__(own, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            _refuse(name)
            super().__setitem__(name, value)

    class Dict:
        """The function `dict`, not the class with all that hangs on it."""

        def __call__(self, *args: Any, **names: Any) -> dict[Any, Any]:
            return dict(*args, **names)

        def fromkeys(self, *args: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args)

    def _refuse(name: object) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a template may not set {name!r}")

    return {"dict": Dict(), "namespace": Namespace}


if __name__ == "__main__":
    _child()
