"""The card as its reader meets it: the client, YAML, Markdown, and every line of code in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from support.cards import card_on_hub, passkey_results, rendered
from support.program import invoke
from yarncli.demo import write_demo
from yarncli.engines.judgement import judge_checkpoint
from yarncli.hub.cards import body_of

HEADINGS = [
    "Context extension", "How to use it", "RoPE before and after",
    "Which engines compute it as intended",
    "How to reproduce it", "Limitations", "Citation",
]  # fmt: skip
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "rope_theta": 1000000, "torch_dtype": "bfloat16",
    "vocab_size": 151936, "intermediate_size": 12288, "rope_scaling": None,
}  # fmt: skip
VISION = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
    "vision_config": {"hidden_size": 1280}, "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen2_5_vl_text", "hidden_size": 2048, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "rope_theta": 1000000.0, "vocab_size": 151936, "dtype": "bfloat16",
        "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]},
    },
}  # fmt: skip
TWO_SCOPES = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 1152,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "max_position_embeddings": 32768, "sliding_window": 512, "vocab_size": 262144,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip


def run(*arguments):
    return invoke(*arguments, code=0)


def changed(directory, **fields):
    """The demo checkpoint with other fields in its config."""
    path = write_demo(directory) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return directory


def bare(directory, config):
    """A checkpoint of a config alone."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    return directory


def make(kind, at):
    """One checkpoint of each kind that the card has to tell of."""
    source, out = at / "model", at / "out"
    if kind in ("qwen3", "vision", "two scopes"):
        config = {"qwen3": QWEN3_8B, "vision": VISION, "two scopes": TWO_SCOPES}[kind]
        run("convert", bare(source, config), out, "--factor", "4", "--config-only")
    elif kind == "baked":
        yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}
        run("bake", changed(source, rope_scaling=yarn, max_position_embeddings=2048), out)
    elif kind == "assumed":
        own = {"AutoModelForCausalLM": "modeling_acme.AcmeForCausalLM"}
        names = {"model_type": "acme", "architectures": ["AcmeForCausalLM"], "auto_map": own}
        run("convert", changed(source, **names), out, "--factor", "8", "--assume-like", "llama")
    elif kind == "not a language model":
        bare(out, {"architectures": ["CLIPModel"], "model_type": "clip"})
    else:
        method = ["--method", kind] if kind in ("ntk", "linear", "dynamic", "llama3") else []
        run("convert", write_demo(source), out, "--factor", "8", *method)
    if kind == "vision":
        (out / "preprocessor_config.json").write_text("{}")
    elif kind == "rescaled":
        run("convert", out, at / "further", "--length", "4k", "--rescale")
        out = at / "further"
    elif kind == "converted and baked":
        run("bake", out, at / "further")
        out = at / "further"
    elif kind == "no record":
        (out / "yarncli.json").unlink()
    elif kind == "another's record":
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config).replace("8.0", "4.0"))
    (out / "README.md").unlink(missing_ok=True)
    return out


KINDS = [
    "converted", "baked", "converted and baked", "rescaled", "vision", "no record",
    "another's record", "assumed", "qwen3", "two scopes", "ntk", "linear", "dynamic", "llama3",
    "not a language model",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Kind → its checkpoint, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind.replace(" ", "-")))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def cards(checkpoints):
    """Kind → its card as `me/long`."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = run("card", checkpoints(kind), "--name", "me/long").stdout
        return made[kind]

    return get


def blocks(card, language):
    return [t.content for t in rendered(card) if t.type == "fence" and t.info == language]


class NoDuplicates(yaml.SafeLoader):
    """YAML as a validator reads it: a key twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_and_yaml_read_the_metadata(cards, kind):
    from huggingface_hub import ModelCard

    card = cards(kind)
    block = card.split("---\n")[1]
    found = yaml.load(block, NoDuplicates)
    data = ModelCard(card).data.to_dict()
    assert data == found
    assert found["library_name"] == "transformers"
    assert ModelCard(card).content == card


def test_results_have_the_shape_that_the_client_writes(model, tmp_path):
    from huggingface_hub import metadata_eval_result
    from huggingface_hub.repocard_data import model_index_to_eval_results

    def keys(value):
        """Where what stands, with lists as one."""
        if isinstance(value, dict):
            return {f"{k}.{rest}" for k, v in value.items() for rest in keys(v)}
        return {p for v in value for p in keys(v)} if isinstance(value, list) else {""}

    settings = {"model": "x", "lengths": [2048], "depths": 1, "trials": 1, "seed": 7,
                "variants": {"as it is": {"original": 256, "window": 2048}}}  # fmt: skip
    cell = {"variant": "as it is", "length": 2048, "depth": 0.0, "trial": 0, "key": "12345",
            "text": "12345", "correct": True}  # fmt: skip
    head = {"schema_version": 1, "settings": settings}
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(cell)}\n")
    card = run("card", model, "--results", tmp_path / "r.jsonl").stdout
    index = yaml.safe_load(card.split("---\n")[1])["model-index"]
    theirs = metadata_eval_result(
        model_pretty_name="m", task_pretty_name="Text Generation", task_id="text-generation",
        metrics_pretty_name="Accuracy", metrics_id="accuracy", metrics_value=1.0,
        dataset_pretty_name="Passkey", dataset_id="passkey", dataset_config="2048",
    )["model-index"]  # fmt: skip
    extra = keys(index) - keys(theirs)
    assert {path.rpartition("args.")[1] for path in extra} == {"args."}
    assert keys(theirs) - keys(index) <= {"results.metrics.verified.", "results.dataset.split."}
    name, (result,) = model_index_to_eval_results(index)
    assert (name, result.metric_value, result.dataset_config) == ("model-yarn", 1.0, "2048")


@pytest.mark.parametrize("kind", KINDS)
def test_a_renderer_sees_no_broken_block(cards, kind):
    card = cards(kind)
    lines, tokens = body_of(card).splitlines(), rendered(card)
    width, cells = 0, 0
    for token in tokens:
        if token.type == "tr_open":
            cells = 0
        elif token.type in ("th_open", "td_open"):
            cells += 1
        elif token.type == "tr_close":
            width = width or cells
            assert cells == width
        elif token.type == "table_close":
            width = 0
        elif token.type == "fence":
            assert lines[token.map[1] - 1] == token.markup  # it is closed, and by its own end
        elif token.type == "inline":
            assert not token.content.startswith(("|", "```"))  # no row fell out of a table
    html = "".join(token.content for token in tokens if token.type == "html_block")
    assert html.count("<details>") == html.count("</details>")
    titles = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert titles[0] == "long"
    wanted = HEADINGS if kind not in ("baked", "no record", "another's record") else [
        h for h in HEADINGS if h != "RoPE before and after" and (kind == "baked" or
        h not in ("How to reproduce it", "Limitations", "Citation"))
    ]  # fmt: skip
    assert titles[1:] == (wanted if kind != "not a language model" else HEADINGS[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_of_code_can_be_parsed(cards, kind):
    card = cards(kind)
    for code in blocks(card, "python"):
        compile(code, "card", "exec")
        used = set(re.findall(r"\b([A-Z]\w+)\.from_pretrained", code))
        assert used <= set(
            code.splitlines()[0].removeprefix("from transformers import ").split(", ")
        )
    for code in blocks(card, "sh"):
        for line in code.splitlines():
            words = shlex.split(line)
            assert "long" in line or "MODEL.gguf" in line or "step1" in line
            for word in words:
                if word.startswith("{"):
                    json.loads(word)
    for code in blocks(card, "bibtex"):
        assert code.count("{") == code.count("}")
        entries = re.findall(r"^@(\w+)\{(\w+),\n((?:  .*\n)+)\}$", code, re.M)
        assert len(entries) == code.count("@")
        assert all(re.search(r"^  title = \{", fields, re.M) for _, _, fields in entries)
    languages = {t.info for t in rendered(card) if t.type == "fence"}
    assert languages <= {"python", "sh", "bibtex"}


@pytest.mark.parametrize(
    "kind", ["converted", "baked", "converted and baked", "rescaled", "assumed", "qwen3", "vision"]
)
def test_the_commands_make_the_same_config_again(cards, checkpoints, tmp_path, monkeypatch, kind):
    made = checkpoints(kind)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(made.parent / "model")
    lines = [line for code in blocks(cards(kind), "sh") for line in code.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("yarncli ")]
    assert commands
    for words in commands:
        run(*words[1:])
    assert (tmp_path / "long/config.json").read_bytes() == (made / "config.json").read_bytes()


def test_the_lines_are_those_of_the_engines(cards, checkpoints):
    """The verdicts come from the written checkpoint; each line stands once, under its engine."""
    for kind in ("converted", "converted and baked", "vision"):
        found = judge_checkpoint(checkpoints(kind))
        card = cards(kind)
        shown = "".join(blocks(card, "sh") + blocks(card, "python")).splitlines()
        for view in found.verdicts:
            if not view.launch_is_exact or view.launch is None:
                continue
            line = view.launch.replace(str(checkpoints(kind)), "me/long")
            assert any(line.removesuffix(")") in text for text in shown), view.engine.id
        assert len([line for line in shown if line.startswith("vllm serve ")]) == 1


def test_unknown_verdicts_are_counted_apart(cards, checkpoints):
    for kind in ("converted", "vision", "assumed"):
        counts = re.findall(r"^- ([a-z ]+): (\d+) of 19 \(", cards(kind), re.M)
        statuses = Counter(v.status for v in judge_checkpoint(checkpoints(kind)).verdicts)
        told = {words: int(count) for words, count in counts}
        assert told.get("not known", 0) == statuses["unknown"]
        assert told.get("without code for this model", 0) == statuses["unsupported"]
        assert told["as intended"] == statuses["exact"]
        assert sum(told.values()) == 19


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        # Counted by the safetensors package; 3 layers × 2 × 4 heads × 32 numbers × 2 bytes.
        ("converted", ["Parameters: 650,112 in float16 (1.3 MB)", "3.1 MB in float16"]),
        ("converted and baked", ["temperature (1.20794 on", "is stored in the key weights"]),
        ("baked", ["window of this model is unchanged. The attention temperature (1.20794 on"]),
        ("rescaled", ["from 256 to **4,096 tokens**", "| `factor` | – | 16 |"]),
        # 36 layers × 2 × 8 heads × 128 numbers × 2 bytes × 131,072 tokens.
        ("qwen3", ["model type `qwen3`", "Layers: 36", "131,072 tokens: 19.3 GB in bfloat16"]),
        ("vision", ["Qwen2_5_VLForConditionalGeneration", "AutoProcessor", '"text": "Summ' ]),
        ("no record", ["no yarncli.json). Its config.json has [Ya", "the original window is 256"]),
        ("another's record", ["its yarncli.json describes another config.json", "factor 4"]),
        ("assumed", ["model type `acme`, assumed to be like llama", "trust_remote_code=True",
                     "vLLM 0.33 has no code for it", "--assume-like llama"]),
        ("linear", ["chen2023extending", "with [linear position interpolation]"]),
        ("ntk", ["peng2024yarn", "| `rope_theta` | 10,000 |"]),
        ("dynamic", ["Limitations", "max_position_embeddings stays 256"]),
        ("two scopes", ["Layers of kind `full_attention`", "KV cache"]),
        ("not a language model", ["No conversion is recorded", "model type `clip`"]),
    ],
)  # fmt: skip
def test_the_reader_learns(cards, kind, told):
    card = cards(kind)
    assert [text for text in told if text not in card] == []
    trained = kind in ("baked", "no record", "another's record", "not a language model")
    assert ("**The model was not trained at this length.**" in card) != trained
    assert "None" not in card
    assert "yarncli.json" in card


def test_what_the_headers_say_is_what_the_card_says(checkpoints, cards):
    from safetensors import safe_open

    with safe_open(checkpoints("converted") / "model.safetensors", "numpy") as file:
        names = list(file.keys())
        tensors = [file.get_tensor(name) for name in names]
    assert {str(tensor.dtype) for tensor in tensors} == {"float16"}
    assert f"Parameters: {sum(t.size for t in tensors):,} in float16" in cards("converted")


def test_weights_that_cannot_be_read_are_no_obstacle(model):
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    card = run("card", model).stdout
    assert "Parameters" not in card
    assert "KV cache of one sequence of 2,048 tokens" in card


def test_the_snippet_for_transformers_runs(checkpoints, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    directory = checkpoints("converted and baked")
    monkeypatch.chdir(directory.parent)
    (snippet, *_) = blocks(run("card", directory).stdout, "python")
    assert f'from_pretrained("{directory.name}", device_map="auto")' in snippet
    exec(compile(snippet, "card", "exec"), {})
    assert capsys.readouterr().out


def test_a_chat_model_is_asked_as_one(cards):
    (snippet, *_) = blocks(cards("qwen3"), "python")
    assert "tokenizer.apply_chat_template(" in snippet
    assert '{"role": "user", "content": "Summarise' in snippet
    assert "apply_chat_template" not in cards("converted")


def test_a_model_for_another_task_gets_no_snippet_that_writes(model):
    path = model / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    path.write_text(json.dumps(config))
    card = run("card", model).stdout
    assert ".generate(" not in card
    assert "`LlamaForSequenceClassification`, model type `llama`" in card


@pytest.mark.parametrize("key", ["dtype", "model_type", "architectures"])
def test_a_strangers_config_does_not_leave_its_place(model, key):
    path = model / "config.json"
    evil = "x|<img src=y>\n```\n# Gotcha\n<!-- yarncli:end -->"
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    path.write_text(json.dumps(config | {key: [evil] if key == "architectures" else evil}))
    tokens = rendered(run("card", model).stdout)
    titles = [tokens[n + 1].content for n, t in enumerate(tokens) if t.type == "heading_open"]
    assert "Gotcha" not in " ".join(titles)
    assert not [t for t in tokens if "<img" in t.content and t.type.startswith("html")]
    inline = [child for token in tokens for child in token.children or ()]
    assert not [c for c in inline if c.type.startswith("html") and "img" in c.content]


def test_a_note_of_a_strangers_record_makes_no_link(model):
    path = model / "yarncli.json"
    record = json.loads(path.read_text())
    record["steps"][0]["plan"]["notes"] = ["see ![x](https://x.test/y.png) <b>"]
    path.write_text(json.dumps(record))
    inline = [c for t in rendered(run("card", model).stdout) for c in t.children or ()]
    assert "image" not in {child.type for child in inline}
    assert "see ![x](https://x.test/y.png) <b>" in "".join(child.content for child in inline)


def test_an_assumed_type_without_a_window_is_no_obstacle(tmp_path):
    """Its record is a bake alone, which counts whatever the config says."""
    source = make("assumed", tmp_path)
    run("bake", source, tmp_path / "baked", "--assume-like", "llama")
    config = json.loads((tmp_path / "baked" / "config.json").read_text())
    del config["max_position_embeddings"]
    (tmp_path / "baked" / "config.json").write_text(json.dumps(config))
    assert "## Context extension" in run("card", tmp_path / "baked").stdout


def test_a_base_that_is_stated_is_named(hub, cli, model, demo):
    hub.add_repo("org/base", demo)
    card = cli("card", model, "--name", "me/long", "--base-model", "org/base").stdout
    assert "window of [org/base](https://huggingface.co/org/base) was extended" in card
    card = cli("card", model, "--name", "me/long").stdout
    assert "The context window of this model was extended" in card
    assert "`model` is the local directory that the conversion started from." in card
    assert str(model.parent) not in card


def test_written_into_the_checkpoint_and_pushed(hub, cli, model, tmp_path):
    pytest.importorskip("matplotlib")
    (model / "README.md").unlink()
    results = passkey_results(tmp_path / "r.jsonl")
    told = cli("card", model, "--write", "--results", results)
    assert not told.stdout
    assert f"Written in {model}: README.md, passkey.png." in told.stderr
    assert (model / "passkey.png").read_bytes().startswith(b"\x89PNG")
    written = (model / "README.md").read_text()
    assert "\n# model-yarn\n" in written
    os.utime(model / "README.md", (1, 1))
    again = cli("card", model, "--write")  # without the results, they stay
    assert "README.md needs no change." in again.stderr
    assert (model / "README.md").stat().st_mtime == 1
    # The title and the names follow; the words of the user do not move.
    mine = written.replace("<!-- yarncli:begin", "\nMine.\n\n<!-- yarncli:begin")
    (model / "README.md").write_text(mine)
    cli("push", model, "me/demo-2k")
    card = card_on_hub(hub, "me/demo-2k")
    assert "\n# model-yarn\n\n\nMine." in card  # no longer right above our part: it is theirs
    (model / "README.md").write_text(written)
    cli("push", model, "me/demo-4k")
    card = card_on_hub(hub, "me/demo-4k")
    assert "\n# demo-4k\n" in card
    assert "model-yarn" not in body_of(card).partition("### Passkey retrieval")[0]
    assert "| 2,048 | 0.50 |" in card
    assert "![Passkey retrieval over length and depth](passkey.png)" in card


def test_results_go_with_the_setting_that_they_were_measured_at(cli, model, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl")
    (model / "README.md").write_text(cli("card", model, "--results", results).stdout)
    further = tmp_path / "further"
    cli("convert", model, further, "--length", "4k", "--rescale")
    assert "### Passkey retrieval" in (further / "README.md").read_text()
    card = cli("card", further).stdout
    assert "### Passkey retrieval" not in card
    assert "Nothing was measured at 4,096 tokens" in card


@pytest.mark.parametrize(
    "words",
    [
        "# Mine\n\nHello.\n",
        "# Mine\n\n## Context extension\n\nMy own section.\n",
        "<!-- yarncli:begin -->\nopen\n",
        "# Mine\n```\ncode\n",
        "Title\n=====\n\ntext",
        "",
    ],
)
def test_writing_twice_changes_nothing_the_second_time(cli, model, words):
    (model / "README.md").write_text(f"---\nlicense: mit\n---\n{words}")
    cli("card", model, "--write")
    first = (model / "README.md").read_bytes()
    assert words.strip().encode() in first
    assert "needs no change" in cli("card", model, "--write").stderr
    assert (model / "README.md").read_bytes() == first
    # New words of the user, above and below, stay where they are.
    edited = first.replace(b"\nlicense: mit\n", b"\nlicense: mit\nlanguage: en\n") + b"\n## Below\n"
    (model / "README.md").write_bytes(edited)
    cli("card", model, "--write")
    assert (model / "README.md").read_bytes() == edited


def test_a_card_in_the_hubs_cache_is_not_written(cli, model, tmp_path):
    blob = tmp_path / "blobs" / "x"
    blob.parent.mkdir()
    shutil.move(model / "README.md", blob)
    (model / "README.md").symlink_to(blob)
    before = blob.read_bytes()
    assert cli("card", model, "--write", code=3).stderr
    assert blob.read_bytes() == before


def test_a_mended_model_of_somebody_gets_a_short_section(hub, cli, derived_config, tmp_path):
    hub.add_repo("org/base", {"README.md": b"# Theirs\n"}, private=False)
    told = cli("push", derived_config, "org/base", "--config-only", "--create-pr", "--dry-run")
    assert "+## Context extension" in told.stdout
    assert "+### RoPE before and after" in told.stdout
    assert "+### Citation" not in told.stdout
    assert "+### How to use it" not in told.stdout


@pytest.fixture
def derived_config(demo, tmp_path) -> Path:
    run("convert", demo, tmp_path / "config", "--factor", "8", "--config-only")
    return tmp_path / "config"
