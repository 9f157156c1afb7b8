"""card and push of GGUF files, against a local Hub through the real client."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from publishing.test_push import local_files, on_hub, writes

from support.cards import card_on_hub, passkey_results, rendered
from support.gguf_files import demo_keys, write_gguf
from yarncli import PushOptions, push
from yarncli.errors import CheckpointError
from yarncli.gguf.facts import Typed
from yarncli.gguf.header import GgufHeader
from yarncli.gguf.source import open_gguf
from yarncli.hub.cards import read_metadata

ARRAYS = {
    "token_embd.weight": np.linspace(-1, 1, 512 * 128, dtype=np.float32).reshape(512, 128),
    "blk.0.attn_k.weight": np.ones((128, 128), np.float32),
    "output_norm.weight": np.ones(128, np.float32),
}
SAID = {"general.name": Typed("str", "Demo 1B"), "general.license": Typed("str", "apache-2.0")}
HUGGING_FACE = "https://huggingface.co/"


def parents(*names: str, first: str = "Demo 1B Base") -> dict[str, Typed]:
    """Keys that name models as what the quantised one was made from."""
    found = {"general.base_model.count": Typed("u32", len(names))}
    for number, name in enumerate(names):
        key = f"general.base_model.{number}"
        found[f"{key}.name"] = Typed("str", first if not number else name)
        found[f"{key}.repo_url"] = Typed("str", HUGGING_FACE + name)
    return found


def write(path: Path, keys: dict[str, Typed] | None = None, kind: str = "F32") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {**demo_keys(), **SAID, **(keys or {})}
    return write_gguf(path, said, ARRAYS, {"token_embd.weight": kind})


def write_split(folder: Path) -> Path:
    """A converted model in three files."""
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "s.gguf", "llama", split_max_tensors=1)
    for name, value in {**demo_keys(), **SAID}.items():
        if name != "general.architecture":
            kind = {"u32": "uint32", "f32": "float32", "str": "string"}[value.type]
            getattr(writer, f"add_{kind}")(name, value.value)
    for name, array in ARRAYS.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "s-00001-of-00003.gguf"


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path / "plain" / "m.gguf")


@pytest.fixture
def long(cli, plain, tmp_path):
    """A converted file, alone in its folder."""
    out = tmp_path / "long" / "long-F32.gguf"
    out.parent.mkdir()
    cli("convert", plain, out, "--factor", 8)
    return out


@pytest.fixture
def folder(cli, tmp_path):
    """Three quantisations of a converted model, with a projector and a matrix of importance."""
    for kind in ("F32", "Q8_0", "Q4_0"):
        write(tmp_path / "three" / f"m-{kind}.gguf", kind=kind)
    cli("convert", tmp_path / "three", tmp_path / "model", "--factor", 8)
    for kind in ("mmproj", "imatrix"):
        write(tmp_path / "model" / f"{kind}.gguf", {"general.type": Typed("str", kind)})
    return tmp_path / "model"


def patched(path: Path, key: str, new: bytes) -> None:
    """The file with other bytes at the end of the value of a key."""
    kv = open_gguf(path).header.keys[key]
    data = bytearray(path.read_bytes())
    data[kv.end - len(new) : kv.end] = new
    path.write_bytes(data)


def metadata(cli, source, *words):
    return read_metadata(cli("card", source, "--name", "me/long", *words).stdout, "card")


@pytest.mark.parametrize("is_large", [False, True])
def test_one_file_goes_with_a_card(hub, cli, long, is_large):
    hub.lfs_suffixes = (".gguf",) if is_large else ()
    (long.parent / "notes.txt").write_text("not meant")
    result = cli("push", long, "me/long")
    assert len(hub.requests("PUT")) == is_large
    repo = hub.repos["me/long"]
    assert repo.private
    assert result.stdout == f"{hub.url}/me/long/commit/{repo.refs['main']}\n"
    sent = on_hub(hub, "me/long")
    assert sent.keys() == {".gitattributes", "README.md", long.name}
    assert sent[long.name] == long.read_bytes()
    card = card_on_hub(hub)
    found = read_metadata(card, "card")
    assert found["library_name"] == "gguf"
    assert found["license"] == "apache-2.0"
    assert found["pipeline_tag"] == "text-generation"
    assert {"yarn", "long-context"} <= {*found["tags"]}
    assert "extended from 256 to **2,048 tokens** with [YaRN]" in card
    assert "llama-server -m long-F32.gguf -c 2048" in card
    assert "FROM ./long-F32.gguf\nPARAMETER num_ctx 2048" in card
    assert "yarncli convert m.gguf long-F32.gguf --factor 8" in card
    assert rendered(card)
    hub.log.clear()
    assert cli("push", long, "me/long").stdout == result.stdout
    assert writes(hub) == []


def test_a_folder_goes_whole(hub, cli, folder):
    told = cli("push", folder, "me/long", "--tag", "v1").stderr
    sent = on_hub(hub, "me/long")
    assert {k: v for k, v in sent.items() if k.endswith(".gguf")} == local_files(folder)
    for kind in ("mmproj", "imatrix"):
        assert f"{kind}.gguf is not a model: its general.type is '{kind}'. It is sent" in told
    card = card_on_hub(hub)
    rows = [line for line in card.splitlines() if line.startswith("| `m-")]
    assert [row.split(" | ")[1] for row in rows] == ["F32", "Q4_0", "Q8_0"]
    assert "mmproj" not in card
    assert hub.repos["me/long"].refs["v1"]


def test_all_files_of_a_split_model(hub, cli, tmp_path):
    first, folder = write_split(tmp_path / "split"), tmp_path / "long"
    folder.mkdir()
    out = folder / "l-00001-of-00003.gguf"
    cli("convert", first, out, "--factor", 4)
    plan = json.loads(cli("push", out, "me/long", "--dry-run", "--json").stdout)
    assert len([f for f in plan["files"] if f["name"].endswith(".gguf")]) == 3
    told = cli("push", folder, "me/long", "--exclude", "*2-of*", code=1).stderr
    assert "l-00002-of-00003.gguf would not be sent" in told
    assert "Modelfile" not in cli("card", out).stdout
    (folder / "l-00003-of-00003.gguf").rename(tmp_path / "away")
    assert "l-00003-of-00003.gguf is missing" in cli("push", out, "me/long", code=3).stderr
    write(folder / "m.gguf")
    assert "[gguf-unfit]" in cli("push", folder, "me/long", code=1).stderr
    (tmp_path / "away").rename(folder / "l-00003-of-00003.gguf")
    out.unlink()
    told = cli("push", folder, "me/long", code=1).stderr
    assert told.count("its first file is missing") == 2
    assert writes(hub) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "It is truncated"),
        (lambda path: path.write_bytes(b"GGUF"), "[gguf-unfit]"),
        (lambda path: path.write_bytes(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
        ), "Git-LFS pointer"),
        (lambda path: path.rename(path.with_suffix(".bin2")), "does not end in .g"),
    ],
)  # fmt: skip
def test_a_file_that_nobody_could_load_stays(hub, cli, folder, harm, said):
    harm(folder / "m-Q4_0.gguf")
    assert said in cli("push", folder, "me/long", code=1).stderr
    assert writes(hub) == []
    cli("push", folder, "me/long", "--exclude", "m-Q4_0*")
    assert "m-Q8_0.gguf" in on_hub(hub, "me/long")


def test_a_file_beside_a_checkpoint_computes_like_it(hub, cli, model, plain, long):
    """`convert` carries a GGUF file over as it is, so it still has the RoPE from before."""
    shutil.copy(plain, model / "m.gguf")
    told = cli("push", model, "me/long", code=1).stderr
    assert f"{model / 'm.gguf'}: llama.cpp computes something else than {model}" in told
    assert "[gguf-differs]" in told
    assert writes(hub) == []
    cli("push", model, "me/short", "--exclude", "*.gguf")
    assert "m.gguf" not in on_hub(hub, "me/short")
    shutil.copy(long, model / "m.gguf")
    cli("push", model, "me/long")
    assert on_hub(hub, "me/long")["m.gguf"] == long.read_bytes()


def test_a_damaged_file_beside_a_checkpoint_is_not_sent(hub, cli, model, long):
    (model / "m.gguf").write_bytes(long.read_bytes()[:-9])
    assert "[gguf-unfit]" in cli("push", model, "me/long", code=1).stderr
    shutil.copy(long, model / "m.gguf")
    (model / "m.gguf").rename(model / "sha256-0123")
    assert "does not end in .gguf" in cli("push", model, "me/long", code=1).stderr
    assert writes(hub) == []


def test_a_file_of_ollama_is_sent_by_a_link(hub, cli, long, tmp_path, monkeypatch):
    blob = long.rename(tmp_path / f"sha256-{'0' * 64}")
    told = cli("push", blob, "me/long", code=2).stderr
    line = re.search(r"ln -s (\S+) (\S+)$", told)
    monkeypatch.chdir(tmp_path)
    Path(line[2]).symlink_to(line[1])
    cli("push", line[2], "me/long")
    assert on_hub(hub, "me/long")[line[2]] == blob.read_bytes()


def test_what_check_finds_ends_it(hub, cli, plain):
    keys = {"llama.rope.scaling.type": Typed("str", "dynamic")}
    path = write(plain.with_name("d.gguf"), keys)
    assert "[gguf-type-unknown]" in cli("push", path, "me/long", code=1).stderr
    assert writes(hub) == []


def test_a_record_of_another_content_is_not_published(hub, cli, long):
    patched(long, "llama.rope.scaling.factor", np.float32(4).tobytes())
    assert "[gguf-record]" in cli("push", long, "me/long", code=1).stderr
    assert "describes another setting" in cli("card", long).stdout
    assert "2,048 tokens** with" not in cli("card", long).stdout
    cli("push", long, "me/long", "--allow", "gguf-record")


@pytest.mark.parametrize("carrier", ["key", "scale", "weights"])
def test_a_baked_file(cli, long, tmp_path, carrier):
    out = tmp_path / f"{carrier}.gguf"
    cli("bake", long, out, "--attention-factor", 1.3, "--carrier", carrier)
    card = cli("card", out).stdout
    assert "extended from 256 to **2,048 tokens**" in card
    assert "The attention temperature was set to 1.3 and is stored in" in card
    assert ("all other weights are unchanged" in card) == (carrier == "weights")
    assert f"--attention-factor 1.3 --carrier {carrier}" in card


def test_a_setting_taken_from_a_checkpoint(cli, plain, model, tmp_path):
    out = tmp_path / "mended.gguf"
    cli("convert", plain, out, "--from", model)
    card = cli("card", out).stdout
    assert "The RoPE setting of `model-yarn` was written into the file." in card
    assert "llama.cpp computes [YaRN]" in card
    assert "yarncli convert m.gguf mended.gguf --from model-yarn" in card
    assert "### Limitations" not in card


LINEAGES = {
    "a copy of the quantiser's": (parents("org/demo", first="demo-1b"), "org/demo", "quantized"),
    "its base alone": (parents("org/demo-base"), "org/demo-base", "finetune"),
    "two": (parents("org/a", "org/b"), ["org/a", "org/b"], None),
    "its source": (
        {**parents("org/demo-base"),
         "general.source.repo_url": Typed("str", HUGGING_FACE + "org/demo")},
        "org/demo", "quantized",
    ),
    "elsewhere": (
        {"general.source.repo_url": Typed("str", "https://example.org/org/demo")}, None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAGES)
def test_whose_model_it_is(hub, cli, tmp_path, name):
    keys, model, relation = LINEAGES[name]
    path = write(tmp_path / "m.gguf", keys)
    found = metadata(cli, path)
    assert (found.get("base_model"), found.get("base_model_relation")) == (model, relation)
    told = cli("card", path).stderr
    assert ("Give --base-model ORG/NAME" in told) == (relation != "quantized" and bool(model))


def test_the_stated_model_counts_most(hub, cli, tmp_path):
    hub.add_repo("org/demo", {"README.md": b"---\nlicense: mit\nlanguage: [de]\n---\n# Demo\n"})
    path = write(tmp_path / "m.gguf", parents("org/demo-base"))
    found = metadata(cli, path, "--base-model", "org/demo")
    assert (found["base_model"], found["base_model_relation"]) == ("org/demo", "quantized")
    assert found["language"] == ["de"]
    assert found["license"] == "apache-2.0"
    assert found["library_name"] == "gguf"
    assert metadata(cli, path, "--base-model", "org/demo", "--license", "mit")["license"] == "mit"


def test_a_file_from_a_repository_of_ggufs_is_of_its_model(hub, cli, plain, tmp_path):
    card = b"---\nlicense: mit\nbase_model: org/demo\nbase_model_relation: quantized\n---\n"
    hub.add_repo("you/demo-GGUF", {"m.gguf": plain.read_bytes(), "README.md": card})
    out = tmp_path / "out.gguf"
    cli("convert", "hf://you/demo-GGUF/m.gguf", out, "--factor", 4)
    found = cli("card", out, "--name", "me/long").stdout
    assert read_metadata(found, "card")["base_model"] == "org/demo"
    commit = hub.repos["you/demo-GGUF"].refs["main"]
    assert f"yarncli convert hf://you/demo-GGUF@{commit}/FILE.gguf out.gguf --factor 4" in found


def test_a_folder_for_each_quantisation(hub, cli, folder, tmp_path):
    for kind in ("Q8_0", "Q4_0"):
        (tmp_path / "up" / kind).mkdir(parents=True)
        shutil.copy(folder / f"m-{kind}.gguf", tmp_path / "up" / kind / "m.gguf")
    cli("push", tmp_path / "up", "me/long")
    assert {"Q8_0/m.gguf", "Q4_0/m.gguf"} <= on_hub(hub, "me/long").keys()
    assert "llama-server -m Q4_0/m.gguf -c 2048" in card_on_hub(hub)


def test_the_card_of_a_lone_file_is_its_own(hub, cli, long):
    readme = long.with_name("README.md")
    cli("card", long, "--write")
    readme.write_text(readme.read_text() + "\nMy words.\n")
    cli("push", long, "me/long")
    assert "My words." in card_on_hub(hub)
    readme.write_text("# Another project\n")
    assert "may describe something else" in cli("card", long, "--write", code=2).stderr
    assert readme.read_text() == "# Another project\n"
    cli("push", long, "me/other")
    assert "Another project" not in card_on_hub(hub, "me/other")


@pytest.mark.parametrize("name", ["long-F32.gguf", "/models/long-F32.gguf", "long-F32:latest"])
def test_results_of_the_file(cli, long, tmp_path, name):
    results = passkey_results(tmp_path / "r.jsonl", name)
    card = cli("card", long, "--results", results).stdout
    assert read_metadata(card, "card")["model-index"]
    assert "### Passkey retrieval" in card
    assert "yarncli check-passkey --base-url http://localhost:8080/v1 --lengths 256,2048" in card


@pytest.mark.parametrize("name", ["m.gguf", "x", ""])
def test_results_of_another_file_are_not_named(cli, long, tmp_path, name):
    results = passkey_results(tmp_path / "r.jsonl", name)
    told = cli("card", long, "--results", results, code=2).stderr
    assert "llama-server --alias long-F32.gguf" in told


def test_results_of_one_of_several_files(cli, folder, tmp_path):
    results = passkey_results(tmp_path / "r.jsonl", "m-Q8_0.gguf")
    card = cli("card", folder, "--results", results).stdout
    assert "model-index" not in read_metadata(card, "card")
    assert "Measured on `m-Q8_0.gguf` with:" in card


def test_what_it_lands_on(hub, cli, long, plain, tmp_path):
    hub.add_repo("me/hf", {"config.json": b"{}", "model.safetensors": b"x"})
    assert "[other-library]" in cli("push", long, "me/hf", "--public", code=1).stderr
    other = write(tmp_path / "o.gguf", {"llama.block_count": Typed("u32", 5)})
    hub.add_repo("me/other", {"o.gguf": other.read_bytes()})
    assert "[other-model]" in cli("push", long, "me/other", "--public", code=1).stderr
    hub.add_repo("me/short", {"m.gguf": plain.read_bytes(), "mmproj.gguf": b"GGUF"})
    words = ("push", long, "me/short", "--public")
    assert "[gguf-scaled-apart]" in cli(*words, code=1).stderr
    assert "m.gguf" in on_hub(hub, "me/short")
    cli(*words, "--delete", "m.gguf")
    assert "m.gguf" not in on_hub(hub, "me/short")
    cli("push", long, "me/short", "--public", "--create-pr", "-m", "Again")


def test_a_pull_request_says_what_and_for_whom(hub, cli, long, plain):
    hub.add_repo("other/demo", {"long-F32.gguf": plain.read_bytes()})
    words = ("push", long, "other/demo", "--public", "--create-pr")
    body = json.loads(cli(*words, "--dry-run", "--json").stdout)["body"]
    assert "Extends the context window from 256 to 2,048 tokens" in body
    assert "the weights are unchanged" in body
    assert "| Ollama | unknown | 2,048 |" in body
    cli(*words)


def test_files_baked_apart_are_not_one_model(cli, folder):
    baked = folder / "baked.gguf"
    words = ("--attention-factor", 1.3, "--carrier", "scale")
    cli("bake", folder / "m-Q8_0.gguf", baked, *words)
    assert "are scaled differently" in cli("card", folder, code=2).stderr


REFUSED = {
    "does not end in .gguf": (2, "blob"),
    "of different models": (2, "models"),
    "is only for checkpoints": (2, "FILE", "--config-only"),
    "--from is only for checkpoints": (2, "FILE", "--from", "org/name"),
    "is on the Hub": (2, "hf://org/name/m.gguf"),
    "holds no GGUF file of a language model": (3, "beside"),
    "Only the first file has the keys": (3, "split/s-00002-of-00003.gguf"),
    "does not exist": (3, "a" * 300),  # too long for the system to look
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_refused(hub, cli, long, tmp_path, said):
    code, source, *words = REFUSED[said]
    shutil.copy(long, tmp_path / "blob")
    write(tmp_path / "models" / "a.gguf")
    shutil.copy(long, tmp_path / "models")
    write(tmp_path / "beside" / "p.gguf", {"general.type": Typed("str", "mmproj")})
    write_split(tmp_path / "split")
    place = long if source == "FILE" else source
    place = place if str(place).startswith("hf://") else tmp_path / place
    assert said in cli("push", place, "me/long", *words, code=code).stderr
    assert writes(hub) == []


def test_the_licence_is_in_the_header(hub, cli, tmp_path):
    path = write(tmp_path / "m.gguf", {"general.license": Typed("str", "see README")})
    assert "[licence-unknown]" in cli("push", path, "me/a", "--public", code=1).stderr
    assert "license" not in metadata(cli, path)
    named = {"general.license": Typed("str", "other"),
             "general.license.name": Typed("str", "mine"),
             "general.license.link": Typed("str", "LICENSE")}  # fmt: skip
    found = metadata(cli, write(tmp_path / "n.gguf", named))
    assert [found[k] for k in ("license", "license_name", "license_link")] == [
        "other", "mine", "LICENSE"
    ]  # fmt: skip


def test_a_link_that_is_named_is_followed(hub, cli, long, tmp_path):
    link = tmp_path / "linked.gguf"
    link.symlink_to(long)
    cli("push", link, "me/long")
    assert on_hub(hub, "me/long")["linked.gguf"] == long.read_bytes()


def test_a_file_that_changes_meanwhile_is_not_sent(hub, long):
    def change(_plan):
        long.write_bytes(long.read_bytes() + b"\0" * 32)
        return True

    with pytest.raises(CheckpointError, match="was changed by something else"):
        push(long, "me/long", PushOptions(), confirm=change)
    assert not hub.requests("PUT")


def test_the_page_shows_what_is_printed(cli, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "push.md").read_text(encoding="utf-8")
    block = page.partition("    $ yarncli convert model.gguf")[2].partition("(These are")[0]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model.gguf")
    cli("convert", "model.gguf", *block.splitlines()[0].split())
    command, *shown = [line.strip() for line in block.splitlines()[1:] if line.strip()]
    printed = cli(*command.removeprefix("$ yarncli ").split()).stdout.splitlines()
    assert [line for line in printed if line in shown] == shown


def test_ctrl_c_leaves_the_branch_as_it_was(hub, long, interrupted):
    hub.lfs_suffixes = (".gguf",)
    before = hub.add_repo("me/long", {"a.txt": b"old"}, private=True).refs["main"]
    hub.fail("PUT", "/upload/", how="wait", seconds=30)
    told = interrupted(lambda: hub.requests("PUT"), "push", long, "me/long")
    assert told.endswith("note: Interrupted. The same command goes on from here.\n")
    assert hub.repos["me/long"].refs["main"] == before


def test_an_interrupted_change_comes_first(hub, cli, long):
    long.rename(long.with_name(f"{long.name}.yarncli-pending"))
    (long.parent / "yarncli-journal.bin").write_bytes(b"")
    write(long.parent / "other.gguf")
    for source in (long, long.parent):
        assert "--recover" in cli("push", source, "me/long", code=3).stderr


def test_a_stranger_to_llama_cpp_can_be_told_of(cli, tmp_path):
    keys = {k.replace("llama.", "novel."): v for k, v in demo_keys().items()}
    keys["general.architecture"] = Typed("str", "novel")
    path = write_gguf(tmp_path / "m.gguf", keys, ARRAYS)
    assert isinstance(open_gguf(path).header, GgufHeader)
    assert "llama.cpp does not run this file" in cli("card", path).stdout
