"""nginx with the cache that ingress-nginx renders for `auth-cache-key`: what docs/ingress.md says about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from bench.servers import Server, ServerSpec, running
from bench.sides import nginx
from bench.sides.context import Context
from bench.tokens import make_token_set
from tests.e2e.stage import Serve, configuration, entry, eventually, exchange, request
from verifier.demo.issuer import Issuer

RULES = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["DELETE"], "scope": ["write"]}]


@dataclass
class Cached:
    """nginx's port, the verifier behind it, and who signs the tokens."""

    port: int
    serve: Serve
    issuer: Issuer

    def token(self) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", ("read",)))

    def ask(self, token: str, target: str = "/db/x", method: str = "GET") -> int:
        return exchange(self.port, request(target, method=method, token=token), method).status

    def decisions(self) -> float:
        return self.serve.total("decisions_total")


@pytest.fixture(scope="module", params=[(60, "")])
def cached(request: pytest.FixtureRequest, lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    """`request.param` is the `nginx_cache_ttl`, and a directive about how nginx reads its cache."""
    ttl, reading = request.param
    folder = tmp_path_factory.mktemp("cached")
    context = Context(folder, make_token_set(folder, cold=1, distinct=1))
    core = min(os.sched_getaffinity(0))

    def start(spec: ServerSpec) -> AbstractContextManager[Server]:
        return running(spec, core=core, drain_core=core, logs=folder)

    policies = {"default": {"rules": RULES}}
    settings = configuration(entry(lab), policies=policies, nginx_cache_ttl=ttl)
    with Serve(settings, folder) as serve, start(nginx.api(context)):
        front = nginx.Front("cached", serve.address, keepalive=False, cache=True, reading=reading)
        with start(nginx.front(context, (front,))):
            yield Cached(context.ports["cached"], serve, lab)


@pytest.mark.parametrize(("cached", "reached"), [((60, ""), 1), ((0, ""), 3)], indirect=["cached"])
def test_a_repeat_reaches_the_verifier_only_without_nginx_cache_ttl(cached: Cached, reached: int) -> None:
    token, before = cached.token(), cached.decisions()
    assert [cached.ask(token) for _ in range(3)] == [200, 200, 200]
    assert cached.decisions() == before + reached


@pytest.mark.parametrize("cached", [(1, ""), (1, "open_file_cache max=100;")], indirect=True, ids=["", "open files"])
def test_a_repeat_reaches_the_verifier_again_after_nginx_cache_ttl(cached: Cached) -> None:
    token, before = cached.token(), cached.decisions()
    eventually(lambda: cached.ask(token) == 200 and cached.decisions() >= before + 3, "two answers have expired")


@pytest.mark.parametrize(
    ("target", "method"),
    [("/db/x", "DELETE"), ("/other/x", "GET"), ("/db/../other/x", "GET"), ("/db/x/../../other", "GET")],
)
def test_another_method_or_uri_is_decided_by_itself(cached: Cached, target: str, method: str) -> None:
    token = cached.token()
    assert (cached.ask(token), cached.ask(token, target, method)) == (200, 403)


def test_another_token_is_decided_by_itself_and_a_refusal_is_not_kept(cached: Cached) -> None:
    assert cached.ask(cached.token()) == 200
    before = cached.decisions()
    assert [cached.ask("not-a-token") for _ in range(3)] == [401, 401, 401]
    assert cached.decisions() == before + 3
