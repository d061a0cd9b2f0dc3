from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from sleepkit.errors import SleepkitError
from sleepkit.hub import push_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("# A model")
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A Hub that records its calls; `hub.public` is whether the repository was public already."""
    hub = SimpleNamespace(public=False, calls=[])

    def create_repo(self, repo_id, **options):
        hub.calls.append(("create", repo_id, options))
        return SimpleNamespace(repo_id=f"me/{repo_id}" if "/" not in repo_id else repo_id)

    def repo_info(self, repo_id, **options):
        return SimpleNamespace(private=not hub.public)

    def upload_folder(self, **options):
        hub.calls.append(("upload", options.pop("repo_id"), options))
        return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "repo_info", repo_info)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return hub


def test_push_is_private_unless_asked_and_skips_what_must_not_leave(folder, hub):
    assert push_folder(folder, "night-owl", repo_type="dataset") == "https://hub/commit/1"
    (_, _, created), (_, name, uploaded) = hub.calls
    assert created == {"private": True, "repo_type": "dataset", "exist_ok": True}
    assert name == "me/night-owl" and uploaded["folder_path"] == folder and uploaded["repo_type"] == "dataset"
    assert {"completions/*", "checkpoint-*/*"} <= set(uploaded["ignore_patterns"])


def test_a_public_repository_is_used_only_when_asked(folder, hub):
    hub.public = True
    with pytest.raises(SleepkitError, match="me/owl is public already; pass private=False"):
        push_folder(folder, "me/owl")
    assert [call[0] for call in hub.calls] == ["create"]
    assert push_folder(folder, "me/owl", private=False)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalTokenNotFoundError("no token"), "not logged in.*hf auth login"),
        (OfflineModeIsEnabled("offline"), "cannot reach the Hub.*HF_HUB_OFFLINE"),
        (
            HfHubHTTPError("401 Unauthorized\ndetails", response=Mock(headers={})),
            "refused me/owl: 401 Unauthorized; check",
        ),
        (HfHubHTTPError.__mro__[1]("no route"), "cannot reach the Hub"),
    ],
)
def test_what_goes_wrong_on_the_hub_is_one_line(folder, hub, monkeypatch, error, message):
    def fail(self, **options):
        raise error

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    with pytest.raises(SleepkitError, match=message) as caught:
        push_folder(folder, "me/owl")
    assert "\n" not in str(caught.value)


def test_bad_folders_are_refused_before_any_request(folder, hub, tmp_path):
    with pytest.raises(SleepkitError, match="no such folder"):
        push_folder(tmp_path / "absent", "me/owl")
    (folder / "README.md").unlink()
    with pytest.raises(SleepkitError, match="no README.md; write its card first"):
        push_folder(folder, "me/owl")
    assert not hub.calls


def test_bad_names_are_refused_before_any_request(folder):
    with pytest.raises(SleepkitError, match="'a b/c d' is not a repository name; use owner/name"):
        push_folder(folder, "a b/c d")
