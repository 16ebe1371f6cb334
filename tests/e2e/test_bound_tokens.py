"""Tokens that are bound to their sender, through a real nginx: by DPoP, with a public client library, and by TLS.

nginx runs the block that `m2m-verifier guard` prints, with TLS.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from requests_oauth2client import DPoPKey, DPoPToken

from tests.e2e.stage import PATIENCE, Serve, configuration, entry, free_port
from verifier.demo.issuer import Issuer, b64url
from verifier.demo.nginx import Nginx, PlainNginx
from verifier.demo.serving import Background


def issue(authority: trustme.CA, file: Path) -> str:
    """The name of a file with a new certificate for the loopback address, and its key."""
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    return str(file)


def thumbprint(certificate: str) -> str:
    """``x5t#S256`` (RFC 8705 section 3.1)."""
    return b64url(x509.load_pem_x509_certificate(Path(certificate).read_bytes()).fingerprint(hashes.SHA256()))


@dataclass
class Guarded:
    """nginx over TLS, the issuer of tokens, and the authority whose certificates nginx verifies."""

    url: str
    issuer: Issuer
    authority: trustme.CA
    session: requests.Session

    def token(self, **cnf: str) -> str:
        return self.issuer.mint({**self.issuer.machine_claims("etl", ("read",)), "cnf": cnf})

    def get(self, token: str, *, cert: str | None = None, **headers: str) -> requests.Response:
        headers["Authorization"] = f"Bearer {token}"
        return self.session.get(self.url, headers=headers, cert=cert, timeout=PATIENCE)


@pytest.fixture(scope="module")
def guarded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port, authority = tmp_path_factory.mktemp("bound"), free_port(), trustme.CA()
    own, trusted = issue(authority, folder / "server.pem"), folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    policies = {"api": {"rules": [{"path": "/db/**", "methods": ["GET", "POST"]}]}}
    content = configuration(entry(lab, client_certificate_header="ssl-client-cert"), policies=policies)
    tls = f"ssl; ssl_certificate {own}; ssl_certificate_key {own}; ssl_client_certificate {trusted}"
    with Serve(content, folder) as serve, requests.Session() as session:
        command = [sys.executable, "-P", "-m", "verifier", "guard", "--proxy", "nginx", "--policy", "api"]
        block = subprocess.check_output([*command, "--config", str(serve.config)], text=True)
        for shown, used in (
            ("unix:/run/m2m-verifier/verifier.sock", serve.address),
            ("127.0.0.1:9000", api.address),
            ("listen 127.0.0.1:8080", f"ssl_verify_client optional; listen 127.0.0.1:{port} {tls}"),
        ):
            assert block.count(shown) == 1
            block = block.replace(shown, used)
        session.trust_env, session.verify = False, str(trusted)
        with Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=block)):
            yield Guarded(f"https://127.0.0.1:{port}/db/x?since=1", lab, authority, session)


# --- DPoP ---


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS384", "EdDSA"])
def test_each_request_of_a_dpop_client_library_passes(guarded: Guarded, algorithm: str) -> None:
    key = DPoPKey.generate(alg=algorithm)
    auth = DPoPToken(access_token=guarded.token(jkt=key.dpop_jkt), _dpop_key=key)
    answers = [
        guarded.session.request(method, guarded.url, auth=auth, timeout=PATIENCE) for method in ("GET", "POST") * 2
    ]

    assert [(answer.status_code, answer.json()["method"]) for answer in answers] == [(200, "GET"), (200, "POST")] * 2
    assert ["x-m2m-client-id", "etl"] in answers[0].json()["headers"]


def test_a_stolen_request_is_refused_and_the_answer_asks_for_a_proof(guarded: Guarded) -> None:
    key = DPoPKey.generate()
    auth = DPoPToken(access_token=guarded.token(jkt=key.dpop_jkt), _dpop_key=key)
    allowed = guarded.session.get(guarded.url, auth=auth, timeout=PATIENCE)
    answer = guarded.session.get(guarded.url, headers=dict(allowed.request.headers), timeout=PATIENCE)

    assert allowed.status_code == 200
    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (401, "bad_proof")
    assert answer.headers["WWW-Authenticate"].startswith('DPoP realm="api", error="invalid_dpop_proof", ')
    assert " ES256 " in answer.headers["WWW-Authenticate"].partition("algs=")[2]


# --- certificates ---


def test_a_token_bound_to_a_certificate_needs_the_connection_with_its_key(guarded: Guarded, tmp_path: Path) -> None:
    own, other = (issue(guarded.authority, tmp_path / name) for name in ("own", "other"))
    token = guarded.token(**{"x5t#S256": thumbprint(own)})
    pem = x509.load_pem_x509_certificate(Path(own).read_bytes()).public_bytes(serialization.Encoding.PEM)
    forged = {"ssl-client-cert": quote(pem, safe="")}

    assert guarded.get(token, cert=own).status_code == 200
    for answer in (
        guarded.get(token),
        guarded.get(token, cert=other),
        guarded.get(token, **forged),
        guarded.get(token, cert=other, **forged),
    ):
        assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (401, "bad_proof")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api", error="invalid_token"')


def test_nginx_refuses_a_certificate_that_it_cannot_verify(guarded: Guarded, tmp_path: Path) -> None:
    foreign = issue(trustme.CA(), tmp_path / "foreign")

    assert guarded.get(guarded.token(**{"x5t#S256": thumbprint(foreign)}), cert=foreign).status_code == 400


def test_a_token_that_is_bound_to_nothing_needs_no_certificate(guarded: Guarded) -> None:
    token = guarded.issuer.mint(guarded.issuer.machine_claims("etl", ("read",)))

    assert guarded.get(token).status_code == 200
