"""Files that trainers leave beside a model: their own state, which is not part of a checkpoint."""

from __future__ import annotations

from fnmatch import fnmatchcase

# What the guard of `yarncli.training` writes beside a trained model.
STAMP_NAME = "yarncli-training.json"

# Patterns for any part of a path, in lower case.
TRAINING = (
    "checkpoint-[0-9]*",  # transformers.Trainer, and all trainers that are built on it
    "optimizer.*",
    "scheduler.*",
    "scaler.pt",
    "rng_state*",
    "training_args.bin",
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "runs",
    "events.out.tfevents*",
    "wandb",
    "global_step[0-9]*",  # DeepSpeed
    "zero_to_fp32.py",
    "optimizer_[0-9]*",  # FSDP
    "pytorch_model_fsdp*",
    "*.distcp",
    "completions",  # TRL
    "trainer_log.jsonl",  # LLaMA-Factory
    "training_loss.png",
    "logging.jsonl",  # ms-swift
    STAMP_NAME,
)


def is_training_state(name: str) -> bool:
    """Whether a file is the state of a trainer, by the parts of its path."""
    parts = name.lower().split("/")
    return any(fnmatchcase(part, pattern) for part in parts for pattern in TRAINING)
