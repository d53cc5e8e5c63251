"""A stand-in for the Hugging Face Hub on this machine, spoken to by the real client of `huggingface_hub`.

It serves repositories of models, and of Spaces (under the name `spaces/ada/page`), from memory over HTTP on the loopback: creating, reading and committing to them, Git LFS in one
part or several, downloads in part, revisions, private and gated repositories, tokens, and the Hub's check of a model card. It
answers with the Hub's status codes and headers (`X-Error-Code`, `X-Linked-Etag`, ...), so that the client raises the errors
that it raises for the Hub. Xet is not served: `use` turns it off in the client, which then speaks Git LFS.

The fixture `hub` of `tests/conftest.py` starts one and points the client at it, in this process and in those it starts:

    def test_weights_arrive(hub, tmp_path):
        hub.add_repo("lab/towers", {"config.json": b"{}", "weights.bin": b"\\0" * 9_000})
        folder = snapshot_download("lab/towers")                    # the real client; nothing else to pass
        HfApi(token=hub.token).create_repo("ada/mine", private=True)
        assert hub.files("ada/mine").keys() == {".gitattributes"}

Who may do what: `hub.token` belongs to `ada`, who may write as `ada` and as her organisation `lab`; `hub.read_token` is hers
too, for reading only; every other token is refused. Other namespaces exist as soon as a repository is added to them. The client
sends no token by itself: pass `token=`, or set the environment variable HF_TOKEN.

What can be made to go wrong:

    hub.cut_uploads_after = 1_000      # the line breaks when so many more bytes of large files have come; None mends it
    hub.cut_downloads_after = 1_000    # every answer with a file breaks off after so many bytes
    hub.refuse("POST /api/repos", 503, "Service Unavailable", times=2)   # answers of your own, by "METHOD /path"
    hub.add_repo("lab/llama", {...}, gated=True)                         # 403 until `hub.grant("lab/llama")`
    hub.delay = 0.1                    # seconds before every answer
    hub.part_size = 5_000              # large files travel in parts of this size
    hub.page_size = 2                  # entries on a page of a listing

What can be looked at: `hub.requests`, a list of (method, path, headers, bytes received); `hub.received`, the bytes that came of
each large file, by its SHA-256; `hub.files(repo_id, revision)`; `hub.commits(repo_id, revision)`, the messages, newest first.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, unquote, urlsplit

from microemo.tests.hub_card_rules import card_data, card_errors
from microemo.tests.hub_repos import GIT_ATTRIBUTES, Answer, File, Repo, Request, is_large


class HubStandIn:
    """The stand-in; a context manager that serves while it is open. See the docstring of this file."""

    token, read_token = "hf_ada", "hf_ada_read"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.organizations = {"lab"}
        self.cut_uploads_after: int | None = None
        self.cut_downloads_after: int | None = None
        self.part_size: int | None = None
        self.page_size = 1000
        self.delay = 0.0
        self.requests: list[Request] = []
        self.received: Counter[str] = Counter()
        self.parts: dict[tuple[str, int], bytes] = {}
        self.lock = threading.RLock()
        self._refusals: list[list] = []
        self._granted: set[str] = set()

    def __enter__(self) -> "HubStandIn":
        handler = type("Handler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another host name, as the Hub's store of large files has: the client must not send it the token.
        self.store = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def use(self, monkeypatch, home: Path) -> None:
        """Points `huggingface_hub` and all that use it at this stand-in, without the waits between attempts.

        `home` becomes the place of the cache and of the stored token. Processes that are started later get the same by
        their environment.
        """
        import huggingface_hub
        from huggingface_hub import constants, file_download
        from huggingface_hub.utils import _http
        from transformers.utils import hub

        cache = str(home / "hub")
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": cache,
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "DOWNLOAD_CHUNK_SIZE": 10_000,  # 10 MB there: what breaks off within a chunk is not kept
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", self.url)
        monkeypatch.setattr(hub, "_hf_api", None, raising=False)  # made once with the endpoint of that time
        hurry = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        for module in (_http, file_download):
            monkeypatch.setattr(module, "time", hurry)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": cache,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }.items():
            monkeypatch.setenv(name, value)
        _http.close_session()  # the next one reads the environment again

    # --- what a test prepares and looks at -------------------------------------------------------------------------

    def add_repo(
        self, repo_id: str, files: dict[str, bytes | Path] | Path, private: bool = False, gated: bool = False
    ) -> str:
        """Adds a repository with these files (or those of a folder) in one commit, and returns the commit's id."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
        repo = self.repos[repo_id] = Repo(repo_id, private, gated)
        contents = {path: file.read_bytes() if isinstance(file, Path) else file for path, file in files.items()}
        stored = {path: File(content, is_large(path, content)) for path, content in contents.items()}
        return repo.commit("main", "Initial commit", stored).sha

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        return {path: file.content for path, file in self.repos[repo_id].at(revision).files.items()}

    def commits(self, repo_id: str, revision: str = "main") -> list[str]:
        commit, messages = self.repos[repo_id].at(revision), []
        while commit is not None:
            messages.append(commit.message)
            commit = commit.parent
        return messages

    def refuse(
        self, pattern: str, status: int, message: str, code: str | None = None, times: int | None = None
    ) -> None:
        """Answers requests whose "METHOD /path" matches `pattern` with an error, `times` times or always."""
        self._refusals.append([re.compile(pattern), Answer(status, message, code), times])

    def grant(self, repo_id: str) -> None:
        """Lets `ada` into a gated repository."""
        self._granted.add(repo_id)

    # --- who may do what -------------------------------------------------------------------------------------------

    def check_refusals(self, request: str) -> None:
        for refusal in self._refusals:
            pattern, answer, times = refusal
            if pattern.search(request) and times != 0:
                refusal[2] = None if times is None else times - 1
                raise answer

    def check_token(self, token: str | None) -> None:
        if token not in (None, self.token, self.read_token):
            raise Answer(401, "Invalid credentials in Authorization header")

    def writable(self, namespace: str, token: str | None) -> None:
        if token is None:
            raise Answer(401, "Invalid username or password.")
        if token == self.read_token:
            raise Answer(403, "You must use a write token to upload to a repository.")
        if namespace not in {"ada", *self.organizations}:
            raise Answer(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')

    def readable(self, repo_id: str, token: str | None, is_content: bool = False) -> Repo:
        repo = self.repos.get(repo_id)
        is_mine = token is not None and _owner(repo_id) in {"ada", *self.organizations}
        if repo is None or (repo.private and not is_mine):
            raise Answer(401 if token is None else 404, "Repository not found", "RepoNotFound")
        if is_content and repo.gated and (token is None or repo_id not in self._granted):
            message = f"Access to model {repo_id} is restricted. You must have access to it and be authenticated."
            raise Answer(401 if token is None else 403, message, "GatedRepo")
        return repo


def _owner(repo_id: str) -> str:
    return repo_id.removeprefix("spaces/").split("/")[0]


REPO = r"(?P<repo>spaces/[^/]+/[^/]+|[^/]+/[^/]+|[^/]+)"
ROUTES: list[tuple[str, re.Pattern, str]] = [
    (method, re.compile(f"{path}$"), name)
    for method, path, name in (
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("POST", "/api/repos/create", "create_repo"),
        ("GET", f"/api/(?:models/)?{REPO}/revision/(?P<revision>[^/]+)", "repo_info"),
        ("GET", f"/api/(?:models/)?{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?", "tree"),
        ("GET", f"/api/(?:models/)?{REPO}/refs", "refs"),
        ("POST", f"/api/(?:models/)?{REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
        ("POST", f"/api/(?:models/)?{REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", f"/api/(?:models/)?{REPO}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", f"/api/(?:models/)?{REPO}/branch/(?P<revision>[^/]+)", "create_branch"),
        ("GET", f"/api/(?:models/)?{REPO}", "repo_info"),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", f"/store/{REPO}/(?P<oid>[0-9a-f]{{64}})(/(?P<part>[0-9]+))?", "store_large"),
        ("POST", f"/store/{REPO}/(?P<oid>[0-9a-f]{{64}})/complete", "complete_large"),
        ("POST", f"/store/{REPO}/verify", "verify_large"),
        ("GET", f"/store/{REPO}/(?P<oid>[0-9a-f]{{64}})", "read_large"),
        ("GET", f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # small answers would wait 40 ms
    hub: HubStandIn

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        path = unquote(split.path) if "/resolve/" in split.path else split.path
        authorization = self.headers.get("Authorization")
        self.bearer = authorization.removeprefix("Bearer ") if authorization else None
        self.read = 0
        try:
            self.body = b"" if path.startswith("/store/") and self.command == "PUT" else b"".join(self.chunks())
            time.sleep(self.hub.delay)
            self.hub.check_refusals(f"{self.command} {path}")
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, name in ROUTES:
                if wanted == method and (match := pattern.match(path)):
                    if not path.startswith("/store/"):  # its addresses are signed, and need no token
                        self.hub.check_token(self.bearer)
                    arguments = {key: value and unquote(value) for key, value in match.groupdict().items()}
                    with self.hub.lock:
                        answer = getattr(self, name)(**arguments)
                    break
            else:
                raise Answer(404, f"Cannot {self.command} {path}")
            if answer is not None:
                self.reply(200, json.dumps(answer).encode())
        except Answer as answer:
            headers = {"X-Error-Message": answer.message, **({"X-Error-Code": answer.code} if answer.code else {})}
            if self.command == "PUT":  # whose body may not have been read
                headers["Connection"] = "close"
            self.reply(answer.status, json.dumps(answer.body).encode(), headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.hub.requests.append(Request(self.command, path, dict(self.headers), self.read))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def chunks(self):
        """Yields the body, which comes with its length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.count(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            data = self.count(self.rfile.read1(min(left, 65536)))
            if not data:
                raise ConnectionError("the client has gone")
            left -= len(data)
            yield data

    def count(self, data: bytes) -> bytes:
        self.read += len(data)
        return data

    def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:sent])
            if sent is not None and sent < len(data):
                self.close_connection = True

    def cut(self) -> None:
        """Breaks the connection off, as a line that goes dead."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionError("cut")

    # --- repositories ----------------------------------------------------------------------------------------------

    def whoami(self) -> dict:
        if self.bearer is None:
            raise Answer(401, "Invalid username or password.")
        role = "write" if self.bearer == self.hub.token else "read"
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in sorted(self.hub.organizations)]
        auth = {"type": "access_token", "accessToken": {"displayName": "stand-in", "role": role}}
        return {"type": "user", "name": "ada", "fullname": "Ada", "orgs": orgs, "auth": auth}

    def validate_yaml(self) -> dict:
        errors = card_errors(json.loads(self.body)["content"])
        if errors:
            raise Answer(400, "Invalid metadata", errors=[{"message": error} for error in errors], warnings=[])
        return {"errors": [], "warnings": []}

    def create_repo(self) -> dict:
        payload = json.loads(self.body)
        namespace = payload.get("organization") or "ada"
        is_space = payload.get("type") == "space"
        if is_space and payload.get("sdk") not in ("gradio", "docker", "static"):
            raise Answer(400, "Invalid sdk")
        repo_id = f"{'spaces/' if is_space else ''}{namespace}/{payload['name']}"
        self.hub.writable(namespace, self.bearer)
        url = f"{self.hub.url}/{repo_id}"
        if repo_id in self.hub.repos:
            raise Answer(409, "You already created this repo", url=url)
        repo = self.hub.repos[repo_id] = Repo(repo_id, payload.get("visibility") == "private")
        repo.commit("main", "initial commit", {".gitattributes": File(GIT_ATTRIBUTES, False)})
        return {"url": url, "name": repo_id, "id": repo_id}

    def repo_info(self, repo: str, revision: str = "main") -> dict:
        found = self.hub.readable(repo, self.bearer)
        commit = found.at(revision)
        with_blobs = "blobs" in self.query
        config = json.loads(commit.files["config.json"].content) if "config.json" in commit.files else {}
        card = card_data(commit.files["README.md"].content.decode()) if "README.md" in commit.files else None
        siblings = []
        for path, file in commit.files.items():
            entry = file.entry(path)
            lfs = entry.get("lfs")
            details = {"size": entry["size"], "blobId": entry["oid"]} if with_blobs else {}
            if with_blobs and lfs:
                details["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
            siblings.append({"rfilename": path, **details})
        return {
            "id": repo.removeprefix("spaces/"),
            "modelId": repo,
            "author": _owner(repo),
            "sha": commit.sha,
            "private": found.private,
            "gated": "manual" if found.gated else False,
            "disabled": False,
            "tags": (card or {}).get("tags", []),
            "cardData": card or {},
            "pipeline_tag": (card or {}).get("pipeline_tag"),
            "library_name": (card or {}).get("library_name"),
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "config": {key: config[key] for key in ("architectures", "model_type") if key in config},
        }

    def tree(self, repo: str, revision: str, folder: str | None = None) -> None:
        files = self.hub.readable(repo, self.bearer).at(revision).files
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        prefix = f"{folder}/" if folder else ""
        if folder and not any(path.startswith(prefix) for path in files):
            raise Answer(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries: dict[str, dict] = {}
        for path in sorted(path for path in files if path.startswith(prefix)):
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                name = prefix + "/".join(parts[:depth])
                oid = hashlib.sha1(name.encode()).hexdigest()
                entries[name] = {"type": "directory", "path": name, "oid": oid, "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = files[path].entry(path)
        start = int(self.query.get("cursor", ["0"])[0])
        stop = start + self.hub.page_size
        headers = {}
        if stop < len(entries):
            address = f"{self.hub.url}{urlsplit(self.path).path}?recursive={recursive}&cursor={stop}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.reply(200, json.dumps(list(entries.values())[start:stop]).encode(), headers)

    def paths_info(self, repo: str, revision: str) -> list[dict]:
        files = self.hub.readable(repo, self.bearer).at(revision).files
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode()).get("paths", [])
        return [files[path].entry(path) for path in paths if path in files]

    def refs(self, repo: str) -> dict:
        branches = self.hub.readable(repo, self.bearer).branches
        listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": c.sha} for name, c in branches.items()]
        return {"branches": listed, "tags": [], "converts": [], "pullRequests": []}

    def create_branch(self, repo: str, revision: str) -> dict:
        found = self.writable(repo)
        if revision in found.branches:
            raise Answer(409, f"Reference {revision} already exists")
        found.branches[revision] = found.at((json.loads(self.body or b"{}")).get("startingPoint", "main"))
        return {}

    def writable(self, repo: str) -> Repo:
        found = self.hub.readable(repo, self.bearer)
        if self.bearer == self.hub.token and _owner(repo) not in {"ada", *self.hub.organizations}:
            raise Answer(403, "Forbidden: you must be a member of the organization to write to this repository")
        self.hub.writable(_owner(repo), self.bearer)
        return found

    # --- uploads ---------------------------------------------------------------------------------------------------

    def preupload(self, repo: str, revision: str) -> dict:
        files = self.writable(repo).at(revision).files
        payload = json.loads(self.body)
        rules = (
            payload["gitIgnore"]
            if "gitIgnore" in payload
            else files.get(".gitignore", File(b"", False)).content.decode()
        )
        ignored = [line for line in rules.split() if not line.startswith("#")]
        modes = []
        for file in payload["files"]:
            path = file["path"]
            large = is_large(path, base64.b64decode(file["sample"]), file["size"])
            there = files.get(path)
            modes.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": any(fnmatch(path, line) or fnmatch(Path(path).name, line) for line in ignored),
                    "oid": there.etag if there is not None else None,
                }
            )
        return {"files": modes}

    def lfs_batch(self, repo: str) -> dict:
        found = self.writable(repo)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            if oid not in found.large:
                address = f"{self.hub.store}/store/{quote(repo)}/{oid}"
                upload: dict = {"href": address}
                if self.hub.part_size is not None and size > self.hub.part_size:
                    count = -(-size // self.hub.part_size)
                    parts = {f"{number:05d}": f"{address}/{number}" for number in range(1, count + 1)}
                    header = {"chunk_size": str(self.hub.part_size), **parts}
                    upload = {"href": f"{self.hub.url}/store/{quote(repo)}/{oid}/complete", "header": header}
                verify = {"href": f"{self.hub.url}/store/{quote(repo)}/verify"}
                wanted["actions"] = {"upload": upload, "verify": verify}
            objects.append(wanted)
        return {"transfer": "basic" if self.hub.part_size is None else "multipart", "objects": objects}

    def store_large(self, repo: str, oid: str, part: str | None) -> None:
        if self.bearer is not None:
            raise Answer(400, "The store must not be told the token")
        received = []
        for data in self.chunks():
            self.hub.received[oid] += len(data)
            received.append(data)
            if self.hub.cut_uploads_after is not None:
                self.hub.cut_uploads_after -= len(data)
                if self.hub.cut_uploads_after < 0:
                    self.hub.cut_uploads_after = 0
                    self.cut()
        content = b"".join(received)
        if part is None:
            self.keep_large(repo, oid, content)
        else:
            self.hub.parts[oid, int(part)] = content
        self.reply(200, b"", {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    def complete_large(self, repo: str, oid: str) -> dict:
        numbers = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        self.keep_large(repo, oid, b"".join(self.hub.parts.pop((oid, number)) for number in numbers))
        return {}

    def keep_large(self, repo: str, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Answer(400, "The content is not that of its SHA-256")
        self.hub.repos[repo].large[oid] = content

    def verify_large(self, repo: str) -> dict:
        wanted = json.loads(self.body)
        if len(self.hub.repos[repo].large.get(wanted["oid"], b"")) != wanted["size"]:
            raise Answer(404, "Object does not exist")
        return {}

    def commit(self, repo: str, revision: str) -> dict:
        found = self.writable(repo)
        parent = found.at(revision)
        files, message = dict(parent.files), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", parent.sha) != parent.sha:
                    raise Answer(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                content = base64.b64decode(value["content"])
                if value["path"] == "README.md" and (errors := card_errors(content.decode())):
                    raise Answer(400, "Your push was rejected: " + "; ".join(errors))
                files[value["path"]] = File(content, False)
            elif key == "lfsFile":
                if value["oid"] not in found.large:
                    raise Answer(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = File(found.large[value["oid"]], True)
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Answer(404, "A file with this name doesn't exist", "EntryNotFound")
            elif key == "deletedFolder":
                files = {path: file for path, file in files.items() if not path.startswith(value["path"])}
        done = found.commit(revision, message, files)
        return {"success": True, "commitOid": done.sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{done.sha}"}

    # --- downloads -------------------------------------------------------------------------------------------------

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.hub.readable(repo, self.bearer, is_content=True).at(revision)
        file = commit.files.get(path)
        if file is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.reply(404, b"Entry not found", {**headers, "X-Repo-Commit": commit.sha})
            return
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "Content-Type": "text/plain"}
        if file.is_large:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            headers["Location"] = f"{self.hub.store}/store/{quote(repo)}/{file.sha256}"
            self.reply(302, b"", {**headers, "ETag": f'"{file.oid}"'})
        else:
            self.send_content(file.content, {**headers, "ETag": f'"{file.oid}"'})

    def read_large(self, repo: str, oid: str) -> None:
        if self.bearer is not None:
            raise Answer(400, "The store must not be told the token")
        if oid not in self.hub.repos[repo].large:
            raise Answer(404, "No such object")
        self.send_content(self.hub.repos[repo].large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status = 200
        if wanted:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(content) - 1) + 1, len(content))
            if start >= len(content):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content = content[start:stop]
        self.reply(status, content, headers, self.hub.cut_downloads_after)
