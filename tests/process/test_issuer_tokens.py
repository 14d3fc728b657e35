"""SciTokens and WLCG tokens of an issuer of the tests' own, at a real server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from scitokens import SciToken
from tests.process.execution import wait_for
from tests.process.issuer import AUDIENCE, Issuer, Key
from tests.process.wire_call import Called, Caller
from tests.serving import ServerProcess

from htlease_server.auth.issuer_config import Issuer as TrustedIssuer
from htlease_server.auth.jwks_cache import IssuerKeys, IssuerUnavailable

CONFIG = """\
audience = ["{audience}"]
{more}
[[issuer]]
url = "{url}"
ca_file = "{ca_file}"
[[issuer.grant]]
group = "/example/production"
role = "operator"
[[issuer.grant]]
scope = "compute.create"
subject = "alice"
role = "submitter"
workflows = ["prod-*"]
[[issuer.grant]]
scope = "compute.read"
role = "reader"
workflows = ["prod-open"]
"""


class Site:
    """An issuer, and a server that accepts its tokens."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.issuer = Issuer(folder / "issuer")
        self.config = folder / "auth.toml"
        self.config.write_text(
            CONFIG.format(
                audience=AUDIENCE, url=self.issuer.url, ca_file=self.issuer.ca_file, more=more
            )
        )
        self.server = ServerProcess(folder / "server", options=("--auth-config", self.config))

    def caller(self, token: str) -> Caller:
        return Caller(self.server.url, token)

    def call(self, token: str, method: str = "PUT", path: str = "workflows/prod-1") -> Called:
        """Make a call as soon as the server has the issuer's keys."""
        body = json.dumps({"request_id": os.urandom(8).hex()}).encode() if method == "PUT" else None
        until = time.monotonic() + 60
        while (called := self.caller(token).raw(method, f"/v1/{path}", body)).status == 503:
            assert int(called.headers["retry-after"]) > 0
            assert time.monotonic() < until, called
            time.sleep(0.1)
        return called


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("issuer"))
    site.server.start()
    yield site
    site.server.stop()
    site.issuer.stop()


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.server.start()
    yield site
    site.server.stop()
    site.issuer.stop()


def test_a_token_of_the_scitokens_library_submits(site: Site) -> None:
    made = SciToken(key=site.issuer.key.private, algorithm="RS256", key_id=site.issuer.key.id)
    made.update_claims(
        {"sub": "alice", "aud": AUDIENCE, "scope": "compute.create", "ver": "scitoken:2.0"}
    )
    token = made.serialize(issuer=site.issuer.url).decode()
    assert site.call(token).status == 200
    caller = site.caller(token)
    assert caller.post("/v1/workflows/prod-1/subjobs/s/enroll").status == 200
    event = site.server.history("prod-1/s")[0]
    assert event["actor"] == f"scitoken:{site.issuer.url}/alice (submitter)"
    refused = site.call(token, path="workflows/other")
    assert refused.code == "forbidden" and "prod-*" in refused.document["detail"]


def test_the_first_grant_that_fits_says_what_a_token_is_good_for(site: Site) -> None:
    operator = site.issuer.token(wlcg__groups=["/example", "/example/production"])
    assert site.call(operator, "GET", "workflows").status == 200
    body = json.dumps({"ends_in_seconds": 0}).encode()
    assert site.caller(operator).raw("PUT", "/v1/maintenance", body).status == 200
    assert site.caller(site.issuer.token()).raw("PUT", "/v1/maintenance", body).code == "forbidden"
    reader = site.issuer.token(sub="bob")
    site.server.ask("PUT", "workflows/prod-open", {"request_id": "x"})
    assert site.call(reader, "GET", "workflows/prod-open").status == 200
    assert site.call(reader, "GET", "workflows/prod-1").code == "forbidden"
    assert site.call(reader, path="workflows/prod-open").code == "forbidden"
    listed = site.call(reader, "GET", "workflows").document["workflows"]
    assert [one["workflow"] for one in listed] == ["prod-open"]


def test_a_submitter_makes_tokens_for_jobs_of_its_workflows(site: Site) -> None:
    caller = site.caller(site.issuer.token())
    assert site.call(site.issuer.token(), path="workflows/prod-2").status == 200
    job = site.caller(caller.mint(workflow="prod-2", subjob="s"))
    nonce = "a-nonce-of-at-least-16"
    acquired = job.post("/v1/workflows/prod-2/subjobs/s/acquire", nonce=nonce)
    assert acquired.status == 200
    for wanted in (
        {"workflow": "other", "subjob": "s"},
        {"role": "operator"},
        {"role": "submitter", "name": "mallory"},
        {"role": "reader"},
    ):
        assert caller.raw("POST", "/v1/tokens", json.dumps(wanted).encode()).code == "forbidden"


def _unsigned(issuer: Issuer) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT', 'kid': 'first'})}.{part(issuer.claims())}."


def _signed_with_the_public_key(issuer: Issuer) -> str:
    """Return a token whose secret everybody knows: the public key, taken for a symmetric one."""
    import hashlib
    import hmac

    public = issuer.key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    header = json.dumps({"alg": "HS256", "typ": "JWT", "kid": "first"}).encode()
    text = f"{part(header)}.{part(json.dumps(issuer.claims()).encode())}"
    return f"{text}.{part(hmac.digest(public, text.encode(), hashlib.sha256))}"


NOW = int(time.time())
BAD: dict[str, tuple[Any, str]] = {
    "unknown issuer": (lambda i: i.token(iss="https://other.example.org"), "does not know"),
    "no issuer": (lambda i: i.token(iss=None), "does not know"),
    "other audience": (lambda i: i.token(aud="https://elsewhere"), "is not for this server"),
    "any audience": (
        lambda i: i.token(aud="https://wlcg.cern.ch/jwt/v1/any"),
        "is not for this server",
    ),
    "no audience": (lambda i: i.token(aud=None), "signature|is not for"),
    "expired": (lambda i: i.token(exp=NOW - 10), "has expired"),
    "no end": (lambda i: i.token(exp=None), ""),
    "endless": (lambda i: i.token(exp=float("inf")), "exp that is no time"),
    "not yet": (lambda i: i.token(nbf=NOW + 7200), "not valid yet"),
    "made tomorrow": (lambda i: i.token(iat=NOW + 86400), "not valid yet"),
    "another's key": (lambda i: i.token(Key("first")), "signature is not that of"),
    "another kind of key": (lambda i: i.token(Key("first", "EC")), "signature is not that of"),
    "unsigned": (_unsigned, "signature is not that of"),
    "public key as a secret": (_signed_with_the_public_key, "signature is not that of"),
    "id token": (lambda i: i.token(headers={"typ": "id+jwt"}), "no access token"),
    "no version": (lambda i: i.token(wlcg__ver=None), "neither a WLCG token"),
    "other version": (lambda i: i.token(wlcg__ver="2.0"), "neither a WLCG token"),
    "no scope": (lambda i: i.token(scope=None), "no scope or group"),
    "other scope": (lambda i: i.token(scope="compute.createx storage.read:/"), "no scope or group"),
    "no subject": (lambda i: i.token(sub=None), ""),
    "odd subject": (lambda i: i.token(sub="alice\nmallory"), "cannot be written down"),
    "garbage": (lambda i: "a.b.c", "neither one of this server's"),
    "huge": (lambda i: i.token(filler="x" * 20000), "not of the form"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_and_says_why(site: Site, name: str) -> None:
    make, why = BAD[name]
    token = make(site.issuer)
    refused = site.call(token)
    assert refused.code == "unauthorized"
    assert any(part in refused.document["detail"] for part in why.split("|")), refused
    assert token not in refused.document["detail"]


def test_an_unknown_issuer_is_never_asked(own_site: Site, tmp_path: Path) -> None:
    assert own_site.call(own_site.issuer.token()).status == 200
    other = Issuer(tmp_path / "other")
    try:
        assert own_site.call(other.token()).code == "unauthorized"
        assert own_site.call(own_site.issuer.token()).status == 200
        assert other.asked == 0
    finally:
        other.stop()


def test_new_keys_of_the_issuer_are_found_and_old_ones_forgotten(own_site: Site) -> None:
    issuer = own_site.issuer
    old = issuer.token()
    assert own_site.call(old).status == 200
    issuer.keys = [Key("second", "EC")]
    new = issuer.token(issuer.keys[0])
    # Keys are looked for again no sooner than some seconds after the last time.
    wait_for(lambda: own_site.call(new).status == 200, "the new key to count")
    refused = own_site.call(old)
    assert refused.code == "unauthorized" and "no key" in refused.document["detail"]


def test_a_dead_issuer_stops_nobody_even_after_a_restart(own_site: Site) -> None:
    assert own_site.call(own_site.issuer.token()).status == 200
    own_site.issuer.stop()
    own_site.server.stop()
    own_site.server.start()
    called = own_site.caller(own_site.issuer.token()).get("/v1/workflows/prod-1")
    assert called.status == 200
    stranger = own_site.issuer.token(Key("unheard-of"))
    assert own_site.call(stranger).code == "unauthorized"


def test_a_slow_issuer_keeps_nobody_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.issuer.answers.clear()
    site.server.start()
    try:
        early = site.caller(site.issuer.token()).get("/v1/workflows/prod-1")
        assert early.code == "overloaded" and early.headers["retry-after"]
        wait_for(lambda: site.issuer.asked, "the server to ask the issuer")
        # On its event loop everything else is answered while it waits.
        assert Caller(site.server.url, site.server.admin_token).get("/v1/workflows").status == 200
        site.issuer.answers.set()
        assert site.call(site.issuer.token()).status == 200
    finally:
        site.server.stop()
        site.issuer.stop()


def test_an_issuer_whose_certificate_is_not_trusted_is_not_believed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    text = site.config.read_text()
    site.config.write_text("\n".join(x for x in text.split("\n") if not x.startswith("ca_file")))
    site.server.start()
    try:
        token = site.issuer.token()

        def why() -> str:
            called = site.caller(token).get("/v1/workflows/prod-1")
            assert called.code == "overloaded"
            return str(called.document["detail"])

        wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in why(), "the server to say what is wrong")
    finally:
        site.server.stop()
        site.issuer.stop()


def test_keys_of_a_dead_issuer_count_until_they_are_too_old(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    issuer = Issuer(tmp_path / "issuer")
    trusted = TrustedIssuer(issuer.url, (AUDIENCE,), (), issuer.ca_file)
    found: list[str] = []

    def keys() -> IssuerKeys:
        return IssuerKeys(
            trusted, tmp_path, 3600, 86400, lambda: found.append("changed"), lambda: now
        )

    first = keys()
    first.start()
    wait_for(lambda: found, "the keys to be fetched")
    wait_for(lambda: list(tmp_path.glob("*.json")), "the keys to be kept")
    first.stop()
    issuer.stop()
    again = keys()  # its thread is not started: what it has is what was kept
    now += 86399
    assert again.find("first") is not None and again.find(None) is not None
    now += 2
    with pytest.raises(IssuerUnavailable, match="fetched"):
        again.find("first")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "audience"),
        ('audience = ["x"]', "issuer"),
        ('audience = "x"\n[[issuer]]\nurl = "http://plain"', "is not https://"),
        ('audience = "x"\n[[issuer]]\nurl = "https://a"', "grant"),
        (
            'audience = "x"\n[[issuer]]\nurl = "https://a"\n[[issuer.grant]]\nrole="reader"',
            "anybody",
        ),
        (
            'audience = "x"\n[[issuer]]\nurl = "https://a"\n[[issuer.grant]]\nscope = "s"\nrole = "admin"',
            "role",
        ),
        ('audience = "x"\nissuers = 1', "issuers"),
        ("audience = [", "TOML"),
    ],
)
def test_a_config_that_cannot_be_used_is_named_at_the_start(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "auth.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "htlease_server", "--state-dir", "x", "--auth-config", "auth.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    assert "auth.toml" in done.stderr and says in done.stderr and "Traceback" not in done.stderr
