"""A passkey evaluation on this machine, from its grid to its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from yarncli.errors import UsageError
from yarncli.evaluation import prompts as prompts_module
from yarncli.evaluation.prompts import KeyKind, PasskeyPrompt, PromptBuilder, Wording
from yarncli.evaluation.report import Cell
from yarncli.evaluation.settings import LOADING, LoadSettings
from yarncli.evaluation.tasks import PASSKEY, TASKS
from yarncli.extras import installed, require_extra
from yarncli.options import choose
from yarncli.progress import Advance, ProgressCallback, unmeasured

if TYPE_CHECKING:
    from yarncli.evaluation.template import ChatFrame

Decode = Literal["fast", "greedy"]

# All prompts are built before the first is asked; a window that a config states may be absurd.
_MOST_TOKENS = 2**30


@dataclass(frozen=True)
class Grid:
    """Which prompts are asked: every length at every depth, `trials` keys each."""

    lengths: tuple[int, ...]
    """Lengths of the prompts with their answers, tokens."""
    depths: int = 5
    """Places of the key, evenly spread from the text's beginning to its end; 1: the middle."""
    trials: int = 2
    """Keys per length and depth."""
    seed: int = 0
    """Random seed of the keys."""
    keys: KeyKind = "digits"
    """"digits" hides five digits, "words" two words."""
    wording: Wording = field(default_factory=Wording)
    """The text around the key."""
    tasks: tuple[str, ...] = (PASSKEY,)
    """The tasks at each place, from `tasks.TASKS`; `keys` and `wording` are for the passkey."""

    def __post_init__(self) -> None:
        """Refuse an empty grid."""
        if not self.lengths or min(self.lengths) < 1:
            raise UsageError("--lengths must name at least one positive number of tokens.")
        if self.trials < 1 or self.depths < 1:
            raise UsageError("--trials and --depths must be at least 1.")
        tasks = tuple(choose(task, TASKS, "task") for task in self.tasks)
        object.__setattr__(self, "tasks", tasks)
        if not tasks or len(set(tasks)) != len(tasks):
            raise UsageError(f"--tasks accepts {', '.join(TASKS)}, each at most once.")
        if self.tokens > _MOST_TOKENS:
            raise UsageError(
                f"--lengths × --depths × --trials gives {self.size:,} prompts with {self.tokens:,} "
                f"tokens in total, but at most {_MOST_TOKENS:,} are possible. Ask for less."
            )

    @property
    def size(self) -> int:
        """Number of prompts."""
        return len(self.tasks) * len(self.lengths) * self.depths * self.trials

    @property
    def tokens(self) -> int:
        """Tokens of all prompts together."""
        return len(self.tasks) * sum(self.lengths) * self.depths * self.trials

    def prompts(
        self, builder: PromptBuilder, progress: Advance | None = None
    ) -> list[PasskeyPrompt]:
        """All prompts, in the order that shares most computation: task, length, depth, trial.

        Args:
            builder: writes each.
            progress: called with 1 after every prompt.

        Raises:
            UsageError: as `PromptBuilder.build`.
        """
        prompts = []
        depths = prompts_module.depths(self.depths)
        places = product(self.tasks, self.lengths, depths, range(self.trials))
        for task, length, depth, trial in places:
            prompts.append(builder.build(length, depth, trial, task))
            if progress is not None:
                progress(1)
        return prompts

    def to_json(self) -> dict[str, Any]:
        """As recorded with the results."""
        return {**asdict(self), "lengths": list(self.lengths), "tasks": list(self.tasks)}


@dataclass(frozen=True)
class TextCodec:
    """A tokenizer as the evaluation uses it: whole prompts in, answers out.

    `frame` is the chat template's, None for plain text.
    """

    tokenizer: Any
    frame: ChatFrame | None = None

    def encode(self, text: str) -> list[int]:
        """Token ids of a whole prompt; a template brings its own special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=self.frame is None)
        end = self.tokenizer.eos_token_id
        # An end token that the tokenizer adds to every text would end the prompt before the answer.
        if ids and ids[-1] == end and not text.endswith(self.tokenizer.eos_token or "\0"):
            ids = ids[:-1]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text without special tokens, as the reference's pipeline shows it."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def builder(self, grid: Grid, *, answer_prefix: bool = True) -> PromptBuilder:
        """The prompts' builder; without `answer_prefix` a chat prompt ends with the question."""
        frame = self.frame

        def render(user: str, prefix: str) -> str:
            assert frame is not None
            return frame.render(user, prefix if answer_prefix else "")

        return PromptBuilder(
            self.encode, decode=self.decode, wording=grid.wording, keys=grid.keys,
            seed=grid.seed, render=render if frame else None,
            begins=frame is None or (answer_prefix and frame.answer is not None),
        )  # fmt: skip

    def caveats(self, wording: Wording) -> list[str]:
        """What should be known about prompts in `wording`, a sentence each."""
        if self.frame is None or self.frame.answer is not None or not wording.answer_prefix:
            return []
        first = "thinks" if self.frame.thinks_first else "says"
        return [
            "The chat template has no place for the beginning of an answer, so the prompts end "
            f"where the model starts to write. What it {first} first counts as its answer. Compare "
            "with --no-chat."
        ]


def make_codec(directory: Path, chat: bool | None, *, trust_remote_code: bool = False) -> TextCodec:
    """The tokenizer of a checkpoint, with its chat template where one is wanted.

    Args:
        directory: holds the tokenizer.
        chat: None uses the template if there is one.
        trust_remote_code: run a tokenizer's own code.

    Raises:
        CheckpointError: no tokenizer, or a template that cannot be rendered.
        MissingExtraError: jinja2, or what reads this tokenizer, is not installed.
        UsageError: `chat` is True and there is no template.
    """
    from yarncli.evaluation.template import render_frame

    tokenizer = _tokenizer(directory, trust_remote_code)
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if chat is True and not template:
        raise UsageError(f"{directory} has no chat template. Leave out --chat.")
    if chat is False or not template:
        return TextCodec(tokenizer)
    tokens = {
        name: str(value)
        for name, value in tokenizer.special_tokens_map.items()
        if isinstance(value, str)
    }
    return TextCodec(tokenizer, render_frame(template, tokens))


def _tokenizer(directory: Path, trust_remote_code: bool) -> Any:
    """As transformers loads it; by its file alone where a server is asked without transformers."""
    if trust_remote_code:
        require_extra("--trust-remote-code", "torch", "transformers")
    elif not installed("torch", "transformers"):
        from yarncli.evaluation.tokenizing import read_tokenizer

        return read_tokenizer(directory)
    from yarncli.evaluation.local.load import load_tokenizer

    return load_tokenizer(directory, trust_remote_code=trust_remote_code)


def require_memory(
    directory: Path,
    length: int,
    *,
    settings: LoadSettings,
    config: Mapping[str, Any] | None = None,
    parameters: int = 0,
    decode: Decode = "fast",
) -> int:
    """Refuse prompts of up to `length` tokens that cannot fit. The rest as in `local_cells`.

    Returns:
        How many tokens to read in one forward call.

    Raises:
        UsageError: they cannot, with the numbers; or a device or dtype that does not exist.
    """
    from yarncli.evaluation.local import load, memory

    raw = dict(config) if config is not None else load.read_config(directory)
    device = load.choose_device(settings.device)
    dtype = load.choose_dtype(settings.dtype, device, raw)
    whole = decode == "greedy" or settings.attn_implementation is not None
    needed = memory.estimate_any(raw, parameters, length, dtype, device, whole=whole)
    memory.refuse_too_much(needed, device, length)
    return needed.chunk


def local_cells(
    directory: Path,
    prompts: Sequence[PasskeyPrompt],
    *,
    settings: LoadSettings,
    codec: TextCodec,
    config: Mapping[str, Any] | None = None,
    parameters: int = 0,
    decode: Decode = "fast",
    on_caveat: Callable[[str], None] = lambda caveat: None,
    progress: ProgressCallback | None = None,
) -> Iterator[Cell]:
    """Ask a checkpoint on this machine, one cell at a time.

    Args:
        directory: the checkpoint.
        prompts: as `Grid.prompts` orders them.
        settings: device, dtype and so on.
        codec: the tokenizer the prompts were made with.
        config: the content of config.json to use instead of the file's.
        parameters: of the model, for the memory estimate; 0 if not known.
        decode: "greedy" generates with transformers, one prompt at a time; "fast" gives the same
            verdicts from one pass.
        on_caveat: told what should be known about the answers.
        progress: told of the stage "Loading the model".

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or gives non-finite logits.
        UsageError: a device or dtype that does not exist, or too little memory.
    """
    from yarncli.evaluation.local import load, memory
    from yarncli.evaluation.local.greedy import answer_greedily
    from yarncli.evaluation.local.score import FastScorer

    if not prompts:
        return
    longest = max(prompt.length for prompt in prompts)
    chunk = require_memory(
        directory, longest, settings=settings, config=config, parameters=parameters, decode=decode
    )
    with memory.out_of_memory_errors(longest):
        with unmeasured(progress, LOADING):
            loaded = load.load_model(directory, settings, config=config)
        if loaded.unused:
            on_caveat(
                f"{directory} has {len(loaded.unused)} tensors that its model does not use, such "
                f"as {loaded.unused[0]}."
            )
        if decode == "greedy":
            yield from answer_greedily(loaded, prompts, codec.decode)
            return
        # On a CPU, rows side by side gain nothing (benchmarks/passkey.py) and take memory.
        together = 1 if loaded.device.type == "cpu" else chunk
        scorer = FastScorer(loaded, decode=codec.decode, chunk=chunk, batch_tokens=together)
        if settings.attn_implementation is not None:
            scorer.fallback = f"as --attn-implementation {settings.attn_implementation} does"
        yield from scorer.score(prompts)
        if scorer.fallback is not None:
            on_caveat(f"Each prompt was read separately, slower but as exact: {scorer.fallback}.")
