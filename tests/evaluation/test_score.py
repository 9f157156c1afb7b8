"""The fast path against transformers: verdicts of generate, logits of one plain forward."""

import dataclasses
import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from yarncli.config.families.table import FAMILIES
from yarncli.errors import CheckpointError
from yarncli.evaluation.local.greedy import answer_greedily, greedy_text
from yarncli.evaluation.local.load import LoadedModel, load_model
from yarncli.evaluation.local.score import FastScorer
from yarncli.evaluation.passkey import Grid
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.settings import LoadSettings

LENGTHS = (256, 512, 1024)
GRID = Grid(LENGTHS, depths=4, trials=3, seed=11)
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}
# θ·s^(d/(d−2)) with d = 32 and s = 8, from the NTK-aware formula.
NTK_THETA = 10000.0 * 8.0 ** (32 / 30)
METHODS = {
    "none": ({"rope_type": "default"}, 256),
    "linear": ({"rope_type": "linear", "factor": 8.0}, 256),
    "ntk": ({"rope_type": "default", "rope_theta": NTK_THETA}, 2048),
    "dynamic": ({"rope_type": "dynamic", "factor": 2.0}, 256),
    "yarn": (YARN, 2048),
    "by-parts": ({**YARN, "attention_factor": 1.0}, 2048),
}


def dynamic_theta(length, factor=2.0, window=256, dim=32):
    """θ that dynamic NTK gives a text of `length` tokens (YaRN paper §3.3, transformers)."""
    if length <= window:
        return 10000.0
    return 10000.0 * (factor * length / window - (factor - 1)) ** (dim / (dim - 2))


def generated(directory, prompts, tokenizer):
    """What transformers' own greedy generate says."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             max_new_tokens=10, pad_token_id=2)  # fmt: skip
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def by_the_rule(texts, prompts):
    """The reference's rule, written out again: the first run of digits is the key."""
    found = [re.search(r"\d+", text) for text in texts]
    return [
        digits is not None and int(digits.group()) == int(prompt.key)
        for digits, prompt in zip(found, prompts, strict=True)
    ]


@pytest.fixture(scope="module")
def prompts(codec):
    return GRID.prompts(codec.builder(GRID))


def verdicts(cells):
    return [cell.correct for cell in cells]


def expected_verdicts(method, scaled, prompts, tokenizer):
    """What generate says under `method`, by the rule; and the directory with that setting."""
    rope, maximum = METHODS[method]
    directory = scaled(rope, maximum)
    if method != "dynamic":
        return generated(directory, prompts, tokenizer), directory
    # generate mixes the frequencies of several lengths in one cache; the static θ of the
    # prompt's length is what the method means.
    texts = []
    for length in LENGTHS:
        static = scaled({"rope_type": "default", "rope_theta": dynamic_theta(length)},
                        name=f"static-{length}")  # fmt: skip
        texts += generated(static, [p for p in prompts if p.length == length], tokenizer)
    return texts, directory


# The other ways through the same code.
OPTIONS = (
    {"chunk": 100},
    {"batch_tokens": 1},
    {"batch_tokens": 100_000},
    {"attention": "masked"},
    {"attention": "masked", "chunk": 77, "batch_tokens": 1},
)


@pytest.mark.parametrize("method", METHODS)
def test_verdicts_are_those_of_greedy_generate(method, scaled, prompts, codec):
    texts, directory = expected_verdicts(method, scaled, prompts, codec.tokenizer)
    expected = by_the_rule(texts, prompts)
    assert len(expected) == 36
    loaded = load_model(directory, LoadSettings())
    found = list(FastScorer(loaded, codec.decode).score(prompts))
    assert verdicts(found) == expected
    assert [cell.key for cell in found] == [prompt.key for prompt in prompts]
    assert all(text.startswith(c.text) for c, text in zip(found, texts, strict=True))
    if method == "none":
        assert 0.3 < sum(expected) / len(expected) < 0.9  # both verdicts are there to confuse
    if method == "linear":
        assert not any(expected)
    if method in ("yarn", "none"):  # where verdicts are mixed and many texts go on
        for options in OPTIONS:
            again = list(FastScorer(loaded, codec.decode, **options).score(prompts))
            assert verdicts(again) == expected, options
            assert [c.text for c in again] == [c.text for c in found], options


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_verdicts_of_many_prompts_are_those_of_greedy_generate(method, scaled, codec):
    grid = Grid(LENGTHS, depths=7, trials=10, seed=12)
    prompts = grid.prompts(codec.builder(grid))
    texts, directory = expected_verdicts(method, scaled, prompts, codec.tokenizer)
    expected = by_the_rule(texts, prompts)
    assert len(expected) == 210
    loaded = load_model(directory, LoadSettings())
    for options in ({}, *OPTIONS):
        found = verdicts(FastScorer(loaded, codec.decode, **options).score(prompts))
        assert found == expected, options


def test_greedy_path_and_fast_path_agree_after_a_longer_prompt(scaled, prompts, codec):
    """Dynamic RoPE in transformers remembers the longest text; neither path may."""
    loaded = load_model(scaled(*METHODS["dynamic"]), LoadSettings())
    alone = [p for p in prompts if p.length == 512]
    first = verdicts(FastScorer(loaded, codec.decode).score(alone))
    longest_first = sorted(prompts, key=lambda p: -p.length)
    after = list(FastScorer(loaded, codec.decode).score(longest_first))
    assert [c.correct for c in after if c.length == 512] == first
    assert verdicts(answer_greedily(loaded, alone, codec.decode)) == first


def test_every_verdict_belongs_to_its_own_prompt(tuned, codec):
    """With one prompt's key asked of another the tuned model, which finds all, must fail."""
    grid = Grid((300,), depths=3, trials=2, seed=5)
    prompts = grid.prompts(codec.builder(grid))
    loaded = load_model(tuned, LoadSettings())
    assert all(verdicts(FastScorer(loaded, codec.decode).score(prompts)))
    swapped = [
        dataclasses.replace(p, key=q.key, answer_ids=q.answer_ids)
        for p, q in zip(prompts, prompts[1:] + prompts[:1], strict=True)
    ]
    assert not any(verdicts(FastScorer(loaded, codec.decode).score(swapped)))


def test_the_same_prompt_again(demo, codec):
    """All of it is known then, but its last logits are wanted again."""
    grid = Grid((256,), depths=1, trials=1)
    (prompt,) = grid.prompts(codec.builder(grid))
    scorer = FastScorer(load_model(demo, LoadSettings()), codec.decode, batch_tokens=1)
    first, again = scorer.score([prompt, prompt])
    assert first == again
    assert first.correct
    assert scorer.tokens_forwarded < 256 + 10


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 100_000}, {"attention": "masked"}])
def test_verdicts_without_an_answer_to_read(demo, prompts, codec, options):
    """Where the tokenizer joins the prompt's end and the key, every token is decoded."""
    loaded = load_model(demo, LoadSettings())
    bare = [dataclasses.replace(p, answer_ids=()) for p in prompts if p.length < 1024]
    expected = verdicts(answer_greedily(loaded, bare, codec.decode))
    assert {True, False} == set(expected)
    assert verdicts(FastScorer(loaded, codec.decode, **options).score(bare)) == expected


def test_the_plain_path_reads_a_prompt_once(demo, prompts, codec):
    """Also where the key is missed: it decodes on from the cache of that one pass."""
    loaded = load_model(demo, LoadSettings())
    asked = [prompt for prompt in prompts if prompt.length == 512]
    greedy = list(answer_greedily(loaded, asked, codec.decode))
    assert {True, False} == set(verdicts(greedy))
    read = []
    loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    scorer = FastScorer(loaded, codec.decode, fallback="as the test wants")
    found = list(scorer.score(asked))
    assert verdicts(found) == verdicts(greedy)
    assert all(b.text.startswith(a.text) for a, b in zip(found, greedy, strict=True))
    most = sum(len(p.token_ids) + p.max_new_tokens - 1 for p in asked)
    assert sum(read) <= most
    hits = sum(verdicts(found))
    assert sum(read) < most - 2 * hits  # a found key ends it


@pytest.mark.parametrize("agreed", [(0, 2, 4), (4, 2, 0), (3, 3, 1)])
def test_rows_that_go_on_from_different_places_do_not_disturb_each_other(demo, codec, agreed):
    """Of a batch, each row's answer agrees for another number of tokens with what is said."""
    loaded = load_model(demo, LoadSettings())
    grid = Grid((256,), depths=1, trials=3)
    said, prompts = [], []
    for prompt, count in zip(grid.prompts(codec.builder(grid)), agreed, strict=True):
        said.append(greedy_text(loaded, prompt, codec.decode))
        assert said[-1].startswith(f" {prompt.key}")  # each digit needs those before it
        pads = [codec.tokenizer.pad_token_id] * (len(prompt.answer_ids) - count)
        # A key of words, so that no digit decides the verdict before the text has ended.
        prompts.append(
            dataclasses.replace(
                prompt, answer_ids=(*prompt.answer_ids[:count], *pads), key="amber apple"
            )
        )
    scorer = FastScorer(loaded, codec.decode, batch_tokens=100_000)
    assert [cell.text for cell in scorer.score(prompts)] == said


class LastTokenGoesOn(torch.nn.Module):
    """A model that says the key, and then one more digit."""

    def __init__(self, model, answer, digit):
        super().__init__()
        self.model, self.answer, self.digit = model, answer, digit
        self.config, self.generation_config = model.config, model.generation_config
        self.set_attn_implementation = model.set_attn_implementation

    def forward(self, input_ids, logits_to_keep=0, **kwargs):
        out = self.model(input_ids=input_ids, logits_to_keep=logits_to_keep, **kwargs)
        for back, token in enumerate(reversed([*self.answer, self.digit]), 1):
            if back <= out.logits.shape[1]:
                out.logits[:, -back, token] += 1000.0
        return out


def test_a_digit_after_the_key_is_a_longer_number(demo, codec):
    grid = Grid((256,), depths=1, trials=1)
    (prompt,) = grid.prompts(codec.builder(grid))
    loaded = load_model(demo, LoadSettings())
    (right,) = FastScorer(loaded, codec.decode).score([prompt])
    assert right.correct
    seven = codec.tokenizer.convert_tokens_to_ids("7")
    wordy = LoadedModel(
        model=LastTokenGoesOn(loaded.model, prompt.answer_ids, seven),
        device=loaded.device,
        dtype=loaded.dtype,
    )
    (wrong,) = FastScorer(wordy, codec.decode).score([prompt])
    assert not wrong.correct
    assert wrong.text.strip() == prompt.key + "7"


class Scripted(LastTokenGoesOn):
    """A model that says `answer` after a prompt of `start` tokens, whatever it has read."""

    def __init__(self, model, answer, start):
        super().__init__(model, answer, None)
        self.start = start

    def forward(self, input_ids, position_ids, **kwargs):
        out = self.model(input_ids=input_ids, position_ids=position_ids, **kwargs)
        for row, places in zip(out.logits, position_ids.tolist(), strict=True):
            for logits, place in zip(row, places[-row.shape[0] :], strict=True):
                if 0 <= place + 1 - self.start < len(self.answer):
                    logits[self.answer[place + 1 - self.start]] += 1000.0
        return out


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_what_would_follow_the_end_of_the_text_is_not_said(demo, codec, batch_tokens):
    """Also where the last prompt's words, its end included, are the guess for the next."""
    grid = Grid((256,), depths=2, trials=3)
    prompts = grid.prompts(codec.builder(grid))
    loaded = load_model(demo, LoadSettings())
    the, end = codec.tokenizer.convert_tokens_to_ids(["e", "</s>"])
    for prompt in prompts[1:]:
        answer = [the, end, *prompt.answer_ids]
        model = Scripted(loaded.model, answer, len(prompt.token_ids))
        scorer = FastScorer(
            LoadedModel(model=model, device=loaded.device, dtype=loaded.dtype),
            codec.decode,
            batch_tokens=batch_tokens,
        )
        cells = list(scorer.score(prompts))
        assert scorer.fallback is None
        assert [(cell.text, cell.correct) for cell in cells] == [("e", False)] * len(prompts)


def test_tokens_read_are_near_the_floor(demo, codec):
    grid = Grid((1024,), depths=5, trials=4)
    prompts = grid.prompts(codec.builder(grid))
    scorer = FastScorer(load_model(demo, LoadSettings()), codec.decode)
    list(scorer.score(prompts))
    # Once all text, and for each prompt everything from its key on.
    needle = {p.depth: _key_start(p, codec) for p in prompts}
    floor = max(needle.values()) + sum(1024 - needle[p.depth] for p in prompts)
    decoding = 10 * len(prompts)  # what follows where the answer is not the key
    assert scorer.tokens_forwarded <= 1.03 * floor + decoding


def _key_start(prompt, codec):
    """Tokens before the first digit of the key."""
    text = prompt.text[: prompt.text.index(prompt.key)]
    return len(codec.encode(text.rstrip())) + 1


def test_logits_that_are_not_finite_are_an_error(demo, codec):
    loaded = load_model(demo, LoadSettings())
    with torch.no_grad():
        loaded.model.model.norm.weight[3] = float("nan")
    grid = Grid((256,), depths=1, trials=1)
    with pytest.raises(CheckpointError, match=r"not finite .* --dtype"):
        list(FastScorer(loaded, codec.decode).score(grid.prompts(codec.builder(grid))))


SMALL = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
ARCHITECTURES = {
    "llama": {},
    "mistral": {"sliding_window": 20},
    "qwen2": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 16},
    "phi3": {"num_key_value_heads": 4},
    "olmo2": {},
    "stablelm": {"partial_rotary_factor": 0.25},
    "mixtral": {"num_local_experts": 4},
    "deepseek_v3": {
        "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
    },
    "gpt_neox": {"rotary_pct": 0.5},
    "smollm3": {},
    "llama4_text": {
        "head_dim": 16, "attention_chunk_size": 32, "num_local_experts": 2,
        "intermediate_size_mlp": 96,
    },
}  # fmt: skip


@pytest.mark.parametrize("attention", ["split", "masked"])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_equal_a_plain_forward(model_type, attention):
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **{**SMALL, **ARCHITECTURES[model_type]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # logits with a clear order, attention with clear weights
    ids = torch.randint(3, 64, (96,)).tolist()
    prompt = PasskeyPrompt(
        text="",
        user_text="",
        token_ids=tuple(ids[:90]),
        answer_ids=tuple(ids[90:]),
        key="1",
        length=96,
        depth=0.5,
        trial=0,
    )
    loaded = LoadedModel(model=model, device=torch.device("cpu"), dtype=torch.float32)
    scorer = FastScorer(loaded, lambda ids: "", chunk=29, attention=attention)
    assert scorer.difference_from_plain(prompt) < 1e-4


def test_verified_architectures_are_the_tested_ones():
    assert set(ARCHITECTURES) == {n for n, f in FAMILIES.items() if f.fast_scoring_tested}


@pytest.mark.parametrize("model_type", ["gpt_oss", "gemma2", "lfm2"])
def test_models_the_fast_path_cannot_read_are_read_plainly(model_type, codec):
    """Attention sinks, soft caps and convolutions change what is computed; none may be lost."""
    from transformers import AutoConfig

    extra = {
        "gpt_oss": {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1},
        "gemma2": {"head_dim": 16},
        "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    }[model_type]
    config = AutoConfig.for_model(model_type, **{**SMALL, "vocab_size": 512, **extra})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    grid = Grid((90,), depths=2, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    loaded = LoadedModel(model=model, device=torch.device("cpu"), dtype=torch.float32)
    scorer = FastScorer(loaded, codec.decode)
    cells = list(scorer.score(prompts))
    assert scorer.fallback
    expected = list(answer_greedily(loaded, prompts, codec.decode))
    assert verdicts(cells) == verdicts(expected)


def test_shipped_config_is_read_by_transformers_as_meant(demo):
    config = json.loads((demo / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(demo)
    assert model.config.rope_parameters["rope_theta"] == config["rope_theta"] == 10000.0
    assert model.model.rotary_emb.attention_scaling == 1.0
