"""Tests of downloads with the real client of the Hub, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.models.resolving import POCKET

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = """
import dataclasses, json, sys
from harness.core.errors import ModelError
from harness.models.resolving import resolve
try:
    print(json.dumps(dataclasses.asdict(resolve(sys.argv[1]))))
except ModelError as error:
    print(json.dumps({"message": error.message, "remedy": error.remedy}))
"""


@dataclass(frozen=True)
class Answer:
    content: bytes
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """A Hub with one model. If `gated`, it refuses files, as for a user who has not accepted the licence."""

    folder: Path
    gated: bool = False
    breaks: bool = False
    """If true, the connection ends in the middle of every file of weights."""
    asked: list[str] = field(default_factory=list)
    """The files that were downloaded."""

    def answer(self, path: str) -> Answer:
        if path.startswith("/api/models/owner/tiny/tree/"):
            return Answer(json.dumps(self.tree()).encode())
        if path.startswith("/api/models/owner/tiny"):
            return Answer(json.dumps(self.info()).encode())
        if not path.startswith("/owner/tiny/resolve/"):
            return Answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        if self.gated:
            return Answer(b"{}", 403, {"X-Error-Code": "GatedRepo"})
        content = (self.folder / path.split("/", 5)[5]).read_bytes()
        return Answer(content, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def info(self) -> dict[str, Any]:
        files = [{"rfilename": entry["path"], "size": entry["size"]} for entry in self.tree()]
        return {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": files, "tags": []}

    def tree(self) -> list[dict[str, Any]]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            {"type": "file", "path": p.relative_to(self.folder).as_posix(), "size": p.stat().st_size, "oid": "0" * 40}
            for p in paths
        ]


def handler_of(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            path = self.path.partition("?")[0]
            answer = site.answer(path)
            self.send_response(answer.code)
            for name, value in {"Content-Length": str(len(answer.content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                whole = not (site.breaks and path.endswith(".safetensors"))
                self.wfile.write(answer.content[: None if whole else len(answer.content) // 2])
                self.close_connection = not whole
                if "X-Repo-Commit" in answer.headers:
                    site.asked.append(path.split("/", 5)[5])

        do_GET = do_HEAD  # noqa: N815 - so called by http.server

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The pocket model, together with files that are not needed: code, and weights in other formats and layouts."""
    folder = tmp_path / "site"
    shutil.copytree(POCKET, folder)
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "tiny.gguf", "run.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    return folder


@contextmanager
def served(site: Site) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def resolve(name: str, endpoint: str, home: Path, **more: str) -> dict[str, Any]:
    """Find a model by its name, in a new process, since the client reads the Hub's address when it is imported."""
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"} | more
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, name], env=os.environ | ours, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_model_is_fetched_at_its_commit(model: Path, tmp_path: Path) -> None:
    """Only configuration, tokenizer and safetensors are downloaded, and the commit is recorded.

    Without a connection, the same name later gives the same model with the same digest.
    """
    site = Site(model)
    with served(site) as endpoint:
        found = resolve("owner/tiny", endpoint, tmp_path / "home")
    assert (found["name"], found["revision"]) == ("owner/tiny", COMMIT)
    wanted = {path.name for path in POCKET.iterdir()} - {"README.md", "MANIFEST.sha256"}
    assert sorted(site.asked) == sorted(wanted)
    assert {path.name for path in Path(found["path"]).iterdir()} == wanted
    assert resolve("owner/tiny", endpoint, tmp_path / "home", HF_HUB_OFFLINE="1") == found
    assert resolve("owner/tiny", endpoint, tmp_path / "home") == found  # the server has ended


def test_a_gated_model_says_what_to_do(model: Path, tmp_path: Path) -> None:
    """For a gated model, the remedy explains step by step how to get access: the page, the token, the login."""
    with served(Site(model, gated=True)) as endpoint:
        error = resolve("owner/tiny", endpoint, tmp_path / "home")
    assert error["message"] == "owner/tiny is gated: its licence must be accepted first"
    for step in ("https://huggingface.co/owner/tiny", "https://huggingface.co/settings/tokens", "hf auth login"):
        assert step in error["remedy"]


def test_a_connection_that_is_lost(model: Path, tmp_path: Path) -> None:
    """If the connection is lost while weights are downloaded, the error says so and that downloaded files are kept."""
    with served(Site(model, breaks=True)) as endpoint:
        error = resolve("owner/tiny", endpoint, tmp_path / "home")
    assert error["message"] == "owner/tiny: the connection to the Hub was lost"
    assert "keeps the files that were downloaded" in error["remedy"]


def test_an_unknown_model(model: Path, tmp_path: Path) -> None:
    """If the Hub has no model of the given name, the error says so."""
    with served(Site(model)) as endpoint:
        error = resolve("owner/other", endpoint, tmp_path / "home")
    assert "the Hub has no model owner/other" in error["message"]
