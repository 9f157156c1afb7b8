"""convert as its user meets it, the wrong ways included, on the demo checkpoint."""

import json
import os
import shutil
from functools import partial

import pytest

from support.checkpoints import snapshot
from support.kills import kill_at_every_call
from support.program import invoke
from yarncli.conversion.conversion import verify
from yarncli.conversion.convert import convert as convert_checkpoint
from yarncli.errors import ConfigError

run = partial(invoke, "convert")


def test_everything_but_the_config_is_carried_over(demo, tmp_path):
    (demo / "extra").mkdir()
    (demo / "extra/notes.bin").write_bytes(b"\0kept")
    before = snapshot(demo)
    result = run(demo, tmp_path / "out", "--factor", 8)
    assert result.exit_code == 0, result.output
    after = snapshot(tmp_path / "out")
    assert snapshot(demo) == before
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"config.json", "tokenizer_config.json", "yarncli.json"}
    assert before.keys() <= after.keys()
    assert json.loads(after["tokenizer_config.json"])["model_max_length"] == 2048


def test_transformers_retrieves_the_new_window(demo, tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    run(demo, tmp_path / "out", "--length", "2k")
    assert AutoConfig.from_pretrained(tmp_path / "out").max_position_embeddings == 2048
    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 2048


@pytest.mark.parametrize("mode", ["hardlink", "symlink"])
def test_weights_can_be_linked(demo, tmp_path, mode):
    out = tmp_path / "out"
    assert run(demo, out, "--factor", 2, "--weights", mode).exit_code == 0
    weights = out / "model.safetensors"
    assert weights.samefile(demo / "model.safetensors")
    assert weights.is_symlink() == (mode == "symlink")
    assert not (out / "tokenizer.json").samefile(demo / "tokenizer.json")


def test_config_only_leaves_the_weights_out_and_records_it(demo, tmp_path):
    out = tmp_path / "out"
    assert run(demo, out, "--factor", 2, "--config-only").exit_code == 0
    assert not (out / "model.safetensors").exists()
    assert json.loads((out / "yarncli.json").read_text())["steps"][-1]["config_only"] is True


def test_dry_run_writes_nothing(demo, tmp_path):
    before = snapshot(tmp_path)
    result = run(demo, tmp_path / "out", "--factor", 2, "--dry-run")
    assert result.exit_code == 0
    assert '+  "max_position_embeddings": 512,' in result.stdout
    assert snapshot(tmp_path) == before


def test_in_place_keeps_the_originals_and_undo_takes_it_back(demo):
    before = snapshot(demo)
    assert run(demo, "--in-place", "--factor", 2).exit_code == 0
    assert json.loads((demo / "config.json").read_text())["max_position_embeddings"] == 512
    assert (demo / "config.json.orig").read_bytes() == before["config.json"]
    assert run(demo, "--undo").exit_code == 0
    after = snapshot(demo)
    assert {name: after[name] for name in before} == before
    assert "yarncli.json" not in after
    assert run(demo, "--undo").exit_code == 3


def test_json_is_one_document(demo, tmp_path):
    result = run(demo, tmp_path / "out", "--factor", 2, "--json")
    document = json.loads(result.stdout)
    assert document["plan"]["length"] == 512
    assert {"file": "config.json", "path": ["max_position_embeddings"], "before": 256,
            "after": 512} in document["changes"]  # fmt: skip


def test_generation_length_follows_only_where_it_was_the_window(demo, tmp_path):
    for value, expected in ((256, 512), (100, 100)):
        (demo / "generation_config.json").write_text(json.dumps({"max_length": value}))
        out = tmp_path / f"out{value}"
        assert run(demo, out, "--factor", 2).exit_code == 0
        assert json.loads((out / "generation_config.json").read_text())["max_length"] == expected


def test_stale_length_fields_are_raised_and_sentinels_stay(demo, tmp_path):
    config = demo / "config.json"
    text = config.read_text().replace('"vocab_size"', '"seq_length": 128,\n  "vocab_size"')
    config.write_text(text)
    tokenizer = demo / "tokenizer_config.json"
    tokenizer.write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert run(demo, tmp_path / "out", "--factor", 2).exit_code == 0
    assert json.loads((tmp_path / "out/config.json").read_text())["seq_length"] == 512
    assert (tmp_path / "out/tokenizer_config.json").read_text() == tokenizer.read_text()


def test_an_ntk_conversion_is_known_by_its_record_alone(demo, tmp_path):
    assert run(demo, tmp_path / "out", "--method", "ntk", "--factor", 2).exit_code == 0
    result = run(tmp_path / "out", tmp_path / "more", "--method", "ntk", "--factor", 4)
    assert result.exit_code == 3
    assert "--undo" in result.stderr
    preview = invoke("inspect", tmp_path / "out", "--method", "ntk", "--factor", "4")
    assert (preview.exit_code, "--undo" in preview.stderr) == (3, True)
    assert run(tmp_path / "out", "--undo").exit_code == 0
    assert run(tmp_path / "out", tmp_path / "more", "--method", "ntk", "--factor", 4).exit_code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "ntk"),
        ("--method", "yarn"),
        ("--method", "yarn", "--replace-scaling", "--original-length", 256),
        ("--rescale",),
    ],
)
def test_an_ntk_conversion_is_remembered_after_a_bake(demo, tmp_path, options):
    converted, baked = tmp_path / "converted", tmp_path / "baked"
    assert run(demo, converted, "--method", "ntk", "--factor", 2).exit_code == 0
    invoke("bake", converted, baked, "--attention-factor", "1.1", code=0)
    result = run(baked, tmp_path / "more", "--factor", 4, *options)
    assert (result.exit_code, "Convert the original checkpoint" in result.stderr) == (3, True)
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    "options", [("--rescale",), ("--replace-scaling", "--original-length", 256), ("--bake",)]
)
def test_baked_weights_are_not_extended_further(demo, tmp_path, options):
    """They carry m(4); another factor has another temperature."""
    baked = tmp_path / "baked"
    assert run(demo, baked, "--factor", 4, "--bake").exit_code == 0
    arguments = (tmp_path / "more", "--factor", 8, *options)
    recorded = run(baked, *arguments)
    (baked / "yarncli.json").unlink()
    marked = run(baked, *arguments)
    for result in (recorded, marked):
        assert (result.exit_code, "that the bake started from" in result.stderr) == (
            3,
            True,
        )
    preview = invoke("inspect", baked, "--factor", 8)
    assert (preview.exit_code, "The weights hold" in preview.stderr) == (3, True)


def test_factors_are_given_as_numbers_too(demo, tmp_path):
    arguments = (demo, tmp_path / "out", "--method", "longrope", "--factor", 4)
    short, long = ",".join(["1"] * 16), ",".join(f"{1 + i / 4}" for i in range(15)) + ",5e0"
    result = run(*arguments, "--short-factor", short, "--long-factor", long)
    assert result.exit_code == 0
    block = json.loads((tmp_path / "out/config.json").read_text())["rope_scaling"]
    assert block["short_factor"] == [1.0] * 16
    assert block["long_factor"] == [1 + i / 4 for i in range(15)] + [5.0]
    missing = run(*arguments, "--short-factor", short, "--long-factor", "1,2,x")
    assert (missing.exit_code, "1,2,x cannot be read" in missing.stderr) == (2, True)


def test_longrope_takes_its_factors_from_files(demo, tmp_path):
    short, long = tmp_path / "short.json", tmp_path / "long.json"
    short.write_text(json.dumps([1.0] * 16))
    long.write_text(json.dumps([1.0 + i for i in range(16)]))
    arguments = (demo, tmp_path / "out", "--method", "longrope", "--factor", 4)
    files = ("--short-factor", short, "--long-factor", long)
    assert run(*arguments, *files).exit_code == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["original_max_position_embeddings"] == 256
    assert config["rope_scaling"]["long_factor"][15] == 16.0
    long.write_text("[1.0]")
    shutil.rmtree(tmp_path / "out")
    result = run(*arguments, *files)
    assert (result.exit_code, "needs 16" in result.stderr) == (3, True)
    long.write_text("{}")
    assert run(*arguments, *files).exit_code == 2


WRONG = {
    "no such source": (("nowhere", "out", "--factor", "2"), 3, "does not exist"),
    "no target": (("demo", "out"), 2, "--length TOKENS"),
    "two targets": (("demo", "out", "--factor", "2", "--length", "4k"), 2, "only one"),
    "no output": (("demo", "--factor", "2"), 2, "--in-place"),
    "output exists": (("demo", "demo", "--factor", "2"), 2, "already exists"),
    "output inside": (("demo", "demo/out", "--factor", "2"), 2, "inside the source"),
    "bad length": (("demo", "out", "--length", "12 k"), 2, "not a length"),
    "factor below one": (("demo", "out", "--factor", "0.5"), 2, "at least 1"),
    "factor nan": (("demo", "out", "--factor", "nan"), 2, "at least 1"),
    "long enough": (("demo", "out", "--length", "256"), 3, "already reads 256"),
    "unknown type": (("demo", "out", "--factor", "2", "--assume-like", "x"), 2, "no model type"),
    "no directory": (("demo", "no/such/out", "--factor", "2"), (2, 6), "no/such"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ways_give_one_line_and_leave_nothing(case, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, message = WRONG[case]
    before = snapshot(tmp_path)
    result = run(*arguments)
    assert result.exit_code in (code if isinstance(code, tuple) else (code,)), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert snapshot(tmp_path) == before


def test_a_link_out_of_the_source_is_refused_by_name(demo, tmp_path):
    (tmp_path / "secret").write_text("x")
    (demo / "leak.txt").symlink_to(tmp_path / "secret")
    result = run(demo, tmp_path / "out", "--factor", 2)
    assert (result.exit_code, "leak.txt" in result.stderr) == (3, True)
    assert not (tmp_path / "out").exists()


def test_half_a_checkpoint_is_refused(demo, tmp_path):
    weights = demo / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    result = run(demo, tmp_path / "out", "--factor", 2)
    assert (result.exit_code, "model.safetensors" in result.stderr) == (3, True)
    assert not (tmp_path / "out").exists()
    assert run(demo, tmp_path / "out", "--factor", 2, "--config-only").exit_code == 0


@pytest.mark.parametrize("how", [["out"], ["out", "--dry-run"], ["--in-place"]])
def test_some_of_the_weights_are_refused_before_anything_is_written(demo, monkeypatch, how):
    """The first of two shards was downloaded, and no index."""
    (demo / "model.safetensors").rename(demo / "model-00001-of-00002.safetensors")
    monkeypatch.chdir(demo.parent)
    before = snapshot(demo)
    result = run(demo, *how, "--factor", 2)
    assert result.exit_code == 3
    assert "model-00002-of-00002.safetensors is not there" in result.stderr
    assert "yarncli check" in result.stderr
    assert (snapshot(demo), (demo.parent / "out").exists()) == (before, False)


def test_weights_of_fewer_layers_than_the_config_has_are_refused(demo, tmp_path):
    config = json.loads((demo / "config.json").read_text())
    there = config["num_hidden_layers"]
    (demo / "config.json").write_text(json.dumps({**config, "num_hidden_layers": there + 2}))
    result = run(demo, tmp_path / "out", "--factor", 2)
    assert result.exit_code == 3
    assert f"layers {there}–{there + 1}" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_target_is_one_sentence(demo, tmp_path):
    target = tmp_path / "locked"
    target.mkdir(mode=0o500)
    assert run(demo, target / "out", "--factor", 2).exit_code == 6


def test_a_killed_conversion_leaves_out_absent_or_whole(demo, tmp_path):
    assert run(demo, tmp_path / "expected", "--factor", 8).exit_code == 0
    whole, source = snapshot(tmp_path / "expected"), snapshot(demo)

    def fresh(directory):
        directory.mkdir()

    def convert(directory):
        convert_checkpoint(demo, directory / "out", factor=8.0)

    def check(directory, where):
        assert snapshot(demo) == source
        if (directory / "out").exists():
            assert snapshot(directory / "out") == whole
        else:
            assert where != "completed"

    work = tmp_path / "work"
    work.mkdir()
    calls = kill_at_every_call(work, fresh, convert, check)
    assert "rename" in calls or "replace" in calls


def test_verification_sees_a_config_that_says_something_else(demo):
    conversion = convert_checkpoint(demo, factor=8.0, dry_run=True)
    written = conversion.files["config.json"][1]
    wrong = written.edited({("rope_scaling", "factor"): 4.0, ("rope_parameters", "factor"): 4.0})
    with pytest.raises(ConfigError, match="reads back"):
        verify(wrong, conversion.rope, conversion.plan)


@pytest.mark.parametrize(
    ("method", "engines", "maximum"),
    [("linear", "llama.cpp", 1024), ("linear", "vllm,sglang", 256), ("yarn", "vllm,mlx-lm", 1024)],
)
def test_for_writes_what_the_engines_read_right(demo, tmp_path, method, engines, maximum):
    out = tmp_path / "out"
    result = run(demo, out, "--method", method, "--factor", 4, "--for", engines)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == maximum
    shown = invoke("engines", out, "--json")
    status = {view["engine"]: view["status"] for view in json.loads(shown.stdout)["engines"]}
    assert {status[name] for name in engines.split(",")} == {"exact"}


def test_for_states_a_temperature_as_the_engine_reads_it(demo, tmp_path):
    out = tmp_path / "out"
    options = ("--factor", 4, "--attention-factor", 1.05, "--for", "sglang,transformers-5")
    result = run(demo, out, *options)
    assert result.exit_code == 0, result.output
    scaling = json.loads((out / "config.json").read_text())["rope_scaling"]
    assert scaling["attention_factor"] == 1.05
    assert scaling["attn_factor"] == pytest.approx(1.05 / 1.138629436)
    assert run(demo, tmp_path / "no", *options[:-1], "mlx-lm").exit_code == 3


def test_for_states_the_betas_that_onnx_divides_by(tmp_path):
    """Its builder has no defaults for them (builders/base.py:673) and never rounds the ramp."""
    source = tmp_path / "qwen2"
    source.mkdir()
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = {"model_type": "qwen2", **sizes, "max_position_embeddings": 32768, "rope_theta": 1e6}
    (source / "config.json").write_text(json.dumps(config))
    options = ("--factor", 4, "--for", "onnxruntime-genai", "--config-only")
    assert run(source, tmp_path / "no", *options).exit_code == 3
    result = run(source, tmp_path / "out", *options, "--no-truncate")
    assert result.exit_code == 0, result.output
    scaling = json.loads((tmp_path / "out" / "config.json").read_text())["rope_scaling"]
    assert (scaling["beta_fast"], scaling["beta_slow"], scaling["truncate"]) == (32.0, 1.0, False)


def test_for_refuses_what_no_config_can_do(demo, tmp_path):
    result = run(demo, tmp_path / "out", "--method", "dynamic", "--factor", 4, "--for", "vllm")
    assert (result.exit_code, "No config makes vllm" in result.stderr) == (3, True)
    assert run(demo, tmp_path / "out", "--factor", 4, "--for", "nope").exit_code == 2


def test_engines_that_will_not_do_it_are_warned_about_by_name(demo, tmp_path):
    result = run(demo, tmp_path / "out", "--method", "linear", "--factor", 4)
    assert "warning: llama.cpp differs: serves 256 tokens instead of 1,024" in result.stderr
    assert "warning: vllm " not in result.stderr


def test_bake_in_the_same_pass_is_convert_and_then_bake(demo, tmp_path):
    once, converted, twice = (tmp_path / name for name in ("once", "converted", "twice"))
    result = run(demo, once, "--factor", 8, "--bake")
    assert result.exit_code == 0, result.output
    assert "k_proj.weight (F16)" in result.stdout
    assert "llama.cpp differs: attention scale 1.208 instead of 1" in result.stderr
    run(demo, converted, "--factor", 8)
    assert invoke("bake", converted, twice).exit_code == 0
    found, wanted = snapshot(once), snapshot(twice)
    steps = [json.loads(files.pop("yarncli.json"))["steps"] for files in (found, wanted)]
    assert found == wanted
    assert [step["command"] for step in steps[0]] == ["convert", "bake"]
    assert steps[0][1]["baked"] == steps[1][1]["baked"]


def test_a_bake_is_previewed_and_told_as_data(demo, tmp_path):
    result = run(demo, tmp_path / "out", "--factor", 8, "--bake", "--dry-run", "--json")
    found = json.loads(result.stdout)
    assert found["bake"]["attention_factor"] == {"model": pytest.approx(1.2079441541)}
    assert not (tmp_path / "out").exists()
    assert json.loads(run(demo, tmp_path / "out", "--factor", 8, "--json").stdout)["bake"] is None


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--in-place",), 2, "yarncli bake SOURCE --in-place"),
        (("out", "--config-only"), 2, "--config-only"),
        (("out", "--weights", "hardlink"), 2, "--weights"),
        (("out", "--for", "llama.cpp"), 3, "llama.cpp would not compute the baked model"),
        (("out", "--method", "ntk"), 3, "nothing to bake"),
    ],
)
def test_where_a_bake_cannot_be_part_of_it(options, code, message, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    result = run(demo, *options, "--factor", 4, "--bake")
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert snapshot(tmp_path) == before


def test_an_unknown_model_type_is_converted_and_judged_like_another(demo, tmp_path):
    path = demo / "config.json"
    path.write_text(path.read_text().replace('"llama"', '"llama_of_ours"'))
    options = (demo, tmp_path / "out", "--factor", 4)
    assert run(*options).exit_code == 3
    result = run(*options, "--assume-like", "llama", "--for", "vllm")
    assert result.exit_code == 0, result.stderr
    assert "ollama ignores" in result.stderr
    # The record says so to the other commands.
    shown = invoke("engines", tmp_path / "out")
    assert (
        "Intended window: 1,024 tokens (from yarncli.json; assumed to be like llama)"
        in shown.stdout
    )
    document = json.loads(invoke("engines", tmp_path / "out", "--json").stdout)
    assert document["assume_like"] == "llama"
    assert {v["status"] for v in document["engines"] if v["engine"] == "ollama"} == {"ignores"}
    assert "assumed to be like llama" in invoke("inspect", tmp_path / "out").stdout
    served = invoke("engines", tmp_path / "out", "--length", "2k", "--rescale", "--engine", "tgi")
    assert served.exit_code == 0, served.stderr
    record = tmp_path / "out" / "yarncli.json"
    record.write_text(record.read_text().replace('"assume_like": "llama"', '"assume_like": "no"'))
    assert invoke("engines", tmp_path / "out").exit_code == 3  # nobody believes that
