"""Chat templates: rendered once, in a child that cannot run away."""

import json

import pytest

from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation import template
from yarncli.evaluation.passkey import Grid, make_codec
from yarncli.evaluation.template import render_frame

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
# Four loops over what a sandbox allows: hours.
ENDLESS = "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4


def test_frame_is_what_transformers_renders(tmp_path, demo):
    for file in demo.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = CHATML
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    codec = make_codec(tmp_path, None)
    expected = codec.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        tokenize=False, add_generation_prompt=True, enable_thinking=False,
    )  # fmt: skip
    assert codec.frame.render("Hello", "The key") == expected + "The key"
    assert "</think>" in expected
    prompt = codec.builder(Grid((300,))).build(300, 0.5, 0)
    assert prompt.text.startswith("<|im_start|>user\nThere is an important info")
    assert prompt.text.endswith("<think>\n\n</think>\n\nThe pass key is")
    # The template brings its special tokens; the tokenizer adds none on top.
    assert codec.tokenizer.encode(prompt.text, add_special_tokens=False) == list(prompt.token_ids)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('only with tools') }}", "only with tools"),
        ("{% if %}", "cannot be rendered"),
        ("hello", "exactly once"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "exactly once"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
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
