"""What a served model thinks of a text, from the log-probabilities of a prompt's tokens.

Read in the servers' code: vLLM 0.33.0 gives them for `prompt_logprobs`, SGLang 0.5.23 for `echo`
with `logprobs` of at least 1 (vllm/entrypoints/openai/completion/serving.py and
sglang/srt/entrypoints/openai/serving_completions.py). llama.cpp's server refuses `echo` and knows
no `prompt_logprobs` (tools/server/server-common.cpp in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from yarncli.errors import HubError
from yarncli.evaluation.server import Server, said

if TYPE_CHECKING:
    from openai import APIStatusError

_FORMS: tuple[dict[str, Any], ...] = (
    {"extra_body": {"prompt_logprobs": 0}},
    {"echo": True, "logprobs": 1},
)


class ServedReader:
    """Reads texts with a model behind a server, which gets them as token ids."""

    def __init__(self, server: Server) -> None:
        """Nothing is asked yet.

        Args:
            server: the connection.
        """
        self.server = server
        self._form: int | None = None  # the one of _FORMS that the server answers

    def losses(self, ids: Sequence[int], first: int) -> list[float]:
        """−log p of every token after position `first` given all before it, nats.

        Args:
            ids: the text, token ids, the start token included.
            first: the position of the last token that is not scored.

        Raises:
            HubError: the server fails, cuts the text, or does not return these numbers.
        """
        return [-number for number in self._ask(ids)[first + 1 :]]

    def _ask(self, ids: Sequence[int]) -> list[float]:
        """log p of every token; that of the first, which nothing predicts, is 0."""
        from openai import APIStatusError

        forms = range(len(_FORMS)) if self._form is None else (self._form,)
        refusals: list[APIStatusError] = []
        for form in forms:
            try:
                # Unscaled; the token that is generated is not looked at.
                answer = self.server.completion(
                    prompt=list(ids), max_tokens=1, temperature=1, **_FORMS[form]
                )
            except APIStatusError as error:
                refusals.append(error)
                continue
            self._check_count(answer, len(ids))
            found = _of_prompt(answer.choices[0], ids)
            if found is not None:
                self._form = form
                return found
        raise self._failure(len(ids), refusals, len(forms))

    def _failure(self, length: int, refusals: list[APIStatusError], asked: int) -> HubError:
        """The sentence for a text that was refused, or answered without what is needed."""
        where = self.server.settings.base_url
        if len(refusals) == asked:
            return HubError(
                f"{where} refused a text of {length:,} tokens with 1 token to generate: "
                f"{said(refusals[0])}"
            )
        return HubError(
            f"{where} does not return the log-probabilities of a prompt's tokens, so perplexity "
            "cannot be measured. vLLM (prompt_logprobs) and SGLang (echo with logprobs) return "
            "them; llama.cpp's server does not."
        )

    def _check_count(self, answer: Any, length: int) -> None:
        """A server that cut the text, or added to it, has measured another one."""
        counted = answer.usage.prompt_tokens if answer.usage else length
        if counted != length:
            raise HubError(
                f"The server read {counted:,} tokens of a text of {length:,}. Start it with a "
                "longer context length, or give shorter --lengths."
            )


def _of_prompt(choice: Any, ids: Sequence[int]) -> list[float] | None:
    """log p of every token of the prompt; None where the answer does not hold it for each.

    vLLM gives `prompt_logprobs`: for each token an object by token id. With `echo` there is
    `logprobs.token_logprobs`: those of the prompt, then of what was generated.
    """
    found: list[Any] = []
    by_id = (choice.model_extra or {}).get("prompt_logprobs")
    if isinstance(by_id, list) and len(by_id) == len(ids):
        entries = [
            place.get(str(token)) if isinstance(place, dict) else None
            for token, place in zip(ids, by_id, strict=True)
        ]
        found = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    elif choice.logprobs is not None and choice.text is not None:
        listed = choice.logprobs.token_logprobs or []
        # Without the prompt's there is one number, that of the token that was generated.
        found = listed[: len(ids)] if len(listed) in (len(ids), len(ids) + 1) else []
    numbers = found[1:]
    if not numbers or not all(
        isinstance(number, float | int) and math.isfinite(number) and number <= 0
        for number in numbers
    ):
        return None
    return [0.0, *map(float, numbers)]
