"""Asking a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, TGI, transformers."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

from yarncli.errors import HubError, UsageError
from yarncli.evaluate.prompts import PasskeyPrompt, is_correct
from yarncli.evaluate.report import Cell

_RETRIES = 4
# A chat model may think or write a sentence around the key.
_CHAT_TOKENS = 1024
# Greedy whatever the server's or the model's defaults are; servers that know no such field refuse
# it, and are then asked without.
_NO_PENALTY = {"repetition_penalty": 1.0}
_NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


@dataclass(frozen=True)
class ServerSettings:
    """Where to ask and how.

    Attributes:
        base_url: up to and including `/v1`.
        model: the name the server knows; None takes the only one it offers.
        api_key: sent as the bearer token.
        chat: use chat completions instead of completions.
        concurrency: requests in flight.
        timeout: seconds for one request.
    """

    base_url: str
    model: str | None = None
    api_key: str | None = None
    chat: bool = False
    concurrency: int = 4
    timeout: float = 600.0


@dataclass
class Server:
    """A connection; find the model's name in `model`.

    Raises on creation:
        MissingExtraError: openai is not installed.
        HubError: the server cannot be reached or refuses.
        UsageError: it offers several models and none was named.
    """

    settings: ServerSettings
    bos_token: str = ""
    model: str = ""
    _client: Any = field(default=None, repr=False)
    _form: int = 0  # the first of _forms() that the server takes

    def __post_init__(self) -> None:
        """Connect, and find the model."""
        from yarncli.extras import require_extra

        require_extra("--base-url", "openai")
        from openai import OpenAI

        self._client = OpenAI(
            base_url=self.settings.base_url,
            api_key=self.settings.api_key or "none",
            timeout=self.settings.timeout,
            max_retries=_RETRIES,
        )
        self.model = self.settings.model or self._only_model()

    def cells(self, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in order; several requests are under way at a time.

        Raises:
            HubError: the server fails, or cut a prompt. Cells before that have been given.
        """
        if not prompts:
            return
        # The first answer shows which form of request the server takes.
        yield self._cell(prompts[0])
        waiting: deque[Future[Cell]] = deque()
        left = iter(prompts[1:])
        pool = ThreadPoolExecutor(self.settings.concurrency)
        try:
            for prompt in left:
                waiting.append(pool.submit(self._cell, prompt))
                if len(waiting) >= self.settings.concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _only_model(self) -> str:
        with self._errors():
            # Not tried again: a wrong address should be told at once.
            client = self._client.with_options(max_retries=0)
            names = [model.id for model in client.models.list()]
        if len(names) != 1:
            offered = ", ".join(names[:8]) or "none"
            raise UsageError(
                f"{self.settings.base_url} offers these models: {offered}. Name one with --model."
            )
        return str(names[0])

    def _cell(self, prompt: PasskeyPrompt) -> Cell:
        text, counted = self._ask(prompt)
        self._check_count(prompt, counted)
        answer = strip_reasoning(text) if self.settings.chat else text
        return Cell.of(prompt, answer, is_correct(answer, prompt.key))

    def _ask(self, prompt: PasskeyPrompt) -> tuple[str, int | None]:
        """The model's words and the number of prompt tokens the server counted."""
        from openai import BadRequestError, UnprocessableEntityError

        forms = self._forms(prompt)
        while True:
            try:
                with self._errors():
                    return self._request(forms[self._form])
            except (BadRequestError, UnprocessableEntityError) as error:
                if self._form + 1 < len(forms):
                    self._form += 1
                    continue
                raise HubError(
                    f"The server refused a prompt of {prompt.length:,} tokens: {_said(error)}"
                ) from error

    def _forms(self, prompt: PasskeyPrompt) -> list[dict[str, Any]]:
        """The same question in the forms that servers differ in, best first."""
        if self.settings.chat:
            message = {"messages": [{"role": "user", "content": prompt.user_text}]}
            extras: list[dict[str, Any]] = [{**_NO_PENALTY, **_NO_THINKING}, _NO_THINKING, {}]
            return [
                {**message, "max_tokens": _CHAT_TOKENS, "extra_body": extra} for extra in extras
            ]
        # Token ids leave nothing to the server's tokenizer. As text, its own BOS comes on top.
        text = prompt.text.removeprefix(self.bos_token) if self.bos_token else prompt.text
        return [
            {"prompt": form, "max_tokens": prompt.max_new_tokens, "extra_body": extra}
            for form in (list(prompt.token_ids), text)
            for extra in (_NO_PENALTY, {})
        ]

    def _request(self, form: dict[str, Any]) -> tuple[str, int | None]:
        if self.settings.chat:
            answer = self._client.chat.completions.create(model=self.model, temperature=0, **form)
            text = answer.choices[0].message.content
        else:
            answer = self._client.completions.create(model=self.model, temperature=0, **form)
            text = answer.choices[0].text
        return text or "", answer.usage.prompt_tokens if answer.usage else None

    def _check_count(self, prompt: PasskeyPrompt, counted: int | None) -> None:
        """A server that cut the prompt did not fail the test: it did not take it."""
        expected = len(prompt.token_ids)
        if counted is None or abs(counted - expected) <= (8 if self.settings.chat else 1):
            return
        if counted < expected:
            raise HubError(
                f"The server read {counted:,} tokens of a prompt of {expected:,}: it cuts prompts. "
                "Start it with a longer context length, or give shorter --lengths."
            )
        raise HubError(
            f"The server counts {counted:,} tokens where the tokenizer counts {expected:,}. Give "
            "the tokenizer that the server uses with --tokenizer."
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """One sentence for each way a server fails; refused requests pass through.

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
                f"{where} refuses the key. Name the environment variable that holds it with "
                "--api-key-env."
            ) from error
        except openai.NotFoundError as error:
            raise HubError(f"{where} has no model {self.model!r} or no such API.") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            raise
        except openai.APIStatusError as error:
            raise HubError(
                f"{where} failed with status {error.status_code}: {_said(error)}"
            ) from error


def strip_reasoning(text: str) -> str:
    """What a chat model says after its thoughts; thoughts that do not end leave nothing."""
    without = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL)
    # Some templates open the thoughts themselves, so that only their end is generated.
    return without.rpartition("</think>")[2].strip()


def _said(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    text = str(body.get("message") or body.get("detail") or error.message)
    return " ".join(text.split())[:300].rstrip(".") + "."


@dataclass(frozen=True)
class ServerTokenizer:
    """The server's own tokenizer, over the `/tokenize` and `/detokenize` of vLLM and llama.cpp.

    Args:
        base_url: as in `ServerSettings`; the two addresses are beside `/v1`.
        model: the name the server knows.
        api_key: sent as the bearer token.
    """

    base_url: str
    model: str
    api_key: str | None = None
    eos_token_id: None = None
    eos_token: None = None
    chat_template: None = None

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
            f"{self.base_url} offers no tokenizer. Name the model's own with --tokenizer SOURCE."
        )
