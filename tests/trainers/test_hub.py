"""Pushing through the real client to a Hub of this process: what leaves, who may, and what is left alone."""

import json
import time

import pytest
from huggingface_hub import HfApi, constants
from local_hub import LocalHub

from sleepkit.errors import SleepkitError
from sleepkit.trainers.hub import Target, check_access, published, push_folder

CARD = "---\nlibrary_name: sleepkit\ntags:\n- sleepkit\n---\n\n# A model\n\nfrom_pretrained('OWNER/NAME')\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "expert_bank.json").write_text(json.dumps({"base_model": "org/base", "active": [0]}))
    (folder / "expert_bank.safetensors").write_bytes(b"weights" * 1000)
    return folder


@pytest.fixture
def hub():
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def ada(hub, tmp_path):
    """The libraries talk to the hub as ada."""
    with hub.used_by(hub.token("ada", lab="write", school="read"), tmp_path / "home"):
        yield


def test_a_push_is_private_and_its_card_is_completed(folder, hub, ada):
    address = push_folder(folder, "owl")
    repository = hub.repository("ada/owl")
    assert address.startswith(f"{hub.url}/ada/owl/commit/") and repository.private
    assert {*repository.files} == {".gitattributes", "README.md", "expert_bank.json", "expert_bank.safetensors"}
    assert repository.files["expert_bank.safetensors"] == (folder / "expert_bank.safetensors").read_bytes()
    assert b"from_pretrained('ada/owl')" in repository.files["README.md"] and (folder / "README.md").read_text() == CARD
    push_folder(folder, "lab/owl", private=False)
    assert not hub.repository("lab/owl").private


def test_a_second_push_is_a_commit_on_top_and_takes_away_what_the_first_had_more(folder, hub, ada):
    (folder / "rehearsal").mkdir()
    (folder / "rehearsal" / "quiz.jsonl").write_text("{}\n")
    push_folder(folder, "owl")
    first = hub.repository("ada/owl").branches["main"]
    (folder / "rehearsal" / "quiz.jsonl").unlink()
    (folder / "expert_bank.safetensors").write_bytes(b"other" * 1000)
    push_folder(folder, "ada/owl", message="again")
    repository = hub.repository("ada/owl")
    assert "rehearsal/quiz.jsonl" not in repository.files and repository.files["expert_bank.safetensors"].startswith(b"other")
    assert repository.commits[first]["expert_bank.safetensors"].startswith(b"weights") and repository.messages[-1] == "again"


def test_only_what_runs_publish_leaves(folder, hub, ada):
    stray = ["thesis.tex", "training_args.bin", "optimizer.pt", "rng_state.pth", "trainer_state.json", "adapter_config.json"]
    stray += ["checkpoint-4/model.safetensors", "completions/a.parquet", "draft.tmp", "notes.md", ".hidden/config.json", "x.png"]
    stray += ["generators/night_01/phase.json", "generators/other/config.json", "base/pytorch_model.bin", "README.md.bak"]
    ours = ["config.json", "base/tokenizer.json", "base/model-00001-of-00002.safetensors", "generators/night_12/config.json"]
    ours += ["exemplars/exemplars.json", "exemplars/exemplars.safetensors", "base/chat_template.jinja"]
    for name in (*stray, *ours):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(f"content of {name}"))
    plan = published(folder)
    assert set(plan.left) == set(stray)
    push_folder(folder, "owl")
    files = hub.repository("ada/owl").files
    assert {*files} == {".gitattributes", "README.md", "expert_bank.json", "expert_bank.safetensors", *ours}
    assert not any(f"content of {name}".encode() in hub.received() for name in stray)


def test_a_folder_of_this_machine_is_not_told(folder, hub, ada, tmp_path):
    for base in (str(tmp_path / "secret place" / "small"), "~/secret place/small", "./secret place/small"):
        (folder / "expert_bank.json").write_text(json.dumps({"base_model": base}))
        push_folder(folder, "owl")
        told = json.loads(hub.repository("ada/owl").files["expert_bank.json"])
        assert told["base_model"] is None and told["base_name"] == "small"
    nested = {
        "model_type": "x",
        "_name_or_path": "/secret place/a",
        "backbone": [{"_name_or_path": "secret place/b", "depth": 2}],
    }
    (folder / "config.json").write_text(json.dumps(nested))
    push_folder(folder, "owl")
    assert json.loads(hub.repository("ada/owl").files["config.json"]) == {"model_type": "x", "backbone": [{"depth": 2}]}
    assert b"secret place" not in hub.received()


def test_the_base_of_what_is_pushed_is_not_written_over(folder, hub, ada):
    (folder / "expert_bank.json").write_text(json.dumps({"base_model": "ada/base"}))
    with pytest.raises(SleepkitError, match="ada/base is the base of these experts"):
        push_folder(folder, "ada/base")
    assert not hub.repositories


def test_a_repository_that_holds_something_else_is_left_alone(folder, hub, ada):
    hub.publish("ada/thesis", {"README.md": b"---\ntags: [art]\n---\n", "thesis.tex": b"..."}, private=True)
    with pytest.raises(SleepkitError, match="ada/thesis holds something else .thesis.tex."):
        push_folder(folder, "ada/thesis")
    hub.publish("ada/new", {"README.md": b"# made on the site"}, private=True)
    assert push_folder(folder, "ada/new")


def test_a_public_repository_is_used_only_when_asked(folder, hub, ada):
    hub.publish("ada/owl", {"README.md": b"hello"})
    with pytest.raises(SleepkitError, match="ada/owl is public already; push with --public .* private=False"):
        push_folder(folder, "ada/owl")
    assert hub.repository("ada/owl").files == {"README.md": b"hello"}
    assert push_folder(folder, "ada/owl", private=False)


def test_access_is_known_before_anything_is_made(hub, tmp_path):
    def refused(words, token, *names):
        with hub.used_by(token, tmp_path / "home"), pytest.raises(SleepkitError, match=words) as caught:
            check_access([Target(name) for name in names] or [Target("ada/owl")])
        assert "\n" not in str(caught.value)

    token = hub.token("ada", lab="write", school="read")
    refused("not logged in, cannot push to ada/owl; run `hf auth login`", None)
    refused("refused ada/owl: Invalid user token.*check `hf auth whoami`", "hf_wrongwrongwrong")
    refused("the token may only read", hub.token("ada", role="read"))
    refused("cannot push to bob/owl: you are ada and may write to ada, lab", token, "ada/owl", "bob/owl")
    refused("cannot push to school/owl", token, "school/owl")
    for name in ("a b/c", "a/b/c", "ada/owl/", "-owl", "../owl", ""):
        refused("is not a repository name; use owner/name", token, name)
    with hub.used_by(token, tmp_path / "home"):
        assert check_access([Target("owl"), Target("lab/dreams", "dataset")]) == ["ada/owl", "lab/dreams"]
    assert not hub.repositories and {method for method, _, _ in hub.requests} == {"GET"}


def test_no_network_and_offline(folder, hub, ada, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SleepkitError, match="cannot push to owl offline; unset HF_HUB_OFFLINE"):
        push_folder(folder, "owl")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SleepkitError, match="cannot reach the Hub to push owl; check the network"):
        push_folder(folder, "owl")


@pytest.mark.parametrize(("where", "times"), [("PUT /lfs", 99), ("POST /api/models/ada/owl/commit", 1)])
def test_an_upload_that_broke_off_changes_nothing_and_is_repeated(folder, hub, ada, monkeypatch, where, times):
    push_folder(folder, "owl")
    before = hub.repository("ada/owl").branches["main"]
    (folder / "expert_bank.safetensors").write_bytes(b"second" * 1000)
    (folder / "base").mkdir()
    (folder / "base" / "model.safetensors").write_bytes(b"base" * 1000)
    hub.cut(where, times)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's own attempts
    with pytest.raises(SleepkitError, match="ada/owl") as caught:
        push_folder(folder, "owl")
    assert "\n" not in str(caught.value) and hub.repository("ada/owl").branches["main"] == before
    hub.cut(where, 0)
    push_folder(folder, "owl")
    files = hub.repository("ada/owl").files
    assert files["expert_bank.safetensors"] == b"second" * 1000 and files["base/model.safetensors"] == b"base" * 1000


def test_a_connection_that_is_lost_once_is_no_error(folder, hub, ada, monkeypatch):
    hub.cut("PUT /lfs", 1)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    push_folder(folder, "owl")
    assert hub.repository("ada/owl").files["expert_bank.safetensors"] == b"weights" * 1000


def test_a_card_that_the_hub_refuses_is_one_line(folder, ada):
    (folder / "README.md").write_text("# no metadata")
    with pytest.raises(SleepkitError, match="upload to ada/owl broke off: Invalid metadata in README.md") as caught:
        push_folder(folder, "owl")
    assert "\n" not in str(caught.value)


def test_data_sets(hub, ada, tmp_path):
    folder = tmp_path / "dreams"
    (folder / "data").mkdir(parents=True)
    for name in ("night_01.jsonl", "data/train-00000-of-00001.parquet", "other.jsonl", "expert_bank.json"):
        (folder / name).write_text("{}\n")
    (folder / "README.md").write_text(CARD)
    assert "/datasets/ada/dreams/" in push_folder(folder, "dreams", repo_type="dataset")
    assert {*HfApi().list_repo_files("ada/dreams", repo_type="dataset")} == {
        *(".gitattributes", "README.md", "night_01.jsonl", "data/train-00000-of-00001.parquet")
    }


def test_bad_folders_are_refused_before_any_request(folder, hub, ada, tmp_path):
    with pytest.raises(SleepkitError, match="no such folder"):
        push_folder(tmp_path / "absent", "ada/owl")
    (folder / "README.md").unlink()
    with pytest.raises(SleepkitError, match="no README.md; write its card first"):
        push_folder(folder, "ada/owl")
    assert not hub.requests
