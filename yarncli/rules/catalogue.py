"""Every rule of `check` with its texts: the one source of `--explain` and of the docs."""

from __future__ import annotations

from yarncli.errors import UsageError
from yarncli.rules.finding import Rule

_NOT_FIXED = "`--fix` leaves it: only you know which value is right."

_READ_V5 = ("transformers-5", "vllm", "sglang", "llama.cpp")
_READ_V4 = ("transformers-4.57", "transformers-4.55", "transformers-4.50", "mlx-lm")

_ALL = (
    # Files
    Rule(
        "unreadable",
        "error",
        "The file cannot be read as JSON",
        "Nothing can load it. Duplicate keys, a byte order mark, numbers that no double holds and "
        "very deep nesting are refused too, as readers differ in what they make of them.",
        "Correct the file at the place that the message names.",
    ),
    Rule(
        "invalid-value",
        "error",
        "A field that RoPE depends on is impossible, or contradicts another",
        "transformers stops, or computes something that was not meant.",
        f"Correct the value that the message names. {_NOT_FIXED}",
    ),
    Rule(
        "unknown-model-type",
        "note",
        "The model type is not known to yarncli",
        "Defaults that the config leaves out are unknown, so only rules that do without them ran.",
        "Nothing, if the model's own code reads RoPE in its own way.",
    ),
    # The two spellings
    Rule(
        "spelling-conflict",
        "error",
        "rope_scaling and rope_parameters differ",
        "transformers, vLLM and SGLang use rope_scaling, llama.cpp's converter with transformers 4 "
        "uses rope_parameters: the same files become two different models.",
        f"Make the two equal. {_NOT_FIXED}",
        engines=("llama.cpp", "mlx-lm"),
    ),
    Rule(
        "v5-only",
        "warning",
        "The RoPE setting is spelled only as rope_parameters",
        "transformers 4 and mlx-lm do not read rope_parameters: they use the default θ and no "
        "scaling, without a word.",
        "Add the same setting as rope_theta and rope_scaling; `--fix` does, where the config has "
        "one setting for all layers.",
        fixable=True,
        engines=_READ_V4,
    ),
    Rule(
        "legacy-only",
        "note",
        "The scaling is spelled only as rope_scaling",
        "Nothing today: every engine reads this spelling. transformers 5 calls it old.",
        "Nothing needed. `yarncli convert` writes both spellings.",
    ),
    Rule(
        "theta-conflict",
        "error",
        "rope_theta has two different values",
        "transformers 5, vLLM and SGLang use the one inside the RoPE dict, transformers 4 and "
        "mlx-lm the one at top level.",
        f"Give both places the same value. {_NOT_FIXED}",
        engines=(*_READ_V5, *_READ_V4),
    ),
    Rule(
        "theta-lost",
        "error",
        "rope_theta stands only where it is not read",
        "A rope_scaling dict replaces rope_parameters when transformers 5 loads the config, and "
        "rope_theta in the latter is lost: the default is used.",
        "Add rope_theta at top level; `--fix` does.",
        fixable=True,
        engines=(*_READ_V5, *_READ_V4),
    ),
    Rule(
        "copy-differs",
        "warning",
        "A multimodal config has different values at top level and in its text part",
        "transformers 4 reads one of them, everything else the other.",
        f"Make the two equal, or remove the copy at top level. {_NOT_FIXED}",
        engines=("transformers-4.57",),
    ),
    Rule(
        "type-conflict",
        "error",
        "type and rope_type name different methods",
        "vLLM stops; transformers 4 and mlx-lm follow type, transformers 5 and SGLang rope_type.",
        f"Make the two equal, or remove type. {_NOT_FIXED}",
        engines=("vllm", *_READ_V4),
    ),
    Rule(
        "type-missing",
        "error",
        "The scaling does not name its method",
        "Without rope_type transformers 5 uses no scaling at all; older engines stop.",
        f"Add rope_type. {_NOT_FIXED}",
        engines=(*_READ_V5, *_READ_V4),
    ),
    Rule(
        "nested-truncate",
        "warning",
        "truncate stands inside one entry of rope_parameters",
        "transformers 5 reads truncate only from the top of rope_parameters and ignores this one; "
        "vLLM and SGLang honour it. Frequencies on the ramp differ by several percent.",
        f"Remove it, or accept that engines differ. {_NOT_FIXED}",
        engines=("transformers-5",),
    ),
    # Numbers of the scaling
    Rule(
        "factor-integer",
        "error",
        "factor is an integer",
        "With linear scaling vLLM and SGLang stop when they build their tables; other methods work "
        "(then this is a note), though transformers 4 warns.",
        "Write it as a float: 4.0. `--fix` does.",
        fixable=True,
        engines=("vllm", "sglang"),
    ),
    Rule(
        "length-mismatch",
        "error",
        "factor × original_max_position_embeddings is not max_position_embeddings",
        "vLLM and SGLang serve max_position_embeddings, vLLM builds its tables for the product, "
        "transformers 4.51 to 4.55 and exllamav3 take the factor from the ratio: with a maximum "
        "that was never raised they switch YaRN off.",
        "Make the three agree. `--fix` raises the maximum where it still is the original length.",
        fixable=True,
        engines=("transformers-4.55", "vllm", "sglang", "llama.cpp", "exllamav3"),
    ),
    Rule(
        "original-missing",
        "error",
        "The scaling does not say the original length",
        "transformers takes max_position_embeddings for it, mlx-lm 4096, TensorRT-LLM 1024; vLLM "
        "and llama.cpp's converter stop. longrope is read from the dict by transformers 5 and from "
        "top level by transformers 4, so it needs both (one of them missing is a warning).",
        "Add original_max_position_embeddings: the window before the extension. `--fix` does "
        "where the other place has it.",
        fixable=True,
        engines=(*_READ_V5, *_READ_V4, "tensorrt-llm"),
    ),
    Rule(
        "original-implausible",
        "warning",
        "The original length cannot be right",
        "The frequencies are computed from it: a wrong one changes every dimension on the ramp.",
        f"Write the window, in tokens, that the model was trained with. {_NOT_FIXED}",
    ),
    Rule(
        "max-raised",
        "error",
        "max_position_embeddings is raised although the method needs the original",
        "linear: vLLM and SGLang multiply it by the factor once more. dynamic: it is the formula's "
        "original length, so transformers starts to scale too late.",
        "Set it back to the original length. `--fix` does where it is exactly factor × original.",
        fixable=True,
        engines=("vllm", "sglang", "transformers-5", "transformers-4.57"),
    ),
    Rule(
        "unknown-key",
        "warning",
        "No engine knows a key of the RoPE dict",
        "It has no effect. Often it is a misspelled name, and then the setting it was meant to "
        "change keeps its default.",
        f"Correct the name or remove the key. {_NOT_FIXED}",
    ),
    # Temperature
    Rule(
        "attn-factor",
        "warning",
        "attn_factor is understood by SGLang only",
        "SGLang multiplies YaRN's attention factor by it; transformers and vLLM ignore it. The "
        "same files have two temperatures.",
        "Say attention_factor instead, or carry it in the weights with `yarncli bake`. "
        + _NOT_FIXED,
        engines=("transformers-5", "transformers-4.57", "vllm", "llama.cpp", "mlx-lm"),
    ),
    Rule(
        "attention-factor",
        "warning",
        "attention_factor is set to something else than YaRN's default",
        "transformers, vLLM and exllamav3 honour it; SGLang, mlx-lm, llama.cpp, TGI and "
        "TensorRT-LLM compute their own.",
        "`yarncli bake` carries it in the weights, which every engine reads.",
        engines=("sglang", "mlx-lm", "llama.cpp", "tgi", "tensorrt-llm"),
    ),
    Rule(
        "mscale-mrope",
        "error",
        "mscale on a model with multimodal RoPE",
        "SGLang stops when it starts: its M-RoPE takes no mscale.",
        "Remove mscale and mscale_all_dim; for a neutral temperature use attention_factor 1.0 with "
        f"attn_factor. {_NOT_FIXED}",
        engines=("sglang",),
    ),
    Rule(
        "mscale-disagreement",
        "warning",
        "mscale and mscale_all_dim are read differently",
        "transformers and vLLM use the pair only if neither is 0 or missing; SGLang and mlx-lm "
        "compute with what is there. The attention temperature differs.",
        f"Give both, or neither. {_NOT_FIXED}",
        engines=("sglang", "mlx-lm"),
    ),
    Rule(
        "baked-twice",
        "error",
        "The weights carry the attention temperature and the config applies it again",
        "Attention logits are scaled by the square of the temperature twice; long texts are read "
        "badly, with no error anywhere.",
        f"Put back the RoPE setting that `yarncli bake` wrote (yarncli.json has it). {_NOT_FIXED}",
    ),
    # Method-specific
    Rule(
        "beta-order",
        "error",
        "beta_fast is smaller than beta_slow",
        "The ramp between kept and interpolated frequencies runs backwards.",
        f"Swap or correct them; the defaults are 32 and 1. {_NOT_FIXED}",
    ),
    Rule(
        "longrope-lists",
        "error",
        "short_factor or long_factor has the wrong number of entries",
        "Every engine stops when it builds the frequencies.",
        "Give one factor per rotary frequency: half the rotary dimension. " + _NOT_FIXED,
    ),
    # Lengths
    Rule(
        "stale-length",
        "warning",
        "Another length field is below max_position_embeddings",
        "SGLang serves the first such field it finds, vLLM the smallest.",
        "Raise it to max_position_embeddings; `--fix` does.",
        fixable=True,
        engines=("vllm", "sglang"),
    ),
    Rule(
        "tokenizer-limit",
        "warning",
        "The tokenizer stops before the window does",
        "transformers warns about, and pipelines and training scripts cut, every text longer than "
        "model_max_length.",
        "Raise model_max_length to the window; `--fix` does.",
        fixable=True,
        engines=("transformers-5", "transformers-4.57"),
    ),
    Rule(
        "sliding-window",
        "warning",
        "The scaling reaches layers that see only a sliding window",
        "Those layers read no further however RoPE is scaled; if all layers are such, nothing is "
        "gained, and near positions get worse.",
        "Scale only the layers that attend past the window, or none. " + _NOT_FIXED,
    ),
    Rule(
        "engine-misreads",
        "error",
        "An engine given with --engine will not compute what the config means",
        "The message says what it will do instead. What is meant is the plan in yarncli.json, or "
        "else what transformers 5 reads.",
        "`yarncli engines` shows the launch line or override that makes it right, and "
        "`yarncli convert --for ENGINE` writes fields that the engine reads. " + _NOT_FIXED,
    ),
    # Weights
    Rule(
        "lfs-pointer",
        "note",
        "A file is a Git-LFS pointer",
        "The real content was not fetched, so it was not checked. `--require-weights` makes it an "
        "error.",
        "Run `git lfs pull`.",
    ),
    Rule(
        "change-pending",
        "error",
        "An in-place change of the weights was interrupted",
        "The weights are half old, half new.",
        "Run `yarncli bake --recover DIR`.",
    ),
    Rule(
        "index-damaged",
        "error",
        "The weight index cannot be used",
        "It is damaged, or names files outside the directory; no loader can, or should, follow it.",
        "Download it again, or write it anew from the shards.",
    ),
    Rule(
        "shard-missing",
        "error",
        "The index names a shard that is not there",
        "Loading stops.",
        "Add the file, or correct the index.",
    ),
    Rule(
        "shard-damaged",
        "error",
        "A weight file is damaged",
        "Loading stops, or reads wrong weights.",
        "Download it again.",
    ),
    Rule(
        "ambiguous-weights",
        "error",
        "The directory holds two sets of weights",
        "transformers loads model.safetensors, other engines follow the index.",
        "Remove the set that is not the model.",
    ),
    Rule(
        "tensor-missing",
        "error",
        "The index promises a tensor that its shard does not have",
        "Loading stops, or the tensor is initialised at random.",
        "Correct the index, or restore the shard.",
    ),
    Rule(
        "tensor-unlisted",
        "warning",
        "A shard holds a tensor that the index does not list",
        "Loaders that follow the index skip it, others load it.",
        "Add it to the index, or remove it from the shard.",
    ),
    Rule(
        "tensor-duplicate",
        "warning",
        "Two shards hold the same tensor",
        "Which one is loaded depends on the engine.",
        "Keep one of them.",
    ),
    Rule(
        "index-size",
        "warning",
        "The index has the wrong total size",
        "Tools that plan memory or show progress from it are misled.",
        "Set metadata.total_size to the sum of all tensors; `--fix` does.",
        fixable=True,
    ),
)

RULES = {rule.id: rule for rule in _ALL}


def get_rule(name: str) -> Rule:
    """The rule whose id is `name`.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    if name not in RULES:
        raise UsageError(f"There is no rule {name!r}. The rules are {', '.join(RULES)}.")
    return RULES[name]


def explain(rule: Rule) -> str:
    """One rule as a page of Markdown."""
    fixed = "yes, where the right value is certain" if rule.fixable else "no"
    engines = f"\n\nEngines: {', '.join(rule.engines)}." if rule.engines else ""
    return (
        f"# {rule.id}\n\n{rule.title} ({rule.severity}).\n\n"
        f"## What it breaks\n\n{rule.breaks}{engines}\n\n"
        f"## What to do\n\n{rule.mend}\n\nMended by `--fix`: {fixed}.\n"
    )
