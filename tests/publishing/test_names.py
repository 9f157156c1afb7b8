"""Names in a push: of branches, tags, files, messages, tokens; private models; pull requests."""

from __future__ import annotations

import os

import pytest

from yarncli.demo import write_demo


def head(hub, repo_id="me/long", ref="main"):
    return hub.repos[repo_id].refs[ref]


def test_a_tag_names_the_commit_once(hub, cli, model):
    assert "tag v1" in cli("push", model, "me/long", "--tag", "v1").stderr
    assert head(hub, ref="v1") == head(hub)
    hub.log.clear()
    cli("push", model, "me/long", "--tag", "v1")
    assert not [r for r in hub.log if r.method not in ("GET", "HEAD")]
    (model / "extra.json").write_text("{}")
    told = cli("push", model, "me/long", "--tag", "v1", code=2).stderr
    assert "me/long already has a tag v1 for the commit" in told
    assert "extra.json" not in hub.repos["me/long"].commits[head(hub)]


def test_a_tag_whose_making_failed_is_made_by_the_same_command(hub, cli, model):
    hub.fail("POST", "/tag/", status=403)
    assert "access is denied" in cli("push", model, "me/long", "--tag", "v1", code=5).stderr
    cli("push", model, "me/long", "--tag", "v1")
    assert head(hub, ref="v1") == head(hub)
    assert len(hub.repos["me/long"].commits) == 2


@pytest.mark.parametrize("name", ["a b", "-x", "0" * 40, "refs/tags/x"])
def test_a_bad_tag(hub, cli, model, name):
    assert "--tag" in cli("push", model, "me/long", f"--tag={name}", code=2).stderr
    assert hub.log == []


@pytest.mark.parametrize("where", ["--create-pr", "--revision=refs/pr/1"])
def test_a_pull_request_takes_no_tag(hub, cli, model, where):
    assert "--tag names" in cli("push", model, "me/long", where, "--tag", "v1", code=2).stderr


def test_a_tag_or_commit_is_no_branch(hub, cli, model):
    cli("push", model, "me/long", "--tag", "v1")
    hub.log.clear()
    told = cli("push", model, "me/long", "--revision", "v1", code=2).stderr
    assert "--revision v1 is a tag of me/long" in told
    told = cli("push", model, "me/long", "--revision", head(hub), code=2).stderr
    assert f"--revision {head(hub)} is a commit" in told
    told = cli("push", model, "me/long", "--revision", "refs/heads/x", code=2).stderr
    assert "write the name without refs/heads/" in told
    assert not [r for r in hub.log if r.method not in ("GET", "HEAD")]


def test_a_short_hash_that_the_hub_knows_is_no_branch(hub, cli, model):
    cli("push", model, "me/long")
    short = head(hub)[:9]
    repo = hub.repos["me/long"]
    repo.commits[short] = repo.commits[head(hub)]  # the Hub resolves it
    told = cli("push", model, "me/long", "--revision", short, code=2).stderr
    assert f"--revision {short} is a commit of me/long" in told


@pytest.mark.parametrize("message", ["", "  ", "a\udcff"])
def test_a_message_that_cannot_be_sent(hub, cli, model, message):
    assert "--commit-message" in cli("push", model, "me/long", "-m", message, code=2).stderr
    assert hub.log == []


def test_a_title_of_a_pull_request_has_three_characters(hub, cli, model):
    hub.add_repo("other/model", {"a": b""})
    told = cli("push", model, "other/model", "--create-pr", "--public", "-m", "ab", code=2).stderr
    assert "--commit-message is too short" in told


def test_a_long_message_is_a_shorter_title_and_found_again(hub, cli, model):
    hub.add_repo("other/model", {"a": b""})
    command = ("push", model, "other/model", "--create-pr", "--public", "-m", "x" * 300)
    cli(*command)
    assert "your open pull request refs/pr/1" in cli(*command).stderr
    assert hub.pulls["other/model"][0].title == "x" * 200


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are UTF-8")
def test_a_file_name_that_is_not_utf_8_is_named(hub, cli, model):
    (model / os.fsdecode(b"bad\xff.txt")).write_text("x")
    told = cli("push", model, "me/long", code=1).stderr
    assert "bad\\udcff.txt is not UTF-8. Rename it, or leave it out with --exclude." in told
    assert not hub.requests("POST")
    cli("push", model, "me/long", "--exclude", "bad*")


def test_a_token_from_a_variable(hub, cli, model, monkeypatch):
    monkeypatch.setenv("MINE", os.environ["HF_TOKEN"] + "\n")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    cli("push", model, "me/long", "--token-env", "MINE")
    assert "me/long" in hub.repos
    for name in ("NOBODY", "hf_" + "t" * 34, "a=b", ""):
        told = cli("push", model, "me/long", f"--token-env={name}", code=2).stderr
        assert "does not name an environment variable that is set" in told


def test_private_is_what_a_new_repository_is(hub, cli, model):
    cli("push", model, "me/long", "--private")
    assert hub.repos["me/long"].private
    hub.add_repo("me/open", {"a": b""})
    assert "me/open is public" in cli("push", model, "me/open", "--private", code=2).stderr


@pytest.mark.parametrize("known", ["recorded", "stated", "in the card"])
def test_a_private_base_is_not_named_in_public(hub, cli, model, tmp_path, known):
    hub.add_repo("me/secret", write_demo(tmp_path / "base"), private=True)
    source, options = model, ["--public", "--license", "mit"]
    if known == "recorded":
        source = tmp_path / "converted"
        cli("convert", "hf://me/secret", source, "--factor", "8")
        options.append("--no-card")  # yarncli.json names it as well
    elif known == "stated":
        options += ["--base-model", "me/secret"]
    else:
        (model / "README.md").write_text("---\nlicense: mit\nbase_model:\n- me/secret\n---\n# x\n")
    told = cli("push", source, "me/open", *options, code=1).stderr
    assert "me/secret is private, but everybody could read its name." in told
    assert "[private-base]" in told
    assert "me/open" not in hub.repos
    cli("push", source, "me/closed", *options[3:])
    told = cli("push", source, "me/open", *options, "--allow", "private-base").stderr
    assert "warning: me/secret is private" in told
    assert "me/open" in hub.repos


def test_a_gitignore_that_is_sent_counts_and_one_that_goes_does_not(hub, cli, model):
    (model / ".gitignore").write_text("*.safetensors\n")
    told = cli("push", model, "me/long", "--include", "*", "--include", ".gitignore", code=1).stderr
    assert "A .gitignore in me/long excludes model.safetensors." in told
    assert "me/long was created (private) and exists." in told
    assert "model.safetensors" not in hub.repos["me/long"].commits[head(hub)]
    hub.commit("me/long", {".gitignore": b"*.safetensors\n"})
    told = cli("push", model, "me/long", code=1).stderr
    assert "--delete .gitignore" in told
    cli("push", model, "me/long", "--delete", ".gitignore")
    there = hub.repos["me/long"].commits[head(hub)]
    assert "model.safetensors" in there
    assert ".gitignore" not in there


def test_a_pull_request_says_what_why_and_how(hub, cli, model, demo):
    hub.add_repo("other/model", {**{p.name: p.read_bytes() for p in demo.iterdir()}})
    command = ("push", model, "other/model", "--config-only", "--create-pr")
    shown = cli(*command, "--dry-run", "--commit-description", "Hello.").stdout
    cli(*command, "--commit-description", "Hello.")
    (pull,) = hub.pulls["other/model"]
    assert pull.body.startswith("Hello.\n\n## What\n")
    assert pull.body.strip() in shown
    for part in (
        "Extends the context window from 256 to 2,048 tokens with YaRN, factor 8.",
        "The weights are unchanged.",
        '-  "max_position_embeddings": 256,\n+  "max_position_embeddings": 2048,',
        "## Why\n",
        "| vLLM | 0.33 | exact | 2,048 |",
        "## How it was checked\n",
        "`yarncli check` finds no errors",
        "Retrieval at the new length was not measured",
    ):
        assert part in pull.body
    assert pull.status == "open"


def test_a_pull_request_of_a_failed_push_is_used_by_the_next(hub, cli, model, fast_retries):
    hub.add_repo("other/model", {"a": b""})
    hub.fail("POST", "/commit/", status=409)
    command = ("push", model, "other/model", "--create-pr", "--public")
    told = cli(*command, code=5).stderr
    assert f"The pull request {hub.url}/other/model/discussions/1 is open" in told
    assert hub.pulls["other/model"][0].status == "draft"
    again = cli(*command)
    assert "The push adds to your open pull request refs/pr/1." in again.stderr
    assert hub.pulls["other/model"][0].status == "open"
    assert not hub.requests("POST", "create_pr=1.*commit|commit.*create_pr=1")


def test_a_failed_upload_opens_no_pull_request(hub, cli, model, fast_retries):
    hub.add_repo("other/model", {"a": b""})
    hub.fail("PUT", "/upload/", times=99, status=500)
    cli("push", model, "other/model", "--create-pr", "--public", code=5)
    assert "other/model" not in hub.pulls


def test_a_protected_branch_is_named(hub, cli, model):
    hub.add_repo("me/long", {"a": b""}, private=True)
    hub.protected.add("main")
    told = cli("push", model, "me/long", code=5).stderr
    assert (
        "the branch takes no commits from this token. Open a pull request with --create-pr" in told
    )
    assert "The Hub says: This branch is protected" in told
    cli("push", model, "me/long", "--create-pr")
