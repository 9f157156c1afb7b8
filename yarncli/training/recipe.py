"""The whole of `yarncli recipe`: the files with which a trainer fine-tunes a conversion."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

from yarncli import __version__
from yarncli.checkpoint import output
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import History
from yarncli.options import checked
from yarncli.planning.rope_plan import RopePlan
from yarncli.rope.methods import METHODS
from yarncli.training.deciding import history_of
from yarncli.training.memory import RANK, Memory, estimate, trained_modules
from yarncli.training.rows import Counted, count
from yarncli.training.trainers import FOLDER, Trainer, get_trainer

SCHEMA_VERSION = 1
# arXiv:2309.00071, §4.1 and §4.2.
_BATCH, _STEPS = 64, 400
# Options that tell a trainer with its own launcher to split the weights over the GPUs.
_SHARDING = {
    "axolotl": "fsdp_version: 2\nfsdp_config:\n  auto_wrap_policy: TRANSFORMER_BASED_WRAP\n"
    "  reshard_after_forward: true\n  state_dict_type: FULL_STATE_DICT\n",
    "swift": "fsdp: fsdp2\n",
}
_GUARD = "yarncli_guard"
_TESTED = {
    "run": "These files were run with this version.",
    "parsed": "The parser of this version accepts these files; no training was run with them.",
}
_LARGE_SHARE = 0.3  # of the peak; a suggestion is made for a part that is larger


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What to train, and with what."""

    trainer: str = "transformers"
    """The id of the trainer."""
    train_length: int | None = None
    """The length of the training rows, tokens."""
    stage2: int | None = None
    """The window of a second stage, tokens; None for one stage."""
    data: Path | None = None
    """A file of texts, JSON lines or parquet; None: give it to the written script later."""
    gpus: int = 1
    """The number of GPUs."""
    tuning: Literal["full", "lora"] = "full"
    """Train all weights, or adapters with norms and embeddings."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The files for a trainer, and what the training will need."""

    converted: Checkpoint
    """What will be trained."""
    trainer: Trainer
    """With what."""
    options: RecipeOptions
    """The options of the caller."""
    plan: RopePlan
    """The setting that is trained."""
    files: Mapping[str, str]
    """Name → content."""
    memory: Memory | None
    """Memory of one step on each GPU; None if there are no weights to count."""
    counted: Counted | None
    """The counted rows of the data; None without data."""
    notes: tuple[str, ...]
    """Sentences that the user should read."""
    output: Path
    """The directory of the files."""

    def to_json(self) -> dict[str, Any]:
        """The document of `recipe --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "trainer": self.trainer.to_json(),
            "train_length": self.options.train_length,
            "stage2": self.options.stage2,
            "tuning": self.options.tuning,
            "files": list(self.files),
            "output": str(self.output),
            "memory": self.memory and self.memory.to_json(),
            "data": self.counted and self.counted.to_json(),
            "notes": list(self.notes),
        }


def recipe(
    converted: str | Path | Checkpoint,
    out: str | Path,
    options: RecipeOptions = RecipeOptions(),
    **changes: Any,
) -> Recipe:
    """Write the files with which an existing trainer fine-tunes a conversion.

    The files hold no RoPE option, because the checkpoint has its setting. They set the options with
    which a trainer would otherwise cut or drop long texts silently, and they call `guard`.

    Args:
        converted: the conversion, a directory or a Hub id.
        out: the directory to write.
        options: what to train.
        changes: fields of `options` to replace, by name.

    Raises:
        UsageError: the lengths do not fit the conversion, no text of the data is long enough,
            there is no such recipe, or the output exists.
        CheckpointError: `converted` is not a conversion, or cannot be read.
        MissingExtraError: the data cannot be counted here.
        HubError: the conversion cannot be read.
        OutputError: something cannot be written.

    Example:
        >>> recipe("model-128k", "recipe", trainer="trl", train_length=32768)  # doctest: +SKIP
    """
    options, out = checked(options, changes), Path(out)
    trainer = get_trainer(options.trainer)
    checkpoint = open_checkpoint(converted)
    history = history_of(checkpoint)
    rope = read_rope(checkpoint.config().value)
    if history.plan is None:
        raise CheckpointError(
            f"{checkpoint.name} has no yarncli.json, so it is not a conversion by yarncli. Extend "
            "the model first with: yarncli convert SOURCE OUT --length TOKENS"
        )
    length = _checked_length(options, history.plan, checkpoint)
    output.check_destination(out, source=None, overwrite=False)
    counted = count(options.data, checkpoint, length) if options.data else None
    memory = None
    if checkpoint.headers():
        memory = estimate(
            checkpoint, rope, length, gpus=options.gpus, lora=options.tuning == "lora"
        )
    notes = tuple(_notes(options, length, history, memory))
    values = _values(checkpoint, trainer, options, length, memory, rope, history.plan)
    files = _files(trainer, options, values)
    with output.output_directory(out) as staging:
        for name, text in files.items():
            output.write_new(staging / name, text.encode())
    return Recipe(
        converted=checkpoint, trainer=trainer, options=options, plan=history.plan, files=files,
        memory=memory, counted=counted, notes=notes, output=out,
    )  # fmt: skip


def _files(trainer: Trainer, options: RecipeOptions, values: Mapping[str, str]) -> dict[str, str]:
    """Name → content of every file."""
    files = {name: _filled(place, values) for name, place in trainer.files.items()}
    if options.gpus > 1 and "{accelerate}" in trainer.start:
        files["accelerate.yaml"] = _filled("accelerate.yaml.txt", values)
    if options.stage2 and "train.yaml" in files:
        files["train-2.yaml"] = (
            files["train.yaml"]
            .replace(values["converted"], '"stage2"')
            .replace("output_dir: trained", "output_dir: trained-2")
            .replace(f"max_steps: {_STEPS}", f"max_steps: {_STEPS // 2}")
            .replace(f"{_GUARD}.py", f"{_GUARD}_2.py")
        )
        if values["converted"] in files.get(f"{_GUARD}.py", ""):
            again = {**values, "converted": '"stage2"'}
            files[f"{_GUARD}_2.py"] = _filled(trainer.files[f"{_GUARD}.py"], again)
    if options.tuning == "lora":
        files["merge.py"] = _filled("merge.py.txt", values)
    files["README.md"] = _filled("README.md.txt", values)
    return files


def _checked_length(options: RecipeOptions, plan: RopePlan, checkpoint: Checkpoint) -> int:
    length, stage2 = options.train_length, options.stage2
    if length is None or length < 1:
        raise UsageError("Give the length of the training texts in tokens: --train-length 32k.")
    if length > plan.length:
        raise UsageError(
            f"--train-length {length:,} is more than the {plan.length:,} tokens of "
            f"{checkpoint.name}. Train on shorter texts, or convert to a longer window first."
        )
    if options.gpus < 1:
        raise UsageError(f"--gpus {options.gpus} is not a positive number.")
    if stage2 is not None:
        if stage2 <= plan.length:
            raise UsageError(
                f"--stage2 {stage2:,} is not more than the {plan.length:,} tokens that "
                f"{checkpoint.name} has. Give the longer window of the second stage."
            )
        method = METHODS.get(plan.method)
        if method is None or method.rescaled_factor is None:
            raise UsageError(
                f"A second stage needs a method that can extend again; {plan.method} cannot."
            )
    return length


def _notes(
    options: RecipeOptions, length: int, history: History, memory: Memory | None
) -> Iterator[str]:
    plan = history.plan
    if plan and length <= plan.original_length:
        yield (
            f"Texts of {length:,} tokens fit into the original window of "
            f"{plan.original_length:,}, so the model does not learn the new positions from them. "
            "The YaRN paper trained on the length of its first stage."
        )
    if history.baked:
        yield "The weights are baked, and a bake cannot be undone. Train first and bake last."
    if _BATCH % options.gpus:
        yield (
            f"{_BATCH} is not a multiple of {options.gpus} GPUs, so a step has more than {_BATCH} "
            "rows."
        )
    if memory is None:
        yield "The checkpoint has no weights, so the memory was not estimated."
        return
    if memory.logits > _LARGE_SHARE * memory.peak:
        yield (
            "The logits take most of the memory. use_liger_kernel computes the loss in pieces "
            "without them (transformers, TRL); context parallelism splits them over GPUs."
        )
    states = memory.weights + memory.optimizer + memory.gradients
    if options.tuning == "full" and states > _LARGE_SHARE * memory.peak:
        yield (
            "With --tuning lora, most weights need no gradient and no optimizer state. More --gpus "
            "share the weights and both."
        )


def _values(
    checkpoint: Checkpoint, trainer: Trainer, options: RecipeOptions, length: int,
    memory: Memory | None, rope: RopeConfig, plan: RopePlan,
) -> dict[str, str]:  # fmt: skip
    """The value for each placeholder of the templates."""
    place = checkpoint.directory
    where = str(place.resolve()) if place else checkpoint.repo_id or checkpoint.name
    accumulation = -(-_BATCH // options.gpus)
    several = options.gpus > 1
    launch = trainer.start.format(
        accelerate="--config_file accelerate.yaml " if several else "",
        swift=f"NPROC_PER_NODE={options.gpus} " if several else "",
    )
    lora = _lora_values(checkpoint, rope, trainer) if options.tuning == "lora" else {}
    name = place.resolve().name if place else where
    return {
        "name": name,
        "version": __version__,
        "converted": json.dumps(where, ensure_ascii=False),
        "data": repr(str(options.data.resolve())) if options.data else "None",
        "data_hint": "" if options.data else " TEXTS.jsonl",
        "rows": '"rows.bin"' if trainer.form == "binary" else '"rows.jsonl"',
        "form": json.dumps(trainer.form),
        "length": str(length),
        "length_words": f"{length:,}",
        "steps": str(_STEPS),
        "gpus": str(options.gpus),
        "accumulation": str(accumulation),
        "tuning": options.tuning,
        "bf16": "true",
        "swift_dtype": "float32",
        "sharding": _SHARDING.get(trainer.id, "") if several else "",
        "peft_import": "", "peft_model": "", "peft_argument": "", "adapter_yaml": "",
        "tuning_words": "All weights are trained.",
        **lora,
        "start": launch,
        "trainer_name": trainer.name,
        "trainer_versions": trainer.versions,
        "tested": _TESTED[trainer.evidence],
        "route": trainer.route,
        "result": trainer.result,
        "converted_result": trainer.converted,
        "setting": f"{plan.method}, factor {plan.factor:g}, {plan.length:,} tokens",
        "memory": memory_words(memory),
        "finish": _finish(options, trainer, shlex.quote(where)),
        "merge": _merge(shlex.quote(where)) if lora else "",
        "stage2": _second_stage(options, trainer, launch) if options.stage2 else "",
    }  # fmt: skip


def _lora_values(checkpoint: Checkpoint, rope: RopeConfig, trainer: Trainer) -> dict[str, str]:
    names = {
        name.removesuffix(".weight")
        for header in checkpoint.headers().values()
        for name in header.tensors
    }
    targets, whole = trained_modules(sorted(names))
    if not targets:
        raise UsageError(
            f"No {rope.model_type} layer has the names that LoRA recipes adapt. Train with "
            "--tuning full."
        )
    tied = "\n    ensure_weight_tying=True," if "lm_head" not in names else ""
    config = (
        f"LoraConfig(\n    r={RANK},\n    lora_alpha={2 * RANK},\n    target_modules={targets},\n"
        f'    modules_to_save={whole},{tied}\n    task_type="CAUSAL_LM",\n)'
    )
    words = (
        f"LoRA of rank {RANK} on {', '.join(targets)}; {', '.join(whole)} are trained whole. "
        "If norms and embeddings are not trained, a longer context is not learned (LongLoRA, §3.3)."
    )
    yaml = {
        "axolotl": f"adapter: lora\nlora_r: {RANK}\nlora_alpha: {2 * RANK}\n"
        f"lora_target_modules: {json.dumps(targets)}\nlora_modules_to_save: {json.dumps(whole)}\n",
        "llamafactory": f"lora_rank: {RANK}\nlora_alpha: {2 * RANK}\n"
        f"lora_target: {','.join(targets)}\nadditional_target: {','.join(whole)}\n",
        "swift": f"lora_rank: {RANK}\nlora_alpha: {2 * RANK}\n"
        f"target_modules: {json.dumps(targets)}\nmodules_to_save: {json.dumps(whole)}\n",
    }
    return {
        "peft_import": "from peft import LoraConfig, get_peft_model\n"
        if trainer.id == "transformers"
        else "from peft import LoraConfig\n",
        "peft_model": f"model = get_peft_model(model, {config})\n"
        "model.enable_input_require_grads()",
        "peft_argument": f"\n    peft_config={config},",
        "adapter_yaml": yaml.get(trainer.id, ""),
        "tuning_words": words,
    }


def _second_stage(options: RecipeOptions, trainer: Trainer, launch: str) -> str:
    """The paper's second stage: a longer window, the same training length, half the steps."""
    if "train.yaml" in trainer.files:
        again = launch.replace("train.yaml", "train-2.yaml")
        if again == launch:
            again += " train-2.yaml"
    else:
        again = f"{launch} --model stage2 --out trained-2 --steps {_STEPS // 2}"
    model = "merged" if options.tuning == "lora" else "finished"
    return (
        f"\n## Stage two: {options.stage2:,} tokens\n\n"
        "The window grows, the training texts do not (train short, test long; YaRN paper, §4.2).\n"
        f"\n```sh\nyarncli convert {model} stage2 --rescale --length {options.stage2}\n{again}\n"
        f"{_finish(options, trainer, 'stage2', stage=2)}\n```\n"
    )


def _finish(options: RecipeOptions, trainer: Trainer, converted: str, stage: int = 1) -> str:
    """The command that finishes what a stage trained."""
    end = f"-{stage}" if stage > 1 else ""
    saved = trainer.saved and f"/{trainer.saved.format(steps=_STEPS // stage)}"
    adapter = " --adapter" if options.tuning == "lora" else ""
    return f"yarncli finish trained{end}{saved} finished{end} --from {converted}{adapter}"


def _merge(converted: str) -> str:
    return (
        "\nThe result is an adapter. These commands make a whole model of it and of the "
        f"conversion:\n\n```sh\npython merge.py {converted} finished merged-raw\n"
        f"yarncli finish merged-raw merged --from {converted}\n```\n"
    )


def memory_words(memory: Memory | None) -> str:
    """The estimate in one line."""
    if memory is None:
        return "not estimated, because the checkpoint has no weights"
    parts = ("weights", "optimizer", "gradients", "activations", "logits")
    shown = ", ".join(f"{name} {_size(getattr(memory, name))}" for name in parts)
    return f"about {_size(memory.peak)} at the peak ({shown}; not all at once)"


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _filled(place: str, values: Mapping[str, str]) -> str:
    text = (FOLDER / place).read_text(encoding="utf-8")
    return Template(text).substitute(values).rstrip() + "\n"
