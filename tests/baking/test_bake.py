"""What a bake writes: the planned rows, a config without the temperature, and a record."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from support.checkpoints import snapshot
from yarncli.baking.bake import bake
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, ConfigError, UnsupportedArchitectureError, UsageError

K0 = "model.layers.0.self_attn.k_proj.weight"


def config_of(directory):
    return json.loads((directory / "config.json").read_text())


def test_only_keys_change_and_by_the_square(
    handmade, tmp_path, tensors_of, bake_directory, attention_factor
):
    source = handmade()
    bake_directory(source, tmp_path / "out")
    old, new = tensors_of(source), tensors_of(tmp_path / "out")
    for name, values in old.items():
        if ".k_proj." in name:
            wanted = (values.astype(np.float64) * attention_factor**2).astype(np.float32)
            assert np.array_equal(new[name], wanted)
        else:
            assert np.array_equal(new[name], values), name


def test_sides_share_the_same_product(
    handmade, tmp_path, tensors_of, bake_directory, attention_factor
):
    source = handmade()
    old = tensors_of(source)
    for side, powers in {"k": (0, 2), "q": (2, 0), "both": (1, 1)}.items():
        bake_directory(source, tmp_path / side, side=side)
        new = tensors_of(tmp_path / side)
        for part, power in zip(("q_proj", "k_proj"), powers, strict=True):
            name = f"model.layers.1.self_attn.{part}.weight"
            assert np.allclose(new[name], old[name] * attention_factor**power, rtol=1e-6)


def test_headers_order_metadata_index_and_other_files_stay(handmade, tmp_path, bake_directory):
    source, out = handmade(), tmp_path / "out"
    baking = bake_directory(source, out)
    for file in source.glob("*.safetensors"):
        old, new = file.read_bytes(), (out / file.name).read_bytes()
        assert len(old) == len(new)
        allowed = set()
        for patch in baking.patches.get(file.name, ()):
            allowed |= set(range(patch.offset, patch.offset + patch.length))
        differing = {i for i in range(len(old)) if old[i] != new[i]}
        assert differing
        assert differing <= allowed
        with safe_open(out / file.name, "numpy") as opened:
            assert opened.metadata() == {"format": "pt", "by": "hand"}
    for name in ("model.safetensors.index.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in source.iterdir()),
        "yarncli.json",
    }


def test_neutral_form_leaves_no_temperature(handmade, tmp_path, bake_directory, attention_factor):
    source = handmade()
    bake_directory(source, tmp_path / "out")
    config = config_of(tmp_path / "out")
    assert config["rope_scaling"] == {
        **config_of(source)["rope_scaling"],
        "type": "yarn",
        "attention_factor": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    marker = config.pop("yarncli_baked")
    assert marker["attention_factor"] == {"model": attention_factor}
    steps = json.loads((tmp_path / "out" / "yarncli.json").read_text())["steps"]
    assert [step["command"] for step in steps] == ["bake"]
    assert steps[0]["baked"] == marker


def test_residual_form_leaves_yarns_own(
    handmade, tmp_path, tensors_of, bake_directory, attention_factor
):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    source = handmade({"rope_scaling": {**scaling, "attention_factor": 1.5}})
    bake_directory(source, tmp_path / "out", form="residual")
    assert config_of(tmp_path / "out")["rope_scaling"] == {**scaling, "type": "yarn"}
    ratio = tensors_of(tmp_path / "out")[K0] / tensors_of(source)[K0]
    assert np.allclose(ratio, (1.5 / attention_factor) ** 2, rtol=1e-6)


def test_a_ratio_of_one_leaves_nothing_to_bake(checkpoint_of):
    block = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    source = checkpoint_of("deepseek_v3", rope={**block, "mscale": 1.0, "mscale_all_dim": 1.0})
    with pytest.raises(CheckpointError, match="attention factor of this model is 1"):
        decide_bake(open_checkpoint(str(source)))


def test_residual_has_nothing_to_do_for_plain_yarn(handmade):
    with pytest.raises(CheckpointError, match="nothing to bake"):
        decide_bake(open_checkpoint(str(handmade())), BakeSettings(form="residual"))


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_a_given_factor_needs_no_field(handmade, tmp_path, tensors_of, bake_directory, scaling):
    source = handmade({"rope_scaling": scaling})
    with pytest.raises(CheckpointError, match="--attention-factor"):
        decide_bake(open_checkpoint(str(source)))
    bake_directory(source, tmp_path / "out", attention_factor=1.2)
    ratio = tensors_of(tmp_path / "out")[K0] / tensors_of(source)[K0]
    assert np.allclose(ratio, 1.44, rtol=1e-6)
    config = config_of(tmp_path / "out")
    config.pop("yarncli_baked")
    assert config == config_of(source)


def test_longrope_is_neutral_in_every_spelling_of_it(handmade, tmp_path, bake_directory):
    factors = [1.0, 2.0, 3.0, 4.0]
    block = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
    block |= {"factor": 4.0, "original_max_position_embeddings": 32}
    source = handmade({"rope_scaling": block})
    bake_directory(source, tmp_path / "out")
    written = config_of(tmp_path / "out")["rope_scaling"]
    fields = ("attention_factor", "short_mscale", "long_mscale")
    assert [written[name] for name in fields] == [1.0, 1.0, 1.0]


def test_mrope_gets_no_mscale(handmade, tmp_path, bake_directory, attention_factor):
    block = {**config_of(handmade())["rope_scaling"], "mrope_section": [2, 1, 1]}
    source = handmade({"rope_scaling": block}, name="mrope")
    bake_directory(source, tmp_path / "out")
    written = config_of(tmp_path / "out")["rope_scaling"]
    assert "mscale" not in written
    assert written["attention_factor"] == 1.0
    assert written["attn_factor"] == pytest.approx(1 / attention_factor)


def test_latent_attention_keeps_its_mscale(checkpoint_of, tmp_path, bake_directory):
    source = checkpoint_of("deepseek_v3@mscale")
    bake_directory(source, tmp_path / "out")
    old, new = (config_of(path)["rope_parameters"] for path in (source, tmp_path / "out"))
    assert new.pop("attention_factor") == 1.0
    assert new.pop("type") == "yarn"
    assert new == old


def test_every_scope_has_its_own_factor(checkpoint_of, tmp_path, bake_directory):
    source = checkpoint_of("gemma3_text@bothyarn")
    baking = bake_directory(source, tmp_path / "out")
    found = {each.scope: each.factor for each in baking.attention_factors}
    assert found["full_attention"] == pytest.approx(1.138629436)
    assert found["sliding_attention"] == pytest.approx(1.069314718)
    scopes = read_rope(config_of(tmp_path / "out")).scopes
    assert {s.parameters.effective_attention_factor() for s in scopes.values()} == {1.0}


@pytest.mark.parametrize(("form", "left"), [("neutral", 1.0), ("residual", 1.138629436)])
def test_a_given_factor_is_that_of_the_extended_scope(checkpoint_of, form, left):
    """The other scope stays as it is, in both forms; `left` is 0.1·ln 4 + 1 or nothing."""
    source = open_checkpoint(str(checkpoint_of("gemma3_text@slidingyarn")))
    baking = decide_bake(source, BakeSettings(form=form, attention_factor=1.3))
    found = {each.scope: each.factor for each in baking.attention_factors}
    assert found == {"full_attention": 1.0, "sliding_attention": pytest.approx(1.3 / left)}


def test_it_is_never_baked_twice(handmade, tmp_path, bake_directory):
    bake_directory(handmade(), tmp_path / "out")
    bake_directory(handmade(name="other"), tmp_path / "no-record")
    (tmp_path / "no-record" / "yarncli.json").unlink()
    with pytest.raises(CheckpointError, match="baked already"):
        decide_bake(
            open_checkpoint(str(tmp_path / "no-record")), BakeSettings(attention_factor=1.1)
        )
    with pytest.raises(CheckpointError, match="baked already"):
        decide_bake(open_checkpoint(str(tmp_path / "out")), BakeSettings(attention_factor=1.1))
    config = config_of(tmp_path / "out")
    del config["yarncli_baked"]  # as transformers might, on saving
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="baked already"):
        decide_bake(open_checkpoint(str(tmp_path / "out")), BakeSettings(attention_factor=1.1))


@pytest.mark.parametrize(
    "model_type", ["hunyuan_v1_dense", "hunyuan_v1_moe", "nanochat", "llama4_text"]
)
def test_norm_after_rope_has_nothing_to_bake(model_type, handmade):
    source = handmade({"model_type": model_type})
    with pytest.raises(CheckpointError, match="normalised after the rotation"):
        decide_bake(open_checkpoint(str(source)))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_factor_is_refused(handmade, value):
    with pytest.raises(UsageError, match="not a positive number"):
        decide_bake(open_checkpoint(str(handmade())), BakeSettings(attention_factor=value))


def test_a_key_bias_or_a_cache_scale_turns_to_queries(handmade):
    bias = {f"model.layers.{i}.self_attn.k_proj.bias": np.ones(16, np.float32) for i in range(2)}
    scale = {"model.layers.0.self_attn.k_scale": np.ones((), np.float32)}
    scheme = {"quantization_config": {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}}}
    assert decide_bake(open_checkpoint(str(handmade()))).baked.side == "k"
    assert decide_bake(open_checkpoint(str(handmade(tensors=bias, name="b")))).baked.side == "q"
    assert decide_bake(open_checkpoint(str(handmade(scheme, name="c")))).baked.side == "q"
    scaled = open_checkpoint(str(handmade(tensors=scale, name="s")))
    assert decide_bake(scaled).baked.side == "q"
    with pytest.raises(UsageError, match="--side q"):
        decide_bake(scaled, BakeSettings(side="k"))


def test_clamped_projections_are_scaled_together(checkpoint_of, tmp_path, bake_directory):
    source = checkpoint_of("olmo@clip")
    with pytest.raises(UsageError, match="--side both"):
        decide_bake(open_checkpoint(str(source)), BakeSettings(side="k"))
    bake_directory(source, tmp_path / "out")
    assert config_of(tmp_path / "out")["clip_qkv"] == pytest.approx(0.4 * 1.138629436)


def test_partial_rotation_without_a_learned_scale_is_impossible(checkpoint_of):
    source = checkpoint_of("zaya", rope={"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(UnsupportedArchitectureError, match="rotates only 8 of 16"):
        decide_bake(open_checkpoint(str(source)))


def test_weights_that_are_only_copied_are_named(handmade):
    source = handmade()
    (source / "consolidated.00.pth").write_bytes(b"old")
    (source / "adapter_config.json").write_text("{}")
    notes = " ".join(decide_bake(open_checkpoint(str(source))).notes)
    assert "consolidated.00.pth" in notes
    assert "--adapter" in notes


def test_a_conversion_and_a_bake_in_one_pass(handmade, tmp_path, bake_directory, tensors_of):
    from yarncli.conversion.convert import convert

    source = handmade({"rope_scaling": None})
    conversion = convert(source, tmp_path / "converted", factor=4.0)
    bake_directory(tmp_path / "converted", tmp_path / "twice")
    baking = decide_bake(
        conversion.checkpoint,
        config=conversion.files["config.json"][1],
        history=conversion.history,
        others={n: after.text.encode() for n, (_, after) in conversion.files.items()},
    )
    write_copy(baking, tmp_path / "once")
    assert config_of(tmp_path / "once") == config_of(tmp_path / "twice")
    one, two = (
        json.loads((tmp_path / name / "yarncli.json").read_text())["steps"]
        for name in ("once", "twice")
    )
    assert [step["command"] for step in one] == ["convert", "bake"]
    assert one[0] == two[0]
    assert one[1]["replaced"] == two[1]["replaced"]
    found, wanted = tensors_of(tmp_path / "once"), tensors_of(tmp_path / "twice")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_nothing_is_written_when_a_value_overflows(handmade, tmp_path):
    source = handmade(tensors={K0: np.full((16, 16), 3e38, np.float32)})
    with pytest.raises(CheckpointError, match="no longer fits in F32"):
        write_copy(decide_bake(open_checkpoint(str(source))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", [0, -1])
def test_a_value_that_overflows_in_place_leaves_every_byte(handmade, row):
    rows = np.ones((16, 16), np.float32)
    rows[row, -1] = 3e38
    source = handmade(tensors={K0: rows})
    before = snapshot(source)
    with pytest.raises(CheckpointError, match=r"no longer fits in F32 .* with --side\."):
        bake(source, in_place=True, side="k")
    assert snapshot(source) == before
    bake(source, in_place=True, side="q")  # what the message advises


def test_a_baked_config_reads_back_or_is_not_written(handmade, monkeypatch):
    from yarncli.baking import attention_factor

    monkeypatch.setattr(attention_factor, "write_rope", lambda config, *rest: config)
    with pytest.raises(ConfigError, match="reads back"):
        decide_bake(open_checkpoint(str(handmade())))
