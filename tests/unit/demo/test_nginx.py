"""The demo's nginx.conf, as text. tests/e2e/test_demo_nginx.py runs it."""

from pathlib import Path

import pytest

from verifier.demo.nginx import Gateway, Location, find_nginx
from verifier.demo.processes import ProcessError


def test_a_path_becomes_the_two_locations_of_ingress_nginx() -> None:
    location = Location("/db", auth="/verify/api")
    rendered = Gateway(Path("/tmp/x"), 8080, ["127.0.0.1:1"], {"api": "127.0.0.1:2"}, [location]).render()
    for line in (
        "location = /_external-auth-L2RiLw-Prefix {",
        "location /db/ {",
        "auth_request /_external-auth-L2RiLw-Prefix;",
        "location = /_external-auth-L2Ri-Exact {",
        "location = /db {",
        "auth_request_set $authHeader0 $upstream_http_x_m2m_client_id;",
        "proxy_set_header 'X-M2M-Client-ID' $authHeader0;",
        'set $target "http://verifier/verify/api";',
    ):
        assert line in rendered
    assert "proxy_method" not in rendered


def test_a_missing_nginx_is_one_line_that_names_the_package() -> None:
    with pytest.raises(ProcessError, match=r"^nginx is not installed; on Debian: apt-get install nginx$"):
        find_nginx(path="/nowhere")
