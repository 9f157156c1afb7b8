"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yarncli.errors import UsageError
from yarncli.rope.methods import DEFAULT_METHOD, METHODS, get_method

if TYPE_CHECKING:
    from yarncli.planning.sliding import SlidingWindow
    from yarncli.planning.target import Target

# 131072, 131,072, 128_000, 1.5M; groups are of three digits.
_LENGTH = re.compile(
    r"([1-9][0-9]{0,17}|[1-9][0-9]{0,2}(?:[,_][0-9]{3}){1,5}|[0-9]{1,6}\.[0-9]{1,9})([kKmM]?)",
    re.ASCII,
)
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:,{_NUMBER})*", re.ASCII)
_MULTIPLIER = {"": 1, "k": 1 << 10, "m": 1 << 20}


def parse_length(text: str | int) -> int:
    """A number of tokens from `131072`, `131,072`, `128k` (× 1024) or `1.5M` (× 1024²).

    Raises:
        typer.BadParameter: `text` is not such a number.
    """
    match = _LENGTH.fullmatch(str(text).strip())
    if match is not None:
        digits, dot, fraction = re.sub("[,_]", "", match[1]).partition(".")
        shift: int = 10 ** len(fraction)
        length, rest = divmod(int(digits + fraction) * _MULTIPLIER[match[2].lower()], shift)
        if length and not rest and (match[2] or not dot):
            return length
    raise typer.BadParameter(
        f"{text!r} is not a length; write a number of tokens such as 131072, 131,072, 128k or 1.5M."
    )


def parse_method(name: str) -> str:
    """The name of a method, also for an alias.

    Raises:
        UsageError: there is no such method.
    """
    return get_method(name).name


def read_window(given: str | None) -> SlidingWindow | None:
    """The value of `--sliding-window`: a length, or `off`.

    Raises:
        typer.BadParameter: it is neither.
    """
    if given is None:
        return None
    return "off" if given.casefold() == "off" else parse_length(given)


def read_factors(given: str | None) -> list[float] | None:
    """The numbers of `--short-factor` or `--long-factor`: `1.0,1.05`, or a file with a JSON list.

    Raises:
        UsageError: the file cannot be read, or does not hold a list of numbers.
    """
    if given is None:
        return None
    if _NUMBERS.fullmatch(given):
        return read_numbers(given)
    import json

    path = Path(given)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, list) or not all(type(item) in (int, float) for item in found):
        raise UsageError(f"{path} must hold one JSON list of numbers.")
    try:
        return [float(item) for item in found]
    except OverflowError:
        raise UsageError(f"{path} holds an integer that is too large for a factor.") from None


def read_target(
    method: str | None, length: int | None, factor: float | None, *, rescale: bool,
    replace_scaling: bool, **settings: Any,
) -> Target | None:  # fmt: skip
    """The extension that options ask for; None where none of them is given.

    Args:
        method: its name; by default `DEFAULT_METHOD`.
        length: the window to reach, tokens.
        factor: the same as a multiple of the original window.
        rescale: extend the scaling that the model has.
        replace_scaling: drop the scaling that the model has.
        settings: the method's own.
    """
    from yarncli.planning.target import Target

    given = {name: value for name, value in settings.items() if value is not None}
    if not (method or length or factor or rescale or replace_scaling or given):
        return None
    return Target(
        method or DEFAULT_METHOD, length=length, factor=factor, rescale=rescale,
        replace_scaling=replace_scaling, options=given,
    )  # fmt: skip


_METHOD: Any = {"parser": parse_method, "metavar": f"<{'|'.join(METHODS)}>"}

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A checkpoint directory, a config.json, or a Hub id.",
    ),
]
AnySource = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A checkpoint directory, a config.json, a Hub id, or a GGUF file (a local one or "
        "hf://org/name/file.gguf).",
    ),
]
OptionalOutput = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", show_default=False, help="The directory or GGUF file to write."),
]
Output = Annotated[
    Path,
    typer.Argument(
        metavar="OUT", show_default=False, help="The directory to write; it must not exist yet."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

MethodOption = Annotated[
    str, typer.Option("--method", help="Extend the context by this method.", **_METHOD)
]
PreviewMethod = Annotated[
    str | None, typer.Option("--method", help="Preview an extension by this method.", **_METHOD)
]
ServedMethod = Annotated[
    str | None, typer.Option("--method", help="Extend the served model by this method.", **_METHOD)
]
Length = Annotated[
    int | None,
    typer.Option(
        "--length",
        metavar="TOKENS",
        parser=parse_length,
        help="The context length to reach: 131072, 128k, 1M.",
    ),
]
Factor = Annotated[
    float | None,
    typer.Option(
        "--factor",
        metavar="FACTOR",
        help="The context length to reach, as a multiple of the original length; with --rescale, "
        "of the present length.",
    ),
]
OriginalLength = Annotated[
    int | None,
    typer.Option(
        "--original-length",
        metavar="TOKENS",
        parser=parse_length,
        help="The context length the model was trained with, if the config does not say it.",
    ),
]
BetaFast = Annotated[
    float | None,
    typer.Option(
        "--beta-fast",
        help="yarn: do not change dimensions that turn more often than this over the original "
        "context.",
        show_default="32",
    ),
]
BetaSlow = Annotated[
    float | None,
    typer.Option(
        "--beta-slow",
        help="yarn: fully interpolate dimensions that turn less often than this.",
        show_default="1",
    ),
]
AttentionFactor = Annotated[
    float | None,
    typer.Option(
        "--attention-factor",
        help="yarn, longrope: multiply cos and sin by this number instead of the method's own.",
    ),
]
Truncate = Annotated[
    bool | None,
    typer.Option(
        "--truncate/--no-truncate",
        help="yarn: round the two ends of the ramp to whole dimensions, or keep them exact.",
        show_default="truncate",
    ),
]
RopeTheta = Annotated[
    float | None,
    typer.Option(
        "--rope-theta", help="ntk: use this base instead of the one that follows from the length."
    ),
]
LowFreqFactor = Annotated[
    float | None,
    typer.Option(
        "--low-freq-factor",
        help="llama3: fully interpolate wavelengths above original length / this number.",
    ),
]
HighFreqFactor = Annotated[
    float | None,
    typer.Option(
        "--high-freq-factor", help="llama3: keep wavelengths below original length / this number."
    ),
]
ShortFactor = Annotated[
    str | None,
    typer.Option(
        "--short-factor",
        metavar="FILE|LIST",
        help="longrope: one factor per frequency for texts up to the original length: 1,1.05,1.1, "
        "… or a file with a JSON list.",
    ),
]
LongFactor = Annotated[
    str | None,
    typer.Option(
        "--long-factor",
        metavar="FILE|LIST",
        help="longrope: one factor per frequency for longer texts, in the form of --short-factor.",
    ),
]
Rescale = Annotated[
    bool,
    typer.Option(
        "--rescale", help="Extend the model's existing scaling further, by the same method."
    ),
]
ReplaceScaling = Annotated[
    bool,
    typer.Option(
        "--replace-scaling",
        help="Remove the model's existing scaling and start from --original-length.",
    ),
]
SlidingWindowOption = Annotated[
    str | None,
    typer.Option(
        "--sliding-window",
        metavar="TOKENS|off",
        help="Also set the sliding window of attention to this many tokens, or switch it off.",
    ),
]
AssumeLike = Annotated[
    str | None,
    typer.Option(
        "--assume-like",
        metavar="MODEL_TYPE",
        help="Read an unknown model type as if it were this one.",
    ),
]
SpellingOption = Annotated[
    Literal["both", "legacy", "v5"],
    typer.Option(
        "--spelling",
        help="Write rope_scaling (legacy), rope_parameters (v5), or both if the model allows it.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done and write nothing.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT if it already holds a checkpoint.")
]
Fsync = Annotated[
    bool, typer.Option("--fsync", help="Flush OUT to the disk, to survive a power failure.")
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place", help="Change SOURCE itself; the old config files are kept as *.orig."
    ),
]

# What the commands that run a model share.
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", show_default=False, help="A checkpoint directory or a Hub id."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Ask the OpenAI-compatible server at this address, which ends in /v1."
    ),
]
ServedModel = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Name of the model on the server.")
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="VAR", help="Environment variable that holds the API key of the server."),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=1, help="Wait this long for one answer.")
]
TextFiles = Annotated[
    list[Path] | None,
    typer.Option("--text", metavar="FILE", help="UTF-8 file with a text to read; may be repeated."),
]
Override = Annotated[
    str | None,
    typer.Option(
        metavar="SETTING", help="Evaluate a conversion that is not written: method=yarn,factor=4."
    ),
]
Compare = Annotated[
    str | None, typer.Option(metavar="LIST", help="Compare several methods: none,linear,ntk,yarn.")
]
Control = Annotated[
    bool,
    typer.Option(
        "--control", help="Also measure the model with the scaling off, from yarncli.json."
    ),
]
ControlModel = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="Use this checkpoint as the control.")
]
Tokenizer = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="Load the tokenizer from this checkpoint.")
]
Dtype = Annotated[
    str, typer.Option(metavar="DTYPE", help="Compute in auto, float32, float16 or bfloat16.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Run on auto, cpu, cuda or mps.")]
AttnImplementation = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Attention implementation of transformers, such as sdpa."),
]
Adapter = Annotated[
    str | None,
    typer.Option(metavar="DIRECTORY", help="Directory of a PEFT adapter to load on top."),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run that --out holds.")]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw the result as a PNG, SVG or PDF file.")
]


def read_lengths(text: str | None) -> list[int]:
    """The value of `--lengths`: `4k,8k,32k`.

    Raises:
        UsageError: there is no length.
        typer.BadParameter: one of them is not a length.
    """
    if text is None:
        return []
    lengths = [parse_length(part.strip()) for part in text.split(",") if part.strip()]
    if not lengths:
        raise UsageError(f"--lengths {text!r} names no length. Write for example 4k,8k,32k.")
    return lengths


def read_names(text: str | None) -> list[str]:
    """The names of a list with commas, such as the value of `--compare`."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def read_numbers(text: str | None) -> list[float]:
    """The numbers of a list with commas: `1,1.1,1.25`.

    Raises:
        typer.BadParameter: it is not such a list.
    """
    if text is None:
        return []
    if not _NUMBERS.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a list of numbers; write them as 1,1.1,1.25.")
    return [float(number) for number in text.split(",")]
