"""Tests of `harness export --to hub`: files, model card and errors of an upload to a fake Hub server."""

from __future__ import annotations

import json
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from harness.cli import main
from harness.core.errors import ExportError
from harness.core.export import ExportRecord
from harness.core.outside_text import fenced
from harness.core.turn_tokens import TurnTokens
from harness.export.model_card import Evidence, card, evidence
from harness.export.output_folders import RECORD
from harness.export.targets.adapter import to_adapter
from harness.export.upload import Upload, send
from harness.storage.records import read_record
from harness.storage.runs import RunStore
from tests.support.trained_run import inside, source_of

TOKEN = "hf_not_a_real_one"


@dataclass
class Server:
    """A fake Hub with the few endpoints that an upload needs. If `refuse` is set, every response has this status."""

    address: str = ""
    refuse: int = 0
    private: bool = True
    holds: tuple[str, ...] = ()
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path.endswith("/repos/create"):
            return {"url": f"{self.address}/me/mine"}
        if path.endswith("/api/models/me/mine"):
            return {"id": "me/mine", "private": self.private, "siblings": [{"rfilename": name} for name in self.holds]}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": n, "uploadMode": self._mode(n), "shouldIgnore": False} for n in names]}
        if path.endswith("/objects/batch"):
            objects = [one | {"actions": {"upload": {"href": f"{self.address}/put/{one['oid']}"}}}
                       for one in json.loads(body)["objects"]]  # fmt: skip
            return {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            return {"commitUrl": f"{self.address}/me/mine/commit/abc", "commitOid": "abc", "success": True}
        return {"errors": [], "warnings": []}

    @staticmethod
    def _mode(name: str) -> str:
        return "lfs" if name.endswith(".safetensors") else "regular"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"".join(self.chunks())
            state.requests.append((f"{self.command} {self.path}", self.headers.get("Authorization", ""), body))
            said = json.dumps(state.answer(self.path, body)).encode()
            self.send_response(state.refuse or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def chunks(self) -> Iterator[bytes]:
            while "chunked" in self.headers.get("Transfer-Encoding", ""):
                size = int(self.rfile.readline(), 16)
                yield self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    return

        do_GET = do_POST = do_PUT = do_HEAD = do  # noqa: N815

        def log_message(self, format: str, *words: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def upload_of(run: RunStore, folder: Path) -> Upload:
    source = source_of(run)
    made = to_adapter(source, folder, output=folder / "made", check=lambda model, adapter: None)
    text = card(source, read_record(made / RECORD, ExportRecord), evidence(source, run.results()), "me/mine")
    return Upload("me/mine", made, text)


@pytest.mark.parametrize(
    ("private", "holds", "words"),
    [
        (False, (), "exists and is public"),
        (True, (".gitattributes", "README.md", "config.json"), "holds config.json of another export"),
        (True, ("model-00001-of-00008.safetensors",), "would be loaded as another model"),
    ],
)
def test_a_repository_with_another_export_is_refused(
    hub: Server, trained_run: RunStore, tmp_path: Path, private: bool, holds: tuple[str, ...], words: str
) -> None:
    """If the repository holds another export, or is public although `--public` is not given, the upload is refused."""
    hub.private, hub.holds = private, holds
    with pytest.raises(ExportError, match=words):
        send(upload_of(trained_run, tmp_path), endpoint=hub.address, token=TOKEN)
    assert not [path for path, _, _ in hub.requests if "/commit/" in path]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub's client, about the one below it
def test_everything_is_uploaded_in_one_commit(hub: Server, trained_run: RunStore, tmp_path: Path) -> None:
    """All files and the card go to a private repository in one commit; the access token is only in request headers."""
    upload = upload_of(trained_run, tmp_path)
    send(upload, endpoint=hub.address, token=TOKEN)
    made = json.loads(hub.requests[0][2])
    assert (hub.requests[0][0], made["visibility"]) == ("POST /api/repos/create", "private")
    (commit,) = [body for asked, _, body in hub.requests if "/commit/" in asked]
    lines = [json.loads(line) for line in commit.decode().splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] in ("file", "lfsFile")}
    assert sent == {"README.md", *(path.name for path in upload.files)}
    (weights,) = [body for asked, _, body in hub.requests if asked.startswith("PUT /put/")]
    assert weights == (upload.folder / "adapter_model.safetensors").read_bytes()
    assert {said for asked, said, _ in hub.requests if "/api/" in asked} == {f"Bearer {TOKEN}"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert TOKEN.encode() not in b"".join(body for _, _, body in hub.requests)


def test_an_upload_has_no_local_paths(trained_run: RunStore, tmp_path: Path) -> None:
    """Neither the model card nor any uploaded text file contains a path of this machine."""
    upload = upload_of(trained_run, tmp_path)
    texts = [upload.card, *(path.read_text() for path in upload.files if path.suffix != ".safetensors")]
    model = trained_run.manifest().model.path
    assert not [text for text in texts if model in text or str(tmp_path) in text]


def test_a_refusal_names_the_remedy(hub: Server, trained_run: RunStore, tmp_path: Path) -> None:
    """If the Hub refuses the token, the remedy says how to log in."""
    hub.refuse = 403
    with pytest.raises(ExportError, match="hf auth login"):
        send(upload_of(trained_run, tmp_path), endpoint=hub.address, token=TOKEN)


@pytest.mark.usefixtures("hub")
def test_an_unreachable_hub_is_one_error(trained_run: RunStore, tmp_path: Path) -> None:
    """If the Hub cannot be reached, an ExportError names the repository, and the remedy mentions the connection."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ExportError, match="me/mine") as raised:
        send(upload_of(trained_run, tmp_path), endpoint=address, token=TOKEN)
    assert "the connection" in (raised.value.remedy or "")


def test_a_dry_run_shows_files_and_card(hub: Server, trained_run: RunStore, capsys: Any) -> None:
    """With `--dry-run`, the files, the card and the visibility are printed, and nothing is uploaded."""
    name = source_of(trained_run).variant.name
    with inside(trained_run.root.parents[2]):
        assert main(["export", str(trained_run.root), name, "--to", "hub", "--repo", "me/mine", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "To me/mine (private):" in said
    assert "adapter_model.safetensors" in said
    assert "## Suite results" in said
    assert hub.requests == []


def test_the_card_has_the_results(trained_run: RunStore, tmp_path: Path) -> None:
    """The card's YAML header has the library and the pass rates with intervals. Its text says if the model is a toy."""
    _, head, body = upload_of(trained_run, tmp_path).card.split("---\n", 2)
    described = yaml.safe_load(head)
    assert described["library_name"] == "peft"
    metrics = described["model-index"][0]["results"][0]["metrics"]
    rates = {row["name"]: (row["value"], row["args"]["low_95"], row["args"]["high_95"]) for row in metrics}
    results = trained_run.results()
    for role, rate in results.variants[0].rates.items():
        if rate.value is not None:
            value, low, high = rates[f"pass rate, {role.value}"]
            assert value == pytest.approx(rate.value, abs=1e-4)
            assert low < high
    assert "Toy model" in body
    assert "licence" in body


def test_the_card_uses_the_suites_system_prompt(trained_run: RunStore, tmp_path: Path) -> None:
    """The card's examples for transformers and llama.cpp have the system prompt, which cannot end their code blocks."""
    source, prompt = source_of(trained_run), "Be 'kind'.\n```\n# No heading"
    suite = replace(source.run.suite, system_prompt=prompt)
    asked = replace(source, run=replace(source.run, suite=suite))
    made = to_adapter(source, tmp_path, output=None, check=lambda model, adapter: None)
    text = card(asked, read_record(made / RECORD, ExportRecord), Evidence({}, ()), "me/x")
    assert """{"role": "system", "content": "Be 'kind'.\\n```\\n# No heading"}""" in text
    (shell,) = re.findall(r"^(`{4,})sh\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    assert shlex.split(shell[1])[-2:] == ["-sys", prompt]


def test_the_card_stops_where_the_run_stopped(trained_run: RunStore, tmp_path: Path) -> None:
    """If only the chat template names the token that closes answers, the card's code stops there and says why."""
    turns = TurnTokens(2, "</s>", (2, 3), named=False, behind=0)
    source = source_of(trained_run)
    source = replace(source, run=replace(source.run, tokens=turns))
    made = to_adapter(source_of(trained_run), tmp_path, output=None, check=lambda model, adapter: None)
    text = card(source, read_record(made / RECORD, ExportRecord), Evidence({}, ()), "me/mine")
    assert "eos_token_id=[2, 3])" in text
    assert "does not name as an end token" in text


def test_a_hostile_answer_stays_in_its_code_block(trained_run: RunStore, tmp_path: Path) -> None:
    """Whatever an answer or a name contains, the card's code blocks and its YAML header stay intact."""
    hostile = "```\n# Heading\n<script>alert(1)</script>\n`````\n---"
    assert re.match(r"``````text\n", fenced(hostile))
    source = source_of(trained_run)
    suite = replace(source.run.suite, name="a: b\n---\n# c | d")
    source = replace(source, run=replace(source.run, suite=suite))
    made = upload_of(trained_run, tmp_path).folder
    text = card(source, read_record(made / RECORD, ExportRecord), Evidence({}, ((hostile, hostile, hostile),)), "me/x")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["model-index"][0]["results"][0]["dataset"]["type"] == suite.name
    assert "\n# c" not in body
    assert text.count("``````") == 6
