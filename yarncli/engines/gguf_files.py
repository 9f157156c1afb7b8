"""What programs that run GGUF files compute from a file, and how many tokens they serve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.engines.types import Basis, Status
from yarncli.errors import UsageError
from yarncli.gguf.architectures import load_table
from yarncli.gguf.contents import read_contents
from yarncli.gguf.dead import dead_keys
from yarncli.gguf.facts import CONTEXT, THETA, Gguf
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import RUNTIME_THETA, Computed, run
from yarncli.gguf.serving import Serving
from yarncli.gguf.source import open_gguf
from yarncli.rope.formulas import default_inv_freq

SCHEMA_VERSION = 1
_TOLERANCE = 1e-6

# What `GGUF_TO_TRANSFORMERS_MAPPING` of transformers 5.23 has with θ and without scaling; those of
# which nothing but θ and plain sizes decides the frequencies.
_UNSCALED = (
    "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "phi3", "gemma2", "nemotron", "falcon",
)  # fmt: skip
_PLAIN = ("llama", "qwen2")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufReader:
    """A program that runs GGUF files."""

    id: str
    """What `--engine` takes."""
    name: str
    """For people, with the version that was examined."""
    basis: Basis | None
    """Whether it was run, or read; `None` where its computation was not examined."""
    judge: Callable[[Gguf, Computed | Failure], tuple[Status, int | None, str]]
    """Verdict, the longest text that it accepts in tokens (`None`: not known), and why."""


@dataclass(frozen=True, slots=True)
class GgufVerdict:
    """What one program makes of a file."""

    reader: GgufReader
    """The program."""
    status: Status
    """The verdict in one word; of llama.cpp, whether it runs the file at all."""
    served_length: int | None
    """The longest text it accepts, tokens; `None` where that is not known, or it runs nothing."""
    what: str
    """In words, for people."""
    basis: Basis | None
    """Whether the program was run for the architecture of the file, or read."""

    def to_json(self) -> dict[str, Any]:
        """The entry of `engines --json`."""
        return {
            "engine": self.reader.id,
            "name": self.reader.name,
            "basis": self.basis,
            "status": self.status,
            "served_length": self.served_length,
            "what": self.what,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufJudgement:
    """What each program makes of a file."""

    source: str
    """What the file is called."""
    verdicts: tuple[GgufVerdict, ...]
    """One for each program."""
    serving: Serving | None
    """How it is started; `None` where llama.cpp does not run it."""

    def to_json(self) -> dict[str, Any]:
        """The contract of `engines --json` for a GGUF file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "engines": [verdict.to_json() for verdict in self.verdicts],
            **(self.serving.to_json() if self.serving else {"launch": [], "modelfile": None}),
        }


def judge_gguf(source: str | Path, *, engines: Iterable[str] = ()) -> GgufJudgement:
    """What programs that run GGUF files make of one; only headers are read.

    Args:
        source: a file here, or `hf://org/name/file.gguf`.
        engines: ids of programs; all where empty.

    Raises:
        UsageError: an unknown id.
        CheckpointError: the file cannot be read.
        HubError: the Hub cannot be reached.
    """
    known = {reader.id: reader for reader in READERS}
    wanted = list(engines)
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{unknown!r} is not a program for GGUF files that yarncli knows. The known ones are "
            f"{', '.join(known)}."
        )
    file = open_gguf(source)
    gguf = read_contents(file)
    computed = run(gguf)
    verdicts = []
    for reader in [known[name] for name in dict.fromkeys(wanted)] or READERS:
        status, served, what = reader.judge(gguf, computed)
        was_run = gguf.row is not None and gguf.row.run
        basis: Basis | None = "read" if reader.id == "llama.cpp" and not was_run else reader.basis
        verdicts.append(
            GgufVerdict(reader, status=status, served_length=served, what=what, basis=basis)
        )
    serving = None
    if isinstance(computed, Computed):
        name = str(file.path) if file.path else file.name
        serving = Serving(name, computed.served_length, file.split_count)
    return GgufJudgement(source=file.name, verdicts=tuple(verdicts), serving=serving)


def _llama_cpp(gguf: Gguf, computed: Computed | Failure) -> tuple[Status, int | None, str]:
    if isinstance(computed, Failure):
        status: Status = {"refuses": "refuses", "aborts": "crashes"}.get(  # type: ignore[assignment]
            computed.kind, "differs"
        )
        return status, None, f"{computed.because}"
    misleading = [key.name for key in dead_keys(gguf) if key.misleads]
    frequencies = f"frequencies {max(computed.inv_freq):.6g} to {min(computed.inv_freq):.6g}"
    scale = f"attention factor {computed.attention_factor:.6g}"
    what = f"{frequencies}, {scale}"
    if misleading:
        return "differs", computed.served_length, f"{what}; it ignores {misleading[0]}"
    return "exact", computed.served_length, what


def _ollama(gguf: Gguf, computed: Computed | Failure) -> tuple[Status, int | None, str]:
    what = (
        "it serves at most context_length, whatever num_ctx says; what it computes was not "
        "examined: its own engine, as read for qwen3, takes no attn_factor and has attention "
        "factor 1 under yarn"
    )
    return "unknown", _stated(gguf), what


def _lm_studio(gguf: Gguf, computed: Computed | Failure) -> tuple[Status, int | None, str]:
    what = "its slider ends at context_length (0.4.18); what it computes was not examined"
    return "unknown", _stated(gguf), what


def _koboldcpp(gguf: Gguf, computed: Computed | Failure) -> tuple[Status, int | None, str]:
    what = "it scales by itself where --contextsize is above context_length; not examined"
    return "unknown", None, what


def _transformers(gguf: Gguf, computed: Computed | Failure) -> tuple[Status, int | None, str]:
    if gguf.architecture not in _UNSCALED or isinstance(computed, Failure):
        return "unknown", None, f"its reading of {gguf.architecture or 'the file'} was not examined"
    plain = default_inv_freq(float(gguf.get(THETA, RUNTIME_THETA)), 2 * len(computed.inv_freq))
    pairs = zip(plain, computed.inv_freq, strict=True)
    same = all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in pairs)
    if same and math.isclose(computed.attention_factor, 1.0, rel_tol=_TOLERANCE):
        if gguf.has(THETA) and gguf.architecture in _PLAIN and _has_plain_heads(gguf):
            return "exact", None, "as llama.cpp computes it; it sets no limit"
        return "unknown", None, "what it takes for the sizes and θ of this file was not examined"
    return (
        "ignores",
        None,
        (
            "it reads θ and context_length alone, no scaling and no rope_freqs.weight: load the "
            "checkpoint instead"
        ),
    )


def _has_plain_heads(gguf: Gguf) -> bool:
    """Whether all dimensions rotate, and the heads share the width of the model."""
    sizes, heads = gguf.sizes(), gguf.get("attention.head_count")
    if sizes is None or sizes.head_dim != sizes.rotary_dim or not isinstance(heads, int):
        return False
    return bool(sizes.head_dim * heads == gguf.get("embedding_length"))


def _stated(gguf: Gguf) -> int | None:
    found = gguf.get(CONTEXT)
    return found if type(found) is int else None


_VERSION = load_table()["version"]
READERS: tuple[GgufReader, ...] = (
    GgufReader(
        id="llama.cpp", name=f"llama.cpp, library and llama-server ({_VERSION})", basis="run",
        judge=_llama_cpp,
    ),
    GgufReader(id="ollama", name="Ollama", basis=None, judge=_ollama),
    GgufReader(id="lm-studio", name="LM Studio", basis=None, judge=_lm_studio),
    GgufReader(id="koboldcpp", name="KoboldCpp", basis=None, judge=_koboldcpp),
    GgufReader(
        id="transformers-gguf", name="transformers, gguf_file (5.23)", basis="run",
        judge=_transformers,
    ),
)  # fmt: skip
