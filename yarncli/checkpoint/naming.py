"""How a user names a source on the Hub, and the help for addresses that have another form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from yarncli.errors import CheckpointError, UsageError

_REPO_ID = r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}"
_HUB_SOURCE = re.compile(rf"hf://({_REPO_ID})(?:@([^@\s]{{1,255}}))?", re.ASCII)
_BARE_ID = re.compile(rf"({_REPO_ID})(?:@([^@\s]{{1,255}}))?", re.ASCII)
# The address of a page of the Hub; pathlib makes one slash of two.
_WEB = re.compile(r"(?:https?:/{1,2})?(?:www\.)?(?:huggingface\.co|hf\.co)/+(\S+)", re.IGNORECASE)
_OTHER_KINDS = {
    "datasets": "a dataset",
    "spaces": "a Space",
    "kernels": "a kernel",
    "buckets": "a bucket",
}
# First parts of addresses that belong to no model.
_PAGES = frozenset(
    "api blog chat collections docs join learn login models organizations papers posts pricing "
    "settings tasks".split()
)
# What follows org/name in an address: a file or folder at a revision, or something about it.
_AT_REVISION = frozenset({"tree", "blob", "resolve", "raw", "commit", "commits", "edit"})


def hub_source(source: str) -> tuple[str, str | None] | None:
    """`(repo_id, revision)` of `hf://org/name[@revision]`; None for anything without `hf://`.

    Raises:
        CheckpointError: it is a GGUF file.
        UsageError: it begins so and is no Hub id.
    """
    if not source.startswith("hf://"):
        return None
    match = _HUB_SOURCE.fullmatch(source)
    if not match and source.endswith(".gguf"):
        raise CheckpointError(
            f"{source} is a GGUF file, which this command does not take. Name the checkpoint it "
            "was made from."
        )
    if not match:
        refuse_address(source)
        raise UsageError(f"{source!r} is not a Hub id. Write hf://org/name or hf://org/name@rev.")
    return match[1], match[2]


def bare_hub_source(source: str, *, allowed: bool) -> tuple[str, str | None]:
    """`(repo_id, revision)` of a source that is no path here, as in `org/name[@revision]`.

    Args:
        source: as the user wrote it.
        allowed: whether a bare id may mean the Hub at all.

    Raises:
        CheckpointError: it is not an id, or a directory `org/` exists here.
        UsageError: it is a web address, or no model.
    """
    refuse_address(source)
    match = _BARE_ID.fullmatch(source)
    if match and "/" in match[1]:
        if Path(match[1].partition("/")[0]).is_dir():
            raise CheckpointError(
                f"There is no {source} here.{_similar(source)} For the model of that name on the "
                f"Hub write hf://{source}."
            )
        if allowed:
            return match[1], match[2]
    raise CheckpointError(
        f"{source} does not exist.{_similar(source)} For a model of the Hub write hf://org/name."
    )


def refuse_address(source: str) -> None:
    """Refuse the address of a web page, and things on the Hub that are not models.

    Args:
        source: as the user wrote it; no path here.

    Raises:
        UsageError: it is one of these; the message shows the right form.
    """
    web = _WEB.fullmatch(source)
    path = web[1] if web else source.removeprefix("hf://")
    kind, *names = parts = _parts(path)
    if kind in _OTHER_KINDS and names:
        raise UsageError(
            f"{source} is {_OTHER_KINDS[kind]} on the Hub, and yarncli reads models. Name a model: "
            "hf://org/name."
        )
    form = _hub_form(parts) if kind not in _PAGES else ""
    if (web or source.startswith("hf://")) and form not in ("", source):
        what = "the address of a page of the Hub" if web else "not a Hub id"
        raise UsageError(f"{source} is {what}. Write {form}.")
    if web or re.match(r"https?:/", source):
        raise UsageError(f"{source} is a web address. For a model of the Hub write hf://org/name.")


def require_order(source: object, out: Path | None, *, overwrite: bool = False) -> None:
    """Refuse an output that is the source, or that is not a path on this machine.

    Args:
        source: as the user gave it.
        out: what is to be written; None for nothing.
        overwrite: whether `out` may exist.

    Raises:
        UsageError: SOURCE and OUT are swapped, or OUT is an address, or a GGUF file's name for a
            checkpoint.
    """
    if out is None or not isinstance(source, str | Path):
        return
    name = str(out)
    if re.match(r"hf:/|https?:/", name):
        raise UsageError(
            f"OUT is {name}, and this command writes on this machine. Write a directory here; "
            "`push` sends it to the Hub afterwards."
        )
    if out.suffix == ".gguf" and (Path(source) / "config.json").is_file():
        raise UsageError(
            f"OUT {name} has the name of a GGUF file, and {source} is a checkpoint, which is "
            "written as a directory. Convert that directory with llama.cpp's "
            "convert_hf_to_gguf.py afterwards."
        )
    is_here = Path(source).exists() or str(source).startswith("hf://")
    is_source = out.is_file() or (out / "config.json").is_file()
    if is_source and not is_here and not overwrite:
        swapped = shlex.join([name, str(source)])
        raise UsageError(
            f"SOURCE {source} does not exist here, and OUT {name} does. SOURCE comes first: "
            f"{swapped}. For a model of the Hub write hf://org/name and an OUT that is new."
        )


def _parts(path: str) -> list[str]:
    from urllib.parse import unquote

    return [unquote(part) for part in re.split(r"[?#]", path)[0].split("/") if part] or [""]


def _hub_form(parts: list[str]) -> str:
    """`hf://org/name[@revision][/file.gguf]` for the parts of an address; empty if there is none.

    Example:
        >>> _hub_form(["org", "name", "blob", "main", "q4", "x.gguf"])
        'hf://org/name/q4/x.gguf'
    """
    length = 1 if parts[1:2] and parts[1] in _AT_REVISION else 2
    name, rest = "/".join(parts[:length]).removesuffix(".git"), parts[length:]
    if not re.fullmatch(_REPO_ID, name, re.ASCII):
        return ""
    revision = ""
    if rest and rest[0] in _AT_REVISION:
        ref = "/".join(rest[1:]) + "/"
        found = re.match(r"(?:refs/pr/[0-9]+|[^/]+)(?=/)", ref)
        revision, rest = (found[0] if found else ""), [p for p in ref.split("/") if p]
        rest = rest[revision.count("/") + 1 :]
    at = "" if revision in ("", "main") else f"@{revision}"
    file = "/" + "/".join(rest) if rest and rest[-1].endswith(".gguf") else ""
    return f"hf://{name}{at}{file}"


def _similar(source: str) -> str:
    """A sentence that names what is here under a similar name; empty if nothing is."""
    from difflib import get_close_matches

    path = Path(source)
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    found = get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {path.with_name(found[0])}?" if found else ""
