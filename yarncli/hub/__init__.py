"""The Hugging Face Hub: the only room that imports huggingface_hub, and only inside functions.

It works with huggingface_hub 1.31 and 2.x. Tokens, endpoints and offline mode are left to the
client (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME).
"""

from yarncli.hub.cache import identify_snapshot, in_cache, is_blob_of
from yarncli.hub.digests import Digest, digest_of_blob
from yarncli.hub.failures import hub_errors
from yarncli.hub.reading import (
    Listing,
    cached_file,
    download,
    is_cached,
    list_files,
    read_range,
)

__all__ = [
    "Digest",
    "Listing",
    "cached_file",
    "digest_of_blob",
    "download",
    "hub_errors",
    "identify_snapshot",
    "in_cache",
    "is_blob_of",
    "is_cached",
    "list_files",
    "read_range",
]
