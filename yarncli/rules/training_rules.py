"""Rules on what a trainer saved: a conversion of which only a part came back."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from yarncli.checkpoint.leftovers import is_training_state
from yarncli.checkpoint.source import Checkpoint
from yarncli.jsontext.text import JsonText
from yarncli.rules.config_view import Block, ConfigView
from yarncli.rules.finding import Finding

_PLAIN = (None, "default", "mrope")


def check_trained(
    view: ConfigView, checkpoint: Checkpoint, tokenizer: JsonText | None
) -> Iterator[Finding]:
    """A scaled config in one spelling, without a record, where a trainer has been.

    Args:
        view: the config, of a checkpoint without yarncli.json.
        checkpoint: its files.
        tokenizer: its tokenizer_config.json, if there is one.
    """
    scaled = [block for block in view.v5() if _scales(block)]
    if not scaled or view.legacy():
        return
    left = next((file.name for file in checkpoint.files if is_training_state(file.name)), None)
    if left is None and not _was_saved_again(view, scaled[0], tokenizer):
        return
    sign = f"{left.split('/')[0]} is beside it" if left else "transformers saved it again"
    place = quote(str(checkpoint.directory)) if checkpoint.directory else "DIR"
    yield view.finding(
        "conversion-lost",
        scaled[0].path,
        f"This looks like a conversion that a trainer saved ({sign}): one spelling of its scaling "
        "and its record are missing. Restore them with: "
        f"yarncli finish {place} OUT --from CONVERTED",
    )


def _scales(block: Block) -> bool:
    return (block.values.get("rope_type") or block.values.get("type")) not in _PLAIN


def _was_saved_again(view: ConfigView, block: Block, tokenizer: JsonText | None) -> bool:
    """Whether it was written for two spellings, and saved by transformers after a training.

    A program that writes for transformers 5 only does not state the type twice.
    """
    twice = {"type", "rope_type"} <= block.values.keys()
    local = tokenizer is not None and tokenizer.get(("is_local",)) is True
    return twice and (view.top("use_cache") is False or local)
