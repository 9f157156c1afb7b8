"""What to do where a GGUF file cannot be mended in its place: the command that writes another."""

from __future__ import annotations

import shlex

from yarncli.errors import YarncliError
from yarncli.gguf.extension import decide_extension
from yarncli.gguf.facts import Gguf
from yarncli.gguf.plan import plan_extension
from yarncli.gguf.reading import GgufRope, compare, read_gguf
from yarncli.gguf.runtime import Computed, run
from yarncli.gguf.source import GgufFile
from yarncli.planning.target import Target

_COPY = "Copy it to a file system such as ext4 or XFS, and mend the copy: yarncli check COPY --fix"


def mended_elsewhere(file: GgufFile, before: Gguf, after: Gguf) -> str:
    """How to get the mended file under another name, in a sentence.

    Args:
        file: that cannot be changed where it lies.
        before: its contents.
        after: what they would become.
    """
    found = read_gguf(after)
    if not isinstance(found, GgufRope) or found.parameters is None:
        return _COPY
    method, original = found.parameters.rope_type, found.original_length
    if method == "linear":
        original = round(found.window / found.parameters.resolved_factor())
    if method not in ("linear", "yarn") or not original:
        return _COPY
    target = Target(method=method, length=found.window, replace_scaling=True)
    try:
        plan = decide_extension(file, before, target, original_length=original)
        made = run(plan_extension(before, plan, replaces=True).applied(before))
    except YarncliError:
        return _COPY
    if not isinstance(made, Computed) or not compare(made, found.parameters, found.window).is_none:
        return _COPY
    words = ["yarncli", "convert", file.name, "OUT.gguf", "--method", method]
    words += ["--length", str(found.window), "--replace-scaling", "--original-length"]
    return f"That is what convert does: {shlex.join([*words, str(original)])}"
