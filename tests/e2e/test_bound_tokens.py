"""Tokens that are bound to their sender, through a real nginx: by DPoP, with a public client library, and by TLS.

nginx runs the block that `m2m-verifier guard` prints, with TLS.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from requests_oauth2client import DPoPKey, DPoPToken

from tests.e2e.stage import PATIENCE, Serve, configuration, entry, free_port
from verifier.demo.issuer import Issuer, b64url
from verifier.demo.nginx import Gateway, Nginx
from verifier.demo.serving import Background

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority, whose files are in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(self._subject, self._key, x509.BasicConstraints(ca=True, path_length=None)))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder(self._subject, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - DAY).not_valid_after(now + DAY).add_extension(extension, critical=True)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[str, str]:
        """The files of a new certificate for the loopback address, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        files = self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key"
        files[0].write_bytes(self._sign(subject, key, address))
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
        return str(files[0]), str(files[1])


def thumbprint(certificate: str) -> str:
    """``x5t#S256`` (RFC 8705 section 3.1)."""
    return b64url(x509.load_pem_x509_certificate(Path(certificate).read_bytes()).fingerprint(hashes.SHA256()))


class PlainNginx(Gateway):
    """An nginx.conf around the printed block, which is in ``server_snippet``."""

    def render(self) -> str:
        return f"{super().render().partition('  access_log')[0]}\n  access_log off;\n{self.server_snippet}\n}}\n"


@dataclass
class Guarded:
    """nginx over TLS, the issuer of tokens, and the authority whose certificates nginx verifies."""

    url: str
    issuer: Issuer
    authority: Authority
    foreign_authority: Authority
    session: requests.Session

    def token(self, **cnf: str) -> str:
        return self.issuer.mint({**self.issuer.machine_claims("etl", ("read",)), "cnf": cnf})

    def get(self, token: str, *, cert: tuple[str, str] | None = None, **headers: str) -> requests.Response:
        sent = {
            "Authorization": f"Bearer {token}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.session.get(self.url, headers=sent, cert=cert, timeout=PATIENCE)


@pytest.fixture(scope="module")
def guarded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("bound"), free_port()
    authority, foreign_authority = Authority(folder, "authority"), Authority(folder, "foreign")
    certificate, key = authority.issue("server")
    policies = {"api": {"rules": [{"path": "/db/**", "methods": ["GET", "POST"]}]}}
    content = configuration(entry(lab, client_certificate_header="ssl-client-cert"), policies=policies)
    tls = f"ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_client_certificate {authority.file}"
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
        session.trust_env, session.verify = False, str(authority.file)
        with Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=block)):
            yield Guarded(f"https://127.0.0.1:{port}/db/x?since=1", lab, authority, foreign_authority, session)


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


@pytest.mark.parametrize(
    "steal",
    [
        lambda sent: sent,
        lambda sent: {**sent, "Authorization": sent["Authorization"].replace("DPoP", "Bearer")},
        lambda sent: {"Authorization": sent["Authorization"]},
    ],
    ids=["with its proof", "as a bearer token", "without a proof"],
)
def test_a_stolen_request_is_refused_and_the_answer_asks_for_a_proof(
    guarded: Guarded, steal: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    key = DPoPKey.generate()
    auth = DPoPToken(access_token=guarded.token(jkt=key.dpop_jkt), _dpop_key=key)
    sent = dict(guarded.session.get(guarded.url, auth=auth, timeout=PATIENCE).request.headers)
    answer = guarded.session.get(guarded.url, headers=steal(sent), timeout=PATIENCE)

    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (401, "bad_proof")
    assert answer.headers["WWW-Authenticate"].startswith('DPoP realm="api", error="invalid_dpop_proof", ')
    assert " ES256 " in answer.headers["WWW-Authenticate"].partition("algs=")[2]


# --- certificates ---


def test_a_token_bound_to_a_certificate_needs_the_connection_with_its_key(guarded: Guarded) -> None:
    own, other = guarded.authority.issue("client"), guarded.authority.issue("other")
    token = guarded.token(**{"x5t#S256": thumbprint(own[0])})
    forged = quote(Path(own[0]).read_text(), safe="")

    assert guarded.get(token, cert=own).status_code == 200
    for answer in (
        guarded.get(token),
        guarded.get(token, cert=other),
        guarded.get(token, ssl_client_cert=forged),
        guarded.get(token, cert=other, ssl_client_cert=forged),
    ):
        assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (401, "bad_proof")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api", error="invalid_token"')


def test_nginx_refuses_a_certificate_that_it_cannot_verify(guarded: Guarded) -> None:
    foreign = guarded.foreign_authority.issue("client")
    token = guarded.token(**{"x5t#S256": thumbprint(foreign[0])})

    assert guarded.get(token, cert=foreign).status_code == 400


def test_a_token_that_is_bound_to_nothing_needs_no_certificate(guarded: Guarded) -> None:
    token = guarded.issuer.mint(guarded.issuer.machine_claims("etl", ("read",)))

    assert guarded.get(token).status_code == 200
