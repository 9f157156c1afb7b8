"""Train the demo checkpoint that ships in `yarncli/demo`, and its YaRN fine-tuned variant.

    python scripts/train_demo.py base OUT          # ~4 CPU minutes on one thread
    python scripts/train_demo.py tuned OUT BASE    # ~1 CPU minute, starts from BASE

Everything is generated from the seed: the tokenizer's training text, the prompts, the stories.
The model learns to copy (random tokens said twice, facts said again) and to answer passkey
questions inside 256 tokens, which is enough to show what RoPE scaling does beyond them.

The variant is made as anyone would make it: `convert`, `recipe`, the files that it wrote run with
transformers.Trainer, `finish`. One processor with the same versions of torch and transformers
gives the same bytes again; on others the sums of the training may round otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from yarncli import convert, finish, recipe
from yarncli.evaluation.prompts import PromptBuilder, Wording

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 256
FACTOR = 8.0
BOS, EOS, PAD = 0, 1, 2
IGNORE = 0.0
FILLER_WEIGHT, ANSWER_WEIGHT = 0.3, 4.0
TUNED_ROWS, TUNED_RATE = 4, 1e-3  # rows a step; a tiny model takes 50 times the paper's rate

# A plain Llama config as published before transformers 5: every engine reads a top-level θ.
BASE_CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 336,
    "max_position_embeddings": WINDOW,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "pad_token_id": PAD,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 512,
}


class Story:
    """Sentences about invented people; every fact returns in three phrasings.

    Text in which old facts help to predict new sentences, however far back they stand.
    """

    PHRASES = (
        ("{n} lives in {v}.", "In {v} you can meet {n}.", "The home of {n} is {v}."),
        ("{n} works as a {v}.", "The {v} we know is {n}.", "By trade {n} is a {v}."),
        ("{n} owns a {v}.", "That {v} belongs to {n}.", "The pet of {n} is a {v}."),
        ("{n} was born in {v}.", "In {v} came {n}.", "The birth year of {n} is {v}."),
    )
    SYLLABLES = "ka lo mi ren tas vel dor nim pa su ber gal hin jor fe wu zan eth os il"
    TRADES = "baker smith pilot tailor miner painter doctor singer farmer weaver"
    PETS = "cat dog goat crow horse snake mouse goose turtle rabbit"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.people: list[tuple[str, tuple[str, str, str, str]]] = []

    def name(self) -> str:
        """A new name of two or three syllables."""
        return "".join(self.rng.sample(self.SYLLABLES.split(), self.rng.randint(2, 3))).capitalize()

    def sentence(self) -> str:
        """One fact about a new or a known person."""
        rng = self.rng
        if not self.people or rng.random() < 0.12:
            facts = (
                self.name(),
                rng.choice(self.TRADES.split()),
                rng.choice(self.PETS.split()),
                str(rng.randint(1000, 9999)),
            )
            self.people.append((f"{self.name()} {self.name()}", facts))
        name, facts = rng.choice(self.people)
        kind = rng.randrange(4)
        return rng.choice(self.PHRASES[kind]).format(n=name, v=facts[kind])

    def text(self, sentences: int) -> str:
        """A text of this number of sentences about the same people."""
        return " ".join(self.sentence() for _ in range(sentences))


def make_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE of 512 tokens in which digits stand alone, passkey words are whole."""
    rng = random.Random(f"tokenizer/{seed}")
    wording = Wording()
    question = f"{wording.question} {wording.answer_prefix}"
    passkey = [
        "\n".join(
            (
                wording.task,
                wording.filler,
                wording.needle,
                question,
            )
        )
    ] * 400
    stories = [Story(rng).text(30) for _ in range(200)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        passkey + stories,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


class Rows:
    """Training rows: token ids and the loss weight of each as a *target*."""

    def __init__(self, tokenizer: Tokenizer, rng: random.Random) -> None:
        self.tokenizer = tokenizer
        self.rng = rng
        self.builder = PromptBuilder(self.encode, tokenizer.decode)
        self.shortest = 75

    def encode(self, text: str) -> list[int]:
        """Token ids with `<s>` in front."""
        return list(self.tokenizer.encode(text).ids)

    def passkey(self, length: int) -> tuple[list[int], list[float]]:
        """A passkey prompt and answer of `length` tokens, and `</s>`."""
        rng = self.rng
        low, high = (1, 50_000) if rng.random() < 0.7 else (0, 99_999)
        key = str(rng.randint(low, high))
        prompt = self.builder.compose(key, length, rng.random())
        weights = [IGNORE]
        for number, line in enumerate(prompt.text.split("\n")):
            tokens = len(self.encode(line)) - 1 + (number > 0)  # less <s>, plus its line end
            weights += [FILLER_WEIGHT if number in (1, 3) else 1.0] * tokens
        assert len(weights) == len(prompt.token_ids), "a line end joined its neighbour"
        ids = [*prompt.token_ids, *prompt.answer_ids, EOS]
        return ids, weights + [ANSWER_WEIGHT] * (len(prompt.answer_ids) + 1)

    def copied(self, length: int) -> tuple[list[int], list[float]]:
        """Random tokens repeated many times: from the second time on, only copying helps."""
        period = self.rng.randint(8, max(9, length // 2))
        once = [self.rng.randrange(3, 512) for _ in range(period)]
        ids = [BOS, *(once * (length // period + 1))][:length]
        return ids, [IGNORE] * min(length, period + 1) + [1.0] * max(0, length - period - 1)

    def story(self, length: int) -> tuple[list[int], list[float]]:
        """A story, cut at `length` tokens."""
        ids = self.encode(Story(self.rng).text(length // 5 + 2))[:length]
        return ids, [IGNORE] + [1.0] * (len(ids) - 1)

    def row(self, window: int) -> tuple[list[int], list[float]]:
        """One row of `window + 1` tokens; a short prompt is followed by a story or a copy."""
        rng = self.rng
        size = window + 1
        draw = rng.random()
        ids: list[int] = []
        weights: list[float] = []
        if draw < 0.45:
            full = rng.random() < 0.15
            ids, weights = self.passkey(window if full else rng.randint(self.shortest, window))
        while len(ids) < size:
            other = self.copied if 0.45 <= draw < 0.6 else self.story
            more, more_weights = other(size - len(ids))
            ids, weights = ids + more, weights + more_weights
        return ids[:size], weights[:size]

    def batch(self, rows: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and target weights, both (rows, window + 1)."""
        made = [self.row(window) for _ in range(rows)]
        return torch.tensor([ids for ids, _ in made]), torch.tensor([w for _, w in made])


def initialise(model: LlamaForCausalLM, seed: int) -> None:
    """Draw all matrices; the ones that write to the residual stream start smaller."""
    generator = torch.Generator().manual_seed(seed)
    layers = model.config.num_hidden_layers
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed" in name:
                weight.normal_(0.0, 0.5, generator=generator)
            elif weight.ndim == 2:
                std = weight.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= (2 * layers) ** 0.5
                weight.normal_(0.0, std, generator=generator)


def train(
    model: LlamaForCausalLM,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rates: tuple[float, float],
    shape: tuple[int, float, float],
) -> None:
    """Muon on the matrices, AdamW on embeddings and norms.

    Args:
        model: changed in place.
        batches: ids and target weights, (rows, window + 1) each.
        steps: optimiser steps.
        rates: peak learning rates of Muon and AdamW.
        shape: warm-up steps, share of the steps at the peak, and the last rate as a share of it.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or "embed" in n]
    optimisers = [
        torch.optim.Muon(
            matrices, lr=rates[0], momentum=0.95, weight_decay=0.05, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(others, lr=rates[1], betas=(0.9, 0.98), weight_decay=0.0),
    ]
    warm_up, constant, last = shape
    started, spent = time.time(), time.process_time()
    for step in range(steps):
        ids, weights = next(batches)
        through = max(0.0, (step / steps - constant) / (1 - constant))
        scale = min(1.0, (step + 1) / warm_up) * (1 - (1 - last) * through)
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * scale
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
        )
        targets = weights[:, 1:].flatten()
        loss = (losses * targets).sum() / targets.sum()
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        if step % 20 == 0 or step == steps - 1:
            answers = targets == ANSWER_WEIGHT
            answer_loss = losses[answers].mean().item()
            print(
                f"step {step:4d}  loss {loss.item():.3f}  answer {answer_loss:.3f}  "
                f"{time.process_time() - spent:.0f} CPU s  {time.time() - started:.0f} s",
                flush=True,
            )


def write_json(path: Path, value: object) -> None:
    """Write JSON in the form of checkpoints."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def save_weights(model: LlamaForCausalLM, out: Path) -> None:
    """Write fp16 weights, with the tied output matrix only once."""
    tensors = {
        name: weight.detach().to(torch.float16).contiguous()
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private


def train_base(out: Path, seed: int, steps: int) -> None:
    """Train tokenizer and model from nothing."""
    tokenizer = make_tokenizer(seed)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    rows = Rows(tokenizer, random.Random(f"base/{seed}"))
    model = LlamaForCausalLM(LlamaConfig(**BASE_CONFIG)).float()
    initialise(model, seed)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for step in range(steps):
            # Short rows first: the copying circuit forms at half the cost per step.
            yield rows.batch(32, WINDOW // 2) if step < 0.3 * steps else rows.batch(16, WINDOW)

    train(model, batches(), steps, (0.02, 3e-3), (100, 0.3, 0.02))
    save_weights(model, out)
    # Written in this spelling, which may differ from that of the installed transformers.
    write_json(out / "config.json", BASE_CONFIG)
    write_json(
        out / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD},
    )
    write_json(
        out / "tokenizer_config.json",
        {
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "model_max_length": WINDOW,
            "pad_token": "<pad>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def write_texts(out: Path, base: Path, seed: int, count: int, length: int) -> None:
    """Training texts of exactly one length, as JSON lines of token ids."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    rows = Rows(tokenizer, random.Random(f"tuned/{seed}"))
    with out.open("w", encoding="utf-8") as file:
        for _ in range(count):
            ids, _ = rows.row(length - 1)  # it gives one more
            file.write(json.dumps({"input_ids": ids}) + "\n")


def run_recipe(files: Path, *command: object, python: str = sys.executable) -> None:
    """Run a file that `recipe` wrote, on one thread."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    subprocess.run([python, *map(str, command)], cwd=files, env=environment, check=True)


def train_tuned(out: Path, base: Path, seed: int, steps: int) -> None:
    """Convert with YaRN ×8 and fine-tune on texts of 4 windows; it is then tested at 8 windows."""
    length = WINDOW * 4
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        converted, files, texts = work / "converted", work / "recipe", work / "texts.jsonl"
        write_texts(texts, base, seed, steps * TUNED_ROWS, length)
        convert(base, converted, method="yarn", factor=FACTOR)
        # The recipe divides its 64 rows per step among GPUs; this is the share of one of 16.
        recipe(converted, files, train_length=length, data=texts, gpus=64 // TUNED_ROWS)
        run_recipe(files, "prepare.py")
        run_recipe(files, "train.py", "--steps", steps, "--learning-rate", TUNED_RATE)
        finish(files / "trained", converted, out, dtype="auto")
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private


def write_stories(out: Path, seed: int) -> None:
    """Stories that neither model was trained on, each about other people."""
    rng = random.Random(f"stories {seed}")
    out.write_text("\n".join(Story(rng).text(90) for _ in range(14)) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line and train, or write the text to measure on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["base", "tuned", "stories"])
    parser.add_argument("out", type=Path)
    parser.add_argument("base", type=Path, nargs="?", help="the base checkpoint, for tuned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="default: 600 for base, 60 for tuned")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order, so that a seed gives one model
    torch.manual_seed(arguments.seed)
    if arguments.what == "stories":
        write_stories(arguments.out, arguments.seed)
    elif arguments.what == "base":
        train_base(arguments.out, arguments.seed, arguments.steps or 600)
    elif arguments.base is None:
        parser.error("tuned needs the directory of the base checkpoint")
    else:
        train_tuned(arguments.out, arguments.base, arguments.seed, arguments.steps or 60)


if __name__ == "__main__":
    main()
