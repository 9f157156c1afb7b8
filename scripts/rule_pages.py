"""Write the pages of docs/rules/ from the rules of `yarncli check`."""

from __future__ import annotations

from pathlib import Path

from yarncli.rules.catalogue import RULES, explain

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "rules"


def pages() -> dict[str, str]:
    """File name → content."""
    rows = [
        f"| [`{rule.id}`]({rule.id}.md) | {rule.severity} | {rule.title} | "
        f"{'yes' if rule.fixable else ''} |"
        for rule in RULES.values()
    ]
    table = "| Rule | Severity | What is wrong | `--fix` |\n|---|---|---|---|\n" + "\n".join(rows)
    head = (
        "# Rules of yarncli check\n\nEach page says what is wrong, what it breaks and what to do. "
        "This list is made from the program; a test keeps it current.\n\n"
    )
    found = {f"{rule.id}.md": explain(rule) for rule in RULES.values()}
    return {"README.md": f"{head}{table}\n", **found}


def main() -> None:
    """Write all pages, and remove the pages of rules that no longer exist."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
