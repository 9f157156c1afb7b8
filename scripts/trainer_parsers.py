"""Record that trainers' own parsers accept the files of `recipe`: tests/training/parsed.json.

    python scripts/trainer_parsers.py DIRECTORY [TRAINER …]

Each trainer is installed into a virtual environment of its own below DIRECTORY; torch and what
else it needs come from this one. Nothing is trained: their training needs a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import yaml

from yarncli import convert, recipe
from yarncli.demo import write_demo

RECORD = Path(__file__).resolve().parents[1] / "tests" / "training" / "parsed.json"
# All weights on several GPUs, and LoRA on one: together they have every key of a recipe.
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"tuning": "full", "gpus": 8}, "lora": {"tuning": "lora", "gpus": 1},
}  # fmt: skip
# What the trainers import besides torch: LLaMA-Factory and ms-swift both the first list. The others
# are the releases that the requirements of each name, or the last ones that they allow.
_BOTH = """
    addict==2.4.0 aiohappyeyeballs==2.7.1 aiohttp==3.14.5 aiosignal==1.4.0 attrs==26.1.0
    einops==0.8.2 frozenlist==1.8.0 httpcore==1.0.9 httpx==0.28.1 modelscope==1.40.2
    modelscope-hub==0.5.1 multidict==7.2.1 pandas==3.1.1 propcache==0.5.4 pyarrow==26.0.1
    python-dateutil==4.0.0 pytz==2026.6 sentencepiece==0.2.3 six==1.17.0 tiktoken==0.14.0
    tzdata==2026.6 xxhash==4.1.0 yarl==1.25.1
"""
_AXOLOTL = """
    accelerate==1.13.0 httpcore==1.0.9 httpx==0.28.1 huggingface-hub==1.17.0 peft==0.20.0
    tokenizers==0.23.1 transformers==5.16.1
"""
_LLAMAFACTORY = """
    accelerate==1.11.0 antlr4-python3-runtime==4.9.3 datasets==4.0.0 dill==0.3.8
    docstring-parser==0.18.0 fire==0.7.1 fsspec==2025.3.0 huggingface-hub==1.31.0
    multiprocess==0.70.16 omegaconf==2.4.0 peft==0.18.1 shtab==1.13.0 sse-starlette==3.7.0
    termcolor==3.3.0 tokenizers==0.22.2 torchdata==0.11.0 transformers==5.6.0 trl==0.24.0
    typeguard==4.6.1 tyro==0.8.14
"""
_SWIFT = """
    aliyun-python-sdk-core==2.16.1 aliyun-python-sdk-kms==2.16.5 attrdict==2.0.1 binpacking==2.0.1
    cffi==2.1.1 cpm-kernels==1.0.11 crcmod==1.7 cryptography==50.0.2 dacite==1.9.2 datasets==4.8.4
    dill==0.4.1 importlib-metadata==10.2.0 jmespath==1.1.0 json-repair==0.64.6 multiprocess==0.70.19
    nltk==3.10.4 oss2==2.19.1 peft==0.20.0 pycparser==3.12 pycryptodome==4.4.0 rouge==1.0.1
    simplejson==4.3.0 sortedcontainers==2.4.0 tensorboard==2.21.0 transformers==5.19.0
    transformers-stream-generator==0.0.5 trl==0.29.1 zipp==4.1.2 zstandard==0.25.0
"""
PACKAGES = {
    # The last one for Python 3.11. Most of what it requires has to do with GPUs, and is left out.
    "axolotl": ["axolotl==0.19.0", "addict==2.4.0", *_AXOLOTL.split()],
    "llamafactory": ["llamafactory==0.9.5", *_BOTH.split(), *_LLAMAFACTORY.split()],
    "swift": ["ms-swift==4.6.0", *_BOTH.split(), *_SWIFT.split()],
}
# Versions that are recorded besides that of the trainer.
_TOLD = ("transformers", "peft", "accelerate", "torch")
# Each program reads train.yaml and prints what its parser understood.
PARSERS = {
    "axolotl": """
from axolotl.utils.schemas.config import AxolotlInputConfig
found = AxolotlInputConfig(**yaml.safe_load(open(sys.argv[1])))
show(found, "sequence_len excess_length_strategy adam_beta2 fsdp_version lora_r plugins")
""",
    "llamafactory": """
from llamafactory.hparams import get_train_args
given = yaml.safe_load(open(sys.argv[1]))
model, data, training, tuning, _ = get_train_args({**given, "bf16": False})  # no GPU here
show(model, "rope_scaling")
show(data, "cutoff_len packing")
show(training, "adam_beta2 max_steps")
show(tuning, "stage finetuning_type lora_target additional_target")
""",
    "swift": """
from swift.cli.main import parse_yaml_args
from swift.arguments import PretrainArguments
from swift.utils import parse_args
given = [sys.argv[1]]
parse_yaml_args(given)
# For a local directory it asks for these two, as the file says.
found, rest = parse_args(PretrainArguments, [*given, "--model_type=llama", "--template=llama"])
assert not rest, rest
show(found, "rope_scaling max_model_len max_length truncation_strategy tuner_type fsdp adam_beta2")
""",
}
_BEGIN = """
import importlib.metadata, json, sys, yaml
seen = {}
def show(found, names):
    seen.update((name, getattr(found, name)) for name in names.split())
"""
_END = """
names = json.loads(sys.argv[2])
versions = {name: importlib.metadata.version(name) for name in names}
print(json.dumps({"versions": versions, "understood": seen}, default=str))
"""


def environment(trainer: str, root: Path) -> Path:
    """The interpreter of the environment of a trainer; creates the environment if it is missing."""
    place = root / trainer
    python, done = place / "bin" / "python", place / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, *PACKAGES[trainer]], check=True)
        (packages,) = place.glob("lib/python*/site-packages")
        (packages / "main.pth").write_text(sysconfig.get_path("purelib"))
        done.touch()
    return python


def parse(trainer: str, python: Path, work: Path, converted: Path) -> dict[str, Any]:
    """What the parser of a trainer understands of the files, by variant."""
    record: dict[str, Any] = {"given": {}, "understood": {}}
    names = [PACKAGES[trainer][0].split("==")[0], *_TOLD]
    for variant, options in VARIANTS.items():
        out = work / f"{trainer}-{variant}"
        recipe(converted, out, trainer=trainer, train_length=1024, **options)
        program = _BEGIN + PARSERS[trainer] + _END
        command = [python, "-c", program, "train.yaml", json.dumps(names)]
        done = subprocess.run(command, cwd=out, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        record |= {"versions": told["versions"]}
        record["given"][variant] = given(out / "train.yaml", converted)
        record["understood"][variant] = told["understood"]
    return record


def given(path: Path, converted: Path) -> dict[str, Any]:
    """The settings in a file, with CONVERTED instead of the path of the checkpoint."""
    text = path.read_text(encoding="utf-8").replace(str(converted.resolve()), "CONVERTED")
    return dict(yaml.safe_load(text))


def main(root: Path, chosen: list[str]) -> None:
    """Parse with each trainer and write the record."""
    import tempfile

    made = {}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        converted = work / "converted"
        convert(write_demo(work / "model"), converted, factor=8)
        for trainer in chosen or PARSERS:
            made[trainer] = parse(trainer, environment(trainer, root), work, converted)
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    record |= made
    RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
