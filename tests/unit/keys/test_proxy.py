"""Which proxy a URL is fetched through."""

from __future__ import annotations

import pytest

from verifier.keys.proxy import Proxy, proxy_for

ISSUER = "https://issuer.example/keys"
GO_NO_PROXY = (
    "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, "
    "2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64"
)


def is_direct(host: str, no_proxy: str) -> bool:
    return proxy_for(f"https://{host}/keys", {"HTTPS_PROXY": "http://proxy.lan:3128", "NO_PROXY": no_proxy}) is None


@pytest.mark.parametrize(
    ("environment", "url", "variable"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1", "HTTPS_PROXY"),
        ({"https_proxy": "https://a"}, "https://a", "https_proxy"),
        ({"ALL_PROXY": "a.lan:3128"}, "http://a.lan:3128", "ALL_PROXY"),
        ({"all_proxy": "a"}, "http://a", "all_proxy"),
        ({"HTTPS_PROXY": "", "https_proxy": "b"}, "http://b", "https_proxy"),
        ({"HTTPS_PROXY": "a", "https_proxy": "b", "ALL_PROXY": "c"}, "http://a", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "a", "NO_PROXY": "", "no_proxy": "other.example"}, "http://a", "HTTPS_PROXY"),
    ],
)
def test_the_first_variable_that_is_set_names_the_proxy(environment: dict[str, str], url: str, variable: str) -> None:
    assert proxy_for(ISSUER, environment) == Proxy(url, variable)


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        (ISSUER, {}), (ISSUER, {"HTTP_PROXY": "http://a:1"}), (ISSUER, {"HTTPS_PROXY": " "}),
        (ISSUER, {"HTTPS_PROXY": "a", "no_proxy": "issuer.example"}),
        *(
            (url, {"ALL_PROXY": "socks5://a"})
            for url in (
                "http://127.0.0.1/", "http://localhost/", "https://localhost:8443/", "https://127.0.0.2/",
                "https://[::1]:8/", "https://[::ffff:127.0.0.1]/",
            )
        ),
    ],
)  # fmt: skip
def test_loopback_and_what_has_no_proxy_is_fetched_directly(url: str, environment: dict[str, str]) -> None:
    assert proxy_for(url, environment) is None


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("[::2]", False), ("192.168.1.1", True), ("192.168.1.2", False), ("192.168.1.3", True), ("192.168.1.4", False),
        ("10.0.0.2", True), ("[2001:db8::52:0:1]", True), ("[2001:db8::52:0:2]", False), ("[2001:db8::52:0:3]", True),
        ("[2002:db8:a::123]", True), ("[fe80::424b:c8be:1643:a1b6]", False), ("barbaz.net", False),
        ("www.barbaz.net", True), ("foobar.com", True), ("www.foobar.com", True), ("foofoobar.com", False),
        ("baz.com", False), ("localhost.net", False), ("local.localhost", False), ("barbarbaz.net", False),
        ("wildcard.io", False), ("nested.wildcard.io", True), ("awildcard.io", False),
    ],
)  # fmt: skip
def test_no_proxy_is_read_as_go_reads_it(host: str, direct: bool) -> None:
    """The table of golang.org/x/net/http/httpproxy, port 80."""
    assert is_direct(f"{host}:80", GO_NO_PROXY) == direct


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "issuer.example", True), ("localhost,*", "10.1.2.3", True), ("ISSUER.Example", "issuer.example", True),
        ("issuer.example", "ISSUER.EXAMPLE", True), ("issuer.example:443", "issuer.example", True),
        ("issuer.example:8443", "issuer.example", False), ("localhost,fd00:10:96::/112", "issuer.example", False),
        ("fd00:10:96::/112", "[fd00:10:96::1]", True), ("[::2]", "[::2]", True), ("::2", "[::2]", True),
        ("10.0.0.0/8", "10.1.2.3", True), ("10.0.0.0/8", "10.example", False), ("10.0.0.0/33", "10.1.2.3", False),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", False), ("10.0.0.1", "[::ffff:10.0.0.1]", True),
        ("*ssuer.example", "issuer.example", False), (".示例.com", "www.示例.com", True),
        ("xn--fsq092h.com", "www.示例.com", True), (":1", "issuer.example", False), (",", "issuer.example", False),
        (".", "issuer.example", False), ("é" * 64, "issuer.example", False),
    ],
)  # fmt: skip
def test_an_entry_of_no_proxy_covers_a_host(no_proxy: str, host: str, direct: bool) -> None:
    assert is_direct(host, no_proxy) == direct


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("socks5://user:s3cret@a:1080", "ALL_PROXY: a proxy must be http or https, not 'socks5'"),
        ("http://", "ALL_PROXY: is not the URL of a proxy"),
        ("http://a:b", "ALL_PROXY: is not the URL of a proxy"),
        ("http://[a", "ALL_PROXY: is not the URL of a proxy"),
    ],
)
def test_an_unusable_proxy_is_an_error_only_where_it_would_be_used(value: str, message: str) -> None:
    with pytest.raises(ValueError, match="ALL_PROXY") as caught:
        proxy_for(ISSUER, {"ALL_PROXY": value})

    assert str(caught.value) == message
    assert proxy_for(ISSUER, {"ALL_PROXY": value, "NO_PROXY": "issuer.example"}) is None


def test_a_proxy_is_shown_without_its_password() -> None:
    proxy = proxy_for(ISSUER, {"HTTPS_PROXY": "http://user:s3cret@proxy.lan:3128"})

    assert str(proxy) == "the proxy proxy.lan:3128 of HTTPS_PROXY"
