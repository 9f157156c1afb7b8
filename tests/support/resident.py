"""How much memory this process has (Linux)."""

from __future__ import annotations

import re
from pathlib import Path


def resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most so far (VmHWM).

    Not getrusage: its ru_maxrss begins with the size of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024
