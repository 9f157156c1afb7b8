"""Failures of the Hub: a sentence for every cause, and retries of requests."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from yarncli.errors import HubError, NotOnHubError
from yarncli.hub import waits

T = TypeVar("T")

RETRY_WAITS = (1.0, 3.0)  # seconds before each retry after a temporary failure
_LONGEST_WAIT = 60.0  # seconds; if a server asks for a longer wait, the command gives up
_TOKEN = re.compile(r"\bhf_\w+")
_LONGEST_WORDS = 300  # characters of a server's message that are shown
_NOT_FOUND = (
    "the Hub has no such model, or it is private. Check the name; for a private model log in with "
    "`hf auth login` or set HF_TOKEN."
)
_BROKE = "the connection broke. Run the command again."
_XET_READING = "Task error: File reconstruction error"  # how hf_xet begins
_XET_CANNOT_WRITE = re.compile(rf"{_XET_READING}: IO Error: .*\(os error (\d+)\)")
_SAID = {401, 404, 412, 416, 429}  # statuses whose server message adds nothing to ours
_PASSING = {408, 429, 500, 502, 503, 504}
_REFUSALS = {400, 402, 403, 413, 422, 507}
# Texts of refusals by the Hub, e.g. "Private repository storage limit reached, please upgrade
# your plan", "Your storage patterns tripped our internal systems!", "pass `create_pr=1` as a query
# parameter to create a Pull Request" (huggingface_hub issues 3049, 3366, 1182).
_STORAGE_LIMIT = re.compile(r"storage (limit|patterns)|quota|upgrade your plan", re.IGNORECASE)
_BRANCH_CLOSED = re.compile(r"protected|create_pr", re.IGNORECASE)
_NO_SPACE = (
    "the storage of the account is used up or limited. Free some, or raise the limit in the "
    "settings of the account, then run the command again."
)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn every failure of the Hub, the network and the client into one sentence.

    From here on the client's log is silent, because its retry messages contain signed addresses.

    Args:
        what: what was requested, as the subject of the message: `org/name` or `FILE of org/name`;
            empty for the Hub as a whole.

    Raises:
        HubError: without the text of the original exception, which may hold a signed address.
        OSError: the cache cannot be written.
    """
    from huggingface_hub import errors

    httpx = client_utils().httpx
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

    try:
        yield
    except (
        errors.EntryNotFoundError,
        errors.FileMetadataError,
        errors.HFValidationError,
        errors.LocalTokenNotFoundError,
        errors.XetDownloadError,
        httpx.HTTPError,  # HfHubHTTPError and every failure of the transport
        httpx.InvalidURL,
        ConnectionError,  # OfflineModeIsEnabled, and Xet's failures
        json.JSONDecodeError,
        UnicodeEncodeError,  # a header cannot hold the token
    ) as error:
        if isinstance(error, UnicodeEncodeError) and error.encoding != "ascii":
            raise  # not about a header
        kind = NotOnHubError if _names_nothing(error) else HubError
        raise kind(_about(what, _sentence(error))) from None
    except (RuntimeError, ValueError, OSError) as error:
        if found := _XET_CANNOT_WRITE.match(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from None
        sentence = _sentence_of_bare(error)
        if sentence is None:
            raise
        raise HubError(_about(what, sentence)) from None


def _about(what: str, sentence: str) -> str:
    return f"{what}: {sentence}" if what else sentence[0].upper() + sentence[1:]


def _names_nothing(error: BaseException) -> bool:
    """Whether the requested model does not exist, or is hidden from this user."""
    from huggingface_hub import errors

    missing = (errors.RepositoryNotFoundError, errors.HFValidationError)
    return isinstance(error, missing) and not isinstance(error, errors.GatedRepoError)


def _sentence(error: BaseException) -> str:
    """A sentence with the cause of a failure and what to do."""
    from huggingface_hub import errors

    httpx = client_utils().httpx

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _sentence(error.__cause__)
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the certificate of the server is not trusted. Set SSL_CERT_FILE to the right one."
    table: list[tuple[Any, str]] = [  # subclasses before their bases
        (errors.GatedRepoError, "access must be granted first. Ask for it on the model's page on "
         "the Hub, then log in with `hf auth login` or set HF_TOKEN."),
        (errors.RepositoryNotFoundError, _NOT_FOUND),
        (errors.RevisionNotFoundError, "the model has no such revision. Check the branch, tag or "
         "commit after the @."),
        (errors.DisabledRepoError, "the Hub has disabled access to this model."),
        (errors.RemoteEntryNotFoundError, "the Hub has no such file at this commit."),
        (errors.OfflineModeIsEnabled, "not in the Hub cache, and HF_HUB_OFFLINE forbids fetching "
         "it. Unset HF_HUB_OFFLINE."),
        (errors.EntryNotFoundError, "not in the Hub cache, and the Hub cannot be asked."),
        (errors.FileMetadataError, "the server's answer lacks a file's commit, ETag or size, so it "
         "is not a Hub. Check HF_ENDPOINT and proxies."),
        (errors.HFValidationError, "that is not a valid Hub id. Write org/name."),
        (errors.LocalTokenNotFoundError, "a token is needed. Log in with `hf auth login` or set "
         "HF_TOKEN."),
        (UnicodeEncodeError, "the token has characters that are not possible in a token. "
         "Correct HF_TOKEN."),
        (json.JSONDecodeError, "the server's answer is not JSON, so it is not a Hub. Check "
         "HF_ENDPOINT and proxies."),
        (httpx.TimeoutException, "the server did not answer in time. Try again later. For reading, "
         "HF_HUB_DOWNLOAD_TIMEOUT (seconds) sets the limit."),
        (httpx.ProxyError, "the proxy refused the connection. Check HTTPS_PROXY."),
        (httpx.ConnectError, "the Hub cannot be reached. Check the network and HF_ENDPOINT, or set "
         "HF_HUB_OFFLINE=1 to use what is in the cache."),
        (httpx.InvalidURL, "HF_ENDPOINT is not a valid address."),
        (httpx.UnsupportedProtocol, "HF_ENDPOINT is not a valid address. Start it with https://."),
    ]  # fmt: skip
    for kind, sentence in table:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        said = "" if error.response.status_code in _SAID else error.server_message
        return (_cause_said(error) or _status_sentence(error)) + _server_words(said)
    return _xet_sentence(str(error)) or _BROKE


def _cause_said(error: Any) -> str | None:
    """The cause that the Hub's message names; its status code alone would suggest another."""
    if error.response.status_code not in _REFUSALS:
        return None
    said = error.server_message or ""
    if _STORAGE_LIMIT.search(said):
        return _NO_SPACE
    if _BRANCH_CLOSED.search(said):
        return (
            "the branch takes no commits from this token. Open a pull request with --create-pr, or "
            "push to another branch with --revision."
        )
    return None


def _status_sentence(error: Any) -> str:
    status = error.response.status_code
    if status == 401 and "Authorization" not in error.response.request.headers:
        return _NOT_FOUND  # without a token, missing and private models look the same
    sentences = {
        400: "the Hub does not accept the request.",
        401: "the Hub does not accept the token. Log in again with `hf auth login`, or correct "
        "HF_TOKEN.",
        403: "access is denied. Log in with a token that has the needed rights (`hf auth login`).",
        404: "the Hub does not have it. Check the name and HF_ENDPOINT.",
        409: "it conflicts with what is already on the Hub. Check that, then run it again.",
        412: "the branch got a new commit in the meantime. Run the command again.",
        413: "the Hub does not accept a file or a request of this size.",
        416: "the file is shorter than the Hub stated. Run the command again.",
    }
    if status == 429:
        wait = _wait_asked(error.response)
        when = f"in {wait:.0f} seconds" if wait is not None else "later"
        return f"the Hub limits the number of requests. Try again {when}."
    if status >= 500:
        return f"the Hub has an internal problem (status {status}). Try again later."
    return sentences.get(status, f"the Hub refused the request with status {status}.")


def _server_words(text: str | None) -> str:
    """The Hub's own message about a failure (such as a quota), as a sentence."""
    words = without_secrets(text or "")
    return f" The Hub says: {words}" if words and not words.startswith(("<", "{")) else ""


def without_secrets(text: str) -> str:
    """A server's message in one line, without tokens and addresses, which may be signed."""
    # Word by word, because a pattern over a long text would take quadratic time.
    hidden = ["…" if _is_address(word) else _TOKEN.sub("…", word) for word in text.split()]
    return " ".join(hidden)[:_LONGEST_WORDS]


def _is_address(word: str) -> bool:
    query = re.search(r"[?&]", word)
    return "://" in word or (query is not None and word.rfind("=") > query.end())


def _xet_sentence(text: str) -> str | None:
    """A sentence for the text of an hf_xet `ConnectionError` or, when reading, `RuntimeError`."""
    found = re.search(r"status \w+ error \((\d{3})\b", text)
    if found is None:
        return None
    status = int(found[1])
    asks_hub = re.search(r"xet-(write|read)-token", text) is not None
    if asks_hub and status == 404:
        return "this Hub has no Xet storage. Set HF_HUB_DISABLE_XET=1 and run again."
    if asks_hub and status == 403:
        return "the Hub gives no access to its Xet storage. Check the token's rights."
    signed = text.startswith(_XET_READING) and "/reconstructions/" not in text
    if status in (401, 403) and not signed:  # a request to a signed address has no token
        return "the Xet storage does not accept the token. Log in again with `hf auth login`."
    if status == 429:
        return "the Xet storage limits the number of requests. Try again later."
    if status >= 500:
        return f"the Xet storage has an internal problem (status {status}). Try again later."
    return f"the Xet storage refused the request with status {status}. Run the command again."


def _sentence_of_bare(error: BaseException) -> str | None:
    """A sentence for client errors without their own class; None for errors of other code."""
    text = str(error)
    if text.startswith(_XET_READING):
        return _xet_sentence(text) or _BROKE
    first, _, details = text.partition("\n")
    if first.startswith("Consistency check failed"):
        return "the file arrived with another size than the Hub states. Run the command again."
    if found := re.match(r"Error while uploading '(.*)' to the Hub", first):
        return _storage_sentence(found[1], error.__cause__)
    if first.startswith("Invalid metadata in README.md"):
        return (
            "the Hub does not accept the metadata of README.md. Correct the text between its "
            "--- lines." + _server_words(details)
        )
    if first.startswith("LFS batch API returned errors"):
        refused = "the Hub's file storage refused an upload. Run the command again, or ask the Hub."
        sentence = _NO_SPACE if _STORAGE_LIMIT.search(details) else refused
        return sentence + _server_words(details)
    return None


def _storage_sentence(name: str, cause: BaseException | None) -> str:
    """Why the file storage did not accept a file, as the client's last attempt ended."""
    from huggingface_hub import errors

    httpx = client_utils().httpx
    if isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        if said := _cause_said(cause):
            return said + _server_words(cause.server_message)
        if status >= 500:
            return f"the file storage failed for {name} with status {status}. Try again later."
        words = _server_words(cause.server_message)
        return (
            f"the file storage refused {name} with status {status}. Run the command again.{words}"
        )
    if isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout)):
        return f"the file storage cannot be reached for {name}. Check the network."
    if isinstance(cause, httpx.TimeoutException):
        return f"the file storage did not answer in time for {name}. Run the command again."
    if isinstance(cause, httpx.HTTPError):
        return (
            f"the connection to the file storage broke while sending {name}. Run the command again."
        )
    return f"the upload of {name} failed. Run the command again."


def retried(call: Callable[[], T]) -> T:
    """Call a function, and retry after temporary failures: 5xx, 429, connections, timeouts.

    Failures of Xet are not retried, because the client has already tried for minutes.
    """
    from huggingface_hub.errors import HfHubHTTPError

    httpx = client_utils().httpx

    for number, pause in enumerate(RETRY_WAITS, 2):
        cause = "The connection broke"
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _PASSING:
                raise
            cause = f"The server answered {error.response.status_code}"
            asked = _wait_asked(error.response)
            if asked is not None:
                if asked > _LONGEST_WAIT:
                    raise
                pause = asked
        except httpx.TimeoutException:
            cause = "The server did not answer in time"
        except json.JSONDecodeError:
            cause = "The answer did not come from the Hub, but perhaps from a proxy"
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            pass
        waits.tell_retry(cause, pause, number, len(RETRY_WAITS) + 1)
        time.sleep(pause)
    return call()


def _wait_asked(response: Any) -> float | None:
    """Seconds to wait that an answer states (Retry-After, or the reset of RateLimit)."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*", response.headers.get("Retry-After", ""))
    match = match or re.search(r";\s*t\s*=\s*(\d{1,6})", response.headers.get("RateLimit", ""))
    return float(match[1]) if match else None


def config_error() -> type[Exception]:
    """The exception of transformers' config classes, which huggingface_hub defines."""
    from huggingface_hub.errors import StrictDataclassError

    return StrictDataclassError


def client_utils() -> Any:
    """huggingface_hub.utils, whose `httpx` is httpx in 1.x and httpx2 in 2.x; it has no types."""
    return import_module("huggingface_hub.utils")
