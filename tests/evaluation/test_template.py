"""Chat templates: rendered once, in a child that cannot run away."""

import datetime
import json

import pytest

from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation import template
from yarncli.evaluation.passkey import Grid, make_codec
from yarncli.evaluation.prompts import Wording
from yarncli.evaluation.template import render_frame

EMPTY_THOUGHT = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
# As Qwen 3's: the empty thought stands in the last answer, too.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}" + EMPTY_THOUGHT + "{% endif %}"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n" + EMPTY_THOUGHT + "{% endif %}"
)
# As gpt-oss's: whoever answers names a channel first.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# As DeepSeek-R1's: the turn begins with a thought, a past answer has none.
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
# As Nemotron-Nano-v2's: also what is continued stands in the thought.
OPEN = (
    "{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'user' %}<think>\n{% endif %}{% endfor %}"
)
ONLY_PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for c in m.content if c.type == 'text' %}"
    "{{ c.text }}{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
# Four loops over what a sandbox allows: hours.
ENDLESS = "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4


def with_template(directory, demo, template):
    for file in demo.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def rendered(tokenizer, **options):
    chat = [{"role": "user", "content": "Hello"}]
    if options.get("continue_final_message"):
        chat.append({"role": "assistant", "content": "The key"})
    return tokenizer.apply_chat_template(
        chat, tokenize=False, enable_thinking=False, thinking=False, **options
    )


@pytest.mark.parametrize("source", [CHATML, CHANNELS, THINKING])
def test_frame_is_what_transformers_renders(tmp_path, demo, source):
    codec = make_codec(with_template(tmp_path, demo, source), None)
    begun = rendered(codec.tokenizer, continue_final_message=True)
    assert codec.frame.render("Hello", "The key") == begun
    assert codec.frame.render("Hello", "") == rendered(codec.tokenizer, add_generation_prompt=True)
    assert codec.builder(Grid((300,))).build(300, 0.5, 0).begun
    assert not codec.caveats(Wording())


def test_a_prompt_has_the_special_tokens_of_its_template_only(tmp_path, demo):
    codec = make_codec(with_template(tmp_path, demo, CHATML), None)
    prompt = codec.builder(Grid((300,))).build(300, 0.5, 0)
    assert prompt.text.startswith("<|im_start|>user\nThere is an important info")
    assert prompt.text.endswith("<think>\n\n</think>\n\nThe pass key is")
    # The template brings its special tokens; the tokenizer adds none on top.
    assert codec.tokenizer.encode(prompt.text, add_special_tokens=False) == list(prompt.token_ids)


def test_an_answer_is_not_begun_inside_a_thought(tmp_path, demo):
    codec = make_codec(with_template(tmp_path, demo, OPEN), None)
    assert codec.frame.answer is None
    prompt = codec.builder(Grid((300,))).build(300, 0.5, 0)
    assert prompt.text.endswith("What is the pass key?<think>\n")
    assert not prompt.begun
    assert prompt.is_correct(f"Let me see. It is {prompt.key}.")
    assert prompt.max_new_tokens > 100  # there is room for the thought
    (caveat,) = codec.caveats(Wording())
    assert "What it thinks first counts as its answer" in caveat
    assert "--no-chat" in caveat


def test_a_template_that_continues_nothing():
    frame = render_frame("{{ messages[0].content }}:", {})
    assert (frame.before, frame.turn, frame.answer) == ("", ":", None)


def test_a_template_that_takes_text_only_as_parts():
    frame = render_frame(ONLY_PARTS, {})
    assert frame.render("Hi", "I") == "[user]Hi[assistant]I"


@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ("<think>\n", True),
        ("<think>\n\n</think>\n", False),
        ("</think>", False),
        ("<mm:think>", True),
        ("[THINK]", True),
        ("[THINK]x[/THINK]", False),
        ("<|START_THINKING|>", True),
        ("<|START_THINKING|><|END_THINKING|><|START_TEXT|>", False),
        ("<|channel|>analysis<|message|>", True),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>",
         False),
        ("<|channel>thought\n", True),
        ("<|channel>thought\n<channel|>", False),
        ("<|im_start|>assistant\n", False),
        ("<think:opensource></think:opensource>", False),
    ],
)  # fmt: skip
def test_where_a_thought_is_open(place, inside):
    assert template._is_thought(place) is inside


@pytest.mark.full
def test_every_template_that_llama_cpp_knows(template_corpus, monkeypatch):
    """Answers are begun where transformers continues them, and never inside a thought."""
    from transformers.utils import chat_template_utils

    class OneDay(datetime.datetime):
        """The day that prompts are written on, whenever that is."""

        @classmethod
        def now(cls, tz=None):
            return cls(2025, 1, 1, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", OneDay)
    render_jinja_template = chat_template_utils.render_jinja_template

    tokens = {name: f"<{name}>" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}

    def by_transformers(source, *texts, **options):
        chat = [{"role": role, "content": text}
                for role, text in zip(("user", "assistant"), texts, strict=False)]  # fmt: skip
        return render_jinja_template([chat], chat_template=source, enable_thinking=False,
                                     thinking=False, **options, **tokens)[0][0]  # fmt: skip

    found = {}
    for name, source in template_corpus.items():
        try:
            turn = by_transformers(source, "Hi there", add_generation_prompt=True)
            begun = by_transformers(source, "Hi there", "So it is", continue_final_message=True)
        except Exception:  # it wants tools: transformers cannot render it either
            continue
        # Without the child, whose start takes longer than all templates together.
        frame = template._frame(*template._turn_and_answer(source, tokens))
        assert frame.render("Hi there", "") == turn, name
        found[name] = frame
        if frame.answer is not None:
            assert frame.render("Hi there", "So it is") == begun, name
            opened = frame.answer.rfind("<think>")
            assert opened < 0 or "</think>" in frame.answer[opened:], name
    assert len(found) >= 60
    without = [name for name, frame in found.items() if frame.answer is None]
    assert without == ["NVIDIA-Nemotron-Nano-v2.jinja"]
    assert found["openai-gpt-oss-120b.jinja"].answer.endswith("<|channel|>final<|message|>")
    # Their own turns begin with a thought or end before a header.
    for name in ("Cohere2MoE", "MiniMax-M2", "llama-cpp-deepseek-r1", "StepFun3.5-Flash",
                 "Apriel-1.6-15b-Thinker-fixed", "upstage-Solar-Open-100B"):  # fmt: skip
        frame = found[f"{name}.jinja"]
        assert frame.answer != frame.turn, name


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('only with tools') }}", "only with tools"),
        ("{% if %}", "cannot be rendered"),
        ("hello", "exactly once"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "exactly once"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% set ns = namespace(__class__=1) %}{{ messages[0].content }}", "may not set"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}{{ messages[0].content }}", "may not set"),
        ("{{ dict.mro }}{{ dict.mro() }}{{ messages[0].content }}", "cannot be rendered"),
        ("{{ 'x' * 99999999999 }}{{ messages[0].content }}", "cannot be rendered"),
    ],
)
def test_templates_that_fail(source, message):
    with pytest.raises(CheckpointError, match=message):
        render_frame(source, {})


def test_a_template_that_does_not_end(monkeypatch):
    monkeypatch.setattr(template, "_SECONDS", 3)
    with pytest.raises(CheckpointError, match="did not finish within 3 s"):
        render_frame(ENDLESS, {})


def test_no_template_where_one_is_asked_for(demo):
    with pytest.raises(UsageError, match="has no chat template"):
        make_codec(demo, True)
    assert make_codec(demo, None).frame is None
