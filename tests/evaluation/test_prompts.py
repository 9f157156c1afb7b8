"""Prompts: the reference's words, exact lengths with any tokenizer, and the rule for a verdict."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from yarncli.errors import UsageError
from yarncli.evaluation.passkey import Grid
from yarncli.evaluation.prompts import PromptBuilder, Wording
from yarncli.evaluation.verdicts import is_correct, is_decided

# jquesnelle/yarn eval/passkey.py, generate_prompt, with 20 and 10 characters of filler.
REFERENCE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
    "them. I will quiz you about the important information there.\n"
    "The grass is green. \n"
    "The pass key is 12345. Remember it. 12345 is the pass key.\n"
    "The grass \n"
    "What is the pass key? The pass key is"
)


def trained(pre_tokenizer, decoder, alphabet, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    text = [REFERENCE] * 50 + [str(number) for number in range(3000)]
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


BYTES = (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
TOKENIZERS = {
    # One token per byte, keys of several digits per token, and SentencePiece's way with spaces.
    "bytes": trained(*BYTES, pre_tokenizers.ByteLevel.alphabet(), 256),
    "merged-digits": trained(*BYTES, pre_tokenizers.ByteLevel.alphabet(), 2500),
    "metaspace": trained(
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
        [*"0123456789\nabcdefghijklmnopqrstuvwxyz"],
        2000,
    ),
}


def builder(tokenizer, **options):
    return PromptBuilder(lambda text: tokenizer.encode(text).ids, tokenizer.decode, **options)


def test_wording_is_the_reference_s(codec):
    prompts = builder(TOKENIZERS["bytes"])
    prompt = prompts.compose("12345", len(REFERENCE) + len(" 12345"), 2 / 3)
    assert prompt.text == REFERENCE


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("keys", ["digits", "words"])
def test_every_prompt_has_its_exact_length(name, keys):
    tokenizer = TOKENIZERS[name]
    prompts = Grid((420, 997, 2048), depths=4, trials=3).prompts(builder(tokenizer, keys=keys))
    assert len(prompts) == 36
    for prompt in prompts:
        # Counted by the tokenizer from the whole text, as a model would get it.
        assert len(tokenizer.encode(f"{prompt.text} {prompt.key}").ids) == prompt.length
        assert tokenizer.encode(prompt.text).ids == list(prompt.token_ids)
        assert tokenizer.decode(list(prompt.answer_ids)).strip() == prompt.key
        assert prompt.text.count(prompt.key) == 2


def test_merged_digits_are_really_merged():
    prompt = builder(TOKENIZERS["merged-digits"]).build(500, 0.5, 0)
    assert len(prompt.answer_ids) < 6


def test_a_special_token_at_the_start_counts(codec):
    prompt = codec.builder(Grid((256,))).build(256, 0.5, 0)
    assert prompt.token_ids[0] == codec.tokenizer.bos_token_id
    assert len(prompt.token_ids) + len(prompt.answer_ids) == 256


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_the_needle_stands_at_its_depth(depth):
    prompt = builder(TOKENIZERS["bytes"]).build(4000, depth, 0)
    task, before, _, after, _ = prompt.text.split("\n")
    assert task == REFERENCE.split("\n", maxsplit=1)[0]
    assert len(before) / (len(before) + len(after)) == pytest.approx(depth, abs=0.002)


def test_keys_have_five_digits_and_do_not_depend_on_other_cells():
    one = Grid((600, 900), depths=3, trials=20).prompts(builder(TOKENIZERS["bytes"], seed=3))
    assert all(prompt.key.isdecimal() and len(prompt.key) == 5 for prompt in one)
    assert len({prompt.key for prompt in one}) > 100
    assert one[-1] == builder(TOKENIZERS["bytes"], seed=3).build(900, 1.0, 19)
    assert one[-1].key != builder(TOKENIZERS["bytes"], seed=4).build(900, 1.0, 19).key


def test_trials_share_all_text_before_the_needle():
    prompts = Grid((700,), depths=1, trials=6).prompts(builder(TOKENIZERS["merged-digits"]))
    assert len({prompt.text.split("The pass key is", maxsplit=1)[0] for prompt in prompts}) == 1


def test_a_long_prompt_takes_few_encodes():
    tokenizer, calls = TOKENIZERS["merged-digits"], []

    def encode(text):
        calls.append(len(text))
        return tokenizer.encode(text).ids

    Grid((16384,), depths=5, trials=2).prompts(PromptBuilder(encode, tokenizer.decode))
    # The reference's stepping search takes 478 for one such prompt.
    assert sum(length > 10_000 for length in calls) / 10 <= 12


def test_a_length_below_the_prompt_s_own_is_refused():
    with pytest.raises(UsageError, match=r"needs at least 2\d\d tokens .* 100 is too short"):
        builder(TOKENIZERS["bytes"]).build(100, 0.5, 0)


def test_a_tokenizer_without_digits_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"The": 0, "[UNK]": 1, "key": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UsageError, match="cannot represent the key"):
        builder(tokenizer).build(120, 0.5, 0)


def test_a_tokenizer_that_joins_prompt_and_key_has_no_answer_to_compare_with():
    """The last letter of the prompt, the space and the first digit are one token."""
    ids = {}

    def encode(text):
        return [ids.setdefault(t, len(ids)) for t in re.findall(r"s \d|.", text, re.DOTALL)]

    def decode(tokens):
        return "".join(list(ids)[token] for token in tokens)

    (prompt,) = Grid((500,), depths=1, trials=1).prompts(PromptBuilder(encode, decode))
    assert prompt.answer_ids == ()
    assert len(encode(f"{prompt.text} {prompt.key}")) == 500
    assert list(prompt.token_ids) == encode(prompt.text)


def test_an_answer_need_not_be_begun():
    tokenizer = TOKENIZERS["bytes"]
    own, none = (
        builder(tokenizer, wording=Wording(answer_prefix=text)).build(400, 0.5, 0)
        for text in ("It is", "")
    )
    assert own.text.endswith("What is the pass key? It is")
    assert none.text.endswith("What is the pass key?")
    assert (own.begun, none.begun) == (True, False)
    for prompt in (own, none):
        assert len(tokenizer.encode(f"{prompt.text} {prompt.key}").ids) == 400
    assert none.max_new_tokens > own.max_new_tokens


@pytest.mark.parametrize(
    ("response", "verdict", "decided"),
    [
        (" The words are amber river.", True, True),
        (" The words are amber river", True, False),
        (" The words are amber", False, False),
        (" The words are amber rivers.", False, False),
        (" amber and river", False, False),
        ("", False, False),
    ],
)
def test_words_count_wherever_they_stand_if_the_answer_was_not_begun(response, verdict, decided):
    assert is_correct(response, "amber river", begun=False) is verdict
    assert is_decided(response, "amber river", begun=False) is decided


@pytest.mark.parametrize("wording", [{"needle": "no key"}, {"filler": " \n"}])
def test_wording_without_key_or_text_is_refused(wording):
    with pytest.raises(UsageError):
        Wording(**wording)


@pytest.mark.parametrize(
    ("response", "key", "verdict"),
    [
        (" 12345.", "12345", True),
        (" 12345", "12345", True),
        (" the key: 12345 or 9", "12345", True),
        (" 012345", "12345", True),
        (" 123456", "12345", False),
        (" 1234", "12345", False),
        (" 99999 12345", "12345", False),
        (" key", "12345", False),
        ("", "12345", False),
        (" Amber river.", "amber river", True),
        (" amber", "amber river", False),
        (" amber rivers", "amber river", False),
        (" the amber river", "amber river", False),
        # More digits than int() takes.
        (" 1" + 5000 * "0", "12345", False),
        (" １２３４５", "12345", True),
    ],
)
def test_rule_of_the_verdict(response, key, verdict):
    assert is_correct(response, key) is verdict


@given(
    st.text(alphabet="0123１２ .\nab", max_size=8),
    st.text(alphabet="0123１２ .\nab", max_size=4),
    st.sampled_from(["12", "3", "ab ba", "123"]),
    st.booleans(),
)
def test_a_decided_verdict_never_changes(text, more, key, begun):
    if is_decided(text, key, begun=begun):
        later = is_correct(text + more, key, begun=begun)
        assert later == is_correct(text, key, begun=begun)


@pytest.mark.parametrize(
    ("text", "key", "decided"),
    [
        (" 12345.", "12345", True),
        (" 12345", "12345", False),
        (" 13", "12345", True),
        (" the", "12345", False),
        (" amber river", "amber river", False),
        (" amber river,", "amber river", True),
        (" amb", "amber river", False),
        (" amc", "amber river", True),
    ],
)
def test_when_a_verdict_is_decided(text, key, decided):
    assert is_decided(text, key) is decided
