"""What to cite, as BibTeX: the paper about the method, and yarncli."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Reference URL of a method in `METHODS` → its paper. A method that refers to code has no paper.
_PAPERS = {
    "https://arxiv.org/abs/2309.00071": """\
@inproceedings{peng2024yarn,
  title = {{YaRN}: Efficient Context Window Extension of Large Language Models},
  author = {Bowen Peng and Jeffrey Quesnelle and Honglu Fan and Enrico Shippole},
  booktitle = {The Twelfth International Conference on Learning Representations},
  year = {2024},
  url = {https://openreview.net/forum?id=wHBfxhZu1u}
}""",
    "https://arxiv.org/abs/2306.15595": """\
@misc{chen2023extending,
  title = {Extending Context Window of Large Language Models via Positional Interpolation},
  author = {Shouyuan Chen and Sherman Wong and Liangjian Chen and Yuandong Tian},
  year = {2023},
  eprint = {2306.15595},
  archivePrefix = {arXiv}
}""",
    "https://arxiv.org/abs/2402.13753": """\
@misc{ding2024longrope,
  title = {{LongRoPE}: Extending {LLM} Context Window Beyond 2 Million Tokens},
  author = {Yiran Ding and Li Lyna Zhang and Chengruidong Zhang and Yuanyuan Xu and Ning Shang
            and Jiahang Xu and Fan Yang and Mao Yang},
  year = {2024},
  eprint = {2402.13753},
  archivePrefix = {arXiv}
}""",
}
_OURS = """\
@software{yarncli,
  title = {yarncli: context extension of checkpoints, and proof that it worked},
  version = {VERSION}
}"""


def papers(reference_url: str, version: str) -> Iterator[str]:
    """The lines of the BibTeX entries.

    Args:
        reference_url: where the method is described.
        version: version of yarncli; a recorded version may be any text.
    """
    if reference_url in _PAPERS:
        yield from (*_PAPERS[reference_url].splitlines(), "")
    yield from _OURS.replace("VERSION", re.sub(r"[^\w.+-]", "", version)).splitlines()
