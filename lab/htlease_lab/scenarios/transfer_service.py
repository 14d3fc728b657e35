"""A transfer service to be broken on purpose: it speaks the part of the Globus Transfer API that
`globus-sdk` needs to submit, watch, find and cancel transfers, and it really copies the files.

    python -m htlease_lab.scenarios.transfer_service --listen ADDRESS:PORT \
        --root DIRECTORY --token-file F

Collections are names only: paths are paths of this machine, below the root. What goes wrong is set
by `POST /control`; `GET /control` counts what was asked. Not for other people's data.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, Any]]
_ENDED = ("SUCCEEDED", "FAILED")
_COPY_EACH_SECONDS = 0.1


@dataclass
class Faults:
    """What goes wrong; set from outside."""

    #: Tasks stay where they are.
    paused: bool = False
    #: Every call is answered 503.
    away: bool = False
    #: `token`: calls are answered 401. `consent`: 403 ConsentRequired. `inactive`: tasks wait for
    #: a person, calls do not.
    credential: str = "ok"
    #: So many submissions are carried out, and their answer is lost.
    lose_replies: int = 0
    #: And the service is away from then on.
    leave_after_loss: bool = False
    #: So many submissions are refused as a busy service would.
    busy: int = 0
    #: Why the task that runs is ended, `fatal` or `retryable`.
    fail: str | None = None


@dataclass
class Service:
    """The tasks and what was asked about them."""

    root: Path
    token_file: Path
    faults: Faults = field(default_factory=Faults)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    # ------------------------------------------------------------ calls

    def call(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Answer:
        """Answer a call of the API; an answer of status 0 is lost."""
        path = path.removeprefix("/v0.10")
        if self.faults.away:
            self.counts["away"] += 1
            return 503, problem("ServiceUnavailable", "the service is down for maintenance")
        if self.faults.credential in ("token", "consent"):
            self.counts["turned_away"] += 1
        if self.faults.credential == "token":
            return 401, problem("AuthenticationFailed", "Token is not active")
        if self.faults.credential == "consent":
            scopes = ["urn:globus:auth:scope:transfer.api.globus.org:all[*data_access]"]
            missing = problem("ConsentRequired", "Missing required data_access consent")
            return 403, {**missing, "required_scopes": scopes}
        if (method, path) == ("GET", "/submission_id"):
            self.counts["submission_id"] += 1
            return 200, {"DATA_TYPE": "submission_id", "value": str(uuid.uuid4())}
        if (method, path) == ("POST", "/transfer"):
            return self._submit(body)
        if (method, path) == ("GET", "/task_list"):
            self.counts["find"] += 1
            return 200, self._listed(query)
        parts = path.strip("/").split("/")
        if parts[0] == "task" and parts[1] in self.tasks:
            return self._task(method, parts[1], parts[2:])
        if parts[0] == "task":
            self.counts["poll"] += 1
            return 404, problem("TaskNotFound", f"No task found with id '{parts[1]}'")
        if parts[:2] == ["operation", "endpoint"] and parts[3:] == ["ls"]:
            return self._list_directory(query.get("path", "/"))
        return 404, problem("NotFound", path)

    def _submit(self, body: dict[str, Any]) -> Answer:
        self.counts["submit"] += 1
        if self.faults.busy:
            self.faults.busy -= 1
            return 409, problem("Conflict.TooManyActiveTasks", "too many tasks; try again later")
        for task in self.tasks.values():
            if task["submission_id"] == body["submission_id"]:
                self.counts["duplicate"] += 1
                return 200, self._accepted(task, "Duplicate")
        for item in body["DATA"]:
            for path in (item["source_path"], item["destination_path"]):
                if not self._is_inside(Path(path)):
                    return 403, problem("PermissionDenied", f"path not allowed: {path}")
        task = {
            "DATA_TYPE": "task",
            "type": "TRANSFER",
            "task_id": str(uuid.uuid4()),
            "submission_id": body["submission_id"],
            "label": body.get("label"),
            "status": "ACTIVE",
            "nice_status": None,
            "nice_status_short_description": None,
            "nice_status_details": None,
            "is_paused": False,
            "fatal_error": None,
            "files": 0,
            "files_transferred": 0,
            "bytes_transferred": 0,
            "items": body["DATA"],
        }
        self.tasks[task["task_id"]] = task
        self.counts["accepted"] += 1
        if self.faults.lose_replies:
            self.faults.lose_replies -= 1
            self.faults.away = self.faults.leave_after_loss
            return 0, {}
        return 202, self._accepted(task, "Accepted")

    def _accepted(self, task: dict[str, Any], code: str) -> dict[str, Any]:
        return {
            "DATA_TYPE": "transfer_result",
            "code": code,
            "message": "the transfer has been accepted",
            "submission_id": task["submission_id"],
            "task_id": task["task_id"],
        }

    def _listed(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = dict(part.partition(":")[::2] for part in query.get("filter", "").split("/"))
        found = [
            self._seen(task)
            for task in self.tasks.values()
            if all(task.get(name) in value.split(",") for name, value in wanted.items() if name)
        ]
        return {"DATA_TYPE": "task_list", "DATA": found, "total": len(found), "length": len(found)}

    def _task(self, method: str, task_id: str, rest: list[str]) -> Answer:
        task = self.tasks[task_id]
        if method == "POST" and rest == ["cancel"]:
            self.counts["cancel"] += 1
            if task["status"] in _ENDED:
                return 200, problem("TaskComplete", "the task had ended already")
            task.update(status="FAILED", nice_status="CANCELED")
            task["fatal_error"] = {"code": "CANCELED", "description": "canceled by the owner"}
            return 200, problem("Canceled", "the task has been canceled")
        self.counts["poll"] += 1
        return 200, self._seen(task)

    def _seen(self, task: dict[str, Any]) -> dict[str, Any]:
        if task["status"] == "ACTIVE" and self.faults.credential == "inactive":
            return {
                **task,
                "status": "INACTIVE",
                "nice_status": "EXPIRED_CREDENTIALS",
                "nice_status_short_description": "expired credentials",
                "nice_status_details": "the credential of the collection has expired",
            }
        return task

    def _list_directory(self, path: str) -> Answer:
        self.counts["ls"] += 1
        if not self._is_inside(Path(path)):
            return 403, problem("PermissionDenied", f"path not allowed: {path}")
        if not Path(path).is_dir():
            return 404, problem("ClientError.NotFound", f"no such directory: {path}")
        return 200, {"DATA_TYPE": "file_list", "DATA": [], "path": path}

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def refresh(self, form: dict[str, list[str]]) -> Answer:
        """Give an access token for a refresh token, as Globus Auth does."""
        with self.lock:
            self.counts["refresh"] += 1
            if self.faults.credential == "token" or form["grant_type"] != ["refresh_token"]:
                return 400, {"error": "invalid_grant"}
            return 200, {
                "access_token": self.token_file.read_text().strip(),
                "expires_in": 172800,
                "resource_server": "transfer.api.globus.org",
                "scope": "urn:globus:auth:scope:transfer.api.globus.org:all",
                "token_type": "Bearer",
                "other_tokens": [],
            }

    def is_let_in(self, authorization: str | None) -> bool:
        """Tell whether a call carries the token; the file is read each time, to be replaced."""
        return authorization == f"Bearer {self.token_file.read_text().strip()}"

    # ------------------------------------------------------------ the work

    def work(self) -> None:
        """Carry tasks out, one after the other, for ever."""
        while True:
            with self.lock:
                self._work_once()
            time.sleep(_COPY_EACH_SECONDS)

    def _work_once(self) -> None:
        active = [task for task in self.tasks.values() if task["status"] == "ACTIVE"]
        if self.faults.fail and active:
            code = "PERMISSION_DENIED" if self.faults.fail == "fatal" else "ENDPOINT_TOO_BUSY"
            active[0].update(status="FAILED", nice_status=code)
            active[0]["fatal_error"] = {"code": code, "description": "ended by the scenario"}
            self.faults.fail = None
        elif active and not self.faults.paused and self.faults.credential == "ok":
            self._copy(active[0])

    def _copy(self, task: dict[str, Any]) -> None:
        try:
            for item in task["items"]:
                self._copy_item(Path(item["source_path"]), Path(item["destination_path"]), task)
            task.update(status="SUCCEEDED", files=task["files_transferred"], nice_status="OK")
        except OSError as error:
            task.update(status="FAILED", nice_status="FILE_NOT_FOUND")
            task["fatal_error"] = {"code": "FILE_NOT_FOUND", "description": str(error)}

    def _copy_item(self, source: Path, destination: Path, task: dict[str, Any]) -> None:
        if source.is_dir():
            for path in sorted(source.iterdir()):
                self._copy_item(path, destination / path.name, task)
            return
        for directory in reversed(destination.parents):
            if not directory.exists():
                directory.mkdir()
                self._give(directory)
        shutil.copyfile(source, destination)
        self._give(destination)
        task["files_transferred"] += 1
        task["bytes_transferred"] += destination.stat().st_size

    def _give(self, path: Path) -> None:
        """Let what was made belong to whom the directory around it belongs."""
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)

    # ------------------------------------------------------------ control

    def control(self, body: dict[str, Any]) -> Answer:
        """Set faults and return what was asked for so far."""
        with self.lock:
            for name, value in body.items():
                if not hasattr(self.faults, name):
                    return 400, problem("BadRequest", f"there is no fault {name}")
                setattr(self.faults, name, value)
            tasks = {task_id: task["status"] for task_id, task in self.tasks.items()}
            return 200, {"counts": dict(self.counts), "tasks": tasks}


def problem(code: str, message: str) -> dict[str, Any]:
    """Return a result document as the API writes it."""
    return {"code": code, "message": message, "request_id": uuid.uuid4().hex[:9], "resource": "/"}


def handler_of(service: Service) -> type[http.server.BaseHTTPRequestHandler]:
    """Return the request handler of a service."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            is_form = parts.path == "/v2/oauth2/token"
            body = {} if is_form else json.loads(data or b"{}")
            if is_form:
                status, document = service.refresh(parse_qs(data.decode()))
            elif not service.is_let_in(self.headers.get("Authorization")):
                status, document = 401, problem("AuthenticationFailed", "unknown token")
            elif parts.path == "/control":
                status, document = service.control(body)
            else:
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                with service.lock:
                    status, document = service.call(method, parts.path, query, body)
            if status == 0:
                self.close_connection = True
                return
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stay quiet: what was asked is counted."""

    return Handler


def main() -> None:
    """Serve until killed; prints the URL first."""
    parser = argparse.ArgumentParser(prog="transfer-service")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="ADDRESS:PORT")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    options = parser.parse_args()
    address, _, port = options.listen.rpartition(":")
    service = Service(options.root.resolve(), options.token_file)
    server = http.server.ThreadingHTTPServer((address, int(port)), handler_of(service))
    threading.Thread(target=service.work, daemon=True).start()
    print(f"http://{address}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
