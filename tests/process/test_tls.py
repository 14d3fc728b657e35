"""https from the built pyz to a real server: checked always, and the certificate may change."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme
from tests.process.execution import wait_for
from tests.serving import ServerProcess

NO_SERVER, BAD_CONFIG = 75, 78


class Site:
    """A server with a certificate of an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.issue("localhost", "127.0.0.1")
        self.server = ServerProcess(
            folder / "server", options=("--tls-cert", self.chain, "--tls-key", self.key)
        )

    def issue(self, *names: str) -> None:
        """Put a new certificate in place, as a renewal does."""
        issued = self.authority.issue_cert(*names)
        issued.private_key_pem.write_to_path(self.key)
        self.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def url(self, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.server.url.rpartition(':')[2]}"

    def run(
        self, pyz: Path, url: str, environ: Mapping[str, str], wait_server: str = "2"
    ) -> subprocess.CompletedProcess[str]:
        """Run a job of one step under the server that a URL names."""
        return subprocess.run(
            [
                *(sys.executable, pyz, "run", "--server", url, "--key", "tls/s"),
                *("--wait-server", wait_server, "--restart", "once", "--", "true"),
            ],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "BEARER_TOKEN": self.server.admin_token, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def served(self) -> bytes:
        """Return the certificate that a new connection gets."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        address = ("127.0.0.1", int(self.url().rpartition(":")[2]))
        with (
            socket.create_connection(address, 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.server.start()
    yield site
    site.server.stop()


@pytest.mark.parametrize("name", ["HTLEASE_CA_FILE", "SSL_CERT_FILE"])
def test_a_job_speaks_https_to_a_server_whose_authority_it_knows(
    site: Site, pyz: Path, name: str
) -> None:
    done = site.run(pyz, site.url(), {name: str(site.ca_file)}, wait_server="30")
    assert done.returncode == 0, done.stderr


def test_a_folder_of_authorities_as_grids_have_it_is_used(
    site: Site, pyz: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(site.ca_file.read_bytes())
    subprocess.run(["openssl", "rehash", str(folder)], check=True)
    done = site.run(pyz, site.url(), {"X509_CERT_DIR": str(folder)}, wait_server="30")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("whose", ["nobody's", "another's"])
def test_an_unknown_authority_is_refused_before_a_token_is_sent(
    site: Site, pyz: Path, tmp_path: Path, whose: str
) -> None:
    environ = {}
    if whose == "another's":
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        environ = {"HTLEASE_CA_FILE": str(other)}
    done = site.run(pyz, site.url(), environ)
    assert done.returncode == NO_SERVER
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    assert "set HTLEASE_CA_FILE to the file of its authority" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_certificate_for_another_host_is_refused(site: Site, pyz: Path, tmp_path: Path) -> None:
    site.server.stop()
    site.issue("lease.example.org")
    site.server.start()
    done = site.run(pyz, site.url(), {"HTLEASE_CA_FILE": str(site.ca_file)})
    assert done.returncode == NO_SERVER
    assert "IP address mismatch" in done.stderr
    assert "HTLEASE_CA_FILE" not in done.stderr


def test_plain_http_to_it_gets_no_answer(site: Site, pyz: Path) -> None:
    done = site.run(pyz, site.url().replace("https", "http"), {})
    assert done.returncode == NO_SERVER


def test_a_named_authority_that_is_not_there_is_a_configuration_error(
    site: Site, pyz: Path
) -> None:
    done = site.run(pyz, site.url(), {"HTLEASE_CA_FILE": "/nowhere/ca.pem"})
    assert done.returncode == BAD_CONFIG
    assert "HTLEASE_CA_FILE /nowhere/ca.pem" in done.stderr


def test_a_renewed_certificate_is_served_without_a_restart(site: Site) -> None:
    first = site.served()
    (site.key).write_text("half a file")
    wait_until_seen(site, "is not used")
    assert site.served() == first, "a broken one is not taken"
    site.issue("localhost", "127.0.0.1")
    wait_until_seen(site, "was read again")
    assert site.served() != first


def wait_until_seen(site: Site, what: str) -> None:
    """Connect, which makes the server look at its files, until it has said something of them."""

    def said() -> bool:
        site.served()
        return what in site.server.log_text

    wait_for(said, f"the server to say that the certificate {what}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-cert", "chain.pem"], "give both"),
        (
            ["--tls-cert", "chain.pem", "--tls-key", "none.pem"],
            "none.pem cannot be read: No such file",
        ),
        (["--tls-cert", "chain.pem", "--tls-key", "locked.pem"], "cannot be used"),
        (["--tls-cert", "ca.pem", "--tls-key", "key.pem"], "cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_at_the_start(
    tmp_path: Path, options: list[str], says: str
) -> None:
    Site(tmp_path)
    subprocess.run(
        [
            *("openssl", "pkey", "-aes256", "-passout", "pass:secret"),
            *("-in", "key.pem", "-out", "locked.pem"),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-m", "htlease_server", "--state-dir", "x", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == BAD_CONFIG
    assert says in done.stderr and "Traceback" not in done.stderr
