"""Ask a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, TGI, transformers."""

from __future__ import annotations

import json
import re
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from yarncli.errors import HubError, UsageError
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.report import Cell

if TYPE_CHECKING:
    from openai import APIStatusError

_RETRIES = 4
# A chat model may write thoughts or a sentence around the key.
CHAT_TOKENS = 1024
# Tokens. The server's chat template may render a date or a switch differently.
_CHAT_SLACK = 8
# Keeps decoding greedy whatever the defaults of server and model are. Servers that refuse the field
# are asked again without it.
_NO_PENALTY = {"repetition_penalty": 1.0}
_NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


class UnreadableAnswer(HubError):
    """The answer did not come from an OpenAI-compatible server."""


@dataclass(frozen=True)
class ServerSettings:
    """Where to ask and how."""

    base_url: str
    """Address up to and including `/v1`."""
    model: str | None = None
    """The name the server knows; None takes the only one it offers."""
    api_key: str | None = None
    """Sent as the bearer token; None sends none."""
    chat: bool = False
    """Whether to use chat completions instead of completions."""
    concurrency: int = 4
    """Number of simultaneous requests."""
    timeout: float = 600.0
    """Seconds for one request."""


@dataclass
class Server:
    """A connection to a server.

    Raises on creation:
        MissingExtraError: openai is not installed.
        HubError: the server cannot be reached or refuses.
        UsageError: it offers several models and none was named, or the address is not valid.
    """

    settings: ServerSettings
    """Where to ask and how."""
    bos_token: str = ""
    """The token that the server itself puts before a text; empty for none."""
    model: str = field(default="", init=False)
    """The name the server knows."""
    uncounted: bool = field(default=False, init=False)
    """Whether some answer came without a count of the prompt's tokens.

    Without a count, a cut prompt is not noticed.
    """
    unfinished: bool = field(default=False, init=False)
    """Whether some chat answer was cut at the limit."""
    _client: Any = field(default=None, init=False, repr=False)
    _form: int = field(
        default=0, init=False
    )  # index of the first of _forms() that the server accepts
    _form_is_known: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Connect, and find the model."""
        from yarncli.extras import require_extra

        require_extra("--base-url", "openai")
        from openai import OpenAI

        if not re.match(r"https?://[^/\s]+", self.settings.base_url):
            raise UsageError(
                f"--base-url {self.settings.base_url} is not an address such as "
                "http://localhost:8000/v1."
            )
        self._client = OpenAI(
            base_url=self.settings.base_url,
            api_key=self.settings.api_key or "none",
            timeout=self.settings.timeout,
            max_retries=_RETRIES,
        )
        weakref.finalize(self, self._client.close)
        self.model = self.settings.model or self._only_model()

    def cells(self, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in order. Several requests run at the same time.

        Raises:
            HubError: the server fails, or cut a prompt. Earlier answers have been returned before.
        """
        if not prompts:
            return
        # The first answer shows which form of request the server accepts.
        yield self._cell(prompts[0])
        left = iter(prompts[1:])
        waiting = deque(self._asked(prompt) for prompt in islice(left, self.settings.concurrency))
        failure: HubError | None = None
        while waiting:
            answer = waiting.popleft()
            # After a failure, wait for the running requests, so that no answer is lost.
            if isinstance(error := answer.exception(), HubError):
                failure = failure or error
                continue
            if failure is None:
                waiting.extend(self._asked(prompt) for prompt in islice(left, 1))
            yield answer.result()
        if failure is not None:
            raise failure

    def completion(self, **request: Any) -> Any:
        """The whole answer to one request for a completion.

        Raises:
            HubError: the server cannot be reached, or is not an OpenAI-compatible server.
            APIStatusError: an error of the client: the server refuses the request.
        """
        with self._errors():
            answer = self._client.completions.create(model=self.model, **request)
            _expected(answer, "choices")
            return answer

    def _asked(self, prompt: PasskeyPrompt) -> Future[Cell]:
        """The future answer, from a thread that does not keep an interrupted program alive."""
        answer: Future[Cell] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._cell(prompt))
            except BaseException as error:  # raised again in the thread that waits
                answer.set_exception(error)

        Thread(target=ask, daemon=True).start()
        return answer

    def _only_model(self) -> str:
        from openai import APIStatusError

        where = self.settings.base_url
        try:
            with self._errors():
                # Without retries, so that a wrong address is reported at once.
                client = self._client.with_options(max_retries=0)
                names = [model.id for model in _expected(client.models.list(), "data")]
        except APIStatusError as error:
            raise HubError(
                f"{where} does not list its models: status {error.status_code}, {said(error)} "
                "Give one with --model."
            ) from error
        except UnreadableAnswer as error:
            raise HubError(
                f"{error} If the address is right and the server does not list its models, give "
                "one with --model."
            ) from error
        if len(names) != 1:
            offered = ", ".join(names[:8]) or "none"
            raise UsageError(f"{where} offers these models: {offered}. Give one with --model.")
        return str(names[0])

    def _cell(self, prompt: PasskeyPrompt) -> Cell:
        text, counted = self._ask(prompt)
        self._check_count(prompt, counted)
        answer = strip_reasoning(text) if self.settings.chat else text
        return Cell.of(prompt, answer, prompt.is_correct(answer))

    def _ask(self, prompt: PasskeyPrompt) -> tuple[str, int | None]:
        """The model's words and the number of prompt tokens the server counted."""
        from openai import APIStatusError

        forms = self._forms(prompt)
        while True:
            try:
                with self._errors():
                    answer = self._request(forms[self._form])
                self._form_is_known = True
                return answer
            except APIStatusError as error:
                # Servers refuse unknown fields with 400, 404, 422 or 500.
                if not self._form_is_known and self._form + 1 < len(forms):
                    self._form += 1
                    continue
                raise self._refusal(prompt, error) from error

    def _refusal(self, prompt: PasskeyPrompt, error: APIStatusError) -> HubError:
        """The error for a prompt that the server accepts in no form."""
        where, code = self.settings.base_url, error.status_code
        if code == 404:
            return HubError(
                f"{where} has no model {self.model!r} or no such API: {said(error)} Give the "
                "server's name of the model with --model."
            )
        if code in (400, 413, 422):
            return HubError(
                f"The server refused a prompt of {prompt.length:,} tokens: {said(error)}"
            )
        return HubError(f"{where} failed with status {code}: {said(error)}")

    def _forms(self, prompt: PasskeyPrompt) -> list[dict[str, Any]]:
        """The same question in the forms that different servers accept, best first."""
        if self.settings.chat:
            message = {"messages": [{"role": "user", "content": prompt.user_text}]}
            extras: list[dict[str, Any]] = [{**_NO_PENALTY, **_NO_THINKING}, _NO_THINKING, {}]
            return [{**message, "max_tokens": CHAT_TOKENS, "extra_body": extra} for extra in extras]
        # Token ids do not depend on the server's tokenizer. To a text, the server adds its own BOS
        # token.
        text = prompt.text.removeprefix(self.bos_token) if self.bos_token else prompt.text
        return [
            {"prompt": form, "max_tokens": prompt.max_new_tokens, "extra_body": extra}
            for form in (list(prompt.token_ids), text)
            for extra in (_NO_PENALTY, {})
        ]

    def _request(self, form: dict[str, Any]) -> tuple[str, int | None]:
        chat = self.settings.chat
        api = self._client.chat.completions if chat else self._client.completions
        answer = api.create(model=self.model, temperature=0, **form)
        choice = _expected(answer, "choices")[0]
        if chat and choice.finish_reason == "length":
            self.unfinished = True
        text = choice.message.content if chat else choice.text
        if text is None and not (chat and choice.finish_reason == "length"):
            # An answer without text is valid only if its thoughts used up all tokens.
            raise HubError(
                f"{self.settings.base_url} gave an answer without text (null). The server's log "
                "may say why."
            )
        return text or "", answer.usage.prompt_tokens if answer.usage else None

    def _check_count(self, prompt: PasskeyPrompt, counted: int | None) -> None:
        """Raise an error if the server cut the prompt, which must not count as a wrong answer."""
        if counted is None:
            self.uncounted = True
            return
        expected = len(prompt.token_ids)
        if abs(counted - expected) <= (_CHAT_SLACK if self.settings.chat else 1):
            return
        if counted < expected:
            raise HubError(
                f"The server read {counted:,} tokens of a prompt of {expected:,}, so it cuts "
                "prompts. Start it with a longer context length, or give shorter --lengths."
            )
        raise HubError(
            f"The server counts {counted:,} tokens where the tokenizer counts {expected:,}. Give "
            "the tokenizer that the server uses with --tokenizer."
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn each failure of a server into one sentence. Errors with a status pass through.

        Raises:
            HubError: always, for the client's own errors.
        """
        import openai

        where = self.settings.base_url
        try:
            yield
        except openai.APITimeoutError as error:
            raise HubError(f"{where} did not answer within {self.settings.timeout:g} s.") from error
        except openai.APIConnectionError as error:
            raise HubError(f"{where} cannot be reached. Is the server running there?") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise HubError(
                f"{where} refuses the key. Give the environment variable that holds the right key "
                "with --api-key-env."
            ) from error
        except openai.APIStatusError:
            raise
        except (openai.APIError, ValueError) as error:
            raise UnreadableAnswer(
                f"{where} does not answer as an OpenAI-compatible server does. Is /v1 missing at "
                "the end of --base-url?"
            ) from error


def strip_reasoning(text: str) -> str:
    """What a chat model writes after its thoughts; empty if the thoughts do not end."""
    without = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL)
    # Some templates begin the thought themselves, so the model generates only its end.
    return without.rpartition("</think>")[2].strip()


def _expected(answer: Any, name: str) -> Any:
    """A field of an answer. The answer is plain text if the address is not that of an API.

    Raises:
        ValueError: it is missing or empty.
    """
    found = getattr(answer, name, None)
    if not isinstance(found, list) or (name == "choices" and not found):
        raise ValueError(f"an answer without {name}")
    return found


def said(error: Any) -> str:
    """The server's own message in an error of the client."""
    body = error.body
    # mlx_lm.server answers {"error": "words"}, and the client gives only the words.
    known = body if isinstance(body, dict) else {"message": body if isinstance(body, str) else ""}
    text = str(known.get("message") or known.get("detail") or error.message)
    return " ".join(text.split())[:300].rstrip(".") + "."


@dataclass(frozen=True, kw_only=True)
class ServerTokenizer:
    """The server's own tokenizer, over the `/tokenize` and `/detokenize` of vLLM and llama.cpp."""

    base_url: str
    """As in `ServerSettings`. The two addresses are next to `/v1`."""
    model: str
    """The name the server knows."""
    api_key: str | None = None
    """Sent as the bearer token; None sends none."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that the server puts before a text; None for none. Raises as `encode`."""
        ids, plain = self.encode("a"), self.encode("a", add_special_tokens=False)
        return ids[0] if ids[1:] == plain else None

    eos_token_id: None = None
    """Always None: servers are not asked for it."""
    eos_token: None = None
    """Always None: servers are not asked for it."""
    chat_template: None = None
    """Always None: servers are not asked for it."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        Raises:
            UsageError: the server offers no tokenizer.
        """
        # Each server reads its own two of these names and ignores the others.
        body = {
            "model": self.model,
            "prompt": text,
            "add_special_tokens": add_special_tokens,
            "content": text,
            "add_special": add_special_tokens,
        }
        tokens = self._post("tokenize", body).get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise self._missing()
        return tokens

    def decode(self, ids: list[int], **_: Any) -> str:
        """Text of token ids. Raises as `encode`."""
        answer = self._post("detokenize", {"model": self.model, "tokens": ids})
        text = answer.get("prompt", answer.get("content"))
        if not isinstance(text, str):
            raise self._missing()
        return text

    def _post(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        address = self.base_url.rstrip("/").removesuffix("/v1") + f"/{name}"
        request = Request(address, json.dumps(body).encode(), headers, method="POST")
        try:
            with urlopen(request, timeout=60) as response:
                found = json.load(response)
        except (OSError, ValueError) as error:
            raise self._missing() from error
        return found if isinstance(found, dict) else {}

    def _missing(self) -> UsageError:
        return UsageError(
            f"{self.base_url} offers no tokenizer. Give the tokenizer of the model with "
            "--tokenizer SOURCE."
        )
