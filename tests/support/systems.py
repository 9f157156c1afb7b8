"""Simulates Windows and macOS on Linux, as far as yarncli notices, in a separate process.

What those systems lack is removed before yarncli is imported, and what they do differently is
imitated. On Windows, descriptors change line ends unless they are opened as binary, an open file
cannot be renamed or removed, directories cannot be opened, and only a file that is open for writing
can be flushed.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

WINDOWS_LACKS = (
    "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "pread", "pwrite", "preadv",
    "pwritev", "copy_file_range", "sendfile", "fchmod", "fchown", "chown", "lchown", "geteuid",
    "getuid", "getegid", "getgid", "posix_fadvise", "posix_fallocate", "fdatasync", "statvfs",
    "fstatvfs", "sysconf", "SEEK_DATA", "SEEK_HOLE", "fork", "forkpty", "mkfifo", "getloadavg",
    "sched_getaffinity", "umask_", "uname", "killpg", "getpgid", "setsid", "memfd_create",
)  # fmt: skip
WINDOWS_LACKS_MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog")
MACOS_LACKS = (
    "copy_file_range", "posix_fadvise", "posix_fallocate", "fdatasync", "sched_getaffinity",
    "memfd_create", "O_TMPFILE", "O_DIRECT", "O_PATH",
)  # fmt: skip
_F_FULLFSYNC = 51
_O_BINARY = 1 << 15  # a flag that Linux ignores on this machine


def become(system: str) -> dict[str, int]:
    """Let this process behave as on "windows" or "macos".

    Returns:
        How often some calls were made; the counts keep growing.
    """
    # Other packages keep the real system; only yarncli is tested.
    import asyncio
    import concurrent.futures.thread
    import ctypes
    import multiprocessing
    import shutil
    import subprocess
    import sysconfig
    import tempfile

    import filelock._unix
    import huggingface_hub
    import numpy
    import rich.progress
    import typer

    del asyncio, concurrent, multiprocessing, numpy, rich, subprocess, tempfile, typer
    huggingface_hub.HfApi()
    sysconfig.get_config_vars()
    filelock._unix.os = types.SimpleNamespace(**vars(os))  # type: ignore[attr-defined]
    counts = {"full flushes": 0, "flushes": 0}
    _hide_linux()
    if system == "windows":
        statvfs = os.statvfs
        shutil.disk_usage = lambda path: _Usage(statvfs(path))  # type: ignore[assignment]
        _take(os, WINDOWS_LACKS)
        for name in WINDOWS_LACKS_MODULES:
            sys.modules[name] = None  # type: ignore[assignment]
        os.supports_dir_fd.clear()
        os.supports_fd.clear()
        os.supports_follow_symlinks.clear()
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        ctypes.windll = _Console()  # type: ignore[attr-defined]
        _text_descriptors()
        _sharing()
        sys.platform = "win32"
    else:
        import fcntl

        _take(os, MACOS_LACKS)
        _take(fcntl, [name for name in dir(fcntl) if "LEASE" in name or name == "F_SETSIG"])
        _mac_files(fcntl, counts)
        sys.platform = "darwin"
    return counts


def _take(module: Any, names: Any) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _hide_linux() -> None:
    """No file of /proc or /sys is there."""
    for module in (io, builtins):
        real = module.open

        def opened(file: Any, *args: Any, _real: Any = real, **options: Any) -> Any:
            if isinstance(file, (str, os.PathLike)) and os.fspath(file)[:5] in ("/proc", "/sys/"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
            return _real(file, *args, **options)

        module.open = opened


class _Usage:
    """What `shutil.disk_usage` tells."""

    def __init__(self, found: os.statvfs_result) -> None:
        self.free = found.f_bavail * found.f_frsize


class _Console:
    """kernel32 where the output is no console."""

    def __init__(self) -> None:
        self.kernel32 = self

    def GetStdHandle(self, number: int) -> int:
        return number

    def GetConsoleMode(self, handle: int, mode: Any) -> int:
        return 0


def _text_descriptors() -> None:
    """Descriptors as those of Windows: of text unless O_BINARY says otherwise."""
    os.O_BINARY = _O_BINARY  # type: ignore[attr-defined]
    opened, read, written, flushed = os.open, os.read, os.write, os.fsync
    text: set[int] = set()
    access: dict[int, int] = {}

    def our_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        descriptor = opened(path, flags & ~_O_BINARY, mode, dir_fd=dir_fd)
        (text.discard if flags & _O_BINARY else text.add)(descriptor)
        access[descriptor] = flags & (os.O_RDWR | os.O_WRONLY)
        return descriptor

    def our_read(descriptor: int, length: int) -> bytes:
        data = read(descriptor, length)
        return data.partition(b"\x1a")[0].replace(b"\r\n", b"\n") if descriptor in text else data

    def our_write(descriptor: int, data: Any) -> int:
        if descriptor not in text:
            return written(descriptor, data)
        written(descriptor, bytes(data).replace(b"\n", b"\r\n"))
        return len(data)

    def our_flush(descriptor: int) -> None:
        if not access.get(descriptor, 1):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed(descriptor)

    os.open, os.read, os.write, os.fsync = our_open, our_read, our_write, our_flush  # type: ignore[assignment]


def _sharing() -> None:
    """An open file, and a directory with an open file, cannot be renamed, removed or replaced."""
    listed, link = os.listdir, os.readlink

    def refuse(*paths: Any) -> None:
        held = []
        for number in listed("/proc/self/fd"):
            with contextlib.suppress(OSError):
                held.append(link(f"/proc/self/fd/{number}"))
        for path in paths:
            real = os.path.realpath(path)
            if any(each == real or each.startswith(f"{real}/") for each in held):
                raise PermissionError(errno.EACCES, "The file is in use by another process", path)

    def guarded(name: str) -> None:
        real = getattr(os, name)

        def call(source: Any, *rest: Any, **options: Any) -> Any:
            if options.get("dir_fd") is None:
                refuse(source, *rest[:1] if name in ("rename", "replace") else ())
            if name == "rename" and os.path.lexists(rest[0]):
                raise FileExistsError(errno.EEXIST, "File exists", source)
            if name == "replace" and Path(rest[0]).is_dir():
                raise PermissionError(errno.EACCES, "Access is denied", source)
            return real(source, *rest, **options)

        setattr(os, name, call)

    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        guarded(name)

    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    os.symlink = no_link  # type: ignore[assignment]


def _mac_files(fcntl: Any, counts: dict[str, int]) -> None:
    real, flushed, asked = fcntl.fcntl, os.fsync, os.sysconf
    fcntl.F_FULLFSYNC = _F_FULLFSYNC

    def control(descriptor: int, command: int, argument: Any = 0) -> Any:
        if command == _F_FULLFSYNC:
            counts["full flushes"] += 1
            return 0
        return real(descriptor, command, argument)

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    def flush(descriptor: int) -> None:
        counts["flushes"] += 1
        flushed(descriptor)

    def number(name: str) -> int:
        if name == "SC_AVPHYS_PAGES":
            raise ValueError("unrecognized configuration name")
        return asked(name)

    fcntl.fcntl, fcntl.ioctl, os.fsync, os.sysconf = control, refuse, flush, number


def run_calls() -> None:
    """The child: run the command lines of stdin, and write how each ended to the file they name."""
    asked = json.load(sys.stdin)
    encoding = "cp1252" if asked["system"] == "windows" else "utf-8"
    if asked.get("model"):  # other packages import late; do that while this is Linux
        import matplotlib.figure  # noqa: F401
        import psutil  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer

        AutoTokenizer.from_pretrained(asked["model"])
        AutoModelForCausalLM.from_pretrained(asked["model"])
    counts = become(asked["system"])
    from yarncli.cli.app import main

    ended = {}
    for name, arguments in asked["calls"].items():
        out, told = (
            io.TextIOWrapper(io.BytesIO(), encoding, errors, write_through=True)
            for errors in ("strict", "backslashreplace")
        )
        sys.argv = ["yarncli", *arguments]
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            try:
                main()
            except SystemExit as error:
                code = error.code
            except BaseException:
                import traceback

                code = traceback.format_exc()
        texts = [s.buffer.getvalue().decode(encoding) for s in (out, told)]  # type: ignore[attr-defined]
        ended[name] = {"code": code or 0, "out": texts[0], "err": texts[1]}
    Path(asked["to"]).write_text(json.dumps({"ended": ended, "counts": counts}))


if __name__ == "__main__":
    run_calls()
