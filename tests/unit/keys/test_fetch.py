"""A bounded https GET, against real sockets on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.keys.servers import Script, answer_with, make_certificate, server
from tests.unit.support import JumpingLoop
from verifier import __version__
from verifier.keys.fetch import SIZE_LIMIT, TIME_LIMIT, Fetched, FetchError, HttpFetch, origin, require_secure


@pytest.fixture
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Sockets and TLS take real time."""
    return asyncio.new_event_loop


async def send_slowly(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    for _ in range(100):
        await asyncio.sleep(TIME_LIMIT / 4)
        writer.write(b" ")
        await writer.drain()


async def send_endlessly(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def send_nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense\r\n\r\n")


def fetcher(environment: Mapping[str, str] = {}, **options: Any) -> HttpFetch:
    return HttpFetch(environment=environment, **options)


async def fetch_from(script: Script, certificate: Path | None = None, **options: Any) -> tuple[Fetched, bytes]:
    """What a server sends, and the request that it received."""
    async with server(script, certificate) as (url, requests):
        return await fetcher(**options)(url), requests[0]


async def error_of(url: str, **options: Any) -> str:
    with pytest.raises(FetchError) as caught:
        await fetcher(**options)(url)
    return str(caught.value)


@pytest.mark.parametrize("body", [b'{"keys": []}', b" " * SIZE_LIMIT], ids=["small", "512 KiB"])
async def test_a_document_is_fetched_whole(body: bytes) -> None:
    assert (await fetch_from(answer_with(body=body)))[0].body == body


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("", None), ("cache-control: max-age=600\r\n", 600), ("cache-control: public, Max-Age=60\r\n", 60),
        ('cache-control: max-age="5"\r\n', 5), ("cache-control: no-cache\r\n", None),
        ("cache-control: s-maxage=9\r\n", None),
    ],
)  # fmt: skip
async def test_the_servers_max_age_is_read(head: str, seconds: int | None) -> None:
    assert (await fetch_from(answer_with(head)))[0].max_age == seconds


async def test_the_request_names_the_program_accepts_both_types_of_a_key_set_and_asks_for_no_compression() -> None:
    request = (await fetch_from(answer_with()))[1].lower()

    assert request.startswith(b"get /keys http/1.1\r\n")
    assert b"\r\naccept: application/json, application/jwk-set+json\r\n" in request
    assert b"accept-encoding: identity\r\n" in request
    assert f"user-agent: m2m-verifier/{__version__}\r\n".encode() in request


@pytest.mark.parametrize(
    ("script", "message"),
    [
        *(
            pytest.param(answer_with("location: /elsewhere\r\n", body, status), f"status {status[:3]}", id=status)
            for status, body in (
                ("301 Moved", b""), ("302 Found", b""), ("307 Temporary Redirect", b""), ("404 Not Found", b"{}"),
                ("500 Oops", b"{}"), ("206 Partial Content", b"{}"), ("204 No Content", b""),
            )
        ),
        pytest.param(answer_with("content-encoding: gzip\r\n"), "compressed", id="compressed"),
        pytest.param(answer_with(body=b" " * (SIZE_LIMIT + 1)), "more than 512 KiB", id="a byte over 512 KiB"),
        pytest.param(send_endlessly, "more than 512 KiB", id="endless"),
        pytest.param(send_nonsense, "ProtocolError", id="no HTTP"),
    ],
)  # fmt: skip
async def test_every_other_answer_is_a_failure(script: Script, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        await fetch_from(script)


@pytest.mark.parametrize("script", [lambda _: asyncio.sleep(3600), send_slowly], ids=["no answer", "slow"])
@pytest.mark.parametrize("loop_factory", [lambda: JumpingLoop(grace=0.05)])
async def test_an_answer_that_takes_more_than_5_seconds_altogether_is_a_failure(script: Script) -> None:
    with pytest.raises(FetchError, match="no answer within 5 s"):
        await fetch_from(script)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        pytest.param("http://127.0.0.1:1/", {}, "Connect", id="refused"),
        pytest.param("http://issuer.example/keys", {}, "must be https", id="not secure"),
        pytest.param("https://issuer.example/\x7f", {}, "InvalidURL", id="not valid"),
        pytest.param("https://127.0.0.1:1/", {"ca_file": Path("a\0b")}, "ValueError", id="no path"),
    ],
)
async def test_a_url_that_cannot_be_fetched_is_a_failure(url: str, options: dict[str, Any], message: str) -> None:
    assert message in await error_of(url, **options)


@pytest.mark.parametrize(
    "url",
    ["https://issuer.example/keys", "https://10.0.0.1", "http://localhost:1/", "http://127.0.0.2/", "http://[::1]:8/"],
)
def test_https_and_http_on_loopback_are_secure(url: str) -> None:
    require_secure(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/", "http://10.0.0.1/", "http://localhost.evil.example/", "http://0.0.0.0/", "ftp://a/",
        "file:///etc/passwd", "issuer.example", "https://", "", "https://user:pass@issuer.example/",
        "https://user@issuer.example/",
    ],
)  # fmt: skip
def test_every_other_url_is_not_secure(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        require_secure(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Issuer.Example/a?b", ("https", "issuer.example", 443)),
        ("http://127.0.0.1", ("http", "127.0.0.1", 80)),
        ("http://127.0.0.1:8080", ("http", "127.0.0.1", 8080)),
        *((url, None) for url in ("https://a:b/", "https://[a", "https://", "ftp://a/", "kubernetes/serviceaccount")),
    ],
)
def test_the_origin_of_a_url_is_scheme_host_and_port(url: str, expected: Any) -> None:
    assert origin(url) == expected


# --- certificate authorities ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("certificates")
    return [make_certificate(folder, name) for name in ("old", "new")]


def named(name: str, path: Path) -> dict[str, Any]:
    """The options with which ``path`` is read as ``ca_file``, or as the value of a variable."""
    return {"ca_file": path} if name == "ca_file" else {"environment": {name: str(path)}}


@pytest.mark.parametrize("name", ["ca_file", "SSL_CERT_FILE"])
async def test_a_bundle_is_used_and_read_again_when_it_is_renewed(
    certificates: list[Path], tmp_path: Path, name: str
) -> None:
    bundle = tmp_path / "ca.pem"
    fetch = fetcher(**named(name, bundle))
    for certificate in certificates:
        bundle.write_bytes(certificate.read_bytes())
        async with server(answer_with(), certificate) as (url, _):
            assert (await fetch(url)).body == b"{}"


@pytest.mark.parametrize("environment", [{}, {"SSL_CERT_DIR": "/"}], ids=repr)
async def test_an_unknown_authority_is_refused(certificates: list[Path], environment: dict[str, str]) -> None:
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        await fetch_from(answer_with(), certificates[0], environment=environment)


async def test_the_issuers_own_authority_replaces_those_of_the_environment(certificates: list[Path]) -> None:
    old, new = certificates
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        await fetch_from(answer_with(), old, ca_file=new, environment={"SSL_CERT_FILE": str(old)})


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file or directory"), ("nonsense", "holds no certificate that can be read")],
    ids=["missing", "broken"],
)
@pytest.mark.parametrize("name", ["ca_file", "SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_an_unusable_bundle_is_reported_with_its_name_and_path(
    tmp_path: Path, name: str, content: str | None, problem: str
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)

    assert await error_of("https://127.0.0.1:1/keys", **named(name, bundle)) == f"{name}: {bundle}: {problem}"


# --- the bearer token ---


async def test_the_token_is_sent_and_read_again_for_each_fetch(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with server(answer_with()) as (url, requests):
        fetch = HttpFetch(bearer_token_file=file, trusted_urls=("kubernetes/serviceaccount", url))
        for token in ("first", "second\n"):
            file.write_text(token)
            await fetch(url)

    first, second = requests
    assert b"\r\nauthorization: bearer first\r\n" in first.lower()
    assert b"\r\nauthorization: bearer second\r\n" in second.lower()


@pytest.mark.parametrize("trusted", ["https://127.0.0.1:{port}", "http://localhost:{port}", "http://127.0.0.1", "lab"])
async def test_the_token_is_sent_to_no_other_origin(tmp_path: Path, trusted: str) -> None:
    (tmp_path / "token").write_text("s3cret")
    async with server(answer_with()) as (url, requests):
        trusted_url = trusted.format(port=url.split(":")[2].split("/")[0])
        await HttpFetch(bearer_token_file=tmp_path / "token", trusted_urls=(trusted_url,))(url)

    assert b"authorization" not in requests[0].lower()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        *((text, "holds no bearer token") for text in ("", "s3cret s3cret", "s3cret\r\nX: y", "s3cr\u00e9t")),
    ],
)
async def test_an_unusable_token_file_is_reported_without_quoting_it(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, "utf-8")
    error = await error_of("http://127.0.0.1:1/keys", bearer_token_file=file, trusted_urls=("http://127.0.0.1:1",))

    assert error == f"bearer_token_file: {file}: {problem}"


# --- proxies ---


async def test_an_https_url_is_fetched_through_the_proxy_which_is_logged_once_and_shown_no_token(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "verifier")
    (tmp_path / "token").write_text("b3arer")
    async with server(answer_with(status="502 Bad Gateway")) as (url, requests):
        address = url.split("/")[2]
        fetch = HttpFetch(
            bearer_token_file=tmp_path / "token",
            trusted_urls=("https://issuer.example",),
            environment={"HTTPS_PROXY": f"http://user:s3cret@{address}"},
        )
        through = f"through the proxy {address} of HTTPS_PROXY"
        for _ in range(2):
            with pytest.raises(FetchError) as caught:
                await fetch("https://issuer.example/keys")
            assert str(caught.value) == f"ProxyError: 502 Bad Gateway ({through})"

    assert [request.split(b"\r\n")[0] for request in requests] == [b"CONNECT issuer.example:443 HTTP/1.1"] * 2
    assert b"b3arer" not in b"".join(requests)
    assert caplog.messages == [f"keys of issuer.example are fetched {through}"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_proxy_over_tls_needs_a_certificate_of_the_environments_authorities(
    certificates: list[Path], known: bool
) -> None:
    own, other = certificates
    async with server(answer_with(status="502 Bad Gateway"), own) as (url, _):
        error = await error_of(
            "https://issuer.example/", environment={"SSL_CERT_FILE": str(own if known else other), "HTTPS_PROXY": url}
        )

    assert ("502 Bad Gateway" if known else "CERTIFICATE_VERIFY_FAILED") in error


async def test_httpx_reads_no_variables_itself(monkeypatch: pytest.MonkeyPatch, certificates: list[Path]) -> None:
    """It fails at this NO_PROXY, would send http through a proxy and reports a missing file without its name."""
    monkeypatch.setenv("NO_PROXY", "[::1],fd00:10:96::/112")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")

    assert (await fetch_from(answer_with(), environment=os.environ))[0].body == b"{}"
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        await fetch_from(answer_with(), certificates[0])
