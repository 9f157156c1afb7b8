"""Record what transformers 4.50, 4.55 and 4.57 compute for `support/engine_cases.py`.

    python scripts/record_transformers4.py PYTHON_450 PYTHON_455 PYTHON_457

Each argument is a Python that has torch and that release installed. Writes
`tests/engines/transformers4.json`: distinct results once, and for each release one index per case.
Only a few frequencies are kept, enough to distinguish any two settings.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SUPPORT = TESTS / "support"


def main(pythons: list[str]) -> None:
    """Run every release and write the file."""
    all_cases = runpy.run_path(str(SUPPORT / "engine_cases.py"))["all_cases"]
    cases = [{"config": c, "length": n} for _, c, n in all_cases()]
    results: list[Any] = []
    releases: dict[str, list[int]] = {}
    for python in pythons:
        found = subprocess.run(
            [python, str(SUPPORT / "engine_oracle.py")],
            input=json.dumps({"cases": cases}),
            capture_output=True,
            text=True,
            check=True,
        )
        document = json.loads(found.stdout)
        indices = []
        for result in map(_shortened, document["results"]):
            if result not in results:
                results.append(result)
            indices.append(results.index(result))
        releases[document["transformers"]] = indices
    lines = ",\n".join(json.dumps(result) for result in results)
    path = TESTS / "engines" / "transformers4.json"
    path.write_text(f'{{"releases": {json.dumps(releases)},\n"results": [\n{lines}\n]}}\n')
    print(f"{path}: {len(cases)} cases, {len(results)} distinct results")


def _shortened(result: dict[str, Any]) -> dict[str, Any]:
    """The result with some frequencies by index; the message of an error is dropped."""
    if "error" in result:
        return {"error": result["error"].split(":")[0]}
    scopes = {}
    for name, scope in result["scopes"].items():
        inv_freq = scope["inv_freq"]
        count = len(inv_freq)
        some = sorted({1, count // 4, count // 2, (3 * count) // 4, count - 1})
        scopes[name] = {
            "pairs": count,
            "inv_freq": {str(i): inv_freq[i] for i in some},
            "attention_factor": scope["attention_factor"],
        }
    return {"scopes": scopes, "softmax": result["softmax"]}


if __name__ == "__main__":
    main(sys.argv[1:])
