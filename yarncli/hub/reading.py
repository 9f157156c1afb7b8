"""Reading from the Hub: one commit for the whole command, ranges of shards, the Hub cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from yarncli.errors import HubError, NotOnHubError
from yarncli.hub.cache import COMMIT, removed
from yarncli.hub.digests import Digest
from yarncli.hub.failures import client_utils, hub_errors, retried
from yarncli.progress import Advance
from yarncli.threads import Stopped, in_parallel

_MAX_CONFIG_SIZE = 32 << 20
_AT_A_TIME = 4  # files that are downloaded at once


@dataclass(frozen=True)
class Listing:
    """The files of one commit."""

    commit: str
    """Full commit hash."""
    files: dict[str, int]
    """Name → size in bytes; empty when offline."""
    snapshot: Path | None = None
    """The cached snapshot directory of the commit when offline, else None."""
    digests: Mapping[str, Digest] = field(default_factory=dict)
    """Name → the hash that the file must have."""


def list_files(repo_id: str, revision: str | None = None, *, known: str = "config.json") -> Listing:
    """Resolve a revision to its commit and list the files of that commit, in one request.

    With HF_HUB_OFFLINE the answer comes from the cache. Otherwise `config.json` is fetched as well,
    because every command reads it. It is fetched by the revision's name, so that the cache
    remembers the commit of that revision.

    Args:
        repo_id: `org/name`.
        revision: branch, tag, commit or `refs/pr/N`; the default branch if None.
        known: the file that is looked up in the cache when offline. Only `config.json` is also
            fetched.

    Raises:
        HubError: see `hub_errors`.
    """
    with hub_errors(_called(repo_id, revision)):
        from huggingface_hub import constants
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            info = retried(
                lambda: _model_info(repo_id, revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
            )
        except OfflineModeIsEnabled:
            return _offline_listing(repo_id, revision, known)
        files = {file.rfilename: file.size for file in info.siblings or ()}
        commit = info.sha or ""
        sizes = {name: size for name, size in files.items() if size is not None}
        if not COMMIT.fullmatch(commit) or sizes.keys() != files.keys():
            raise HubError(
                f"The server's answer about {repo_id} lacks the commit or file sizes. "
                "Check HF_ENDPOINT."
            )
        if known == "config.json" and sizes.get(known, _MAX_CONFIG_SIZE + 1) <= _MAX_CONFIG_SIZE:
            cached_file(repo_id, revision, known)
        return Listing(commit, files=sizes, digests=_digests(repo_id, info.siblings or ()))


def _model_info(repo_id: str, revision: str | None, *, timeout: float) -> Any:
    """What the Hub says about a model. If something else has that name, the error says what.

    Raises:
        NotOnHubError: a dataset or a Space has the name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        return HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout)
    except RepositoryNotFoundError as error:
        if isinstance(error, GatedRepoError):
            raise
        for kind, what in (("dataset", "a dataset"), ("space", "a Space")):
            with suppress(HfHubHTTPError, OSError, client_utils().httpx.HTTPError):
                HfApi().repo_info(repo_id, repo_type=kind, timeout=timeout)
                raise NotOnHubError(
                    f"{repo_id} is {what} on the Hub, and no model has that name. Give a model: "
                    "hf://org/name."
                ) from None
        raise


def _digests(repo_id: str, siblings: Iterable[Any]) -> dict[str, Digest]:
    """Name → its hash on the Hub: SHA-256 for large file storage, else the hash of its git blob."""
    values = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in siblings}
    return {
        name: Digest(file=f"{name} of {repo_id}", value=value, listed=True)
        for name, value in values.items()
        if value
    }


def cached_file(repo_id: str, revision: str | None, name: str) -> Path:
    """Path of a small file in the Hub cache, fetched if it is not there yet.

    A file of a cached commit is not requested again; a file of a branch or tag is.

    Raises:
        HubError: see `hub_errors`.
        OSError: the cache cannot be written (`output_errors` translates it).
    """
    with hub_errors(f"{name} of {repo_id}"):
        from huggingface_hub import hf_hub_download

        bar = _bar_class(None)
        return Path(
            retried(lambda: hf_hub_download(repo_id, name, revision=revision, tqdm_class=bar))
        )


def is_cached(repo_id: str, commit: str, name: str) -> bool:
    """Whether a file of a commit is in the Hub cache; no network."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str)


def download(
    repo_id: str,
    commit: str,
    files: Sequence[tuple[str, int]],
    *,
    progress: Advance | None = None,
) -> Path:
    """Download files of a commit into the Hub cache, several at a time.

    Args:
        repo_id: `org/name`.
        commit: full commit hash.
        files: `(name, size in bytes)`; at least one.
        progress: called with the bytes received since its last call; from worker threads, one
            at a time.

    Returns:
        The snapshot directory of the commit.

    Raises:
        HubError: see `hub_errors`; also if the size of a file differs from the listed size.
        OSError: the cache cannot be written (`output_errors` translates it).
    """
    from huggingface_hub import hf_hub_download

    snapshots = []

    def fetch(name: str, size: int, count: Advance) -> None:
        bar = _bar_class(count)
        with hub_errors(f"{name} of {repo_id}"):
            path = Path(
                retried(lambda: hf_hub_download(repo_id, name, revision=commit, tqdm_class=bar))
            )
        _require_size(path, size, f"{name} of {repo_id}")
        snapshots.append(path.parents[name.count("/")])

    jobs = [partial(fetch, *file) for file in files]
    in_parallel(jobs, workers=_AT_A_TIME, progress=progress, on_stop=_stop_xet)
    return snapshots[0]


def _require_size(path: Path, size: int, what: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise HubError(f"{what} has {found} bytes instead of {size}. {removed(path)}")


def read_range(repo_id: str, commit: str, name: str, offset: int, length: int) -> bytes:
    """Bytes `[offset, offset + length)` of a file, fewer at its end. No other bytes are fetched.

    Raises:
        HubError: see `hub_errors`; also if the server cannot send ranges.
    """
    if length <= 0:
        return b""
    with hub_errors(f"{name} of {repo_id}"):
        from huggingface_hub import constants, hf_hub_url

        utils = client_utils()
        headers = utils.build_hf_headers()
        headers |= {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        url = hf_hub_url(repo_id, name, revision=commit)

        def get() -> bytes:
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            with utils.get_session().stream(
                "GET", url, headers=headers, timeout=timeout
            ) as response:
                if response.is_error:
                    response.read()
                utils.hf_raise_for_status(response)
                if offset and response.status_code != 206:
                    raise HubError(f"The server cannot send parts of {name} of {repo_id}.")
                data = bytearray()
                for block in response.iter_raw():
                    data += block
                    if len(data) >= length:  # a server without ranges sends the whole file
                        break
                return bytes(data[:length])

        return retried(get)


def _offline_listing(repo_id: str, revision: str | None, known: str) -> Listing:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    found = try_to_load_from_cache(repo_id, known, revision=revision)
    if not isinstance(found, str):
        raise OfflineModeIsEnabled
    snapshot = Path(found).parents[known.count("/")]
    return Listing(snapshot.name, files={}, snapshot=snapshot)


def _called(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision}" if revision else repo_id


def _stop_xet() -> None:
    """Stop the transfers of hf_xet. Its threads would go on, and the program would wait for them.

    The client does this only if Ctrl-C interrupts its own code.
    """
    with suppress(ImportError, AttributeError):  # a private part of the client
        import_module("huggingface_hub.utils._xet").abort_xet_session()


def _bar_class(count: Advance | None) -> Any:
    """A progress bar class for the client that draws nothing but reports the bytes.

    Args:
        count: called with the bytes. It raises `Stopped` to end the transfer.
    """

    class Bar(client_utils().tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            name = str(kwargs.get("name"))
            self.of_xet = ".xet_get" in name
            self.counts = not name.endswith(
                ".transfer"
            )  # that bar counts the same bytes in compressed form
            if count:
                count(0)
            self.update(kwargs.get("initial", 0))

        def update(self, n: float | None = 1) -> bool | None:
            if count:
                # Nothing catches an exception in a thread of Xet.
                with suppress(Stopped) if self.of_xet else nullcontext():
                    count(int(n or 0) if self.counts else 0)
            return None

    return Bar
