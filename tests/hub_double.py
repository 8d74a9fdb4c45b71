"""A small double of the Hub's server, for the real clients: `huggingface_hub`, `transformers` and `datasets` talk to it over HTTP.

    with HubDouble() as hub:
        hub.add_repo("org/model", {"config.json": b"{}"})
        hub.run("from huggingface_hub import snapshot_download; print(snapshot_download('org/model'))", home=tmp_path)

Clients read `HF_ENDPOINT` and the like when they are imported, so their code runs in a process of its own (`run`, or `environment`
for one that the test starts itself). What the server was asked and what it holds is open to the test: `requests`, `repo(...)`.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from huggingface_hub.utils.sha import git_hash
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

ROOT = Path(__file__).parents[1]
LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".model", ".parquet", ".arrow", ".mp4", ".npy", ".zip")
TIME = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"


@dataclass
class Blob:
    data: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_oid(self) -> str:
        return git_hash(self.pointer if self.is_lfs else self.data)

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()


@dataclass
class Repo:
    """What a repository holds: `commits` maps ids to trees, oldest first; `branches` and `tags` map names to commit ids."""

    kind: str
    name: str
    private: bool = False
    gated: str | bool = False
    readers: set[str] = field(default_factory=set)  # who may read it beside the owner if it is private or gated
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def commit(self, tree: dict[str, Blob], title: str, branch: str = "main") -> str:
        seed = f"{self.kind}/{self.name}/{len(self.titles)}/{title}/{[(path, tree[path].git_oid) for path in sorted(tree)]}"
        commit = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[commit], self.titles[commit], self.branches[branch] = tree, title, commit
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Path -> content at a branch, tag or commit."""
        return {path: blob.data for path, blob in self.commits[self.resolve(revision)].items()}

    def resolve(self, revision: str) -> str:
        revision = revision.removeprefix("refs/heads/")
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit


class HubError(Exception):
    """A refusal, as status, `X-Error-Code` and `X-Error-Message`."""

    def __init__(self, status: int, code: str | None, message: str):
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = JSONResponse({"error": message}, status, headers=headers)


class HubDouble:
    """Serves repositories at `url`, and the content of large files at `storage_url`, while the context is open.

    Attributes:
        tokens (`dict[str, str]`): token -> the user whom it belongs to. Users own the namespace of their name and `organizations`.
        requests (`list[tuple[str, str, str | None]]`): method, path and `Range` header of every request, in order.
        downloads (`list[tuple[str, str | None]]`): file and `Range` header of every answer with content of a file.
        unknown (`list[tuple[str, str]]`): requests for which there is no route.
    """

    def __init__(self):
        self.tokens = {"hf_alice": "alice", "hf_bob": "bob"}
        self.organizations = {"alice": ["org"], "bob": []}
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all repositories and requests."""
        self.requests: list[tuple[str, str, str | None]] = []
        self.downloads: list[tuple[str, str | None]] = []
        self.unknown: list[tuple[str, str]] = []
        self._repos: dict[tuple[str, str], Repo] = {}
        self._objects: dict[str, bytes] = {}
        self._cuts: dict[tuple[str, str], tuple[int, int]] = {}
        self._stalls = False

    # The test's side

    def __enter__(self) -> "HubDouble":
        transports = self._transports

        class Protocol(H11Protocol):
            """Remembers its connection, so that it can be cut in the middle of a message."""

            def connection_made(self, transport):
                super().connection_made(transport)
                transports[tuple(self.client)] = transport

        config = uvicorn.Config(self, port=0, log_level="critical", http=Protocol, ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The double of the Hub did not start.")
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url, self.storage_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        return self

    def __exit__(self, *_) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=10)

    def add_repo(self, name: str, files: dict[str, bytes] | str | os.PathLike | None = None, *, kind="model", **settings) -> Repo:
        """Create a repository from path -> content or from a folder; `settings` are `private`, `gated` and `readers`."""
        repo = self._repos[kind, name] = Repo(kind, name, **settings)
        repo.commit({}, "initial commit")
        if files is not None:
            self.commit(repo, files)
        return repo

    def commit(self, repo: Repo, files: dict[str, bytes] | str | os.PathLike, title: str = "Update") -> str:
        """Add or replace files on `main`; the new commit's id."""
        if not isinstance(files, dict):
            folder = Path(files)
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        tree = {path: Blob(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        self._objects |= {blob.sha256: blob.data for blob in tree.values() if blob.is_lfs}
        return repo.commit(repo.commits[repo.branches["main"]] | tree, title)

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self._repos[kind, name]

    def cut_download(self, filename: str, after: int, times: int = 1, *, stall: bool = False) -> None:
        """Break the connection `after` so many bytes of the next answers with more of this file: `times` in all, then all is well.

        With `stall` nothing more comes, but the connection stays.
        """
        self._cuts["GET", filename] = (after, times)
        self._stalls = stall

    def cut_upload(self, sha256: str = "", after: int = 1, times: int = 1) -> None:
        """The same while a large file is sent: the one with this hash, or any."""
        self._cuts["PUT", sha256] = (after, times)

    def forget_history(self, repo: Repo) -> None:
        """Leave only the newest commit of `main`, as after a squash."""
        newest = repo.branches["main"]
        tree, title = repo.commits[newest], repo.titles[newest]
        repo.commits.clear()
        repo.commit(tree, f"{title}, squashed")

    def damage(self, sha256: str, data: bytes) -> None:
        """Serve other bytes for a large file than its hash says."""
        self._objects[sha256] = data

    def environment(self, home: str | os.PathLike, token: str | None = None) -> dict[str, str]:
        """Variables for a client whose cache and settings are below `home`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return inherited | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "60",  # a busy machine is no broken connection
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **({"HF_TOKEN": token} if token else {}),
        }

    def run(self, code: str, *arguments: str, home, token=None, check=True, stdin=None, **variables) -> subprocess.CompletedProcess:
        """Run Python code as a client; its output is captured as text. With `check`, a failing one fails the test."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.environment(home, token) | variables,
            capture_output=True,
            text=True,
            input=stdin if stdin is not None else "",
            cwd=ROOT,
            timeout=600,
        )
        assert not (check and done.returncode), f"{done.stdout}\n{done.stderr}"
        return done

    # The server's side

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode().partition("?")[0]
        method = "GET" if request.method == "HEAD" else request.method
        self.requests.append((request.method, unquote(path), request.headers.get("range")))
        try:
            for route_method, pattern, handler in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and route_method == method:
                    found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                    response = await handler(self, request, **found)
                    break
            else:
                self.unknown.append((request.method, path))
                response = HubError(404, None, f"The double has no {request.method} {path}").response
        except HubError as refusal:
            response = refusal.response
        await response(scope, receive, send)

    def _user(self, request: Request) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.tokens.get(token)

    def _may_write(self, user: str | None, owner: str) -> bool:
        return user is not None and owner in (user, *self.organizations.get(user, []))

    def _find(self, request: Request, kind: str, name: str, *, write=False, content=False) -> Repo:
        user = self._user(request)
        repo = self._repos.get((kind, name))
        is_owner = repo is not None and self._may_write(user, repo.owner)
        may_read = is_owner or (repo is not None and user in repo.readers)
        if repo is None or (repo.private and not may_read):
            raise HubError(
                404 if user else 401, "RepoNotFound", "Repository not found" if user else "Invalid username or password."
            )
        if content and repo.gated and not may_read:
            message = f"Access to {kind} {name} is restricted. You must have access to it and be authenticated to access it."
            raise HubError(403 if user else 401, "GatedRepo", message)
        if write and not is_owner:
            raise HubError(403 if user else 401, None, "You don't have the rights to write to this repository.")
        return repo

    async def _whoami(self, request: Request):
        user = self._user(request)
        if user is None:
            raise HubError(401, None, "Invalid username or password.")
        organizations = [{"type": "org", "name": name} for name in self.organizations.get(user, [])]
        token = {"displayName": "test", "role": "write"}
        return JSONResponse({"type": "user", "name": user, "orgs": organizations, "auth": {"accessToken": token}})

    async def _create(self, request: Request):
        body, user = await request.json(), self._user(request)
        kind, owner = body.get("type") or "model", body.get("organization") or user
        if not self._may_write(user, owner):
            raise HubError(403 if user else 401, None, "You don't have the rights to create a repository here.")
        name = f"{owner}/{body['name']}"
        answer = {"url": self._page(kind, name), "name": name, "id": name}
        if (kind, name) in self._repos:
            return JSONResponse({"error": "You already created this repo", **answer}, 409)
        self.add_repo(name, kind=kind, private=body.get("visibility") == "private" or bool(body.get("private")))
        return JSONResponse(answer)

    async def _delete(self, request: Request):
        body = await request.json()
        kind, name = body.get("type") or "model", f"{body.get('organization') or self._user(request)}/{body['name']}"
        self._find(request, kind, name, write=True)
        del self._repos[kind, name]
        return JSONResponse({})

    async def _settings(self, request: Request, kind: str, name: str):
        repo, body = self._find(request, kind, name, write=True), await request.json()
        repo.gated = body.get("gated", repo.gated)
        if "visibility" in body or "private" in body:
            repo.private = body.get("visibility") == "private" or bool(body.get("private"))
        return JSONResponse({})

    async def _validate_yaml(self, request: Request):
        return JSONResponse({"errors": [], "warnings": []})

    async def _info(self, request: Request, kind: str, name: str, revision: str = "main"):
        repo = self._find(request, kind, name)
        commit = repo.resolve(revision)
        tree = repo.commits[commit]
        card = re.match(r"---\n(.*?)\n---", tree["README.md"].data.decode(), re.DOTALL) if "README.md" in tree else None
        answer = {"_id": name, "id": name, "author": repo.owner, "sha": commit, "private": repo.private, "gated": repo.gated}
        siblings = [{"rfilename": path, "size": len(blob.data), "blobId": blob.git_oid} for path, blob in sorted(tree.items())]
        answer |= {"tags": [], "downloads": 0, "likes": 0, "lastModified": TIME, "createdAt": TIME, "siblings": siblings}
        return JSONResponse(answer | {"cardData": yaml.safe_load(card[1]) if card else None})

    async def _tree(self, request: Request, kind: str, name: str, revision: str, folder: str = ""):
        tree = (repo := self._find(request, kind, name)).commits[repo.resolve(revision)]
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        if prefix and not any(path.startswith(prefix) for path in tree):
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        entries = {}
        for path, blob in sorted(tree.items()):
            if path.startswith(prefix):
                parts = path[len(prefix) :].split("/")
                for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                    parent = prefix + "/".join(parts[:depth])
                    entries.setdefault(parent, {"type": "directory", "path": parent, "oid": git_hash(parent.encode())})
                if recursive or len(parts) == 1:
                    entries[path] = _describe(path, blob)
        return JSONResponse(list(entries.values()))

    async def _paths_info(self, request: Request, kind: str, name: str, revision: str):
        tree = (repo := self._find(request, kind, name)).commits[repo.resolve(revision)]
        body = await request.body()
        is_json = "json" in request.headers.get("content-type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
        answer = [_describe(path, tree[path]) for path in paths if path in tree]
        folders = [path for path in paths if any(other.startswith(f"{path}/") for other in tree)]
        return JSONResponse(answer + [{"type": "directory", "path": path, "oid": git_hash(path.encode())} for path in folders])

    async def _refs(self, request: Request, kind: str, name: str):
        repo = self._find(request, kind, name)
        groups = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
        answer = {
            group: [{"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": commit} for ref, commit in refs.items()]
            for group, (folder, refs) in groups.items()
        }
        return JSONResponse(answer | {"converts": [], "pullRequests": []})

    async def _commits(self, request: Request, kind: str, name: str, revision: str):
        repo = self._find(request, kind, name)
        repo.resolve(revision)
        log = [{"id": commit, "title": title, "message": "", "authors": [], "date": TIME} for commit, title in repo.titles.items()]
        return JSONResponse(log[::-1])

    async def _tag(self, request: Request, kind: str, name: str, revision: str):
        repo = self._find(request, kind, name, write=True)
        tag = (await request.json())["tag"]
        if tag in repo.tags:
            raise HubError(409, None, f"Tag reference exists already: {tag}")
        repo.tags[tag] = repo.resolve(revision)
        return JSONResponse({})

    async def _untag(self, request: Request, kind: str, name: str, revision: str):
        repo = self._find(request, kind, name, write=True)
        if repo.tags.pop(revision, None) is None:
            raise HubError(404, "RevisionNotFound", f"No such tag: {revision}")
        return JSONResponse({})

    async def _branch(self, request: Request, kind: str, name: str, revision: str):
        repo, body = self._find(request, kind, name, write=True), await request.body()
        if revision in repo.branches:
            raise HubError(409, None, f"Reference already exists: {revision}")
        repo.branches[revision] = repo.resolve((json.loads(body) if body else {}).get("startingPoint") or "main")
        return JSONResponse({})

    async def _access(self, request: Request, kind: str, name: str):
        self._find(request, kind, name, content=True)
        return JSONResponse({})

    async def _discussions(self, request: Request, kind: str, name: str):
        self._find(request, kind, name)
        return JSONResponse({"discussions": [], "count": 0, "start": 0})

    async def _preupload(self, request: Request, kind: str, name: str, revision: str):
        tree = (repo := self._find(request, kind, name, write=True)).commits[repo.resolve(revision)]
        answer = []
        for file in (await request.json())["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) or file["size"] > 10_000_000 else "regular"
            known = tree.get(path)
            oid = None if known is None else known.sha256 if known.is_lfs else known.git_oid
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answer})

    async def _batch(self, request: Request, name: str, kind: str = "model"):
        self._find(request, kind, name, write=True)
        answer = []
        for wanted in (await request.json())["objects"]:
            upload = {"upload": {"href": f"{self.storage_url}/objects/{wanted['oid']}"}}
            answer.append(wanted if wanted["oid"] in self._objects else wanted | {"actions": upload})
        return JSONResponse({"transfer": "basic", "objects": answer})

    async def _put_object(self, request: Request, sha256: str):
        received = b""
        cut = self._take_cut("PUT", sha256) or self._take_cut("PUT", "")
        async for piece in request.stream():
            received += piece
            if cut is not None and len(received) >= cut:
                self._transports[tuple(request.scope["client"])].abort()
                return Response()
        if hashlib.sha256(received).hexdigest() != sha256:
            raise HubError(400, None, "The content does not have the hash it was announced with.")
        self._objects[sha256] = received
        return Response()

    async def _commit(self, request: Request, kind: str, name: str, revision: str):
        repo = self._find(request, kind, name, write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line]
        parent = repo.resolve(revision)
        tree, header = dict(repo.commits[parent]), {}
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "header":
                header = value
                if header.get("parentCommit") not in (None, parent):
                    raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), is_lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self._objects:
                    raise HubError(400, None, f"The large file {value['path']} was not uploaded.")
                tree[value["path"]] = Blob(self._objects[value["oid"]], is_lfs=True)
            elif key == "deletedFile":
                tree.pop(value["path"], None)
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                tree = {path: blob for path, blob in tree.items() if not path.startswith(folder)}
        commit = repo.commit(tree, header.get("summary", ""), revision.removeprefix("refs/heads/"))
        return JSONResponse({"success": True, "commitOid": commit, "commitUrl": f"{self._page(kind, name)}/commit/{commit}"})

    async def _resolve(self, request: Request, name: str, revision: str, path: str, kind: str = "model"):
        repo = self._find(request, kind, name, content=True)
        commit = repo.resolve(revision)
        blob = repo.commits[commit].get(path)
        if blob is None:
            error = HubError(404, "EntryNotFound", "Entry not found")
            error.response.headers["X-Repo-Commit"] = commit
            raise error
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{blob.git_oid}"'}
        if not blob.is_lfs:
            return self._content(request, blob.data, headers, path)
        # As on the Hub, large files lie on another host; the Hub's own answer tells hash and size.
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        return RedirectResponse(f"{self.storage_url}/objects/{blob.sha256}?file={path}", 302, headers)

    async def _get_object(self, request: Request, sha256: str):
        if sha256 not in self._objects:
            raise HubError(404, "EntryNotFound", "Entry not found")
        return self._content(request, self._objects[sha256], {"ETag": f'"{sha256}"'}, request.query_params.get("file", sha256))

    def _content(self, request: Request, data: bytes, headers: dict, path: str) -> Response:
        status = 200
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if span:
            start, end = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
            if start > end:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
            headers, status = headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, 206
            data = data[start : end + 1]
        headers = headers | {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
        if request.method == "GET":
            self.downloads.append((path, request.headers.get("range")))
        cut = self._take_cut("GET", path, len(data)) if request.method == "GET" else None
        if cut is None:
            return Response(data, status, headers)

        async def beginning():
            yield data[:cut]
            await asyncio.sleep(600 if self._stalls else 0.05)  # lets the beginning arrive
            self._transports[tuple(request.scope["client"])].close()

        return StreamingResponse(beginning(), status, headers)

    def _take_cut(self, method: str, name: str, length: int | None = None) -> int | None:
        after, times = self._cuts.get((method, name), (0, 0))
        if not times or (length is not None and length <= after):
            return None
        self._cuts[method, name] = (after, times - 1)
        return after

    def _page(self, kind: str, name: str) -> str:
        return f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"


def _describe(path: str, blob: Blob) -> dict:
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_oid}
    if blob.is_lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry


PAGE = r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+?)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", HubDouble._whoami),
    ("POST", "/api/repos/create", HubDouble._create),
    ("DELETE", "/api/repos/delete", HubDouble._delete),
    ("POST", "/api/validate-yaml", HubDouble._validate_yaml),
    ("GET", rf"/api/{REPO}", HubDouble._info),
    ("GET", rf"/api/{REPO}/revision/{REVISION}", HubDouble._info),
    ("GET", rf"/api/{REPO}/tree/{REVISION}(?P<folder>/.*)?", HubDouble._tree),
    ("POST", rf"/api/{REPO}/paths-info/{REVISION}", HubDouble._paths_info),
    ("GET", rf"/api/{REPO}/refs", HubDouble._refs),
    ("GET", rf"/api/{REPO}/commits/{REVISION}", HubDouble._commits),
    ("POST", rf"/api/{REPO}/tag/{REVISION}", HubDouble._tag),
    ("DELETE", rf"/api/{REPO}/tag/{REVISION}", HubDouble._untag),
    ("POST", rf"/api/{REPO}/branch/{REVISION}", HubDouble._branch),
    ("GET", rf"/api/{REPO}/auth-check", HubDouble._access),
    ("GET", rf"/api/{REPO}/discussions", HubDouble._discussions),
    ("PUT", rf"/api/{REPO}/settings", HubDouble._settings),
    ("POST", rf"/api/{REPO}/preupload/{REVISION}", HubDouble._preupload),
    ("POST", rf"/api/{REPO}/commit/{REVISION}", HubDouble._commit),
    ("POST", rf"{PAGE}\.git/info/lfs/objects/batch", HubDouble._batch),
    ("PUT", r"/objects/(?P<sha256>\w+)", HubDouble._put_object),
    ("GET", r"/objects/(?P<sha256>\w+)", HubDouble._get_object),
    ("GET", rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", HubDouble._resolve),
]
