"""The plain path: one prompt at a time, transformers' greedy generation, the reference's rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from yarncli.evaluation.local.load import LoadedModel, quiet
from yarncli.evaluation.local.rotary import rope_frozen_at
from yarncli.evaluation.prompts import PasskeyPrompt, is_correct
from yarncli.evaluation.report import Cell


def greedy_text(
    loaded: LoadedModel, prompt: PasskeyPrompt, decode: Callable[[list[int]], str]
) -> str:
    """What the model says after the prompt, decoded greedily, its end-of-text token included.

    Length-dependent RoPE (dynamic, longrope) is fixed at the prompt's length; see
    `rope_frozen_at`.
    """
    ids = torch.tensor([prompt.token_ids], device=loaded.device)
    with quiet(), torch.inference_mode(), rope_frozen_at(loaded.model, prompt.length):
        generated = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            max_new_tokens=prompt.max_new_tokens,
        )
    return decode(generated[0, ids.shape[1] :].tolist())


def answer_greedily(
    loaded: LoadedModel,
    prompts: Iterable[PasskeyPrompt],
    decode: Callable[[list[int]], str],
) -> Iterator[Cell]:
    """One cell per prompt, in order."""
    for prompt in prompts:
        text = greedy_text(loaded, prompt, decode)
        yield Cell.of(prompt, text, is_correct(text, prompt.key))
