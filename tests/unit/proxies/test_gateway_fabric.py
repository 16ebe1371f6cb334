"""The method and the path that NGINX Gateway Fabric names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.proxies.test_fields import GATEWAY_FABRIC


def test_what_the_proxy_did_not_give_is_not_guessed() -> None:
    assert GATEWAY_FABRIC.read(without=["Method"]) == replace(GATEWAY_FABRIC.asked, method="")
    assert GATEWAY_FABRIC.read(without=["Path"]) == replace(GATEWAY_FABRIC.asked, url=b"")


@pytest.mark.parametrize("path", ["*", "http://h/a", ""])
def test_a_path_that_is_none_is_no_url(path: str) -> None:
    assert GATEWAY_FABRIC.read(("Path", path), without=["Path"]).url == b""
