"""Secrets in the files that would be published, and files that stay because of their names."""

from __future__ import annotations

import io
import json
import random
import string

import pytest

from support.checkpoints import DEMO
from yarncli.publishing.secrets import find_secrets

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def made(length, letters=ALNUM):
    """Letters as a token has them, among them a digit; the same in every run."""
    return "".join(random.Random(length).choices(letters, k=length - 1)) + "7"


HUB = "hf_" + "Secret" * 6
SAMPLES = {
    "hub": HUB,
    "hub organisation": "api_org_" + made(34),
    "github": "gho_" + made(36),
    "github fine": "github_pat_" + made(82),
    "gitlab": "glpat-" + made(20),
    "openai": "sk-" + made(48),
    "openai project": "sk-proj-" + made(120, ALNUM + "_-"),
    "anthropic": "sk-ant-api03-" + made(93, ALNUM + "_-"),
    "openrouter": "sk-or-v1-" + made(64, HEX),
    "groq": "gsk_" + made(52),
    "replicate": "r8_" + made(37),
    "nvidia": "nvapi-" + made(64, ALNUM + "_-"),
    "w&b variable": "WANDB_API_KEY=" + made(40, HEX),
    "w&b code": f"wandb.login(key='{made(40, HEX)}')",
    "w&b new": "wandb_v1_" + made(77, ALNUM + "_"),
    "aws": "AKIA" + "A1" * 8,
    "aws session": "ASIA" + "B2" * 8,
    "aws secret": f'"aws_secret_access_key": "{made(40, ALNUM + "/+")}"',
    "aws secret of json": f'"SecretAccessKey": "{made(40, ALNUM + "/+")}"',
    "gcp": "AIza" + made(35, ALNUM + "_-"),
    "gcp oauth": "GOCSPX-" + made(28, ALNUM + "_-"),
    "gcp service account": '"private_key": "-----BEGIN PRIVATE KEY-----\\nMII"',
    "azure": f"AccountKey={made(86, ALNUM + '+/')}==",
    "npm": "npm_" + made(36),
    "npm registry": "//registry.npmjs.org/:_authToken=" + made(36),
    "pypi": "pypi-AgEIcHlwaS5vcmc" + made(120, ALNUM + "_-"),
    "slack": "xoxb-" + "1" * 24,
    "slack hook": "https://hooks.slack.com/services/T0AAAAAA1/B0AAAAAA1/" + made(24),
    "stripe": "sk_live_" + made(24),
    "sendgrid": "SG." + made(22, ALNUM + "_-") + "." + made(43, ALNUM + "_-"),
    "docker": "dckr_pat_" + made(27, ALNUM + "_-"),
    "databricks": "dapi" + made(32, HEX),
    "telegram": "123456789:AA" + made(33, ALNUM + "_-"),
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + made(43, ALNUM + "_-"),
    "password in an address": "postgresql://admin:h7Gq2mZp@db.internal:5432/runs",
    "token in an address": f"https://oauth2:{made(20)}@gitlab.example.org/a/b.git",
    "rsa": "-----BEGIN RSA PRIVATE KEY-----",
    "ssh": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "pgp": "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "putty": "PuTTY-User-Key-File-3: ssh-ed25519",
    "netrc": "machine api.wandb.ai login user password " + made(40, HEX),
}


def lines(data):
    return [found.line for found in find_secrets(io.BytesIO(data))]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("around", ['x = "{}"\n', "{}", "export A={}\n", "- {} # mine\n"])
def test_the_tokens_of_the_field_are_found(name, around):
    assert lines(f"# ok\n{around.format(SAMPLES[name])}".encode()) == [2]


@pytest.mark.parametrize(
    "text",
    [
        "hf_xxx", "hf_YOUR_TOKEN_HERE", "hf_hub_download", "hf_transfer", "sk-...", "sk-learn",
        "scikit-sk-learn-is-a-very-long-name-of-a-package-with-words", "task-" + "a" * 60,
        "https://user:password@host/x", "https://user:<token>@host/x", "http://a:${TOKEN}@host",
        "http://localhost:8080/a@b", "git@github.com:org/repo.git", "mailto:a@b.org",
        "s3://bucket/key:1@2", "wandb: run 12ab", "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----", "machine learning login page password", "eyJhbGci.x.y",
        "_authToken=${NPM_TOKEN}", "password: str", "0123456789abcdef" * 4, "MD5:AAAB",
        "npm_config_registry", "hf_" + "a" * 29,
    ],
)  # fmt: skip
def test_words_that_look_a_little_like_one(text):
    assert lines(text.encode()) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_text_of_any_encoding_is_searched(encoding):
    text = f"# a log — of a run\n\ntoken {HUB}\n" if "utf" in encoding else f"# é\n\n{HUB}\n"
    assert lines(text.encode(encoding)) == [3]


def test_all_of_a_file_are_found_wherever_they_stand(monkeypatch):
    from yarncli.publishing import secrets

    monkeypatch.setattr(secrets, "_BLOCK", 8192)
    monkeypatch.setattr(secrets, "_LONGEST", 256)
    for shift in range(0, 60, 7):
        text = b"\n" * (8192 - 60 + shift) + HUB.encode() + b"\n" * 9000 + HUB.encode()
        assert lines(text) == [8192 - 60 + shift + 1, 8192 - 60 + shift + 9001]


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff"])
def test_what_is_no_text(data):
    assert lines(data + HUB.encode() if data[:1] == b"\0" else data) == []


def test_the_files_of_the_demo_hold_none():
    for path in DEMO.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert lines(path.read_bytes()) == [], path


NOTEBOOK = json.dumps({"cells": [{"source": [f"login('{HUB}')"], "outputs": ["A" * 1_200_000]}]})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slurm-1.out", f"token {HUB}\n"),
        ("nohup.out", f"token {HUB}\n"),
        ("run.slurm", f"export HF_TOKEN={HUB}\n"),
        ("big.ipynb", NOTEBOOK),
        ("LOG", "x" * 3_000_000 + "\n" + HUB),
        ("merges.txt", HUB),
        ("notes.docx.xml", HUB),
    ],
)
def test_a_secret_in_any_file_ends_the_push(hub, cli, model, name, text):
    (model / name).write_text(text)
    told = cli("push", model, "me/long", code=1).stderr
    assert f"{name} holds what looks like an access token of Hugging Face" in told
    assert HUB not in told
    assert "me/long" not in hub.repos


def test_every_secret_of_a_file_is_told(hub, cli, model):
    (model / "train.py").write_text("".join(f"{SAMPLES[name]}\n" for name in list(SAMPLES)[:5]))
    told = cli("push", model, "me/long", code=1).stderr
    assert [f"(line {n})" in told for n in range(1, 6)] == [True] * 5


SECRET_NAMES = [
    ".ssh/id_ed25519", ".aws/credentials", ".kube/config", ".docker/config.json", ".netrc",
    ".pypirc", ".pgpass", "id_ecdsa", "cert.p12", "cert.pfx", "store.jks", "all.kdbx",
    "client_secret_1.json", "service-account-prod.json", "passwords.txt", ".envrc",
    ".bash_history", ".venv/pyvenv.cfg", "venv/pyvenv.cfg", "node_modules/a/index.js",
    "mlruns/0/meta.yaml", ".ipynb_checkpoints/a-checkpoint.ipynb", ".vscode/settings.json",
    "logs/run.txt", ".hidden", "sub/.hidden/file.txt",
]  # fmt: skip


def test_hidden_files_and_those_of_tools_stay(hub, cli, model):
    for name in SECRET_NAMES:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    plan = json.loads(cli("push", model, "me/long", "--dry-run", "--json").stdout)
    assert set(SECRET_NAMES) <= set(plan["left_out"])


def test_a_hidden_file_is_sent_by_its_name(hub, cli, model):
    (model / ".notes.md").write_text("x")
    (model / ".netrc").write_text("x")
    chosen = [f"--include={name}" for name in ("*", ".notes.md", ".netrc")]
    plan = json.loads(cli("push", model, "me/long", *chosen, "--dry-run", "--json").stdout)
    sent = {file["name"] for file in plan["files"]}
    assert ".notes.md" in sent
    assert ".netrc" not in sent
