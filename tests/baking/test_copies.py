"""One tensor in two shards: every copy is multiplied, and copies that differ are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from yarncli.baking import copies
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import WeightsError

ONE, TWO = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
K = "model.layers.0.self_attn.k_proj.weight"


@pytest.fixture
def copied(handmade):
    """A function: a checkpoint whose second shard holds a tensor of the first as well."""

    def make(change=lambda tensor: tensor, name=K):
        source = handmade()
        first, second = (load_file(source / shard) for shard in (ONE, TWO))
        save_file({**second, name: change(first[name])}, source / TWO, {"format": "pt"})
        return source

    return make


def decided(source, **settings):
    return decide_bake(open_checkpoint(str(source)), BakeSettings(**settings))


@pytest.mark.parametrize("listed", [ONE, TWO])
def test_all_copies_are_multiplied_alike(
    listed, copied, tmp_path, bake_directory, attention_factor, monkeypatch
):
    monkeypatch.setattr(copies, "_CHUNK", 100)  # several pieces, the last one shorter
    source = copied()
    index = source / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][K] = listed
    index.write_text(json.dumps(content))
    old = load_file(source / ONE)[K]
    bake_directory(source, tmp_path / "out", side="k")
    for shard in (ONE, TWO):
        new = load_file(tmp_path / "out" / shard)[K]
        assert np.allclose(new, old * attention_factor**2, rtol=1e-6), shard


def nudged(tensor):
    made = tensor.copy()
    made[-1, -1] += 1
    return made


@pytest.mark.parametrize(
    "change",
    [nudged, lambda t: t.astype(np.float16), lambda t: np.ascontiguousarray(t[:8])],
    ids=["bytes", "dtype", "shape"],
)
def test_copies_that_differ_are_refused(change, copied):
    with pytest.raises(WeightsError, match=K) as caught:
        decided(copied(change))
    assert ONE in str(caught.value)
    assert TWO in str(caught.value)


def test_a_copy_of_what_is_not_multiplied_does_not_matter(copied):
    source = copied(lambda tensor: tensor + 1, name="model.embed_tokens.weight")
    assert len(decided(source).edits) == 2


def test_copies_on_the_hub_are_compared_there(copied, minihub):
    minihub.add_repo("org/alike", copied())
    assert len(decide_bake(open_checkpoint("org/alike")).edits) == 3


def test_copies_on_the_hub_that_differ_are_refused(copied, minihub):
    minihub.add_repo("org/other", copied(nudged))
    with pytest.raises(WeightsError, match=K):
        decide_bake(open_checkpoint("org/other"))
    assert not list(minihub.cache.rglob("*.safetensors"))
