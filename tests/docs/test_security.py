"""SECURITY.md says what the code does: its limits are the code's, and what it rules out is out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from yarncli.checkpoint import safetensors, source
from yarncli.config import text_model
from yarncli.evaluation import passkey, result_file, template
from yarncli.evaluation.settings import LoadSettings
from yarncli.jsontext import fields, text, yaml_text
from yarncli.publishing import base
from yarncli.rope import parameters

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_the_table_of_limits_is_the_code_s() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    told = [
        [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", row.split("|")[2])]
        for row in rows
    ]
    assert told == [
        [source.MAX_CONFIG_SIZE],
        [text.MAX_BYTES, text.MAX_VALUES, text.MAX_KEYS, text.MAX_DEPTH],
        [text.MAX_DIGITS],
        [fields.MOST_ENTRIES],
        [text_model.MOST_LAYERS, text_model._MOST_HEADS, parameters.WIDEST_HEAD],
        [fields.MOST],
        [safetensors.MAX_HEADER_SIZE, safetensors._MAX_VALUES],
        [safetensors.MAX_INDEX_SIZE, safetensors._MAX_VALUES, safetensors._MAX_SHARDS],
        [base.MAX_CARD_SIZE, yaml_text.MAX_LENGTH, yaml_text._MAX_EVENTS, yaml_text.MAX_DEPTH],
        [result_file._MAX_SIZE],
        [passkey._MOST_TOKENS],
    ]
    assert fields.MOST == parameters.LONGEST
    assert "20 seconds and 1 GiB" in PAGE
    assert (template._SECONDS, template._MEMORY) == (20, 1 << 30)


def test_code_of_a_checkpoint_is_trusted_by_nobody_but_the_user() -> None:
    assert LoadSettings().trust_remote_code is False


def test_nothing_of_ours_runs_a_program_or_opens_a_pickle() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "yarncli").rglob("*.py")
        if re.search(
            r"\bsubprocess\b|\bos\.(system|popen|exec|spawn)|\b(exec|eval)\(|\bimport pickle\b"
            r"|torch\.load|yaml\.(load|unsafe_load|full_load)\(",
            re.sub(r"\.eval\(\)", "", path.read_text(encoding="utf-8")),
        )
    }
    # The child that renders a chat template; the safe loader behind its guard.
    assert found == {"yarncli/evaluation/template.py", "yarncli/jsontext/yaml_text.py"}


def test_a_refusal_for_remote_code_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "auto_map": {"AutoConfig": "x.C"}}'
    )
    code = (
        "import sys\nfrom yarncli.cli.app import app\n"
        "try: app(['check-passkey', sys.argv[1]])\nexcept SystemExit as end: code = end.code\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert "brings its own Python code" in done.stderr


def test_pages_lead_there() -> None:
    for name in ("README.md", "docs/check-passkey.md", "CONTRIBUTING.md"):
        assert "SECURITY.md" in (ROOT / name).read_text(encoding="utf-8"), name
