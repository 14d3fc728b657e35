"""A proxy that loses, repeats, delays and reorders what passes between wrapper and server."""

from __future__ import annotations

import http.client
import http.server
import random
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

FAULTS = ("none", "request lost", "reply lost", "sent twice", "late again", "delayed")


class FaultyProxy:
    """Forwards to a server, each request with a fault drawn from a seeded generator."""

    def __init__(self, target_url: str, seed: int) -> None:
        self.target = urlsplit(target_url).netloc
        self.seen: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._late: list[threading.Timer] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
                answer = proxy.pass_on(self.path, body, headers)
                if answer is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, reply = answer
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def pass_on(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | None:
        """Return the answer that the caller is to see, or None for a broken connection."""
        with self._lock:
            fault = self._random.choice(FAULTS)
            seconds = self._random.uniform(0.05, 0.6)
            self.seen[fault] += 1
        if fault == "request lost":
            return None
        if fault == "delayed":
            time.sleep(seconds)
        answer = self._forward(path, body, headers)
        if fault == "sent twice":
            answer = self._forward(path, body, headers)
        if fault == "late again":  # overtaken by what comes in the meantime
            timer = threading.Timer(seconds, self._forward, (path, body, headers))
            timer.start()
            self._late.append(timer)
        return None if fault == "reply lost" else answer

    def _forward(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=20)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def close(self) -> None:
        """Let what is late arrive, then stop."""
        for timer in self._late:
            timer.join()
        self._server.shutdown()
        self._server.server_close()
