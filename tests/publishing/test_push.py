"""push against a local Hub, through the real client."""

from __future__ import annotations

import json

import pytest

from support.program import invoke
from yarncli.errors import HubError
from yarncli.publishing.local import prepare_local
from yarncli.publishing.options import PushOptions
from yarncli.publishing.plan import plan_push
from yarncli.publishing.push import carry_out


def on_hub(hub, repo_id, ref="main"):
    """The files of a branch: name → bytes."""
    repo = hub.repos[repo_id]
    return {n: hub.blob(oid).read_bytes() for n, oid in repo.commits[repo.refs[ref]].items()}


def writes(hub):
    return [f"{r.method} {r.path}" for r in hub.log if r.method not in ("GET", "HEAD")]


def local_files(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def test_a_new_repository_is_private_and_holds_the_same_bytes(hub, cli, model):
    result = cli("push", model, "me/long")
    repo = hub.repos["me/long"]
    assert repo.private
    assert result.stdout == f"{hub.url}/me/long/commit/{repo.refs['main']}\n"
    sent, local = on_hub(hub, "me/long"), local_files(model)
    assert sent.pop(".gitattributes")
    assert b"yarncli:begin" in sent.pop("README.md")
    del local["README.md"]
    assert sent == local
    assert len(repo.commits) == 2  # that of the creation, and one
    (put,) = hub.requests("PUT")
    assert put.authorization is None


def test_a_second_push_moves_nothing(hub, cli, model):
    first = cli("push", model, "me/long")
    hub.log.clear()
    second = cli("push", model, "me/long")
    assert second.stdout == first.stdout
    assert writes(hub) == []


def test_only_what_changed_is_sent(hub, cli, model):
    cli("push", model, "me/long")
    (model / "generation_config.json").write_text("{}")
    hub.log.clear()
    result = json.loads(cli("push", model, "me/long", "--json").stdout)
    assert [file["name"] for file in result["files"]] == ["generation_config.json"]
    assert not hub.requests("PUT")
    assert on_hub(hub, "me/long")["generation_config.json"] == b"{}"


def test_a_shard_that_changed_within_its_size_is_sent(hub, cli, model):
    cli("push", model, "me/long")
    shard = model / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    cli("push", model, "me/long")
    assert on_hub(hub, "me/long")["model.safetensors"] == bytes(data)


def test_a_small_file_that_changed_within_its_size_is_sent(hub, cli, model):
    (model / "notes.md").write_text("one")
    cli("push", model, "me/long")
    (model / "notes.md").write_text("two")
    cli("push", model, "me/long")
    assert on_hub(hub, "me/long")["notes.md"] == b"two"


def test_large_files_go_in_parts(hub, cli, model):
    hub.multipart_size = 400_000
    cli("push", model, "me/long")
    assert len(hub.requests("PUT", "/part/")) == 4
    assert on_hub(hub, "me/long")["model.safetensors"] == local_files(model)["model.safetensors"]


def test_a_dry_run_only_reads(hub, cli, model):
    result = cli("push", model, "me/long", "--dry-run")
    assert "me/long (new, private)" in result.stdout
    assert "model.safetensors" in result.stdout
    assert "+## Context extension" in result.stdout
    assert writes(hub) == []
    assert hub.log
    assert not hub.repos


@pytest.mark.parametrize("how", [["--create-pr"], ["--config-only"], ["--revision", "x"]])
def test_a_dry_run_on_an_existing_repository_only_reads(hub, cli, model, how):
    hub.add_repo("me/model", {"config.json": b"{}"})
    plan = cli("push", model, "me/model", "--public", "--dry-run", *how).stdout
    assert "To me/model (public" in plan
    assert "\nreplace" in plan
    assert writes(hub) == []


def test_a_dry_run_needs_no_token(hub, cli, model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    hub.add_repo("other/model", model)
    result = cli("push", model, "other/model", "--dry-run", "--public", "--json")
    plan = json.loads(result.stdout)
    assert plan["sent"] is False
    assert [file["name"] for file in plan["files"]] == ["README.md"]
    assert writes(hub) == []


def test_a_dry_run_offline_asks_nobody(hub, cli, model):
    hub.go_offline()
    assert "every file is treated as new" in cli("push", model, "me/long", "--dry-run").stderr
    assert hub.log == []


def test_a_public_target_must_be_meant(hub, cli, model):
    hub.add_repo("me/open", {"a.txt": b""})
    result = cli("push", model, "me/open", code=2)
    assert "me/open is public" in result.stderr
    cli("push", model, "me/open", "--config-only", code=2)
    cli("push", model, "me/open", "--create-pr", code=2)
    assert writes(hub) == []
    cli("push", model, "me/open", "--public")
    assert "model.safetensors" in on_hub(hub, "me/open")


def test_public_makes_a_public_repository(hub, cli, model):
    cli("push", model, "me/open", "--public")
    assert not hub.repos["me/open"].private


def test_a_private_repository_stays_private(hub, cli, model):
    hub.add_repo("me/closed", {"a.txt": b""}, private=True)
    result = cli("push", model, "me/closed", "--public", "--json")
    assert "is private and stays private" in result.stderr
    assert json.loads(result.stdout)["public"] is False
    assert hub.repos["me/closed"].private


def test_a_branch_is_made(hub, cli, model):
    cli("push", model, "me/long", "--revision", "yarn8")
    assert "model.safetensors" in on_hub(hub, "me/long", "yarn8")
    assert "model.safetensors" not in on_hub(hub, "me/long")


def test_a_new_branch_builds_upon_main(hub, cli, model):
    hub.add_repo("me/long", {"README.md": b"# Mine\n"}, private=True)
    result = cli("push", model, "me/long", "--revision", "long/er")
    assert "a new branch long/er" in result.stderr
    assert on_hub(hub, "me/long", "long/er")["README.md"].decode().count("# Mine\n") == 1
    hub.log.clear()
    cli("push", model, "me/long", "--revision", "long/er")
    assert writes(hub) == []


def test_main_may_move_before_a_branch_is_made(hub, model):
    hub.add_repo("me/long", {"a": b""}, private=True)
    plan = plan_push(prepare_local(str(model), PushOptions(revision="x")), "me/long")
    hub.commit("me/long", {"a": b"new"})
    with pytest.raises(HubError, match="got a new commit in the meantime"):
        carry_out(plan)
    assert on_hub(hub, "me/long", "x") == {"a": b"new"}


def test_patterns_choose_files(hub, cli, model):
    cli("push", model, "me/long", "--include", "*.json", "--exclude", "gen*", "--no-card")
    assert sorted(on_hub(hub, "me/long")) == [
        ".gitattributes", "config.json", "tokenizer.json", "tokenizer_config.json", "yarncli.json",
    ]  # fmt: skip


def test_what_stays_is_counted(hub, cli, model):
    (model / "config.json.orig").write_text("{}")
    assert "1 left out" in cli("push", model, "me/long").stderr
    listed = cli("push", model, "me/long", "--dry-run").stdout
    assert "config.json.orig (a backup or journal of yarncli)" in listed


def test_weights_that_will_be_missing_are_named(hub, cli, sharded):
    result = cli("push", sharded, "me/long", "--exclude", "*00002-of*")
    assert "model-00002-of-00002.safetensors will be missing on the Hub" in result.stderr
    assert "will be missing" not in cli("push", sharded, "me/long").stderr
    assert "will be missing" not in cli("push", sharded, "me/long", "--include", "*.md").stderr


def test_progress_without_a_terminal_is_plain_lines(hub, cli, model, monkeypatch):
    from yarncli.cli import console

    monkeypatch.setattr(console, "_LINE_EVERY", 0.0)
    lines = cli("push", model, "me/long").stderr.splitlines()
    sending = [line for line in lines if line.startswith("Sending: ")]
    assert sending[-1].startswith("Sending: 1.3 MB of 1.3 MB, ")
    assert not [line for line in lines if "\r" in line or "\x1b" in line]


@pytest.mark.parametrize(("answer", "sent"), [("y\n", True), ("n\n", False)])
def test_somebody_at_a_terminal_is_asked(hub, model, monkeypatch, answer, sent):
    from types import SimpleNamespace

    from yarncli.cli import push_print

    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(push_print, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    result = invoke("push", model, "me/long", input=answer, code=0)
    assert ("me/long" in hub.repos) == sent
    assert ("Nothing was sent" in result.stderr) != sent


def test_weights_of_another_format_are_named(hub, cli, model):
    hub.add_repo("me/long", {"pytorch_model.bin": b"old"}, private=True)
    assert "also holds pytorch_model.bin" in cli("push", model, "me/long").stderr


def test_message_and_description_arrive(hub, cli, model, monkeypatch):
    import huggingface_hub

    seen = {}
    real = huggingface_hub.HfApi.create_commit

    def spy(self, *arguments, **options):
        seen.update(options)
        return real(self, *arguments, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", spy)
    cli("push", model, "me/long", "-m", "Longer", "--commit-description", "Why")
    assert (seen["commit_message"], seen["commit_description"]) == ("Longer", "Why")
    assert seen["parent_commit"]


def test_a_pull_request_is_opened_once_and_continued(hub, cli, model):
    repo = hub.add_repo("other/model", {"config.json": b"{}"})
    main = repo.refs["main"]
    first = cli("push", model, "other/model", "--create-pr", "--public")
    assert first.stdout == f"{hub.url}/other/model/discussions/1\n"
    (model / "generation_config.json").write_text("{}")
    second = cli("push", model, "other/model", "--create-pr", "--public")
    assert "your open pull request refs/pr/1" in second.stderr
    assert len(hub.pulls["other/model"]) == 1
    assert on_hub(hub, "other/model", "refs/pr/1")["generation_config.json"] == b"{}"
    assert repo.refs["main"] == main


def test_a_closed_pull_request_is_not_continued(hub, cli, model):
    hub.add_repo("other/model", {"config.json": b"{}"})
    cli("push", model, "other/model", "--create-pr", "--public")
    hub.pulls["other/model"][0].status = "closed"
    cli("push", model, "other/model", "--create-pr", "--public")
    assert len(hub.pulls["other/model"]) == 2


def test_a_config_can_be_mended_without_write_access(hub, cli, model, demo):
    card = b"---\nlicense: mit\nbase_model: a/b\n---\n\n# Theirs\n"
    repo = hub.add_repo("other/model", {**local_files(demo), "README.md": card})
    before = on_hub(hub, "other/model")
    hub.users["hf_" + "t" * 34].write = False
    result = cli("push", model, "other/model", "--config-only", "--create-pr")
    assert result.stdout == f"{hub.url}/other/model/discussions/1\n"
    assert on_hub(hub, "other/model") == before
    proposed = on_hub(hub, "other/model", "refs/pr/1")
    changed = {name for name in proposed if proposed[name] != before.get(name)}
    assert changed == {"config.json", "tokenizer_config.json", "yarncli.json", "README.md"}
    assert proposed["README.md"].startswith(card)
    assert not hub.requests("", "repos/create|settings|/upload/")
    assert not repo.private


def test_weights_come_from_the_base_without_passing_here(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo)
    commit = hub.repos["org/base"].refs["main"]
    config = tmp_path / "config"
    cli("convert", "hf://org/base", config, "--factor", "8", "--config-only")
    hub.log.clear()
    cli("push", config, "me/long", "--from", "org/base")
    sent = on_hub(hub, "me/long")
    assert sent["model.safetensors"] == local_files(demo)["model.safetensors"]
    assert sent["config.json"] == local_files(config)["config.json"]
    assert not hub.requests("PUT")
    assert sum(r.sent for r in hub.requests("GET", "/storage/")) < 250_000  # its header, twice
    assert "base_model: org/base\n" in sent["README.md"].decode()
    assert commit[:12] in sent["README.md"].decode()
    hub.log.clear()
    cli("push", config, "me/long", "--from", "org/base")
    assert writes(hub) == []


def test_other_weights_of_the_same_size_are_replaced_by_a_copy(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo)
    shard = local_files(demo)["model.safetensors"]
    hub.add_repo("me/long", {"model.safetensors": shard[:-1] + b"x"}, private=True)
    cli("convert", "hf://org/base", tmp_path / "c", "--factor", "8", "--config-only")
    cli("push", tmp_path / "c", "me/long", "--from", "org/base")
    assert on_hub(hub, "me/long")["model.safetensors"] == shard


def test_a_hub_that_cannot_copy_is_explained(hub, cli, demo, tmp_path):
    hub.add_repo("org/base", demo)
    cli("convert", "hf://org/base", tmp_path / "c", "--factor", "8", "--config-only")
    hub.copies_files = False
    result = cli("push", tmp_path / "c", "me/long", "--from", "org/base", code=5)
    assert "cannot copy the weights of org/base" in result.stderr


def test_json_is_one_document(hub, cli, model):
    result = json.loads(cli("push", model, "me/long", "--json").stdout)
    assert result["sent"] is True
    assert result["commit"] == hub.repos["me/long"].refs["main"]
    again = json.loads(cli("push", model, "me/long", "--json").stdout)
    assert (again["sent"], again["url"]) == (False, result["url"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--create-pr", "--revision", "x"),
        ("--from", "a/b", "--config-only"),
        ("--from", "a/b"),
        ("--no-card", "--force-card"),
    ],
)
def test_options_that_contradict_each_other(hub, cli, model, arguments):
    cli("push", model, "me/long", *arguments, code=2)
    assert hub.log == []
