"""Write the demo model as a GGUF file, as the pages of the documentation need it.

python tests/support/demo_gguf.py FILE [TYPE]     TYPE of the matrices: F16 (default), Q8_0, …
"""

import sys
import tempfile
from pathlib import Path

from gguf_files import demo_arrays, demo_keys, write_gguf


def main(path: Path, kind: str) -> None:
    """Store every matrix as `kind`, or F16 where its blocks do not fit, and vectors as F32."""
    with tempfile.TemporaryDirectory() as directory:
        arrays = demo_arrays(Path(directory) / "model")
    types = {
        name: kind if array.shape[-1] % 32 == 0 else "F16"
        for name, array in arrays.items()
        if array.ndim > 1
    }
    write_gguf(path, demo_keys(), arrays, types)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or ["F16"]))
