"""Find access tokens and private keys in texts by the format of each issuer.

Every format has a fixed part. A text is first searched for that part with `bytes.find`, so long
texts take little time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_BLOCK = 1 << 22  # bytes searched at once
_LONGEST = 1 << 12  # bytes; no secret, with the text before it that its form needs, is longer
_SAMPLE = 1 << 16  # bytes read to decide whether a file is text


class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Secret:
    """A place in a file that looks like a secret. The secret itself is never kept or shown."""

    line: int
    """Number of the line, from 1."""
    kind: str
    """The kind of secret, worded to follow "what looks like"."""


_TOKEN = "an access token"
_KEY = "a private key"
# Kind, fixed parts, and the form from the fixed part on. If a letter or digit stands before the
# fixed part, it is part of another word and no secret, unless the form states what stands before.
_FORMS: tuple[tuple[str, tuple[bytes, ...], bytes], ...] = (
    (f"{_TOKEN} of Hugging Face", (b"hf_",), rb"hf_[A-Za-z0-9]{30,}"),
    (f"{_TOKEN} of Hugging Face", (b"api_org_",), rb"api_org_[A-Za-z0-9]{30,}"),
    (f"{_TOKEN} of GitHub", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
     rb"gh[pousr]_[A-Za-z0-9]{36,}"),
    (f"{_TOKEN} of GitHub", (b"github_pat_",), rb"github_pat_\w{50,}"),
    (f"{_TOKEN} of GitLab", (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glcbt-", b"glsoat-"),
     rb"gl(?:pat|dt|rt|ptt|cbt|soat)-[\w.-]{20,}"),
    ("an API key", (b"sk-",), rb"sk-(?:[a-z]{2,12}[0-9]{0,2}-){0,2}(?=[\w-]*\d)[\w-]{32,}"),
    ("an API key", (b"gsk_", b"xai-", b"pplx-", b"r8_", b"fw_", b"tgp_v1_", b"csk-"),
     rb"(?:gsk_|xai-|pplx-|r8_|fw_|tgp_v1_|csk-)(?=\w*\d)[A-Za-z0-9_]{32,}"),
    ("an API key of NVIDIA", (b"nvapi-",), rb"nvapi-[\w-]{40,}"),
    ("an API key of Weights & Biases", (b"wandb_v1_",), rb"wandb_v1_\w{40,}"),
    ("an API key of Weights & Biases", (b"andb", b"ANDB"),
     rb"(?<=[wW])(?i:andb)[^\n]{0,60}?(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"),
    (f"{_TOKEN} of AWS", (b"AKIA", b"ASIA", b"ABIA", b"ACCA"),
     rb"A(?:KI|SI|BI|CC)A[0-9A-Z]{16}"),
    ("a secret key of AWS", (b"aws_secret", b"AWS_SECRET", b"SecretAccessKey", b"secretAccessKey"),
     rb"(?:(?i:aws_secret_(?:access_)?key)|[sS]ecretAccessKey)[\"']?\s*[=:]\s*[\"']?"
     rb"[A-Za-z0-9/+]{40}"),
    ("an API key of Google", (b"AIza",), rb"AIza[\w-]{35}"),
    (f"{_TOKEN} of Google", (b"GOCSPX-", b"ya29."), rb"(?:GOCSPX-[\w-]{28}|ya29\.[\w-]{30,})"),
    ("a key of Azure", (b"AccountKey=",), rb"AccountKey=[A-Za-z0-9+/]{86}=="),
    (f"{_TOKEN} of npm", (b"npm_",), rb"npm_[A-Za-z0-9]{36}"),
    (f"{_TOKEN} of a package registry", (b"_authToken", b"_password"),
     rb"_(?:authToken|password)\s*=\s*[\"']?(?!\$)[\w+/=.-]{16,}"),
    (f"{_TOKEN} of PyPI", (b"pypi-AgE",), rb"pypi-AgE[\w-]{50,}"),
    (f"{_TOKEN} of Slack", (b"xox", b"xapp-"), rb"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{20,}"),
    (f"{_TOKEN} of Slack", (b"hooks.slack.com/services/",),
     rb"hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}"),
    ("a key of Stripe", (b"_live_",), rb"(?<=[sr]k)_live_[A-Za-z0-9]{20,}"),
    ("an API key of SendGrid", (b"SG.",), rb"SG\.[\w-]{20,24}\.[\w-]{39,50}"),
    (f"{_TOKEN} of DigitalOcean", (b"dop_v1_", b"doo_v1_"), rb"do[op]_v1_[0-9a-f]{64}"),
    (f"{_TOKEN} of Docker", (b"dckr_pat_", b"dckr_oat_"), rb"dckr_[po]at_[\w-]{24,}"),
    (f"{_TOKEN} of Databricks", (b"dapi",), rb"dapi[0-9a-f]{32}(?:-\d)?"),
    (f"{_TOKEN} of Vault", (b"hvs.", b"hvb."), rb"hv[sb]\.[\w-]{60,}"),
    (f"{_TOKEN} of Telegram", (b":AA",), rb"(?<=\d{8}):AA[\w-]{33}"),
    (f"{_TOKEN} (JWT)", (b"eyJ",), rb"eyJ[\w-]{12,}\.eyJ[\w-]{12,}\.[\w-]{20,}"),
    ("a password in an address", (b"://",),
     rb"(?<=[A-Za-z0-9])://[^\s/:@\"'<>{}$*]{1,100}:(?!(?i:pass|pwd|x{3}|secret@|token@))"
     rb"[^\s/@\"'<>{}$*:]{6,200}@[\w.-]+"),
    (_KEY, (b"-----BEGIN ",), rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    (_KEY, (b"PuTTY-User-Key-File-",), rb"PuTTY-User-Key-File-\d"),
    ("an entry of .netrc", (b"machine ",),
     rb"machine\s+[\w.-]+\s+login\s+\S+\s+password\s+(?![<$*])\S{8,}"),
)  # fmt: skip
_COMPILED = tuple(
    (kind, fixed, re.compile(form if form.startswith(b"(?<=") else rb"(?<![A-Za-z0-9])" + form))
    for kind, fixed, form in _FORMS
)


def find_secrets(file: _Bytes) -> Iterator[Secret]:
    r"""Find what looks like a secret in a text, at most one per line; binary files give nothing.

    The file is read to its end in pieces. UTF-8 and UTF-16 count as text, with or without a BOM.

    Args:
        file: a file opened for reading bytes, at its start.

    Example:
        >>> import io
        >>> [found.line for found in find_secrets(io.BytesIO(b"ok\nkey = hf_" + b"a1" * 17))]
        [2]
    """
    sample = file.read(_SAMPLE)
    encoding = _encoding(sample)
    if encoding is None:
        return
    file.seek(0)
    line, kept, told = 1, b"", 0
    while block := file.read(_BLOCK):
        text = kept + (block if encoding == "utf-8" else _narrowed(block, encoding))
        for secret in _search(text, line):
            if secret.line > told:  # one secret per line is enough
                told = secret.line
                yield secret
        kept = text[-_LONGEST:]
        line += text.count(b"\n", 0, len(text) - len(kept))


def _search(text: bytes, first_line: int) -> list[Secret]:
    found: dict[int, str] = {}
    for kind, fixed, form in _COMPILED:
        for part in fixed:
            at = text.find(part)
            while at >= 0:
                match = form.match(text, at, at + _LONGEST)
                if match:
                    found.setdefault(at, kind)
                at = text.find(part, match.end() if match else at + len(part))
    secrets, line, seen = [], first_line, 0
    for at, kind in sorted(found.items()):
        line += text.count(b"\n", seen, at)
        seen = at
        secrets.append(Secret(line, kind))
    return secrets


def _encoding(sample: bytes) -> str | None:
    """The encoding of a text, judged by its first bytes; None if it is not text."""
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16-le" if sample[:1] == b"\xff" else "utf-16-be"
    if b"\0" not in sample:
        try:
            sample.decode()
        except UnicodeDecodeError as error:  # the sample may end inside a character
            return "utf-8" if error.start > len(sample) - 4 else _latin(sample)
        return "utf-8"
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) > 0.4 * len(sample[::2]) and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return None


def _latin(sample: bytes) -> str | None:
    """Whether this is text in an older encoding: it has almost no control characters."""
    controls = len(sample) - len(sample.translate(None, bytes({*range(32)} - {9, 10, 12, 13, 27})))
    return "utf-8" if controls == 0 else None


def _narrowed(block: bytes, encoding: str) -> bytes:
    """A piece of the text in UTF-8. Pieces have an even number of bytes, as UTF-16 needs."""
    return block.decode(encoding, "replace").encode("utf-8", "replace")
