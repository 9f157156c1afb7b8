"""llama.cpp's prebuilt library, fetched once, and run in a child process: a file may abort it.

    PYTHONPATH=tests:. python -m support.llamacpp FOLDER    jobs as JSON on stdin, a line each
    … FOLDER quantise SOURCE OUT NUMBER                     a file in a type of `FTYPES`

The package of npm holds shared libraries only; it is fetched by `npm pack`, which runs no script of
it, and its bytes are compared with the integrity below.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support import llamacpp_nodes

PACKAGE = "@node-llama-cpp/linux-x64"
VERSION = "3.22.1"
RUNTIME = "v0.5.0"
INTEGRITY = (
    "5uCCDNqWCNfaAm8aR/Uzxbo4HBpKgNF91kCHPepKhgMgV2OAmatoefbOlMihsqCiH2Od35E/eUHQCFbfRBJuOg=="
)
ROOT = Path(__file__).parents[2]
# Before each outcome: the library writes to stdout too.
_MARK = "outcome "
_WINDOWED = re.compile(r"layer +(\d+) assigned to device .*is_swa = 1")
# Level and text of what the library reports.
Said = list[tuple[int, str]]


@dataclass(frozen=True)
class Job:
    """A file to load, and where to look at its logits."""

    path: str
    tokens: Sequence[int]
    positions: Sequence[int] = (-1,)
    context: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    watch: bool = False
    """Whether to measure the rotations, instead of giving logits."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    logits: list[list[float]] | None
    """One list for each position; `None` where there is no answer."""
    aborted: bool
    """Whether the process ended by a signal."""
    said: str
    """What the library reported as warnings and errors."""
    window: int = 0
    """The window that the library takes for trained."""
    ran: bool = False
    """Whether the tokens went through the graph."""
    rotations: list[dict[str, Any]] = field(default_factory=list)
    """What rotates, in the order of the graph: `llamacpp_nodes.Rotation`."""
    softmax: dict[str, float] = field(default_factory=dict)
    """Layer with attention → the scale of its softmax."""
    windowed: list[int] = field(default_factory=list)
    """The layers with a sliding window."""


@functools.cache
def library() -> Path | None:
    """The folder with the libraries; `None` where npm, the network or the platform is missing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    cache = Path(os.environ.get("YARNCLI_TEST_CACHE", ROOT / ".test-cache"))
    folder = cache / f"llamacpp-{VERSION}"
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent"]
        try:
            subprocess.run(words, cwd=scratch, check=True, capture_output=True, timeout=240)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        (archive,) = Path(scratch).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        assert digest == INTEGRITY, f"{PACKAGE} {VERSION} is not the package that was examined"
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        made = Path(scratch, "package", "bins", "linux-x64")
        if not folder.is_dir():  # another worker may have been faster
            made.rename(folder)
    return folder


def run(jobs: Sequence[Job]) -> list[Outcome]:
    """The outcomes of some jobs, one process for as many as do not abort."""
    folder = library()
    assert folder is not None
    found: list[Outcome] = []
    while len(found) < len(jobs):
        waiting = [json.dumps(asdict(job)) for job in jobs[len(found) :]]
        child = subprocess.run(
            [sys.executable, "-m", "support.llamacpp", str(folder)],
            cwd=ROOT, input="\n".join(waiting), capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}",
                 "GGML_NO_BACKTRACE": "1"}, timeout=280,
        )  # fmt: skip
        lines = [line for line in child.stdout.splitlines() if line.startswith(_MARK)]
        found += [Outcome(**json.loads(line.removeprefix(_MARK))) for line in lines]
        if child.returncode < 0 and len(found) < len(jobs):
            found.append(Outcome(None, True, child.stderr[-2000:]))
        else:
            assert child.returncode == 0, child.stderr[-2000:]
    return found


# Of `llama_ftype` in `include/llama.h`.
FTYPES = {"Q8_0": 7, "Q4_K": 14, "Q6_K": 18, "IQ4_XS": 30}


def quantise(source: Path, out: Path, kind: str) -> Path:
    """A file with every matrix stored in one type of `FTYPES`, made by the library."""
    words = [sys.executable, "-m", "support.llamacpp", str(library()), "quantise", str(source)]
    subprocess.run(
        [*words, str(out), str(FTYPES[kind])], cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}, timeout=280,
    )  # fmt: skip
    return out


# Below is the child. The structures are those of `include/llama.h` at RUNTIME.
_P, _I, _U, _F, _B = (
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_bool,
)  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = [
        ("devices", _P), ("tensor_buft_overrides", _P), ("n_gpu_layers", _I), ("split_mode", _I),
        ("load_mode", _I), ("lazy_mode", _I), ("main_gpu", _I), ("tensor_split", _P),
        ("progress_callback", _P), ("progress_callback_user_data", _P), ("kv_overrides", _P),
        *((name, _B) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host",
                                  "no_alloc", "load_mtp")),
    ]  # fmt: skip


class _Context(ctypes.Structure):
    _fields_ = [
        *((name, _U) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq",
                                  "n_outputs_max", "n_outputs_max_per_seq")),
        *((name, _I) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type",
                                  "pooling_type", "attention_type", "flash_attn_type")),
        *((name, _F) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor",
                                  "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", _U), ("defrag_thold", _F), ("cb_eval", _P), ("cb_eval_user_data", _P),
        ("type_k", _I), ("type_v", _I), ("abort_callback", _P), ("abort_callback_data", _P),
        *((name, _B) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full",
                                  "kv_unified")),
        ("samplers", _P), ("n_samplers", ctypes.c_size_t), ("ctx_other", _P),
    ]  # fmt: skip


class _Quantise(ctypes.Structure):
    _fields_ = [
        *((name, _I) for name in ("nthread", "ftype", "output_tensor_type",
                                  "token_embedding_type")),
        *((name, _B) for name in ("allow_requantize", "quantize_output_tensor", "only_copy",
                                  "pure", "keep_split", "dry_run")),
        *((name, _P) for name in ("imatrix", "kv_overrides", "tt_overrides", "prune_layers")),
        ("max_buf_size", ctypes.c_size_t),
    ]  # fmt: skip


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", _I), ("token", ctypes.POINTER(_I)), ("embd", _P), ("pos", ctypes.POINTER(_I)),
        ("n_seq_id", ctypes.POINTER(_I)), ("seq_id", ctypes.POINTER(ctypes.POINTER(_I))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]  # fmt: skip


def load(folder: Path, said: Said) -> ctypes.CDLL:
    """The library, which adds to `said` what it reports."""
    for name in ("libggml-base.so", f"libggml.{RUNTIME}.so"):
        ggml = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(folder / f"libllama.{RUNTIME}.so"), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    for name, returns, takes in (
        ("llama_model_default_params", _Model, []),
        ("llama_context_default_params", _Context, []),
        ("llama_model_load_from_file", _P, [ctypes.c_char_p, _Model]),
        ("llama_init_from_model", _P, [_P, _Context]),
        ("llama_batch_init", _Batch, [_I, _I, _I]),
        ("llama_decode", _I, [_P, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(_F), [_P, _I]),
        ("llama_model_get_vocab", _P, [_P]),
        ("llama_vocab_n_tokens", _I, [_P]),
        ("llama_model_n_ctx_train", _I, [_P]),
        ("llama_model_quantize_default_params", _Quantise, []),
        ("llama_model_quantize", _U, [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]),
        ("llama_batch_free", None, [_Batch]),
        ("llama_free", None, [_P]),
        ("llama_model_free", None, [_P]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = returns, takes
    ggml.ggml_op_name.restype = ctypes.c_char_p

    def hear(level: int, text: bytes, _: Any) -> None:
        said.append((level, text.decode(errors="replace")))

    lib.hear = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)(hear)
    lib.llama_log_set(lib.hear, None)
    lib.operation = functools.cache(lambda number: ggml.ggml_op_name(number).decode())
    return lib


def complaints(said: Said) -> str:
    """Warnings, errors, and what continues them."""
    return "".join(text for level, text in said if level in (3, 4, 5))


def _answer(lib: ctypes.CDLL, job: dict[str, Any], said: Said) -> Outcome:
    said.clear()
    params = lib.llama_model_default_params()
    params.use_extra_bufts = False  # repacked weights compute other sums
    model = lib.llama_model_load_from_file(job["path"].encode(), params)
    if not model:
        return Outcome(None, False, complaints(said))
    tokens, context = job["tokens"], lib.llama_context_default_params()
    context.n_ctx, context.n_threads, context.n_threads_batch = job["context"], 1, 1
    context.n_batch = context.n_ubatch = max(len(tokens), 32)
    context.type_k = context.type_v = 0  # F32
    context.flash_attn_type = 0
    for name, value in job["overrides"].items():
        setattr(context, name, value)
    watcher = llamacpp_nodes.Watcher(lib.operation)
    see = llamacpp_nodes.Callback(watcher.see)
    if job["watch"]:
        context.cb_eval = ctypes.cast(see, _P)
    handle = lib.llama_init_from_model(model, context)
    if not handle:
        return Outcome(None, False, complaints(said))
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    wanted = [position % len(tokens) for position in job["positions"]]
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
        batch.logits[i] = i in wanted or job["watch"]
    batch.n_tokens = len(tokens)
    failed = lib.llama_decode(handle, batch)
    assert job["watch"] or not failed
    size, logits = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)), None
    if not job["watch"]:
        logits = [list(lib.llama_get_logits_ith(handle, i)[:size]) for i in wanted]
    window = lib.llama_model_n_ctx_train(model)
    lib.llama_batch_free(batch)
    lib.llama_free(handle)
    lib.llama_model_free(model)
    return Outcome(
        logits, False, complaints(said), window, ran=not failed, **watcher.to_json(),
        windowed=[int(match[1]) for _, text in said if (match := _WINDOWED.search(text))],
    )  # fmt: skip


def _end(found: Any) -> None:
    """End with what failed in a callback, which the library would not notice."""
    traceback.print_exception(found.exc_value)
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Answer the jobs on stdin."""
    said: Said = []
    sys.unraisablehook = _end
    lib = load(Path(sys.argv[1]), said)
    if sys.argv[2:]:
        _, source, out, ftype = sys.argv[2:]
        params = lib.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.pure = 1, int(ftype), True
        failed = lib.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params))
        sys.exit(complaints(said) if failed else 0)
    for line in sys.stdin.read().splitlines():
        print(_MARK + json.dumps(asdict(_answer(lib, json.loads(line), said))), flush=True)


if __name__ == "__main__":
    main()
