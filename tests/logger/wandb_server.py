"""A stand-in for W&B's server: takes what its client sends of runs, and keeps it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServedRun:
    """A run as the server has it."""

    facts: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Lines by their place in the run's file: what is sent again takes the place of what was there."""
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        if self.path == "/graphql":
            self._query(json.loads(content))
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(content))
        else:
            self._reply({})

    def _query(self, query: dict[str, Any]) -> None:
        project = {"id": "P", "name": "modulab", "entity": {"id": "E", "name": "me"}}
        given = query.get("variables") or {}
        if query.get("operationName") == "UpsertBucket":
            run = self.server.runs.setdefault(given["name"], ServedRun())
            run.facts |= {name: value for name, value in given.items() if value is not None}
            bucket = {
                "id": "B", "name": given["name"], "displayName": given["name"], "description": "",
                "config": given.get("config") or "{}", "sweepName": None, "historyLineCount": 0, "project": project,
            }  # fmt: skip
            self._reply({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        elif query.get("operationName") == "RunResumeStatus":
            self._reply({"data": {"model": {**project, "bucket": None}}})
        else:
            self._reply({"data": {}, "errors": [{"message": "not here"}]})

    def _stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.server.runs[name]
        for file, lines in (sent.get("files") or {}).items():
            if "history" in file:
                run.history |= {
                    lines["offset"] + n: json.loads(line) for n, line in enumerate(lines["content"])
                }
            elif "summary" in file:
                run.summary = json.loads(lines["content"][-1])
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")
        self._reply({"exitcode": None, "limits": {}})

    def _reply(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    runs: dict[str, ServedRun]


@contextmanager
def wandb_server() -> Iterator[tuple[dict[str, str], dict[str, ServedRun]]]:
    """Give the environment in which W&B's client finds the server, and the runs that the server has."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.runs = {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}"
            yield {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": address}, server.runs
        finally:
            server.shutdown()
            thread.join()
