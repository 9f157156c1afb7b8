"""Loading: nothing that comes with a checkpoint changes a verdict or runs unasked."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation.local import memory
from yarncli.evaluation.local.greedy import greedy_text
from yarncli.evaluation.local.load import choose_dtype, load_model, load_tokenizer
from yarncli.evaluation.local.rotary import rope_frozen_at
from yarncli.evaluation.local.score import FastScorer
from yarncli.evaluation.passkey import Grid, local_cells
from yarncli.evaluation.session import evaluate_passkey
from yarncli.evaluation.settings import LoadSettings


@pytest.fixture
def copy(tmp_path, demo):
    for file in demo.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def edit(name, **values):
        path = tmp_path / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return tmp_path

    return edit


def test_sampling_defaults_do_not_matter(copy, demo, codec):
    directory = copy(
        "generation_config.json", do_sample=True, temperature=5.0, top_k=3, repetition_penalty=1.9,
        min_new_tokens=9, bad_words_ids=[[20]], max_length=20,
    )  # fmt: skip
    grid = Grid((256,), depths=3, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    wild, plain = (load_model(d, LoadSettings()) for d in (directory, demo))
    said = [[greedy_text(m, p, codec.decode) for p in prompts] for m in (wild, plain)]
    assert said[0] == said[1]


def test_remote_code_is_not_run(copy):
    directory = copy("config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (directory / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        load_model(directory, LoadSettings())
    directory = copy("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        load_tokenizer(directory)


def test_a_config_can_be_tried_without_writing_it(demo):
    config = json.loads((demo / "config.json").read_text())
    config["rope_scaling"] = {"type": "linear", "factor": 2.0}
    loaded = load_model(demo, LoadSettings(), config=config)
    plain = AutoModelForCausalLM.from_pretrained(demo)
    rotary, before = loaded.model.model.rotary_emb, plain.model.rotary_emb
    assert torch.allclose(rotary.inv_freq * 2, before.inv_freq)
    assert loaded.dtype == torch.float32


def test_auto_dtype_is_the_checkpoint_s_own_except_on_a_cpu():
    config = {"torch_dtype": "float16"}
    assert choose_dtype("auto", torch.device("cpu"), config) == torch.float32
    assert choose_dtype("auto", torch.device("cuda"), config) == torch.float16
    assert choose_dtype("auto", torch.device("cuda"), {"text_config": {"dtype": "bfloat16"}}) == (
        torch.bfloat16
    )
    with pytest.raises(UsageError, match="There is no dtype 'float8'"):
        choose_dtype("float8", torch.device("cpu"), config)


TEXT = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
TOWER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
SEEING = {
    "llava": {
        "text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 5,
        "vision_config": {**TOWER, "model_type": "clip_vision_model"},
    },
    "qwen2_vl": {
        "text_config": {**TEXT, "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7,
        "vision_end_token_id": 8,
    },
    "qwen3_5": {
        "text_config": {**TEXT, "num_hidden_layers": 4},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2,
                          "out_hidden_size": 64, "intermediate_size": 48},
        "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7,
        "vision_end_token_id": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", SEEING)
def test_a_multimodal_checkpoint_is_asked_with_text(model_type, tmp_path, codec):
    config = AutoConfig.for_model(model_type, **SEEING[model_type])
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).float().eval()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, LoadSettings())
    ids = torch.randint(9, 500, (1, 40))
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits)
    grid = Grid((90,), depths=2, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    found = list(FastScorer(loaded, codec.decode).score(prompts))
    expected = [greedy_text(loaded, prompt, codec.decode) for prompt in prompts]
    assert all(said.startswith(c.text) for c, said in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def without_rope(tmp_path_factory, demo):
    """A function that writes a small random model without RoPE, with the demo's tokenizer."""

    def write(model_type, **sizes):
        directory = tmp_path_factory.mktemp(model_type)
        config = AutoConfig.for_model(model_type, vocab_size=512, bos_token_id=0, eos_token_id=1,
                                      pad_token_id=2, **sizes)  # fmt: skip
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (directory / name).write_bytes((demo / name).read_bytes())
        return directory

    return write


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512}),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    ],
)
def test_a_model_without_rope_is_a_baseline(without_rope, codec, model_type, sizes):
    directory = without_rope(model_type, **sizes)
    report = evaluate_passkey(directory, lengths=(90, 130), depths=2, trials=1)
    caveat = report.caveats[0]
    assert f"{model_type} does not use RoPE" in caveat
    assert caveat.endswith("The model was measured unchanged, as a baseline.")
    grid = Grid((90, 130), depths=2, trials=1)
    loaded = load_model(directory, LoadSettings())
    for cell, prompt in zip(
        report.cells["as it is"], grid.prompts(codec.builder(grid)), strict=True
    ):
        said = greedy_text(loaded, prompt, codec.decode)
        assert said.startswith(cell.text)
        assert cell.correct == prompt.is_correct(said)


def test_positions_that_a_model_does_not_have_are_not_asked(without_rope):
    directory = without_rope("gpt2", n_embd=32, n_layer=2, n_head=2, n_positions=128)
    with pytest.raises(UsageError, match=r"for 128 positions, too few for a text of 134"):
        evaluate_passkey(directory, lengths=(90, 130), depths=1, trials=1)
    with pytest.raises(UsageError, match="Give --lengths"):
        evaluate_passkey(directory)


@pytest.mark.parametrize("device", ["cuda", "nonsense"])
def test_a_device_that_is_not_there(demo, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match=f"--device {device} cannot be used"):
        load_model(demo, LoadSettings(device=device))


def test_no_tokenizer(copy, tmp_path):
    copy("config.json")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="--tokenizer"):
        load_tokenizer(tmp_path)


def test_damaged_weights(copy):
    directory = copy("config.json")
    (directory / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(directory, LoadSettings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 4}, "lacks 9 tensors of its model, such as model.layers.3.input"),
        ({"vocab_size": 600}, r"embed_tokens.weight of shape \[512, 128\] but .* \[600, 128\]"),
        ({"hidden_size": 130}, "cannot be loaded: .*hidden size \\(130\\) is not a multiple"),
        ({"hidden_act": "magic"}, "cannot be loaded: .*magic"),
        ({"model_type": "magic"}, "cannot be loaded: .*magic"),
    ],
)
def test_weights_that_do_not_belong_to_the_config(copy, values, message):
    """transformers would make up random weights, or say so only in its log."""
    with pytest.raises(CheckpointError, match=message):
        load_model(copy("config.json", **values), LoadSettings())


def test_tensors_without_a_place_are_told(copy, codec):
    directory = copy("config.json", num_hidden_layers=2)
    grid = Grid((256,), depths=1, trials=1)
    told = []
    prompts = grid.prompts(codec.builder(grid))
    list(local_cells(directory, prompts, settings=LoadSettings(), codec=codec,
                     on_caveat=told.append))  # fmt: skip
    assert len(told) == 1
    assert "has 9 tensors that its model does not use, such as model.layers.2.input" in told[0]


def test_another_attention_is_really_taken(demo, codec, monkeypatch):
    from transformers.models.llama import modeling_llama

    grid = Grid((256,), depths=2, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    plain, calls, told = modeling_llama.eager_attention_forward, [], []
    monkeypatch.setattr(
        modeling_llama, "eager_attention_forward", lambda *a, **k: calls.append(1) or plain(*a, **k)
    )
    run = {"codec": codec, "on_caveat": told.append}
    fast = list(local_cells(demo, prompts, settings=LoadSettings(), **run))
    assert (calls, told) == ([], [])
    eager = LoadSettings(attn_implementation="eager")
    assert list(local_cells(demo, prompts, settings=eager, **run)) == fast
    assert len(calls) >= 2 * 3
    assert "as --attn-implementation eager does" in told[0]


def test_no_adapter_where_one_is_named(demo, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(demo, LoadSettings(adapter=str(tmp_path)))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_an_adapter_changes_the_model(copy, demo, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32),
        LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    settings = LoadSettings(adapter=str(tmp_path / "adapter"))
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        found = load_model(demo, settings).model(ids).logits
        assert torch.allclose(found, model(ids).logits, atol=1e-3)
        assert not torch.allclose(found, load_model(demo, LoadSettings()).model(ids).logits)


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 777),
        ({"rope_type": "dynamic", "factor": 4.0}, 100),
        (
            {
                "rope_type": "longrope", "original_max_position_embeddings": 256,
                "short_factor": [1.0] * 16, "long_factor": [3.0] * 16, "factor": 8.0,
            },
            300,
        ),
    ],
)  # fmt: skip
def test_frozen_frequencies_are_those_of_one_fresh_forward(scaled, rope, length):
    model = AutoModelForCausalLM.from_pretrained(
        scaled(rope, 2048 if "factor" not in rope else 256)
    )
    rotary = model.model.rotary_emb
    rotary(torch.zeros(1), torch.tensor([[length - 1]]))
    expected = rotary.inv_freq.clone()
    rotary(torch.zeros(1), torch.tensor([[1999]]))  # something longer in between
    with rope_frozen_at(model, length):
        rotary(torch.zeros(1), torch.tensor([[5]]))
        assert torch.equal(rotary.inv_freq, expected)
        rotary(torch.zeros(1), torch.tensor([[1500]]))
        assert torch.equal(rotary.inv_freq, expected)
    assert rotary.rope_type == rope["rope_type"]


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        # Falcon-7B has one key-value head of 64 in each of its 32 layers.
        ({"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71,
          "num_kv_heads": 71, "num_hidden_layers": 32, "multi_query": True}, 32 * 2 * 64),
        # Qwen3-Next-80B: 12 of its 48 layers have keys and values, 2 heads of 256.
        ({"model_type": "qwen3_next", "num_hidden_layers": 48, "num_key_value_heads": 2,
          "head_dim": 256, "full_attention_interval": 4}, 12 * 2 * 2 * 256),
        # Multimodal, and the cache of the fast path keeps all of what windows leave.
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 6, "head_dim": 256,
          "num_key_value_heads": 1, "sliding_window": 512}}, 6 * 2 * 256),
    ],
    ids=["falcon", "qwen3_next", "gemma3"],
)  # fmt: skip
def test_the_estimated_cache_is_that_of_the_layers_that_have_one(config, numbers):
    cpu = torch.device("cpu")
    found = memory.estimate(config, 1000, 8192, torch.bfloat16, cpu)
    assert (found.kv_cache, found.weights) == (numbers * 8192 * 2, 2000)


def test_what_cannot_fit_is_refused_before_loading(demo, codec, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 3_000_000)
    grid = Grid((2048,), depths=1, trials=1)
    prompts = grid.prompts(codec.builder(grid))
    with pytest.raises(UsageError, match=r"needs about 0\.\d GB .* 0\.0 GB are free on cpu"):
        next(local_cells(demo, prompts, settings=LoadSettings(), codec=codec, parameters=650_112))


def test_a_chunk_bounds_what_is_held_beside_the_cache():
    """Llama-3-8B's sizes; 0.2 of the cache, on a GPU of cache and weights, as the module says."""
    llama = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
             "num_attention_heads": 32, "num_key_value_heads": 8,
             "intermediate_size": 14336}  # fmt: skip
    for device in ("cpu", "cuda"):
        found = memory.estimate(llama, 8_030_261_248, 131072, torch.bfloat16, torch.device(device))
        assert found.weights == 16_060_522_496
        assert found.kv_cache == 131072 * 131072  # 128 kB a token
        # Where attention needs a mask, one layer's keys and values are repeated for 32 heads.
        repeated = 0 if device == "cpu" else 2 * 32 * 128 * 131072 * 2
        held = found.kv_cache + (0 if device == "cpu" else found.weights)
        assert 0.05 < (found.working - repeated) / held <= 0.2
    whole = memory.estimate(llama, 0, 131072, torch.bfloat16, torch.device("cpu"), whole=True)
    assert whole.chunk == 131072
    assert whole.working > found.kv_cache


def test_memory_that_runs_out_is_told(demo, codec):
    """In a process whose address space is bounded once everything is loaded."""
    script = """
import resource, sys
from pathlib import Path
from yarncli.errors import UsageError
from yarncli.evaluation.local import load
from yarncli.evaluation.passkey import Grid, local_cells, make_codec
from yarncli.evaluation.settings import LoadSettings

demo = Path(sys.argv[1])
codec = make_codec(demo, False)
grid = Grid((16384,), depths=1, trials=1)
prompts = grid.prompts(codec.builder(grid))
loaded = load.load_model(demo, LoadSettings())

def bounded(*arguments, **options):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, used + 20_000_000))
    return loaded

load.load_model = bounded
try:
    list(local_cells(demo, prompts, settings=LoadSettings(), codec=codec))
except UsageError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, demo], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Memory ran out with prompts of up to 16,384 tokens." in done.stdout
