"""`yarncli engines`: the JSON contract, what counts as intended, launch lines, bad input."""

from __future__ import annotations

import json
import shlex
import warnings
from functools import partial
from typing import Any, get_args

import pytest

from support import engine_oracle as oracle
from support.configs import M4
from support.configs import NARROW_LLAMA as LLAMA
from support.program import invoke
from yarncli.config.reading import read_rope
from yarncli.engines.intended import find_intended
from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES, get_engine
from yarncli.engines.types import Status
from yarncli.errors import UsageError
from yarncli.history import NO_HISTORY, History, Step
from yarncli.history.weights import Baked
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.planning.writing import write_rope

IDS = (
    "transformers-5 transformers-4.57 transformers-4.55 transformers-4.50 vllm sglang "
    "llama.cpp mlx-lm mlx-vlm tgi tensorrt-llm exllamav3 ollama onnxruntime-genai "
    "lmdeploy-pytorch lmdeploy-turbomind ctranslate2 max openvino".split()
)


def planned(method: str, base: dict[str, Any] = LLAMA, spelling: Any = "both", **options: Any):
    """A plan for 32,768 tokens and the config written from it."""
    text = JsonText.parse(json.dumps(base), "config.json")
    rope = read_rope(text.value)
    plan = make_plan(rope, Target(method, length=32768, options=options))
    return plan, write_rope(text, rope, plan, spelling).value


def converted(plan):
    """The history of a conversion in memory."""
    return History((Step(command="convert", source="here", plan=plan),))


def misreadings(config, engine, history=NO_HISTORY):
    found = judge(config, history, engines=[engine], launch=False).misreadings()
    return found.get(engine, [])


def directory(tmp_path, config, steps=()):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if steps:
        (tmp_path / "yarncli.json").write_bytes(History(tuple(steps)).to_bytes())
    return str(tmp_path)


run = partial(invoke, "engines")


def test_the_ids():
    assert list(ENGINES) == IDS


def test_json_is_the_contract(tmp_path):
    _, config = planned("yarn")
    result = run(directory(tmp_path, config), "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert document["intended_from"] == "transformers 5"
    assert [e["engine"] for e in document["engines"]] == IDS
    for entry in document["engines"]:
        assert entry["basis"] in ("run", "read")
        assert entry["versions"]
        assert entry["status"] in get_args(Status)
        assert isinstance(entry["notes"], list)
        for scope in entry["scopes"]:
            assert len(scope["inv_freq"]) == 32
            assert scope["at_length"] == 32768
    by_id = {e["engine"]: e for e in document["engines"]}
    assert by_id["vllm"]["served_length"] == 32768
    assert by_id["transformers-5"]["served_length"] is None
    (scope,) = by_id["sglang"]["scopes"]
    assert scope["attention_factor"] == pytest.approx(M4)
    assert scope["softmax_scale_ratio"] == 1.0


def test_dynamic_numbers_are_those_at_the_served_length(tmp_path):
    _, config = planned("dynamic")
    entries = json.loads(run(directory(tmp_path, config), "--json").stdout)["engines"]
    by_id = {e["engine"]: e["scopes"] for e in entries}
    base = 500000.0 * (4.0 * 32768 / 8192 - 3.0) ** (64 / 62)
    stretched = [base ** (-2 * i / 64) for i in range(32)]
    assert by_id["transformers-5"][0]["inv_freq"] == pytest.approx(stretched)
    assert by_id["sglang"][0]["inv_freq"] == pytest.approx(stretched)
    plain = [500000.0 ** (-2 * i / 64) for i in range(32)]
    assert by_id["vllm"][0]["inv_freq"] == pytest.approx(plain)


# Engine → what it makes of each method, where it is not as meant.
_NO_YARN = {"ollama": "ignores", "onnxruntime-genai": "ignores", "ctranslate2": "refuses",
            "max": "ignores"}  # fmt: skip
# These serve max_position_embeddings, which linear and dynamic leave at the original window.
_SHORT = dict.fromkeys(
    "llama.cpp tensorrt-llm exllamav3 ollama lmdeploy-pytorch lmdeploy-turbomind".split(), "differs"
)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("ntk", {}),
        ("yarn", {**_NO_YARN, "transformers-4.50": "differs"}),
        ("ntk-by-parts", {**_NO_YARN, "transformers-4.50": "differs", "llama.cpp": "differs"}),
        ("linear", {**_SHORT, "tgi": "ignores", "onnxruntime-genai": "ignores", "max": "ignores"}),
        ("llama3", {"ctranslate2": "ignores"}),
        (
            "dynamic",
            {
                **_SHORT,
                **dict.fromkeys("vllm llama.cpp ollama onnxruntime-genai max".split(), "ignores"),
                **dict.fromkeys("mlx-vlm exllamav3 ctranslate2".split(), "refuses"),
                **dict.fromkeys("tensorrt-llm openvino".split(), "unknown"),
                "sglang": "differs",
                "tgi": "differs",
            },
        ),
    ],
)
def test_every_method_of_convert_on_llama(method, wrong):
    """Held against the engines' own tables of what they read."""
    plan, config = planned(method)
    views = judge(config, converted(plan)).verdicts
    assert {v.engine.id: v.status for v in views if v.status != "exact"} == wrong


def test_the_window_meant_is_that_of_the_record():
    plan, config = planned("ntk")
    (found,) = judge(
        {**config, "max_position_embeddings": 8192}, converted(plan), engines=["vllm"]
    ).verdicts
    assert (found.status, found.length) == ("differs", 32768)
    assert found.summary() == "serves 8,192 tokens instead of 32,768"


def test_rope_parameters_only_is_lost_by_older_readers():
    plan, config = planned("yarn", spelling="v5")
    config = {k: v for k, v in config.items() if k != "rope_theta"}
    views = judge(config, converted(plan)).verdicts
    lost = {v.engine.id for v in views if v.status == "ignores"}
    assert lost >= {"transformers-4.57", "transformers-4.55", "transformers-4.50", "mlx-lm", "tgi"}
    assert {v.engine.id for v in views if v.status == "exact"} == set(
        "transformers-5 vllm sglang llama.cpp exllamav3 lmdeploy-pytorch lmdeploy-turbomind "
        "openvino".split()
    )
    qwen3 = config | {"model_type": "qwen3", "head_dim": 64}
    # qwen3.py:33-40 of mlx-lm reads the newer spelling, and the file of mlx-vlm does not.
    assert misreadings(qwen3, "mlx-lm") == []
    assert "rope_theta" in misreadings(qwen3, "mlx-vlm")[0]


def test_a_bake_is_meant_to_have_temperature_one(tmp_path):
    plan, config = planned("yarn")
    steps = [Step(command="convert", source="here", plan=plan)]
    baked = Baked(form="neutral", side="k", layout="plain", attention_factor={"model": M4})
    steps.append(Step(command="bake", source="here", baked=baked))
    forgotten = json.loads(run(directory(tmp_path, config, steps), "--json").stdout)
    assert forgotten["intended_from"] == "yarncli.json"
    by_id = {e["engine"]: e for e in forgotten["engines"]}
    # The config still asks for the temperature: applied twice, in every engine.
    assert by_id["transformers-5"]["status"] == "differs"
    assert by_id["vllm"]["scopes"][0]["attention_factor_ratio"] == pytest.approx(M4)
    neutral = {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    for key in ("rope_scaling", "rope_parameters"):
        config[key] = {**config[key], **neutral}
    done = json.loads(run(directory(tmp_path, config, steps), "--json").stdout)["engines"]
    status = {e["engine"]: e["status"] for e in done}
    assert status["transformers-5"] == status["vllm"] == status["sglang"] == "exact"
    assert status["llama.cpp"] == "differs"
    (line,) = [e["launch"] for e in done if e["engine"] == "llama.cpp"]
    assert "llama.rope.scaling.attn_factor=float:0.8782" in line
    marked = {**config, "yarncli_baked": baked.to_json()}
    found = {v.engine.id: v.status for v in judge(marked).verdicts}
    assert found["sglang"] == "exact"
    assert found["llama.cpp"] == "differs"


def test_a_residual_bake_keeps_yarns_own_temperature():
    plan, config = planned("yarn")
    baked = Baked(form="residual", side="k", layout="plain", attention_factor={"model": 1.05})
    steps = [
        Step(command="convert", source="here", plan=plan),
        Step(command="bake", source="here", baked=baked),
    ]
    intended = find_intended(read_model(config), History(tuple(steps)))
    assert intended["model"].attention_factor == pytest.approx(M4)
    assert misreadings(config, "llama.cpp", History(tuple(steps))) == []


@pytest.mark.parametrize("length", ["long", None, 2.5, True])
def test_a_record_with_an_impossible_length_is_refused(length, tmp_path):
    plan, config = planned("yarn")
    source = directory(tmp_path, config, [Step(command="convert", source="here", plan=plan)])
    record = json.loads((tmp_path / "yarncli.json").read_text())
    record["steps"][0]["plan"]["length"] = length
    (tmp_path / "yarncli.json").write_text(json.dumps(record))
    result = run(source)
    assert result.exit_code == 3
    assert "yarncli.json holds a step that yarncli did not write (step 1: plan." in result.stderr
    assert "length is " in result.stderr


def test_overrides_say_what_they_do():
    """The launch lines of vLLM and SGLang, parsed and judged again."""
    plan, config = planned("yarn", attention_factor=1.05)
    history = converted(plan)
    (sglang,) = judge(config, history, engines=["sglang"]).verdicts
    assert sglang.status == "differs"
    assert sglang.launch is not None
    assert sglang.launch_is_exact
    words = shlex.split(sglang.launch)
    fields = json.loads(words[words.index("--json-model-override-args") + 1])
    multiplier = fields["rope_parameters"]["attn_factor"]
    assert multiplier == pytest.approx(1.05 / M4)
    bare = {k: v for k, v in config.items() if k not in ("rope_scaling", "rope_theta")}
    assert misreadings({**bare, **fields}, "sglang", history) == []


def test_a_wrappers_override_is_nested():
    text = {k: v for k, v in LLAMA.items() if k != "model_type"} | {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 8192,
            "attention_factor": 1.05,
        },
        "max_position_embeddings": 32768,
    }
    config = {"model_type": "llava", "text_config": {"model_type": "llama", **text}}
    (found,) = judge(config, engines=["sglang"]).verdicts
    words = shlex.split(found.launch or "")
    fields = json.loads(words[words.index("--json-model-override-args") + 1])
    # Models of SGLang read the text part, or what loading copied from it to the outer config.
    assert fields.pop("text_config") == fields
    assert "rope_parameters" in fields
    config["text_config"]["max_position_embeddings"] = 8192
    (vllm,) = judge(config, engines=["vllm"]).verdicts
    words = shlex.split(vllm.launch or "")
    assert set(json.loads(words[words.index("--hf-overrides") + 1])) == {"text_config"}


def test_transformers_computes_what_its_override_promises(tmp_path):
    """The printed statements, run through transformers."""
    plan, config = planned("yarn")
    history = converted(plan)
    stale = {k: v for k, v in config.items() if k not in ("rope_scaling", "rope_parameters")}
    source = str(tmp_path)
    (found,) = judge(stale, history, engines=["transformers-5"], source=source).verdicts
    assert found.status == "ignores"
    assert found.launch is not None
    assert f'AutoConfig.from_pretrained("{source}")' in found.launch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = oracle.compute_line(stale, found.launch, 32768)
    (used,) = find_intended(read_model(config), history).values()
    assert result["scopes"]["model"]["inv_freq"] == pytest.approx(used.parameters.inv_freq())
    assert result["scopes"]["model"]["attention_factor"] == pytest.approx(M4)


def test_a_config_no_engine_can_read_is_a_table_of_refusals(tmp_path):
    config = LLAMA | {"rope_scaling": {"rope_type": "magic", "factor": 2.0}}
    result = run(directory(tmp_path, config), "--json")
    assert result.exit_code == 0
    entries = json.loads(result.stdout)["engines"]
    # llama.cpp's converter warns and goes on; nothing says what it should have computed.
    (converted,) = (e for e in entries if e["engine"] == "llama.cpp")
    assert converted["status"] == "differs"
    others = [e for e in entries if e is not converted]
    assert {e["status"] for e in others} <= {"refuses", "crashes", "unknown"}
    assert all("magic" in e["notes"][0] for e in others if e["status"] != "unknown")
    assert all(e["scopes"] == [] for e in others)


def test_an_unknown_engine_is_a_usage_error_that_lists_all(tmp_path):
    result = run(directory(tmp_path, LLAMA), "--engine", "vlm")
    assert result.exit_code == 2
    with pytest.raises(UsageError) as caught:
        get_engine("vlm")
    assert all(name in str(caught.value) for name in IDS)


def test_the_table_and_the_explanation(tmp_path):
    _, config = planned("linear")
    source = directory(tmp_path, config)
    table = run(source)
    assert table.exit_code == 0
    assert all(name in table.stdout for name in IDS)
    assert "--override-kv llama.context_length=int:32768" in table.stdout
    told = run(source, "--explain", "llama.cpp")
    assert "serves 8,192 tokens instead of 32,768" in told.stdout
    assert "attention scale" in told.stdout


def test_misreadings_are_empty_only_where_the_engine_is_right():
    plan, config = planned("yarn", attention_factor=1.05)
    history = converted(plan)
    assert misreadings(config, "vllm", history) == []
    assert misreadings(config, "sglang", history) == [
        "attention scale 1.139 instead of 1.05",
    ]
    with pytest.raises(UsageError):
        misreadings(config, "vlm")


def test_a_model_class_that_needs_head_dim_gets_it_by_override():
    config = LLAMA | {"model_type": "mixtral", "max_position_embeddings": 32768}
    config["rope_scaling"] = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    (found,) = judge(config, engines=["transformers-5"]).verdicts
    assert found.status == "crashes"
    assert "head_dim: 64" in found.notes[0]
    assert "'head_dim': 64" in (found.launch or "")
    assert misreadings(config | {"head_dim": 64}, "transformers-5") == []
