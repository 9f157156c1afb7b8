"""Every rule of `check` with its texts: the one source of `--explain` and of the docs.

The texts stand in `catalogue.json`, in the order of the pages: severity, title, what the rule
breaks, what to do. `yours_to_decide` adds that `--fix` does not change it. `engines` may name a
group of `_GROUPS`.
"""

from __future__ import annotations

import json
from pathlib import Path

from yarncli.options import choose
from yarncli.rules.finding import Rule

_YOURS = " `--fix` does not change it, because only you know which value is right."
_GROUPS = {
    "readers of rope_parameters": ("transformers-5", "vllm", "sglang", "llama.cpp"),
    "readers of rope_scaling": (
        "transformers-4.57", "transformers-4.55", "transformers-4.50", "mlx-lm",
    ),
}  # fmt: skip


def read_rules(path: Path) -> dict[str, Rule]:
    """The rules of a file like `catalogue.json`, by id."""
    return {
        name: Rule(
            id=name,
            severity=entry["severity"],
            title=entry["title"],
            breaks=entry["breaks"],
            mend=entry["mend"] + (_YOURS if entry.get("yours_to_decide") else ""),
            fixable=entry.get("fixable", False),
            engines=tuple(
                engine
                for named in entry.get("engines", ())
                for engine in _GROUPS.get(named, (named,))
            ),
        )
        for name, entry in json.loads(path.read_text(encoding="utf-8")).items()
    }


# How to add a rule (CONTRIBUTING.md, “A rule of `yarncli check`”, has the details):
#
# 1. Add its texts to `catalogue.json`, at the place that it should have in the table of the docs.
# 2. Write a function in the module of its kind, `*_rules.py`, and add it to the list at the end of
#    that module.
# 3. Add a config that breaks the rule to `CASES` of `tests/rules/test_rules.py`. If the text names
#    a command in backticks, add a case to `MENDS` of `tests/cli/test_suggestions.py`.
# 4. Run `make docs`.
RULES = read_rules(Path(__file__).with_name("catalogue.json"))


def get_rule(name: str) -> Rule:
    """The rule whose id is `name`.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    return RULES[choose(name, RULES, "rule")]


def explain(rule: Rule) -> str:
    """One rule as a page of Markdown."""
    fixed = "yes, where the right value is certain" if rule.fixable else "no"
    engines = f"\n\nEngines: {', '.join(rule.engines)}." if rule.engines else ""
    return (
        f"# {rule.id}\n\n{rule.title} ({rule.severity}).\n\n"
        f"## What it breaks\n\n{rule.breaks}{engines}\n\n"
        f"## What to do\n\n{rule.mend}\n\nCorrected by `--fix`: {fixed}.\n"
    )
