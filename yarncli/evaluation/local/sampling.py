"""Texts that a model writes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from yarncli.errors import UsageError
from yarncli.evaluation.local.load import LoadedModel, quiet
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.texts import start_ids
from yarncli.evaluation.variants import Variant
from yarncli.progress import Advance, ProgressCallback, stage

if TYPE_CHECKING:
    from yarncli.evaluation.local.measuring import Readers


def sample_stretches(
    readers: Readers,
    variant: Variant,
    codec: TextCodec,
    *,
    length: int,
    count: int,
    seed: int,
    progress: ProgressCallback | None,
) -> list[tuple[int, ...]]:
    """What a model writes in one of its settings, where no texts are given.

    Args:
        readers: have the model.
        variant: the setting.
        codec: the tokenizer.
        length: of each text, tokens.
        count: of texts.
        seed: of the random numbers.
        progress: told how far "Sampling" is, in tokens.

    Raises:
        UsageError: as `sample_texts`.
    """
    model, start = readers.of(variant, length).loaded, start_ids(codec)
    with stage(progress, "Sampling", count * length, unit="tokens") as advance:
        return sample_texts(
            model, length=length, count=count, start=start, seed=seed, advance=advance
        )


def sample_texts(
    loaded: LoadedModel,
    *,
    length: int,
    count: int,
    start: Sequence[int],
    seed: int,
    advance: Advance | None = None,
) -> list[tuple[int, ...]]:
    """Draw texts from a model's own distribution, at temperature 1 and without any filter.

    Args:
        loaded: the model.
        length: of each text, tokens, the first one included.
        count: of texts.
        start: the token that starts a text; where there is none, an end-of-text token does.
        seed: of the random numbers.
        advance: told the tokens that were drawn.

    Raises:
        UsageError: the model names no token to start from.
    """
    ends = loaded.model.generation_config.eos_token_id
    first = [*start] or (ends if isinstance(ends, list) else [ends])[:1]
    if not first or first[0] is None:
        raise UsageError("The model names no token that a text starts with. Give --text FILE.")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([first] * count, device=loaded.device)
    cache = None
    fed = rows
    with quiet(), torch.inference_mode():
        while rows.shape[1] < length:
            output = loaded.model(input_ids=fed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            # On the CPU, so that a seed means the same everywhere.
            share = torch.softmax(output.logits[:, -1].float().cpu(), -1)
            fed = torch.multinomial(share, 1, generator=generator).to(loaded.device)
            rows = torch.cat((rows, fed), dim=1)
            if advance:
                advance(count)
    return [tuple(row) for row in rows.tolist()]
