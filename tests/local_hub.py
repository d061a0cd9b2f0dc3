"""A Hub of one process: the part of huggingface.co's API that `huggingface_hub`, transformers and datasets use, on localhost.

    with LocalHub() as hub:
        hub.token("ada")                        a user and her token, which may write
        subprocess.run(command, env=hub.env("ada", tmp_path))            for programs, in processes of their own
        with hub.used_by("ada", tmp_path):      for code in this process
            HfApi().whoami()
        hub.received()                          every byte of content that came, decoded, to be searched
        hub.cut("PUT /lfs", 1)                  the next upload of a large file breaks off in the middle

Repositories (models and data sets) have commits, branches and a visibility; large files go by Git LFS.  Left out: Xet, pull
requests, gated repositories, redirects to another host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin", ".pt", ".pkl", ".png")


@dataclass
class User:
    """``role`` is that of the token: write or read; ``orgs`` are name -> role."""

    name: str
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)


@dataclass
class Repository:
    """``commits`` are sha -> {path: content}, oldest first; ``branches`` are name -> sha."""

    name: str
    kind: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str, branch: str = "main") -> str:
        """Set the content of a branch; returns the new sha."""
        sha = hashlib.sha1(repr((self.name, self.kind, len(self.commits))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Sha and files of a branch or commit."""
        sha = self.branches.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return self.commits[self.branches["main"]]


class LocalHub:
    """See the module."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}  # token -> user
        self.repositories: dict[tuple[str, str], Repository] = {}  # (kind, owner/name)
        self.large: dict[str, bytes] = {}  # sha256 -> content
        self.requests: list[tuple[str, str, bytes]] = []  # method, path, body
        self.cuts: dict[str, int] = {}  # start of "METHOD path" -> how often it still breaks off
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # -- for tests ----------------------------------------------------------------------------------------------------
    def token(self, name: str, role: str = "write", **orgs: str) -> str:
        """A user's token; the user is made."""
        token = f"hf_{name}{hashlib.sha1(f'{name} {role}'.encode()).hexdigest()[:30]}"
        self.users[token] = User(name, role, orgs)
        return token

    def repository(self, name: str, kind: str = "model") -> Repository:
        """A repository that was made."""
        return self.repositories[kind, name]

    def publish(self, name: str, files: dict[str, bytes] | Path, kind: str = "model", private: bool = False) -> str:
        """Put a repository here without the client, from files or a folder; returns the sha."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        repository = self.repositories.setdefault((kind, name), Repository(name, kind, private))
        return repository.commit(files, "published")

    def cut(self, start: str, times: int) -> None:
        """Let the next requests whose "METHOD path" starts so break off when half of their content has come."""
        self.cuts[start] = times

    def received(self) -> bytes:
        """Paths and content of all requests so far, base64 decoded; without headers, where tokens belong."""
        return b"\n".join(path.encode() + b"\n" + _decoded(body) for _, path, body in self.requests)

    def env(self, token: str | None, home: Path) -> dict[str, str]:
        """Environment of a program that uses this Hub, with caches below ``home``."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        given = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return plain | given | ({"HF_TOKEN": token} if token else {})

    @contextmanager
    def used_by(self, token: str | None, home: Path) -> Iterator[LocalHub]:
        """Inside, the libraries of this process talk to this Hub, with ``token``, and keep what they load below ``home``."""
        import pytest
        from huggingface_hub import constants, hf_api

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", self.url)
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}")
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
            patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
            patch.setattr(hf_api.api, "endpoint", self.url)
            patch.setattr("transformers.utils.hub._hf_api", None)  # made once, for the Hub that was the first
            if "datasets" in sys.modules:
                patch.setattr("datasets.config.HF_ENDPOINT", self.url)
            patch.delenv("HF_TOKEN", raising=False)
            if token:
                patch.setenv("HF_TOKEN", token)
            yield self


def _decoded(body: bytes) -> bytes:
    """A body with what is base64 in its JSON beside it."""
    parts = [body]
    for line in body.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        parts += [base64.b64decode(text) for text in _encoded(value)]
    return b"\n".join(parts)


def _encoded(value: Any) -> Iterator[str]:
    """The fields `content` and `sample` of a commit and of its announcement."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("content", "sample") and isinstance(one, str) and value.get("encoding", "base64") == "base64":
                if "repoType" not in value:  # a card that is validated is plain text
                    yield one
            else:
                yield from _encoded(one)
    elif isinstance(value, list):
        for one in value:
            yield from _encoded(one)


def _blob_id(path: str, content: bytes) -> str:
    """As Git and Git LFS name it."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"
    NAME = r"(?P<name>[^/]+/[^/]+)"
    API = r"/api/(?P<kind>model|dataset)s/" + NAME
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/repos/create", "create"),
        ("GET", API, "info"),
        ("GET", API + r"/revision/(?P<revision>[^/]+)", "info"),
        ("GET", API + r"/refs", "refs"),
        ("GET", API + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
        ("POST", API + r"/paths-info/(?P<revision>[^/]+)", "paths"),
        ("POST", API + r"/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", API + r"/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/(?P<kind>datasets/)?" + NAME + r"\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/(?P<oid>\w+)", "put"),
        ("(?:GET|HEAD)", r"/(?P<kind>datasets/)?" + NAME + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        self.body = self._read(f"{self.command} {path}")
        if self.body is None:
            self.close_connection = True
            return
        self.hub.requests.append((self.command, self.path, self.body))
        try:
            for method, pattern, name in self.ROUTES:
                found = re.fullmatch(pattern, path)
                if found and re.fullmatch(method, self.command):
                    return getattr(self, f"_{name}")(**found.groupdict())
            raise _Refused(404, "RepoNotFound", f"nothing at {path}")
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), {k: v for k, v in headers.items() if v})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve

    def _read(self, request: str) -> bytes | None:
        """The body; None where the connection is to break off."""
        for start in self.hub.cuts:
            if request.startswith(start) and self.hub.cuts[start] > 0:
                self.hub.cuts[start] -= 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                return None
        if self.headers.get("Transfer-Encoding") == "chunked":
            blocks = []
            while size := int(self.rfile.readline(), 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(blocks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    # -- who asks -----------------------------------------------------------------------------------------------------
    def _user(self) -> User | None:
        given = self.headers.get("Authorization", "")
        if not given:
            return None
        if given.removeprefix("Bearer ") not in self.hub.users:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return self.hub.users[given.removeprefix("Bearer ")]

    def _owner(self, name: str) -> User:
        """The user, who may write to a repository of this name."""
        user, owner = self._user(), name.split("/")[0]
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        if user.role == "read" or owner != user.name and user.orgs.get(owner) not in ("write", "admin", "contributor"):
            raise _Refused(403, "", f"You don't have the rights to write to {name}")
        return user

    def _repository(self, kind: str | None, name: str) -> Repository:
        """One that the user may read."""
        kind = {None: "model", "datasets/": "dataset"}.get(kind, kind)
        found, user = self.hub.repositories.get((kind, name)), self._user()
        owner = name.split("/")[0]
        if found is None or found.private and (user is None or owner not in (user.name, *user.orgs)):
            raise _Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        return found

    def _files(self, repository: Repository, revision: str | None) -> tuple[str, dict[str, bytes]]:
        found = repository.at(revision or "main")
        if found is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # -- answers ------------------------------------------------------------------------------------------------------
    def _whoami(self) -> None:
        user = self._user()
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        orgs = [{"name": name, "roleInOrg": role} for name, role in user.orgs.items()]
        self._json({"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": {"role": user.role}}})

    def _validate(self) -> None:
        import yaml

        found = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            good = found is not None and isinstance(yaml.safe_load(found[1]), dict)
        except yaml.YAMLError:
            good = False
        self._send(200 if good else 400, json.dumps({"errors": [] if good else [{"message": "no metadata"}]}).encode())

    def _create(self) -> None:
        asked = json.loads(self.body)
        user = self._user()
        if user is None:
            raise _Refused(401, "", "Invalid username or password.")
        name, kind = f"{asked['organization'] or user.name}/{asked['name']}", asked.get("type", "model")
        self._owner(name)
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return self._send(409, json.dumps({"error": "You already created this repo", "url": url}).encode())
        made = Repository(name, kind, asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit")
        self.hub.repositories[kind, name] = made
        self._json({"url": url})

    def _info(self, kind: str, name: str, revision: str | None = None) -> None:
        import yaml

        repository = self._repository(kind, name)
        sha, files = self._files(repository, revision)
        found = re.match(r"---\n(.*?)\n---\n", files.get("README.md", b"").decode(), re.DOTALL)
        card = yaml.safe_load(found[1]) if found else {}
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
        about = {"private": repository.private, "tags": card.get("tags", []), "library_name": card.get("library_name")}
        times = {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
        self._json(
            {"id": name, "sha": sha, "siblings": siblings, "cardData": card, "gated": False, "downloads": 0} | about | times
        )

    def _refs(self, kind: str, name: str) -> None:
        branches = self._repository(kind, name).branches.items()
        rows = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": sha} for one, sha in branches]
        self._json({"branches": rows, "tags": [], "converts": []})

    def _entries(self, files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
        """All files and folders, by path."""
        found: dict[str, dict[str, Any]] = {}
        for path, content in files.items():
            oid = _blob_id(path, content)
            found[path] = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path.endswith(LARGE):
                found[path]["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            for parent in Path(path).parents:
                if parent.name:
                    found[parent.as_posix()] = {"type": "directory", "path": parent.as_posix(), "oid": "0" * 40, "size": 0}
        return found

    def _tree(self, kind: str, name: str, revision: str, path: str | None) -> None:
        _, files = self._files(self._repository(kind, name), revision)
        entries = self._entries(files)
        if path and path not in entries:
            raise _Refused(404, "EntryNotFound", f"{path} does not exist on {revision}")
        deep, inside = self.query.get("recursive") in (["true"], ["True"], ["1"]), f"{path}/" if path else ""
        rest = {one: entry for one, entry in entries.items() if one.startswith(inside) and one != path}
        self._json([entry for one, entry in rest.items() if deep or "/" not in one[len(inside) :]])

    def _paths(self, kind: str, name: str, revision: str) -> None:
        _, files = self._files(self._repository(kind, name), revision)
        entries = self._entries(files)
        asked = parse_qs(self.body.decode()).get("paths", [])
        self._json([entries[path] for path in asked if path in entries])

    def _preupload(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        self._owner(name)
        _, files = self._files(repository, revision)
        rows = []
        for one in json.loads(self.body)["files"]:
            path = one["path"]
            row = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            rows.append(row | ({"oid": _blob_id(path, files[path])} if path in files else {}))
        self._json({"files": rows})

    def _batch(self, kind: str | None, name: str) -> None:
        self._repository(kind, name)
        self._owner(name)
        rows = []
        for one in json.loads(self.body)["objects"]:
            there = one["oid"] in self.hub.large
            rows.append(one | ({} if there else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}))
        self._json({"transfer": "basic", "objects": rows})

    def _put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content is not what was announced")
        self.hub.large[oid] = self.body
        self._send(200)

    def _commit(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        self._owner(name)
        _, files = self._files(repository, revision)
        files, message = dict(files), ""
        for line in self.body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "header":
                message = value["summary"]
            elif row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _Refused(400, "", f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
            else:
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        sha = repository.commit(files, message, revision)
        prefix = "datasets/" if kind == "dataset" else ""
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{prefix}{name}/commit/{sha}"})

    def _resolve(self, kind: str | None, name: str, revision: str, path: str) -> None:
        sha, files = self._files(self._repository(kind, name), revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", f"Entry not found: {path}")
        content, headers = files[path], {"X-Repo-Commit": sha, "ETag": f'"{_blob_id(path, files[path])}"'}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if span:
            start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self._send(206, content[start : end + 1], headers)
        self._send(200, content, headers)
