"""A token issuer of the tests' own: https on loopback, keys that change, answers that stay away."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "https://lease.example.org"


class Key:
    """A private key and the JWK of its public half."""

    def __init__(self, key_id: str, kind: str = "RSA") -> None:
        self.id = key_id
        self.private: Any
        if kind == "RSA":
            self.private = rsa.generate_private_key(65537, 2048)
            self.algorithm = "RS256"
            jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            self.algorithm = "ES256"
            jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = {**jwk, "kid": key_id, "use": "sig"}


class Issuer:
    """Serves its discovery document and key set until it is stopped; counts who asks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.ca_file)
        self.key = Key("first")
        self.keys = [self.key]
        self.asked = 0
        #: Cleared: nobody gets an answer.
        self.answers = threading.Event()
        self.answers.set()
        self._port = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}/oidc"

    def start(self) -> None:
        """Serve, on the same address as before."""
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.answers.wait(60)
                body = json.dumps(issuer.document(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1").configure_cert(context)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be away."""
        self.answers.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def document(self, path: str) -> dict[str, Any]:
        if path == "/oidc/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        return {"keys": [key.jwk for key in self.keys]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good WLCG token, with some changed, or taken out by None."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "alice",
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "jti": "4711",
            "wlcg.ver": "1.0",
            "scope": "compute.create compute.read",
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key: Key | None = None, headers: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """Return a token under one of its keys, or another."""
        key = key or self.key
        return jwt.encode(
            self.claims(**changes),
            key.private,
            algorithm=key.algorithm,
            headers={"kid": key.id, **(headers or {})},
        )
