"""Push a folder (a slept model, a classifier, a canonicalizer, or a data set) to the Hugging Face Hub.

    published(folder)       which of its files may leave, by path in the repository          nothing else ever does
    check_access(targets)   whether they could be pushed now                                 before the work, not after it
    push_files(...)         one commit on top of what is there

A thin layer over `huggingface_hub.HfApi` that checks first what would otherwise be a traceback, or worse a leak or a loss:

- What leaves is a list of names that runs publish: safetensors, JSON, text.  No pickle and no stray file is among them, and
  a folder of this machine that `expert_bank.json` may name is taken out of it.
- Repositories are private unless asked otherwise, and a folder that asks for a private repository is never uploaded into one
  that is already public.  A repository that holds something else is left alone, and so is the base of what is pushed.
- A commit comes last and at once: an upload that breaks off leaves the repository as it was, and the same push again goes on.
  What an earlier push left and this one has not is taken away by the same commit; the history keeps it.

Left out: what a run has to publish (publish.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError, first_line
from sleepkit.reporting.cards import REPOSITORY, published_name
from sleepkit.utils.files import read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Published", "Target", "check_access", "published", "push_files", "push_folder"]

CARD = "README.md"
BANK = "expert_bank.json"
TAG = "sleepkit"  # of every card: how a repository is known as ours
_WEIGHTS = r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
_MODEL = r"(generation_|processor_|preprocessor_)?config\.json|" + _WEIGHTS
_TOKENIZER = (
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|chat_template\.jinja|additional_chat_templates/[\w-]+\.jinja|(tokenizer|spiece|sentencepiece\.bpe)\.model"
)
DISTILLATION = "distillation.json"  # beside an adapter that we have made
_ADAPTER = r"adapter_config\.json|adapter_model\.safetensors|distillation\.json"
_ALLOWED = {
    "model": (
        rf"README\.md|{_ADAPTER}|expert_bank\.(json|safetensors)|(base/)?({_MODEL}|{_TOKENIZER})|generators/night_\d+/({_MODEL})"
        r"|exemplars/exemplars\.(json|safetensors)|rehearsal/((general|replay|quiz)\.jsonl|(dreams|outdated)\.json)"
    ),
    "dataset": r"README\.md|(night|round)_\d+\.jsonl|data/[\w-]+\.parquet",
}


@dataclass(frozen=True)
class Target:
    """A repository, ``owner/name`` or ``name`` for one's own account, of the kind ``model`` or ``dataset``."""

    repo_id: str
    kind: str = "model"


@dataclass
class Published:
    """``files``, path in the repository -> where it is, or its content; ``left``, what of the folder stays here."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """Return the size of each file in bytes, by name."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size for name, content in self.files.items()
        }


def published(folder: str | Path, kind: str = "model") -> Published:
    """What of a folder is uploaded, and what is not.

    Raises:
        SleepkitError: the folder is missing, or has no card (`README.md`, see cards.py).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SleepkitError(f"cannot push {folder}: no such folder; give the one that was saved")
    if not (folder / CARD).is_file():
        raise SleepkitError(f"cannot push {folder}: it has no {CARD}; write its card first")
    content = Published()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        stray = re.fullmatch(_ADAPTER, name) is not None and not (folder / DISTILLATION).is_file()
        if stray or not re.fullmatch(_ALLOWED[kind], name):
            content.left.append(name)
            continue
        content.files[name] = path
        if name == "adapter_config.json":  # its base is what an adapter is loaded onto
            value = read_json(path)
            content.files[name] = _as_json(value | {"base_model_name_or_path": published_name(value["base_model_name_or_path"])})
        elif re.search(r"(^|_)config\.json$", path.name):
            content.files[name] = _as_json(_without_names(read_json(path)))
        elif name == BANK:
            content.files[name] = _as_json(_without_folder(read_json(path)))
    return content


def _without_names(value: Any) -> Any:
    """A configuration without where it was loaded from, which transformers writes into some."""
    if isinstance(value, dict):
        return {key: _without_names(item) for key, item in value.items() if not key.endswith("name_or_path")}
    return [_without_names(item) for item in value] if isinstance(value, list) else value


def _without_folder(document: dict[str, Any]) -> dict[str, Any]:
    """``expert_bank.json`` without a folder of this machine."""
    from sleepkit.language.models.base_model import INSIDE, BaseModel

    stated = document.get("base_model")
    return document if stated in (None, INSIDE) else document | BaseModel.named(stated).to_dict(hide_folder=True)


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def check_access(targets: Sequence[Target], *, private: bool = True, token: str | None = None) -> list[str]:
    """Raise unless each repository could be pushed to now; nothing is made or changed.

    Args:
        targets: what is to be pushed to; a repository need not exist.
        private: whether they must be private.
        token: access token; None takes the one of `hf auth login`.

    Returns:
        The full names, ``owner/name``.

    Raises:
        SleepkitError: a malformed name, no login or one that may not write there, a repository that is public though
            ``private``, or that holds something else than a push of ours; or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    for target in targets:
        with _told(target.repo_id):
            validate_repo_id(target.repo_id)
    if is_offline_mode():
        raise SleepkitError(f"cannot push to {targets[0].repo_id} offline; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE")
    api = HfApi(token=token)
    with _told(targets[0].repo_id):
        user = api.whoami()
    names = [target.repo_id if "/" in target.repo_id else f"{user['name']}/{target.repo_id}" for target in targets]
    for name, target in zip(names, targets, strict=True):
        _check_rights(user, name)
        with _told(name):
            _check_repository(api, name, target.kind, private)
    return names


def _check_rights(user: Mapping[str, Any], name: str) -> None:
    """Whether a token may write below an owner, as far as the Hub tells."""
    owner = name.split("/")[0]
    roles = {user["name"]: "admin"} | {
        organisation["name"]: organisation.get("roleInOrg") or "write" for organisation in user.get("orgs", [])
    }
    if owner not in roles or roles[owner] == "read":
        mine = ", ".join(account for account, role in roles.items() if role != "read")
        raise SleepkitError(f"cannot push to {name}: you are {user['name']} and may write to {mine}; choose another owner")
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise SleepkitError(f"cannot push to {name}: the token may only read; log in with one that may write (`hf auth login`)")


def _check_repository(api: HfApi, name: str, kind: str, private: bool) -> None:
    """Whether what is there may get a commit on top."""
    from huggingface_hub import errors

    try:
        info: Any = api.repo_info(name, repo_type=kind)
    except errors.RepositoryNotFoundError:
        return
    if private and not info.private:
        raise SleepkitError(
            f"{name} is public already; push with --public (in Python: private=False) if all may read it, or choose another name"
        )
    files = [file.rfilename for file in info.siblings or []]
    if any(file not in (".gitattributes", ".gitignore", CARD) for file in files) and TAG not in (info.tags or []):
        raise SleepkitError(
            f"{name} holds something else ({files[-1]}), which a push would mix with; choose another name (where it is yours to "
            f"write over, give its card the tag {TAG})"
        )


def push_files(
    files: Mapping[str, Path | bytes],
    target: Target,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "Upload with sleepkit",
) -> str:
    """Upload files in one commit to a repository, which is made if there is none; the card's code is completed by its name.

    Args:
        files: paths on this machine, or contents, by path in the repository; others there that we may have written are removed.
        target: the repository.
        private: make it private.
        token: access token; None takes the one of `hf auth login`.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        SleepkitError: as `check_access`; or the files are experts of the repository itself; or the upload broke off.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    (name,) = check_access([target], private=private, token=token)
    files = _completed(files, name)
    api = HfApi(token=token)
    with _told(name):
        api.create_repo(name, private=private, repo_type=target.kind, exist_ok=True)
        _check_repository(api, name, target.kind, private)
        there = api.list_repo_files(name, repo_type=target.kind)
        gone = [path for path in there if re.fullmatch(_ALLOWED[target.kind], path) and path not in files]
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in files.items()]
        operations += [CommitOperationDelete(path) for path in gone]
        commit = api.create_commit(name, operations, commit_message=message, repo_type=target.kind)
    return str(commit.commit_url)


def _completed(files: Mapping[str, Path | bytes], name: str) -> dict[str, Path | bytes]:
    """The files as they stand in repository ``name``."""
    files = dict(files)
    bank, card = files.get(BANK), files[CARD]
    if bank is not None and json.loads(_bytes(bank)).get("base_model") == name:
        raise SleepkitError(f"{name} is the base of these experts, which a push would spoil; choose another name")
    files[CARD] = _bytes(card).replace(REPOSITORY.encode(), name.encode())
    return files


def _bytes(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    repo_type: str = "model",
    token: str | None = None,
    message: str = "Upload with sleepkit",
) -> str:
    """Upload of a folder what `published` says, to a repository, which is made if there is none.

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
        SleepkitError: as `published` and `push_files`.
    """
    files = published(folder, repo_type).files
    return push_files(files, Target(repo_id, repo_type), private=private, token=token, message=message)


@contextmanager
def _told(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises inside the block into one line that names the repository and the remedy."""
    from huggingface_hub import errors

    try:
        yield
    except SleepkitError:
        raise
    except errors.HFValidationError as error:
        raise SleepkitError(f"{repo_id!r} is not a repository name; use owner/name") from error
    except errors.LocalTokenNotFoundError as error:
        raise SleepkitError(f"not logged in, cannot push to {repo_id}; run `hf auth login`") from error
    except errors.HfHubHTTPError as error:
        raise SleepkitError(f"the Hub refused {repo_id}: {first_line(error)}; check `hf auth whoami` and the name") from error
    except (ConnectionError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # the HTTP client's own
        raise SleepkitError(f"cannot reach the Hub to push {repo_id}; check the network and HF_HUB_OFFLINE") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SleepkitError(f"the upload to {repo_id} broke off: {first_line(error)}; push again") from error
