"""What a training step takes on each GPU: weights, optimizer, activations, logits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig
from yarncli.jsontext.fields import Fields

RANK = 16  # of the LoRA that a recipe writes
# The linear layers that LoRA trains beside, as LongLoRA (arXiv:2309.12307) does.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
_FLOAT = 4  # bytes of the weights that are trained, of gradients and of the optimizer's numbers
_EMBEDDING = re.compile(r"(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on each GPU (or in this process), by what takes them."""

    weights: int
    """The weights, in float32 where they are trained."""
    optimizer: int
    """AdamW's two numbers for each weight that is trained."""
    gradients: int
    """One number for each weight that is trained."""
    activations: int
    """The input of every layer, which checkpointing keeps, and one layer computed again."""
    logits: int
    """Length × vocabulary, in float32: as they are, their softmax, and its gradient twice."""
    peak: int
    """The most that is there at one time: not all of it is at once."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def estimate(
    checkpoint: Checkpoint,
    rope: RopeConfig,
    length: int,
    *,
    gpus: int = 1,
    lora: bool = False,
    mixed: bool = True,
    rows: int = 1,
) -> Memory:
    """The memory of one training step with checkpointing, of a decoder as Llama is one.

    Weights, gradients and the optimizer are split over the GPUs (FSDP), activations are not. What
    the CUDA context and other processes take is not counted. A mixture of experts counts as if
    each token passed through one.

    Args:
        checkpoint: whose headers tell the weights.
        rope: what its config says.
        length: of a row, tokens.
        gpus: over which the weights are split.
        lora: train adapters, norms and embeddings only, as the recipes do.
        mixed: whether activations are in bfloat16.
        rows: rows on each GPU at a time.
    """
    fields = rope.text(checkpoint.config().value)
    tensors = [t for h in checkpoint.headers().values() for t in h.tensors.values()]
    shapes = {tensor.name.removesuffix(".weight"): tensor.shape for tensor in tensors}
    total = sum(tensor.parameters for tensor in tensors)
    trained = _lora(shapes) if lora else total
    tokens, stored = rows * length, 2 if mixed else _FLOAT
    extra = trained if lora else 0  # adapters, and the copies that are trained
    weights = (total + extra) * _FLOAT // gpus
    gradients, optimizer = trained * _FLOAT // gpus, trained * 2 * _FLOAT // gpus
    hidden = fields.positive("hidden_size", rope.family.hidden_size)
    layers = rope.stored_layers
    kept = layers * tokens * hidden * stored
    layer = tokens * _numbers(fields, rope, hidden) * stored
    # The logits are in float32 whatever the rest is: they, their softmax, and its gradient twice.
    logits = tokens * _vocabulary(fields, shapes) * (3 * _FLOAT + stored)
    # At the loss all inputs are kept, and the output matrix gets its gradient, if it is trained. At
    # the first layer all other gradients are there, and a tied matrix gets a second one at the end.
    tied = "lm_head" not in shapes
    matrix = _vocabulary(fields, shapes) * hidden * _FLOAT // gpus
    loss = kept + logits + (matrix if tied or not lora else 0)
    last = kept // layers + layer + gradients * (layers - 1) // layers
    end = gradients + (matrix if tied else 0)
    return Memory(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients,
        activations=kept + layer,
        logits=logits,
        peak=weights + optimizer + max(loss, kept + layer, last, end),
    )


def trained_modules(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The modules that LoRA adapts, and those that are trained whole: norms and embeddings.

    LongLoRA (§3.3) found that without the latter a longer context is not learned.

    Args:
        names: of the modules that have weights.
    """
    ends = dict.fromkeys(name.rpartition(".")[2] for name in names)
    whole = [
        end for end in ends if "norm" in end or _EMBEDDING.search(end) or end.startswith("ln_")
    ]
    return [end for end in ends if end in TARGETS], whole


def _lora(shapes: dict[str, tuple[int, ...]]) -> int:
    """Numbers that a LoRA run trains: adapters, and copies of norms and embeddings."""
    targets, whole = trained_modules(shapes)
    found = 0
    for name, shape in shapes.items():
        end = name.rpartition(".")[2]
        if end in whole:
            found += math.prod(shape)
        elif end in targets and len(shape) == 2:
            found += RANK * sum(shape)
    return found


def _vocabulary(fields: Fields, shapes: dict[str, tuple[int, ...]]) -> int:
    found = [shape[0] for name, shape in shapes.items() if _EMBEDDING.search(name) and shape]
    return fields.positive("vocab_size", max(found, default=32000))


def _numbers(fields: Fields, rope: RopeConfig, hidden: int) -> int:
    """Numbers that one layer keeps for each token on the way back, and the gradients in flight.

    Both norms, queries and keys as they are rotated, values, what attention gives, and the gate,
    the two inputs and the product of the feed-forward part; the memory test measures the sum.
    """
    queries = rope.num_attention_heads * rope.head_dim
    keys = rope.num_key_value_heads * rope.head_dim
    inner = fields.positive("intermediate_size", 4 * hidden)
    return 6 * hidden + 3 * queries + 2 * keys + 5 * inner
