"""Issuers that fail and configurations that change or break: requests go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from tests.e2e.stage import Load, Serve, configuration, entry, eventually, nginx
from tests.minting import SigningKey
from verifier.demo.issuer import Issuer
from verifier.demo.serving import Background, bind, port_of


class Faulty:
    """An issuer whose answers a test can replace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listener = bind()
        self.issuer = Issuer(f"http://127.0.0.1:{port_of(self.listener)}")
        self.answer: Response | None = None
        """Instead of the right one, to every request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.answer or self.issuer.app)(scope, receive, send)

    @property
    def entry(self) -> dict[str, Any]:
        return entry(self.issuer, self.name)

    def token(self) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", ["read"]))


@contextlib.contextmanager
def issuers(*names: str) -> Iterator[list[Faulty]]:
    with contextlib.ExitStack() as running:
        made = [Faulty(name) for name in names]
        for one in made:
            running.enter_context(Background(one, one.listener))
        yield made


def reason(serve: Serve, token: str, **more: str) -> str:
    """The reason of a decision."""
    answer = serve.ask(token, **more)
    return "ok" if answer.status_code == 200 else answer.headers["X-M2M-Reason"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_in_force_with_its_first_token_and_a_removed_one_not_even_for_a_cached_token(
    tmp_path: Path,
) -> None:
    with issuers("lab") as (rotating,), Serve(configuration(rotating.entry), tmp_path) as serve:
        old = rotating.token()
        assert [reason(serve, old), reason(serve, old)] == ["ok", "ok"]
        assert serve.total("token_cache_requests_total", result="hit") == 1
        rotating.issuer.rotate()
        rotating.issuer.drop_old_keys()
        assert reason(serve, rotating.token()) == "ok"  # its unknown key id caused a fetch
        assert reason(serve, old) == "unknown_key"


def test_issuers_that_fail_at_the_start_give_503_until_they_recover(tmp_path: Path, lab: Issuer) -> None:
    with issuers("failing", "page", "redirecting") as failing:
        wrong = Response(status_code=500), Response("<html>We will be right back"), RedirectResponse(lab.jwks_url)
        for one, instead in zip(failing, wrong, strict=True):
            one.answer = instead
        with Serve(configuration(*(one.entry for one in failing)), tmp_path, ready=False) as serve:
            for one in failing:
                answer = serve.ask(one.token())
                assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            assert [serve.ask(path=path).status_code for path in ("/ready", "/health")] == [503, 200]
            assert serve.total("jwks_keys") == 0
            for one in failing:
                one.answer = None
                token = one.token()
                eventually(lambda: reason(serve, token) == "ok", f"tokens of {one.name} pass")  # noqa: B023
            assert serve.ask(path="/ready").json()["issuers"] == {one.name: True for one in failing}


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_broken_file_is_refused_and_seen_and_the_old_one_stays_in_force(
    lab: Issuer, token: str, tmp_path: Path
) -> None:
    good = configuration(entry(lab))
    with Serve(good, tmp_path) as serve:
        assert serve.total("config_last_reload_successful") == 1
        for count, broken in enumerate(("issuers: [", yaml.safe_dump(good | {"leeway": "long"}), None), 1):
            if broken is None:
                serve.config.unlink()
            else:
                serve.write(broken)
            eventually(lambda: serve.total("config_reloads_total", result="failure") == count, "it is refused")  # noqa: B023
            assert serve.total("config_last_reload_successful") == 0
            assert serve.log.count("configuration is refused") == count
            assert reason(serve, token) == "ok"
        serve.write(good | {"revoked": {"clients": ["etl"]}})
        eventually(lambda: reason(serve, token) == "revoked", "the repaired file is in force")
        assert serve.total("config_last_reload_successful") == 1
        assert serve.total("config_reloads_total", result="success") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_change_takes_effect_without_a_dropped_request(
    lab: Issuer, token: str, api: Background, tmp_path: Path, workers: int
) -> None:
    settings = configuration(entry(lab))
    other = lab.mint(lab.machine_claims("leaver", ["read"]))
    with Serve(settings, tmp_path, workers=workers) as serve:
        front = nginx(tmp_path, api, serve, keepalive=True)
        with front, Load(front.gateway.port, token, threads=2, pause=0.005) as load:
            load.more(100)
            for revoked in (["leaver"], []):
                serve.write(settings | {"revoked": {"clients": revoked}})
                wanted = "revoked" if revoked else "ok"
                eventually(lambda: all(reason(serve, other) == wanted for _ in range(8)), "the change is in force")  # noqa: B023
            load.more(100)
            results = load.stop()
        assert set(results) == {"200"}, results


def test_a_changed_key_file_is_in_force_and_a_broken_one_refused_unquoted(tmp_path: Path, lab: Issuer) -> None:
    one, two = (SigningKey(os.urandom(32), "HS256", kid) for kid in ("one", "two"))
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [one.jwk()]}))
    local = {"name": "local", "profile": "cognito", "issuer": "https://local.example", "jwks_file": str(keys)}
    claims = lab.machine_claims("etl", []) | {"iss": "https://local.example"}
    with Serve(configuration(local | {"algorithms": ["HS256"]}), tmp_path) as serve:
        old, new = one.sign(claims), two.sign(claims)
        assert [reason(serve, old), reason(serve, new)] == ["ok", "unknown_key"]
        keys.write_text(json.dumps({"keys": [one.jwk()]})[:-3])
        eventually(lambda: serve.total("config_reloads_total", result="failure") == 1, "the broken file is refused")
        assert reason(serve, old) == "ok"
        assert one.jwk()["k"][:16] not in serve.log
        keys.write_text(json.dumps({"keys": [two.jwk()]}))
        eventually(lambda: reason(serve, new) == "ok", "the new key is in force")
        assert reason(serve, old) == "unknown_key"


def test_a_change_that_comes_while_it_starts_is_not_missed(lab: Issuer, token: str, tmp_path: Path) -> None:
    settings = configuration(entry(lab))
    with Serve(settings, tmp_path, ready=None) as serve:
        serve.wait_until_it_listens()  # its file has been read
        serve.write(settings | {"revoked": {"clients": ["etl"]}})
        serve.wait_until_up()
        eventually(lambda: reason(serve, token) == "revoked", "the change is in force")
