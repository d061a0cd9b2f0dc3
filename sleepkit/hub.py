"""Push a folder (a slept model with its continual state, or a data set) to the Hugging Face Hub.

A thin layer over `huggingface_hub.HfApi` that checks first what would otherwise be a traceback, or worse a leak:
repositories are private unless asked otherwise, and a folder that asks for a private repository is never uploaded into
one that is already public.
"""

from __future__ import annotations

from pathlib import Path

from sleepkit.errors import SleepkitError

__all__ = ["SKIPPED", "push_folder", "push_if_asked"]

SKIPPED = ["checkpoint-*/*", "completions/*", "*.tmp"]
"""Never uploaded: optimizer states, the prompts and completions that TRL logs, and files that were being written."""


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    repo_type: str = "model",
    token: str | None = None,
    message: str = "Upload with sleepkit",
) -> str:
    """Upload everything in `folder` but `SKIPPED` to a repository, which is made if there is none.

    Args:
        folder: what to upload; it should hold a card (`README.md`, see cards.py).
        repo_id: `owner/name`, or `name` for one's own account.
        private: whether the repository must be private; an existing one is never made public or private.
        repo_type: `model` or `dataset`.
        token: access token; None takes the one of `hf auth login`.
        message: title of the commit.

    Returns:
        Address of the commit.

    Raises:
        SleepkitError: if the folder is missing, empty or without a card, the name is malformed, `private` is asked for
            a repository that is public, or the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    folder = Path(folder)
    if not folder.is_dir():
        raise SleepkitError(f"cannot push {folder}: no such folder; give the one that was saved")
    if not (folder / "README.md").is_file():
        raise SleepkitError(f"cannot push {folder}: it has no README.md; write its card first")
    try:
        api = HfApi(token=token)
        name = api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True).repo_id
        if private and not api.repo_info(name, repo_type=repo_type).private:
            raise SleepkitError(f"{name} is public already; pass private=False, or choose another name")
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, repo_type=repo_type, commit_message=message, ignore_patterns=SKIPPED
        )
    except errors.HFValidationError as error:
        raise SleepkitError(f"{repo_id!r} is not a repository name; use owner/name") from error
    except errors.LocalTokenNotFoundError as error:
        raise SleepkitError(f"not logged in, cannot push to {repo_id}; run `hf auth login`") from error
    except errors.HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise SleepkitError(f"the Hub refused {repo_id}: {reason}; check `hf auth whoami` and the name") from error
    except (ConnectionError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # the HTTP client's own
        raise SleepkitError(f"cannot reach the Hub to push {repo_id}; check the network and HF_HUB_OFFLINE") from error
    return commit.commit_url


def push_if_asked(folder: str | Path, repo_id: str | None, *, repo_type: str = "model", token: str | None = None) -> None:
    """`push_folder` and print the address, unless there is no ``repo_id``."""
    if repo_id is not None:
        print(f"pushed: {push_folder(folder, repo_id, repo_type=repo_type, token=token)}")
