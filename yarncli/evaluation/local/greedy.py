"""The plain path: one prompt at a time, transformers' greedy generation, the reference's rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from yarncli.evaluation.local.load import LoadedModel, quiet
from yarncli.evaluation.local.rotary import rope_frozen_at
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.report import Cell


def greedy_text(
    loaded: LoadedModel,
    prompt: PasskeyPrompt,
    decode: Callable[[list[int]], str],
    *,
    until_decided: bool = False,
) -> str:
    """What the model says after the prompt, decoded greedily, its end-of-text token included.

    Length-dependent RoPE (dynamic, longrope) is fixed at the prompt's length; see
    `rope_frozen_at`.

    Args:
        loaded: the model.
        prompt: what it is asked.
        decode: token ids → text, without special tokens.
        until_decided: stop as soon as the verdict cannot change any more.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    ids = torch.tensor([prompt.token_ids], device=loaded.device)
    start = ids.shape[1]

    def decided(said: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ends = until_decided and prompt.is_decided(decode(said[0, start:].tolist()))
        return torch.tensor([ends], device=said.device)

    with quiet(), torch.inference_mode(), rope_frozen_at(loaded.model, prompt.length):
        generated = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            max_new_tokens=prompt.max_new_tokens,
            stopping_criteria=[decided],
            output_logits=True,
            return_dict_in_generate=True,
        )
    loaded.require_finite(torch.cat(generated.logits), prompt.length)
    return decode(generated.sequences[0, start:].tolist())


def answer_greedily(
    loaded: LoadedModel,
    prompts: Iterable[PasskeyPrompt],
    decode: Callable[[list[int]], str],
) -> Iterator[Cell]:
    """One cell per prompt, in order."""
    for prompt in prompts:
        text = greedy_text(loaded, prompt, decode)
        yield Cell.of(prompt, text, prompt.is_correct(text))
