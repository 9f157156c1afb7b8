"""Cost of check-passkey against the reference procedure, in CPU time of one thread.

    python benchmarks/passkey.py demo      # the demo model, 2,048 tokens, 10 prompts
    python benchmarks/passkey.py 70m-2k    # a random 71M Llama, 10 prompts
    python benchmarks/passkey.py 70m-8k    # the same at 8,192 tokens, 10 depths
    python benchmarks/passkey.py memory    # peak over the loaded 71M model at 8,192 tokens
    python benchmarks/passkey.py prompts   # building prompts of 32k tokens

Reference: jquesnelle/yarn eval/passkey.py: a stepping search for the length, then a text-generation
pipeline that generates ten tokens, one prompt at a time (made greedy here; as it is, it samples).
Both sides run interleaved in one process, and each ratio is reference ÷ yarncli.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, pipeline

from yarncli.evaluation.local import memory
from yarncli.evaluation.local.load import LoadedModel, load_model, load_tokenizer
from yarncli.evaluation.local.score import FastScorer
from yarncli.evaluation.passkey import Grid, TextCodec
from yarncli.evaluation.prompts import PasskeyPrompt, Wording
from yarncli.evaluation.settings import LoadSettings

DEMO = Path(__file__).resolve().parents[1] / "yarncli" / "demo" / "base"


def spent(work: Callable[[], Any]) -> float:
    """CPU seconds of `work`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def random_llama() -> LoadedModel:
    """71M parameters: 12 layers of 512, vocabulary 32,000, random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=8,
        vocab_size=32_000,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    return LoadedModel(model=model, device=torch.device("cpu"), dtype=torch.float32)


def reference_text(filler_characters: int) -> str:
    """The reference's prompt with half of the filler before the needle."""
    wording = Wording()
    filler = " ".join([wording.filler] * (filler_characters // 80 + 2))
    half = filler_characters // 2
    needle = wording.needle.replace("{key}", "12345")
    question = f"{wording.question} {wording.answer_prefix}"
    return "\n".join((wording.task, filler[:half], needle, filler[:half], question))


def reference_length_search(encode: Callable[[str], list[int]], tokens: int) -> int:
    """Grow the filler by 128 characters until the prompt is too long, tokenising each time."""
    characters = 0
    while len(encode(reference_text(characters + 128))) <= tokens:
        characters += 128
    return characters


def reference_answers(model: Any, tokenizer: Any, prompts: list[PasskeyPrompt]) -> None:
    """One prompt at a time through the pipeline, ten tokens each."""
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer, device=-1, pad_token_id=0)
    for prompt in prompts:
        pipe(prompt.text, max_new_tokens=10, do_sample=False, num_return_sequences=1)


def compare(loaded: LoadedModel, grid: Grid, rounds: int) -> None:
    """Print the ratio of CPU times, and the tokens read against their floor."""
    tokenizer = load_tokenizer(DEMO)
    codec = TextCodec(tokenizer)
    prompts = grid.prompts(codec.builder(grid))
    length = grid.lengths[0]
    config = loaded.model.config.to_dict()
    chunk = memory.estimate(config, 0, length, loaded.dtype, loaded.device).chunk
    ratios = []
    for number in range(rounds + 1):
        theirs = spent(lambda: reference_length_search(codec.encode, length))
        theirs += spent(lambda: reference_answers(loaded.model, tokenizer, prompts))
        scorer = FastScorer(loaded, codec.decode, chunk=chunk, batch_tokens=1)
        ours = spent(lambda: grid.prompts(codec.builder(grid)))
        ours += spent(lambda s=scorer: list(s.score(prompts)))
        if number:  # the first pair warms up
            ratios.append(theirs / ours)
            print(f"reference {theirs:.2f} s, yarncli {ours:.2f} s, ratio {ratios[-1]:.2f}")
    starts = [_needle_token(codec, prompt) for prompt in prompts]
    floor = max(starts) + sum(length - start for start in starts)
    print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}")
    print(f"tokens read {scorer.tokens_forwarded:,}, floor {floor:,}: "
          f"{scorer.tokens_forwarded / floor:.3f}")  # fmt: skip


def _needle_token(codec: TextCodec, prompt: PasskeyPrompt) -> int:
    """Where prompts of one depth begin to differ: the first digit of the key."""
    return len(codec.encode(prompt.text[: prompt.text.index(prompt.key)].rstrip())) + 1


def peak_child(what: str) -> None:
    """In a process of its own: peak memory of one run over the loaded model."""
    loaded = random_llama()
    tokenizer = load_tokenizer(DEMO)
    codec = TextCodec(tokenizer)
    grid = Grid((8192,), depths=3, trials=2)
    prompts = grid.prompts(codec.builder(grid))
    warm = torch.ones(1, 8, dtype=torch.long)
    with torch.inference_mode():
        loaded.model(warm)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = loaded.model.config.to_dict()
    needed = memory.estimate(config, 0, 8192, loaded.dtype, loaded.device)
    if what == "fast":
        scorer = FastScorer(loaded, codec.decode, chunk=needed.chunk, batch_tokens=1)
        list(scorer.score(prompts))
    else:
        reference_answers(loaded.model, tokenizer, prompts[:1])
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"peak": peak, "kv": needed.kv_cache, "chunk": needed.chunk}))


def compare_memory() -> None:
    """Print the peaks of both ways, each in its own process."""
    for what in ("reference", "fast"):
        out = subprocess.run(
            [sys.executable, __file__, f"peak-{what}"], check=True, capture_output=True, text=True
        )
        found = json.loads(out.stdout.splitlines()[-1])
        print(
            f"{what}: {found['peak'] / 1e6:.0f} MB over the model, KV cache "
            f"{found['kv'] / 1e6:.0f} MB, ratio {found['peak'] / found['kv']:.2f}"
        )


def compare_prompts() -> None:
    """Print the ratio of building one prompt of 32,768 tokens."""
    codec = TextCodec(load_tokenizer(DEMO))
    grid = Grid((32_768,), depths=1, trials=2)
    theirs = spent(lambda: reference_length_search(codec.encode, 32_768))
    ours = spent(lambda: grid.prompts(codec.builder(grid))) / grid.size
    print(f"reference {theirs:.2f} s, yarncli {ours:.3f} s per prompt, ratio {theirs / ours:.0f}")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    match arguments.what:
        case "demo":
            compare(load_model(DEMO, LoadSettings()), Grid((2048,), 10, 1), arguments.rounds)
        case "70m-2k":
            compare(random_llama(), Grid((2048,), 5, 2), arguments.rounds)
        case "70m-8k":
            compare(random_llama(), Grid((8192,), 10, 1), arguments.rounds)
        case "memory":
            compare_memory()
        case "prompts":
            compare_prompts()
        case "peak-fast" | "peak-reference":
            peak_child(arguments.what.removeprefix("peak-"))
        case other:
            parser.error(f"unknown benchmark {other}")


if __name__ == "__main__":
    main()
