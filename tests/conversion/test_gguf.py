"""`convert` on GGUF files: what gguf-py reads from them gives the logits that llama.cpp gave."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from support.gguf_files import Arrays, demo_arrays, demo_keys, read_gguf, write_gguf
from support.gguf_models import write_gguf as write_split
from support.gguf_oracle import demo_logits
from support.gguf_settings import (
    GOLDEN,
    LENGTH,
    PLACES,
    SETTINGS,
    TOKENS,
    TOLERANCE,
    distance,
)
from support.program import invoke
from yarncli.conversion.convert import convert, plan
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.gguf.facts import Typed
from yarncli.gguf.runtime import Computed, run
from yarncli.gguf.source import open_gguf
from yarncli.planning.writing import rope_dict
from yarncli.rules.check import check

SIZES = {
    "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "head_dim": 32,
    "num_hidden_layers": 3, "max_position_embeddings": 256, "rope_theta": 10000.0,
}  # fmt: skip
LISTS = ",".join(str(1 + i / 8) for i in range(16))
# The golden settings that a method and its options name.
WORDS = {
    "linear 8": "--method linear",
    "ntk 8": "--method ntk",
    "yarn 8": "",
    "yarn 8, temperature 1 (attn_factor 1/m)": "--attention-factor 1",
    "yarn 8, temperature 1.3 (attn_factor 1.3/m)": "--attention-factor 1.3",
    "yarn 8 betas 64/2, rope_freqs + attn_factor m": "--beta-fast 64 --beta-slow 2",
    "yarn 8 truncate false, rope_freqs + attn_factor m": "--no-truncate",
    "llama3 8, rope_freqs": "--method llama3",
    "longrope long factors, rope_freqs + attn_factor": f"--method longrope --long-factor {LISTS} "
    f"--short-factor {LISTS} --attention-factor 1.17",
    "ntk-by-parts 8, rope_freqs": "--method ntk-by-parts",
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return demo_arrays(Path(tmp_path_factory.mktemp("demo"), "demo"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, arrays: Arrays) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "demo.gguf", demo_keys(), arrays)


def checkpoint(place: Path, name: str) -> Path:
    """A config with a golden setting."""
    p = SETTINGS[name]
    scaled = {} if p.rope_type == "default" else {"rope_scaling": rope_dict(p)}
    maximum = p.max_position_embeddings
    config = {**SIZES, "max_position_embeddings": maximum, "rope_theta": p.rope_theta, **scaled}
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    return place


def computed(path: Path) -> Computed:
    found = run(read_gguf(path), context=LENGTH)
    assert isinstance(found, Computed)
    return found


def insist_on_golden(path: Path, name: str, arrays: Arrays) -> None:
    """llama.cpp gave the golden logits for what the file says, and no weight is another."""
    found = computed(path)
    logits = demo_logits(found.inv_freq, found.attention_factor, TOKENS, PLACES)
    assert distance(logits, name) < TOLERANCE
    assert found.served_length == LENGTH
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    assert all(np.array_equal(tensors[key], array) for key, array in arrays.items())


@pytest.mark.parametrize("name", WORDS)
def test_every_method_gives_the_golden_logits(
    name: str, demo: Path, arrays: Arrays, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    invoke("convert", demo, out, "--factor", 8, *WORDS[name].split(), code=0)
    insist_on_golden(out, name, arrays)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint_gives_the_golden_logits(
    name: str, demo: Path, arrays: Arrays, tmp_path: Path
) -> None:
    # Before it, the file is scaled otherwise: that goes.
    old, out = tmp_path / "old.gguf", tmp_path / "out.gguf"
    invoke("convert", demo, old, "--factor", 3, "--no-truncate", code=0)
    source = checkpoint(tmp_path / "model", name)
    if name == "linear 8":  # whose window is the original one times the factor
        assert SETTINGS[name].max_position_embeddings == 256
    found = invoke("convert", old, out, "--from", source, code=0)
    assert f"RoPE of {source}: {SETTINGS[name].rope_type}, 2,048 tokens" in found.stdout
    insist_on_golden(out, name, arrays)


def test_every_golden_setting_is_written() -> None:
    assert SETTINGS.keys() == GOLDEN["cases"].keys() == {*WORDS, "plain"}


def test_what_is_printed(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = invoke("convert", demo, "out dir.gguf", "--factor", 8, "--no-truncate", code=0).stdout
    assert told.splitlines() == [
        "yarn: 256 → 2,048 tokens, factor 8 (original from llama.context_length)",
        "  llama.context_length 256 → 2048",
        "  llama.rope.scaling.original_context_length absent → 256",
        "  llama.rope.scaling.attn_factor absent → 1.2079442",
        "  rope_freqs.weight absent → F32 [16]",
        "llama.cpp: llama-server -m 'out dir.gguf' -c 2048",
        "Ollama, as a Modelfile:",
        "  FROM ./out dir.gguf",
        "  PARAMETER num_ctx 2048",
    ]
    told = invoke("convert", "out dir.gguf", "--undo", code=0).stdout
    assert "  rope_freqs.weight F32 [16] → absent" in told.splitlines()


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_in_place_and_back(demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(demo.read_bytes())
    invoke("convert", path, "--in-place", "--factor", 4, "--attention-factor", 1.3, code=0)
    assert computed(path).attention_factor == pytest.approx(1.3)
    once = digest(path)
    invoke("convert", path, "--in-place", "--length", 2048, "--rescale", code=0)
    assert computed(path).served_length == 2048
    assert read_gguf(path).get("rope.scaling.factor") == 8
    invoke("convert", path, "--undo", code=0)
    assert digest(path) == once
    invoke("convert", path, "--undo", code=0)
    assert digest(path) == digest(demo)


def test_a_dry_run_writes_nothing(demo: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "out.gguf", digest(demo)
    found = json.loads(invoke("convert", demo, out, "--factor", 8, "--dry-run", "--json").stdout)
    assert not out.exists()
    assert digest(demo) == before
    assert found["written"] is False
    assert found["plan"]["length"] == LENGTH
    assert found["computed"]["attention_factor"] == pytest.approx(1.2079442)
    assert {c["path"][0] for c in found["changes"]} == {
        f"llama.{key}" for key in ("context_length", "rope.scaling.type", "rope.scaling.factor",
                                   "rope.scaling.original_context_length")
    }  # fmt: skip
    assert found["modelfile"] == f"FROM {out}\nPARAMETER num_ctx 2048\n"
    assert found["launch"][0]["launch"] == f"llama-server -m {out} -c 2048"


def test_a_scaled_file_is_scaled_on_or_anew(demo: Path, tmp_path: Path) -> None:
    once = tmp_path / "once.gguf"
    invoke("convert", demo, once, "--method", "llama3", "--factor", 4, code=0)
    told = invoke("convert", once, tmp_path / "no.gguf", "--factor", 8, code=3).output
    assert "--rescale" in told
    invoke("convert", once, tmp_path / "on.gguf", "--rescale", "--length", 2048, code=0)
    on, golden = computed(tmp_path / "on.gguf"), SETTINGS["llama3 8, rope_freqs"]
    assert on.inv_freq == pytest.approx(golden.inv_freq(), rel=1e-6)
    words = ["--replace-scaling", "--original-length", 256, "--factor", 8]
    invoke("convert", once, tmp_path / "anew.gguf", *words, code=0)
    assert computed(tmp_path / "anew.gguf").inv_freq == pytest.approx(
        SETTINGS["yarn 8"].inv_freq(), rel=1e-6
    )


NAMELESS = {
    "--no-truncate": "yarn 8 truncate false, rope_freqs + attn_factor m",
    "--beta-fast 64 --beta-slow 2": "yarn 8 betas 64/2, rope_freqs + attn_factor m",
    "--method ntk-by-parts": "ntk-by-parts 8, rope_freqs",
}


@pytest.mark.parametrize("words", NAMELESS)
def test_what_stands_in_a_tensor_is_scaled_on_by_its_record(
    words: str, demo: Path, arrays: Arrays, tmp_path: Path
) -> None:
    once, on = tmp_path / "once.gguf", tmp_path / "on.gguf"
    invoke("convert", demo, once, "--factor", 4, *words.split(), code=0)
    invoke("convert", once, on, "--rescale", "--length", LENGTH, code=0)
    insist_on_golden(on, NAMELESS[words], arrays)
    invoke("convert", on, "--undo", code=0)
    assert on.read_bytes() == once.read_bytes()


def test_a_record_that_the_tensor_does_not_bear_out_is_not_gone_by(
    demo: Path, tmp_path: Path
) -> None:
    once = tmp_path / "once.gguf"
    invoke("convert", demo, once, "--factor", 4, "--no-truncate", code=0)
    header = open_gguf(once).header
    data = bytearray(once.read_bytes())
    place = header.data_start + header.tensors["rope_freqs.weight"].offset + 4 * 15
    data[place : place + 4] = struct.pack("<f", 3.99)
    once.write_bytes(data)
    words = ["--rescale", "--length", LENGTH]
    told = invoke("convert", once, tmp_path / "on.gguf", *words, code=3).output
    assert "cannot be rescaled" in " ".join(told.split())


def test_ntk_is_not_done_twice(demo: Path, tmp_path: Path) -> None:
    once = tmp_path / "once.gguf"
    invoke("convert", demo, once, "--method", "ntk", "--factor", 4, code=0)
    told = invoke("convert", once, tmp_path / "no.gguf", "--factor", 8, code=3).output
    assert "already extended" in " ".join(told.split())


def test_a_blob_without_an_ending(demo: Path, tmp_path: Path) -> None:
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(demo.read_bytes())
    made = convert(blob, tmp_path / "out.gguf", factor=8.0)
    assert made.written
    assert computed(tmp_path / "out.gguf").served_length == LENGTH
    assert plan(blob, factor=4.0).length == 1024


def test_from_the_hub(demo: Path, tmp_path: Path, minihub: Any) -> None:
    minihub.add_repo("org/name", {"Q8/m.gguf": demo.read_bytes()})
    out = tmp_path / "out.gguf"
    invoke("convert", "hf://org/name/Q8/m.gguf", "--dry-run", "--factor", 8, code=0)
    invoke("convert", "hf://org/name/Q8/m.gguf", out, "--factor", 8, code=0)
    assert computed(out).served_length == LENGTH
    told = invoke("convert", "hf://org/name/Q8/m.gguf", "--in-place", "--factor", 8, code=2)
    assert "needs a file on this machine" in " ".join(told.output.split())


def test_a_split_model(tmp_path: Path) -> None:
    first = write_split(tmp_path / "m.gguf", split=3)
    out = tmp_path / "long-00001-of-00003.gguf"
    told = invoke("convert", first, out, "--factor", 2, "--no-truncate", code=0).stdout
    assert len(list(tmp_path.glob("long-*.gguf"))) == 3
    assert "split.tensors.count" in told
    assert "Modelfile" not in told
    told = invoke("convert", first, tmp_path / "long.gguf", "--factor", 2, code=2).output
    assert "must end in -00001-of-00003.gguf" in " ".join(told.split())


REFUSED = {
    "for checkpoints": ["OUT", "--factor", 8, "--for", "vllm"],
    "--bake is for": ["OUT", "--factor", 8, "--bake"],
    "--weights is for": ["OUT", "--factor", 8, "--weights", "hardlink"],
    "every number from the checkpoint": ["OUT", "--factor", 8, "--from", "MODEL"],
    "OUT, or --in-place": ["--factor", 8],
    "already exists": ["SOURCE", "--factor", 8],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_refused(said: str, demo: Path, tmp_path: Path) -> None:
    places = {"OUT": tmp_path / "out.gguf", "MODEL": tmp_path, "SOURCE": tmp_path / "there.gguf"}
    (tmp_path / "there.gguf").write_text("no GGUF")
    words = [places.get(str(word), word) for word in REFUSED[said]]
    assert said in " ".join(invoke("convert", demo, *words, code=2).output.split())
    assert not (tmp_path / "out.gguf").exists()


def test_from_is_for_gguf_files(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", "yarn 8")
    with pytest.raises(UsageError, match="SOURCE is not one"):
        convert(source, tmp_path / "out", from_=source)
    with pytest.raises(UsageError, match="plans no extension"):
        plan(
            write_gguf(
                tmp_path / "m.gguf",
                demo_keys(),
                {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)},
            ),
            from_=source,
        )


def test_layers_with_a_window_must_rotate_alike(tmp_path: Path) -> None:
    """Gemma 3: what the checkpoint says of its windowed layers must hold in the file, too."""
    keys = {k.replace("llama.", "gemma3."): v for k, v in demo_keys().items()}
    keys |= {"general.architecture": Typed("str", "gemma3"),
             "gemma3.rope.freq_base": Typed("f32", 1e6),
             "gemma3.attention.sliding_window": Typed("u32", 64)}  # fmt: skip
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    path = write_gguf(tmp_path / "m.gguf", keys, arrays)
    config = {
        **SIZES, "model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
        "max_position_embeddings": 2048, "sliding_window": 64, "num_hidden_layers": 6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = convert(path, tmp_path / "out.gguf", from_=tmp_path / "config.json")
    assert {c.path[0] for c in made.changes} >= {"gemma3.rope.scaling.factor"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_local_base_freq": 5000.0}))
    with pytest.raises(UnsupportedArchitectureError, match="that attend within a window"):
        convert(path, tmp_path / "no.gguf", from_=tmp_path / "config.json")
    (finding,) = check(tmp_path / "out.gguf", against=tmp_path / "config.json").findings
    assert finding.message.endswith("layers with a window of 64 tokens are rotated differently.")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not check(tmp_path / "out.gguf", against=tmp_path / "config.json").findings


def test_qwen2_takes_no_frequencies(tmp_path: Path) -> None:
    keys = {k.replace("llama.", "qwen2."): v for k, v in demo_keys().items()}
    keys["general.architecture"] = Typed("str", "qwen2")
    path = write_gguf(
        tmp_path / "m.gguf", keys, {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    )
    told = invoke("convert", path, tmp_path / "o.gguf", "--factor", 4, "--no-truncate", code=3)
    assert "refuses to load" in " ".join(told.output.split())
    assert not (tmp_path / "o.gguf").exists()


def test_a_folder_of_quantisations(tmp_path: Path, arrays: Arrays) -> None:
    folder, out = tmp_path / "model", tmp_path / "long"
    folder.mkdir()
    for kind in ("F32", "Q8_0", "Q4_0"):
        types = {name: kind for name in arrays if name.endswith("attn_k.weight")}
        write_gguf(folder / f"m-{kind}.gguf", demo_keys(), arrays, types)
    for kind in ("mmproj", "imatrix"):
        keys = {**demo_keys(), "general.type": Typed("str", kind)}
        write_gguf(folder / f"{kind}.gguf", keys, {"x": np.ones(4, np.float32)})
    (folder / "README.md").write_text("# A model\n")
    words = ("--factor", 8, "--no-truncate")
    found = invoke("convert", folder, "--dry-run", *words, code=0)
    assert not out.exists()
    found = invoke("convert", folder, out, *words, code=0)
    names = [f"m-{kind}.gguf" for kind in ("F32", "Q4_0", "Q8_0")]
    assert sorted(path.name for path in out.iterdir()) == names
    told = " ".join(found.output.split())
    for kind in ("mmproj", "imatrix"):
        assert f"Not changed: {kind}.gguf is not a model: its general.type is '{kind}'" in told
    name = "yarn 8 truncate false, rope_freqs + attn_factor m"
    insist_on_golden(out / "m-F32.gguf", name, arrays)
    for each in names:
        assert f"llama-server -m {out / each} -c 2048" in told
        assert computed(out / each).inv_freq == computed(out / names[0]).inv_freq
    assert "already exists" in invoke("convert", folder, out, *words, code=2).output
    found = json.loads(invoke("convert", folder, "--dry-run", *words, "--json", code=0).stdout)
    assert len(found["files"]) == 3
    assert sorted(found["left"]) == ["imatrix.gguf", "mmproj.gguf"]


def test_a_folder_of_several_models_is_refused(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(demo.read_bytes())
    invoke("convert", demo, folder / "b.gguf", "--method", "linear", "--factor", 2, code=0)
    words = ("--rescale", "--factor", 2)
    assert invoke("convert", folder, tmp_path / "out", *words).exit_code in (2, 3)
    keys = {**demo_keys(), "llama.rope.freq_base": Typed("f32", 5e5)}
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    write_gguf(folder / "b.gguf", keys, arrays)
    told = invoke("convert", folder, tmp_path / "out", "--factor", 2, code=2).output
    assert "a.gguf and b.gguf are not of one model" in " ".join(told.split())
    (folder / "b.gguf").unlink()
    (folder / "a.gguf").write_bytes(b"GGUF")
    told = invoke("convert", folder, tmp_path / "out", "--factor", 2, code=3).output
    assert "holds no GGUF file of a language model" in " ".join(told.split())
    assert not (tmp_path / "out").exists()


def test_undo_writes_another_file_where_one_is_named(
    arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gguf(Path("m.gguf"), demo_keys(), arrays)
    invoke("convert", "m.gguf", "m8.gguf", "--factor", "8", code=0)
    made = Path("m8.gguf").read_bytes()
    assert "yarn" in invoke("convert", "m8.gguf", "back.gguf", "--undo", code=0).stdout
    assert Path("back.gguf").read_bytes() == Path("m.gguf").read_bytes()
    assert Path("m8.gguf").read_bytes() == made
    told = invoke("convert", "m8.gguf", "back.gguf", "--undo", code=2).stderr
    assert "back.gguf" in told
    assert "exists" in told
    assert "OUT" in invoke("convert", "m8.gguf", "x.gguf", "--undo", "--in-place", code=2).stderr
