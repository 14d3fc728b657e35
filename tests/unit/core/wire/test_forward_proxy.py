"""Which proxy an environment names for a server, and how one is asked for a tunnel."""

from __future__ import annotations

import pytest
from tests.unit.core.wire.test_transport import Peer

from htlease.wire.forward_proxy import ProxyUnusable, is_excepted, named_proxy
from htlease.wire.transport import HttpTransport, NoAnswer

HOST, PORT = "lease.example.org", 8620
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}'


@pytest.mark.parametrize(
    ("environ", "is_tls", "address"),
    [
        ({}, True, None),
        ({"https_proxy": ""}, True, None),
        ({"https_proxy": "http://squid:3128"}, True, ("squid", 3128)),
        ({"https_proxy": "http://squid:3128/"}, True, ("squid", 3128)),
        ({"https_proxy": "squid:3128"}, True, ("squid", 3128)),
        ({"https_proxy": "http://squid"}, True, ("squid", 80)),
        ({"https_proxy": "http://[fd00::1]:3128"}, True, ("fd00::1", 3128)),
        ({"HTTPS_PROXY": "http://squid:3128"}, True, ("squid", 3128)),
        ({"https_proxy": "http://one:1", "HTTPS_PROXY": "http://two:2"}, True, ("one", 1)),
        ({"ALL_PROXY": "http://squid:3128"}, True, ("squid", 3128)),
        ({"all_proxy": "http://all:1", "https_proxy": "http://one:1"}, True, ("one", 1)),
        ({"https_proxy": "http://squid:3128"}, False, None),
        ({"http_proxy": "http://squid:3128"}, False, ("squid", 3128)),
        ({"HTTP_PROXY": "http://squid:3128"}, False, None),
        ({"http_proxy": "http://squid:3128"}, True, None),
        ({"https_proxy": "http://squid:3128", "no_proxy": "example.org"}, True, None),
        ({"https_proxy": "http://squid:3128", "NO_PROXY": "*"}, True, None),
    ],
)
def test_the_proxy_is_the_one_that_curl_would_take(
    environ: dict[str, str], is_tls: bool, address: tuple[str, int] | None
) -> None:
    found = named_proxy(environ, is_tls, HOST, PORT)
    assert (None if found is None else (found.host, found.port)) == address


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_never_reached_by_a_proxy(host: str) -> None:
    assert named_proxy({"https_proxy": "http://squid:3128"}, True, host, PORT) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("", HOST, False),
        (HOST, HOST, True),
        (HOST.upper(), HOST, True),
        (".example.org", HOST, True),
        ("example.org", "example.org", True),
        ("example.org", "notexample.org", False),
        ("ease.example.org", HOST, False),
        ("a.org,example.org", HOST, True),
        ("a.org, example.org ", HOST, True),
        ("a.org example.org", HOST, True),
        (f"{HOST}:8620", HOST, True),
        (f"{HOST}:443", HOST, False),
        (HOST, f"{HOST}.", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", HOST, False),
        ("10.1.2.3", "10.1.2.3", True),
        ("1.2.3", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::1", "fd00::1", True),
        ("[fd00::1]:8620", "fd00::1", True),
        ("not/a/network", HOST, False),
        (",,., ", HOST, False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(
    no_proxy: str, host: str, expected: bool
) -> None:
    assert is_excepted(no_proxy, host, PORT) is expected


@pytest.mark.parametrize(
    "value",
    ["socks5://squid:1080", "https://squid:3128", "http://:3128", "http://squid:x", "a b:1"],
)
def test_a_proxy_of_another_kind_is_refused_by_its_variable_and_no_password(value: str) -> None:
    with pytest.raises(ProxyUnusable, match="https_proxy") as refusal:
        named_proxy({"https_proxy": value.replace("//", "//me:geheim@")}, True, HOST, PORT)
    assert "geheim" not in str(refusal.value)


def _through(peer: Peer, monkeypatch: pytest.MonkeyPatch, user: str = "") -> HttpTransport:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", peer.url.replace("//", f"//{user}"))
    # A name that leads nowhere: what answers is behind the proxy.
    return HttpTransport("http+insecure://lease.invalid:8620", "secret", exchange_seconds=5)


def test_requests_go_through_a_tunnel_with_the_users_name(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer([b"HTTP/1.1 200 Connection established\r\n\r\n", OK, OK])
    transport = _through(peer, monkeypatch, "me:pass%3Aword@")
    assert transport.exchange("GET", "/v1/workflows", None).document == {"a": 1}
    assert transport.exchange("GET", "/v1/workflows", None).status == 200
    connect, first, second = peer.requests
    assert connect.startswith(
        b"CONNECT lease.invalid:8620 HTTP/1.1\r\nHost: lease.invalid:8620\r\n"
    )
    assert b"Proxy-Authorization: Basic bWU6cGFzczp3b3Jk\r\n" in connect
    assert b"secret" not in connect, "the token is the server's"
    assert first == second and first.startswith(b"GET /v1/workflows HTTP/1.1\r\n")
    assert b"Proxy-" not in first


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Who are you\r\n\r\n", "wants a user and password in http_proxy"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "refuses to CONNECT to lease.invalid"),
        (b"SSH-2.0-OpenSSH\r\n", "does not begin as HTTP/1.1 does"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "bytes follow"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000, "fields"),
    ],
)
def test_what_the_proxy_says_is_told_when_the_direct_way_fails_too(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, says: str
) -> None:
    peer = Peer([answer])
    with pytest.raises(NoAnswer, match="that http_proxy names") as failure:
        _through(peer, monkeypatch).exchange("GET", "/v1/workflows", None)
    assert says in str(failure.value)


def test_a_proxy_that_leads_nowhere_is_passed_by_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = Peer([b"HTTP/1.1 403 No\r\n\r\n"], [b"HTTP/1.1 403 No\r\n\r\n"])
    server = Peer([OK], [OK])
    monkeypatch.setattr("htlease.wire.forward_proxy.is_loopback", lambda host: False)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    transport = HttpTransport(server.url, "secret", exchange_seconds=5)
    assert transport.exchange("GET", "/v1/workflows", None).status == 200
    transport.close()
    assert transport.exchange("GET", "/v1/workflows", None).status == 200
    assert len(proxy.requests) == 1
