"""Tasks like those of RULER: what is hidden and asked for, exact lengths, verdicts of generate."""

import re
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM

from yarncli.errors import UsageError
from yarncli.evaluation.local.load import LoadedModel, load_model
from yarncli.evaluation.local.score import FastScorer
from yarncli.evaluation.passkey import Grid
from yarncli.evaluation.prompts import PromptBuilder
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.tasks import TASKS, WORDS
from yarncli.evaluation.verdicts import has_said_all, says_all


def built(codec, task, length=1024, depths=3, trials=2, **options):
    grid = Grid((length,), depths=depths, trials=trials, tasks=(task,), **options)
    return grid.prompts(codec.builder(grid))


@pytest.mark.parametrize("length", [512, 777, 2048])
@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_has_its_exact_length(codec, task, length):
    prompts = built(codec, task, length)
    assert len(prompts) == 6
    for prompt in prompts:
        whole = codec.encode(f"{prompt.text} {prompt.key}")
        assert len(whole) == length == len(prompt.token_ids) + len(prompt.answer_ids)
        assert (prompt.task, prompt.length) == (task, length)
        assert prompt.is_correct(f" {prompt.key}.")
        assert prompt.is_decided(f" {prompt.key}.")
        assert not prompt.is_correct(" I do not know.")
    assert len({prompt.key for prompt in prompts}) == 6
    assert prompts == built(codec, task, length)
    assert {p.key for p in prompts}.isdisjoint(p.key for p in built(codec, task, length, seed=1))


def needles(prompt):
    return re.findall(r"odes? of the (\w+) is (\d{5})\. Remember it\.", prompt.user_text)


def test_multikey_hides_four_codes_and_asks_for_the_one_at_its_depth(codec):
    for prompt in built(codec, "multikey", 2048, depths=5, trials=2):
        name = re.search(r"What is the code of the (\w+)\?$", prompt.user_text)[1]
        found = dict(needles(prompt))
        assert len(found) == 4
        assert found[name] == prompt.key
        assert prompt.text.endswith(f"The code of the {name} is")
        text = prompt.user_text
        place = text.index(f"{name} is {prompt.key}") / len(text)
        assert place == pytest.approx(0.06 + 0.9 * prompt.depth, abs=0.09)


def test_multivalue_asks_for_all_codes_of_one_name(codec):
    for prompt in built(codec, "multivalue"):
        found = needles(prompt)
        assert len({name for name, _ in found}) == 1
        assert {code for _, code in found} == set(prompt.answers)
        assert len(prompt.answers) == 4


def test_multiquery_asks_for_the_codes_of_four_names(codec):
    for prompt in built(codec, "multiquery"):
        found = dict(needles(prompt))
        asked = re.findall(r"the (\w+)", prompt.user_text.rpartition("What are the codes of")[2])
        assert [found[name] for name in asked] == list(prompt.answers)
        assert len(asked) == len(found) == 4


def test_tracking_hands_a_number_on_from_name_to_name(codec):
    for prompt in built(codec, "tracking"):
        said = re.findall(r"\nLet (\w+) be (\w+)\.\n", prompt.user_text)
        number = re.search(r"Which 5 names stand for (\d+)\?$", prompt.user_text)[1]
        value = {}
        for name, given in said:  # each is known when it is handed on
            value[name] = given if given.isdecimal() else value[given]
        assert [name for name, held in value.items() if held == number] == list(prompt.answers)
        assert len(said) == 5


@pytest.mark.parametrize(("task", "count"), [("common-words", 10), ("frequent-words", 3)])
@pytest.mark.parametrize("length", [512, 4096])
def test_the_words_asked_for_are_the_most_frequent_ones(codec, task, count, length):
    for prompt in built(codec, task, length):
        text = prompt.user_text.split("\n")[1]
        counts = Counter(word for word in text.split() if word != "...")
        top = counts.most_common(count + 1)
        assert {word for word, _ in top[:count]} == set(prompt.answers)
        assert top[count][1] < top[count - 1][1]
        if length == 4096:
            shares = [counts[word] / len(text.split()) for word in prompt.answers]
            if task == "common-words":  # ten words ten times as often as each of the others
                wanted = [10 / (100 + len(WORDS) - 10)] * 10
            else:  # k⁻²/ζ(2) for the ranks 2, 3, 4
                wanted = [6 / torch.pi**2 / rank**2 for rank in (2, 3, 4)]
            assert shares == pytest.approx(wanted, rel=0.12)


def test_a_length_too_short_for_its_task(codec):
    with pytest.raises(UsageError, match=r"too short for a common-words prompt"):
        built(codec, "common-words", 200)
    with pytest.raises(UsageError, match=r"A multiquery prompt needs at least \d+ tokens"):
        built(codec, "multiquery", 100)


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ((), "--tasks accepts passkey, multikey, "),
        (("passkey", "passkey"), "--tasks accepts passkey, multikey, "),
        (("needle",), "There is no task 'needle'. Known: passkey, multikey, "),
    ],
)
def test_tasks_are_known_and_named_once(tasks, told):
    with pytest.raises(UsageError, match=told):
        Grid((512,), tasks=tasks)


@pytest.mark.parametrize(
    ("response", "said", "decided"),
    [
        (" 12345, 67890 and ABC.", True, True),
        (" abc; 67890; 12345", True, False),
        (" 12345, 67890", False, False),
        (" 12345, 678901, ABC.", False, False),
        (" 12345, 67890, ABCD.", False, False),
        ("", False, False),
    ],
)
def test_all_answers_must_be_said_whole(response, said, decided):
    answers = ("12345", "67890", "ABC")
    assert says_all(response, answers) is said
    assert has_said_all(response, answers) is decided


def test_a_prompt_asked_without_a_begun_answer_has_room_for_a_sentence(codec):
    grid = Grid((512,), tasks=("multivalue",))
    own, chat = (
        PromptBuilder(codec.encode, codec.decode, render=render, begins=begins).build(
            512, 0.5, 0, "multivalue"
        )
        for render, begins in ((None, True), (lambda user, prefix: user, False))
    )
    assert grid.size == 10
    assert (own.begun, chat.begun) == (True, False)
    assert chat.max_new_tokens >= own.max_new_tokens + 100


class Knowing(torch.nn.Module):
    """A model that says its own words after each of the prompts it knows."""

    def __init__(self, model, words):
        super().__init__()
        self.model, self.words = model, words  # token ids by those of the prompt
        self.config, self.generation_config = model.config, model.generation_config
        self.set_attn_implementation = model.set_attn_implementation
        self.seen = []

    def forward(self, input_ids, position_ids, logits_to_keep=0, **kwargs):
        out = self.model(input_ids=input_ids, position_ids=position_ids,
                         logits_to_keep=logits_to_keep, **kwargs)  # fmt: skip
        (ids,), (places,) = input_ids.tolist(), position_ids.tolist()
        self.seen[places[0] :] = ids
        kept = out.logits.shape[1]
        for back in range(min(kept, len(ids))):
            text = tuple(self.seen[: len(self.seen) - back])
            for prompt, words in self.words.items():
                said = text[len(prompt) :]
                if text[: len(prompt)] == prompt and words[: len(said)] == said:
                    out.logits[0, -1 - back, (*words, 1)[len(said)]] += 1000.0
        return out


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_knows_the_answers_is_believed(task, demo, codec):
    """Right answers in another order and with words between them; and one that lacks its end."""
    prompts = built(codec, task, 512, depths=2, trials=2)
    words = {}
    for number, prompt in enumerate(prompts):
        answers = list(reversed(prompt.answers or (prompt.key,)))
        said = " " + " and ".join(answers)
        words[prompt.token_ids] = tuple(
            codec.tokenizer.encode(said[:-1] if number == 1 else said, add_special_tokens=False)
        )
    loaded = load_model(demo, LoadSettings())
    knowing = LoadedModel(
        model=Knowing(loaded.model, words), device=loaded.device, dtype=loaded.dtype
    )
    cells = list(FastScorer(knowing, codec.decode, batch_tokens=1).score(prompts))
    assert [cell.correct for cell in cells] == [True, False, True, True]


@pytest.mark.parametrize("task", TASKS)
def test_verdicts_are_those_of_greedy_generate(task, demo, codec):
    prompts = built(codec, task, 512, depths=1, trials=2)
    loaded = load_model(demo, LoadSettings())
    plain = AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32).eval()
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids])
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             max_new_tokens=prompt.max_new_tokens, pad_token_id=2)  # fmt: skip
        said = codec.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        expected.append((prompt.is_correct(said), said))
    for options in ({}, {"batch_tokens": 100_000}):
        cells = list(FastScorer(loaded, codec.decode, **options).score(prompts))
        assert [cell.correct for cell in cells] == [verdict for verdict, _ in expected]
        assert all(said.startswith(c.text) for c, (_, said) in zip(cells, expected, strict=True))
        assert {cell.task for cell in cells} == {task}
