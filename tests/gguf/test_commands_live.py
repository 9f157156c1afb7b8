"""llama.cpp itself on files that the commands wrote: the golden logits."""

from __future__ import annotations

import numpy as np
import pytest

from support.gguf_files import Arrays, demo_keys, write_gguf
from support.gguf_settings import GOLDEN, LENGTH, PLACES, distance
from support.llamacpp import Job, Outcome, run
from support.program import invoke

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("runtime")]

TOLERANCE = 2e-3
HOT = "yarn 8, temperature 1.3 (attn_factor 1.3/m)"
# Golden setting → how the commands write it, in order.
COMMANDS = {
    "plain, undone": ["convert --in-place --factor 8 --no-truncate", "convert --undo"],
    "linear 8": ["convert --in-place --factor 8 --method linear"],
    "yarn 8": ["convert --in-place --factor 8"],
    "yarn 8 truncate false, rope_freqs + attn_factor m": [
        "convert --in-place --factor 8 --no-truncate"
    ],
    "llama3 8, rope_freqs": ["convert --in-place --factor 8 --method llama3"],
    HOT: ["convert --in-place --factor 8 --attention-factor 1.3"],
    **{
        f"{HOT}, baked by {carrier}": [
            "convert --in-place --factor 8",
            f"bake --in-place --attention-factor 1.3 --carrier {carrier}",
        ]
        for carrier in ("key", "scale", "weights")
    },
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, demo_tensors: Arrays) -> dict[str, Outcome]:
    folder, jobs = tmp_path_factory.mktemp("commands"), []
    for n, commands in enumerate(COMMANDS.values()):
        path = write_gguf(folder / f"{n}.gguf", demo_keys(), demo_tensors)
        for command in commands:
            name, *words = command.split()
            invoke(name, path, *words, code=0)
        window = 256 if commands[-1].endswith("--undo") else LENGTH
        tokens, places = (GOLDEN["tokens"], PLACES) if window == LENGTH else ([5, 9, 33], (0, 1, 2))
        jobs.append(Job(str(path), tokens, places, window))
    plain = write_gguf(folder / "plain.gguf", demo_keys(), demo_tensors)
    jobs.append(Job(str(plain), [5, 9, 33], (0, 1, 2), 256))
    return dict(zip([*COMMANDS, "plain"], run(jobs), strict=True))


@pytest.mark.parametrize("name", [name for name in COMMANDS if "undone" not in name])
def test_llama_cpp_gives_the_golden_logits(name: str, outcomes: dict[str, Outcome]) -> None:
    given = outcomes[name]
    assert given.logits is not None, given.said
    assert given.window == LENGTH
    assert distance(given.logits, name.partition(", baked")[0]) < TOLERANCE


def test_what_is_undone_is_the_file_of_before(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["plain, undone"].logits is not None
    assert np.array_equal(outcomes["plain, undone"].logits, outcomes["plain"].logits)
