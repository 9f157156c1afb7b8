"""Settings that are tried without being written equal the ones convert writes."""

import json

import pytest

from yarncli.checkpoint.source import open_checkpoint
from yarncli.conversion.convert import convert
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation import variants


@pytest.fixture
def source(demo):
    return open_checkpoint(str(demo))


def converted(source, out, **target):
    convert(source, out, **target)
    return open_checkpoint(str(out))


@pytest.mark.parametrize("method", ["yarn", "linear", "ntk", "dynamic", "ntk-by-parts", "llama3"])
def test_an_override_is_the_config_that_convert_writes(source, tmp_path, method):
    text = f"method={method},factor=4"
    if method == "llama3":
        text += ",low_freq_factor=1,high_freq_factor=4"
    override = variants.parse_override(text)
    variant = variants.overridden(source.config(), override, "x")
    written = converted(
        source, tmp_path / "out", method=method, factor=4.0, **override.target.options
    )
    assert variant.config == written.config().value
    assert (variant.window, variant.original) == (1024, 256)


def test_every_part_of_an_override_arrives(source):
    override = variants.parse_override(
        "method=yarn, length=2048,original_length=128,beta_fast=16,truncate=false"
    )
    variant = variants.overridden(source.config(), override, "x")
    assert variant.config["rope_scaling"] == {
        "rope_type": "yarn", "type": "yarn", "factor": 16.0, "beta_fast": 16.0,
        "truncate": False, "original_max_position_embeddings": 128,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yarn", "name=value"),
        ("method=yarn,method=ntk", "name=value"),
        ("method=magic", "no method 'magic'. Known: none, yarn"),
        ("factor=four", "must be a number"),
        ("factor=4,speed=2", "no setting of --override 'speed'"),
    ],
)
def test_overrides_that_cannot_be_read(text, message):
    with pytest.raises(UsageError, match=message):
        variants.parse_override(text)


def chosen(checkpoint, override=None, longest=0, **choice):
    asked = variants.parse_override(override) if override else None
    return variants.choose_variants(checkpoint, variants.Choice(override=asked, **choice), longest)


@pytest.mark.parametrize("method", ["yarn", "ntk", "dynamic"])
def test_the_control_is_the_config_before_the_conversion(source, tmp_path, method):
    checkpoint = converted(source, tmp_path / "out", method=method, factor=8.0)
    own, control = chosen(checkpoint, control=True)
    assert own.config is None
    assert (control.name, control.config) == ("control", source.config().value)
    assert (own.window, control.window) == (2048, 256)
    assert own.checkpoint == control.checkpoint == checkpoint


def test_no_control_without_a_record(source, tmp_path):
    with pytest.raises(UsageError, match=r"no record of a conversion .* --control-model"):
        chosen(source, control=True)
    checkpoint = converted(source, tmp_path / "out", factor=8.0)
    record = tmp_path / "out" / "yarncli.json"
    document = json.loads(record.read_text())
    document["steps"][0]["baked"] = {
        "form": "neutral", "side": "k", "layout": "plain", "attention_factor": {"model": 1.2},
    }  # fmt: skip
    record.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="in the weights"):
        chosen(open_checkpoint(str(tmp_path / "out")), control=True)
    assert checkpoint.name


def test_a_control_from_elsewhere_is_asked_with_its_own_weights(source, tuned):
    own = open_checkpoint(str(tuned))
    variant, control = chosen(own, control_checkpoint=source)
    assert (variant.checkpoint, control.checkpoint) == (own, source)
    assert (control.name, control.config, control.window) == ("control", None, 256)


@pytest.mark.parametrize("method", ["yarn", "ntk"])
def test_a_setting_is_tried_on_what_was_before_the_conversion(source, tmp_path, method):
    checkpoint = converted(source, tmp_path / "out", method=method, factor=8.0)
    expected = chosen(source, "method=yarn,factor=4", control=True)
    for override in ("method=yarn,factor=4", "method=yarn,factor=4,original_length=256"):
        found = chosen(checkpoint, override, control=True)
        assert found[0].config["rope_scaling"] == expected[0].config["rope_scaling"]
        assert found[0].config["rope_theta"] == 10000.0
        # The control of a setting that is not written is without any scaling too.
        assert found[1].config == expected[1].config == source.config().value


def test_a_scaling_without_a_record_is_replaced_only_when_its_start_is_told(source, scaled):
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}
    checkpoint = open_checkpoint(str(scaled(yarn, 2048)))
    with pytest.raises(UsageError, match="no record"):
        chosen(checkpoint, "factor=4")
    (variant,) = chosen(checkpoint, "factor=4,original_length=256")
    assert variant.window == 1024


def test_compare_extends_all_methods_to_one_length(source, tmp_path):
    names = ["none", "linear", "ntk", "yarn"]
    found = variants.compared(source, names, None, 2048)
    assert [variant.name for variant in found] == names
    assert [variant.window for variant in found] == [256, 2048, 2048, 2048]
    # A converted checkpoint is compared from what it was before; ntk shows only in its record.
    for method in ("yarn", "ntk"):
        checkpoint = converted(source, tmp_path / method, method=method, factor=4.0)
        again = variants.compared(checkpoint, names, None, 2048)
        assert [v.config for v in again] == [v.config for v in found]


def test_compare_gives_each_method_its_own_options_only(source):
    override = variants.parse_override("factor=4,beta_fast=16")
    linear, yarn = variants.compared(source, ["linear", "yarn"], override, 0)
    assert "beta_fast" not in linear.config["rope_scaling"]
    assert yarn.config["rope_scaling"]["beta_fast"] == 16.0


def test_compare_refuses_what_convert_refuses(source):
    with pytest.raises(UsageError, match="There is no method 'magic'"):
        variants.compared(source, ["magic"], None, 2048)
    with pytest.raises(CheckpointError, match="already reads"):
        variants.compared(source, ["yarn"], None, 256)
    with pytest.raises(UsageError, match="each method only once"):
        chosen(source, methods=["yarn", "yarn"], longest=2048)
    with pytest.raises(UsageError, match="give --lengths"):
        chosen(source, methods=["yarn"])


def test_default_lengths_go_from_inside_the_window_to_the_new_one(source, tmp_path):
    own = variants.as_it_is(source)
    assert variants.default_lengths([own]) == [128, 256]
    eight = variants.overridden(source.config(), variants.parse_override("factor=8"), "x")
    assert variants.default_lengths([eight]) == [128, 256, 512, 1024, 2048]
    odd = variants.overridden(source.config(), variants.parse_override("length=1500"), "x")
    assert variants.default_lengths([own, odd]) == [128, 256, 512, 1024, 1500]


def test_lengths_begin_at_the_trained_window_after_ntk_too(source, tmp_path):
    variant = variants.as_it_is(converted(source, tmp_path / "out", method="ntk", factor=4))
    assert (variant.original, variant.window) == (256, 1024)
    assert variants.default_lengths([variant]) == [128, 256, 512, 1024]


def test_dynamic_yarn_has_the_factor_of_the_text(source, demo):
    override = variants.parse_override("method=dynamic-yarn,beta_fast=16")
    (variant,) = variants.choose_variants(source, variants.Choice(override=override))
    assert variant.name == "dynamic-yarn"
    assert variant.window == 256  # of the model itself
    assert variant.config_for(256) == json.loads((demo / "config.json").read_text())
    block = variant.config_for(640)["rope_parameters"]
    assert (block["rope_type"], block["factor"], block["beta_fast"]) == ("yarn", 2.5, 16.0)
    with pytest.raises(UsageError, match="leave out factor and length"):
        variants.parse_override("method=dynamic-yarn,factor=4")
