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
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from tests.e2e.stage import (
    HsKey,
    Load,
    Serve,
    configuration,
    entry,
    eventually,
    free_port,
)
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.serving import Background, bind


class Faulty:
    """An issuer whose answers a test can replace."""

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.port = free_port()
        self.issuer = Issuer(f"http://127.0.0.1:{self.port}")
        self.answer: Response | None = None
        """Instead of the right one, to every request."""
        self._running: Background | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.answer or self.issuer.app)(scope, receive, send)

    def up(self) -> None:
        self._running = Background(self, bind(self.port))
        self._running.__enter__()

    def down(self) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    @property
    def entry(self) -> dict[str, Any]:
        return entry(self.issuer, self.name)

    def token(self, client: str = "etl", **claims: Any) -> str:
        return self.issuer.mint(self.issuer.machine_claims(client, ["read"]) | claims)

    def unknown_kid(self) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", ["read"]), header={"kid": "unknown"})


@contextlib.contextmanager
def issuers(count: int) -> Iterator[list[Faulty]]:
    made = [Faulty(f"lab{number}") for number in range(count)]
    try:
        for one in made:
            one.up()
        yield list(made)  # a copy: a test may take issuers out of it
    finally:
        for one in made:
            one.down()


@pytest.fixture(scope="module")
def fresh() -> Iterator[list[Faulty]]:
    """Issuers of one verifier; each test takes one for itself."""
    with issuers(5) as made:
        yield made


@pytest.fixture(scope="module")
def serve(fresh: list[Faulty], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A verifier that has the keys of all these issuers."""
    with Serve(configuration(*(one.entry for one in fresh)), tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def faulty(fresh: list[Faulty], serve: Serve) -> Faulty:
    """An issuer of ``serve`` that no other test has touched."""
    return fresh.pop()


def reason(serve: Serve, token: str, **more: str) -> str:
    """The reason of a decision."""
    answer = serve.ask(token, **more)
    return "ok" if answer.status_code == 200 else answer.headers["X-M2M-Reason"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_an_issuer_that_goes_down_later_loses_nothing(serve: Serve, faulty: Faulty) -> None:
    known = faulty.token()
    assert reason(serve, known) == "ok"
    faulty.down()
    assert reason(serve, faulty.unknown_kid()) == "unknown_key"  # the issuer is asked, without an answer
    assert serve.total("jwks_refreshes_total", issuer=faulty.name, result="failure") >= 1
    assert [reason(serve, token) for token in (known, faulty.token())] == ["ok", "ok"]
    assert serve.ask(path="/ready").status_code == 200


@pytest.mark.parametrize("keys", [[], [{"kty": "oct", "kid": "x", "k": "c2VjcmV0"}]], ids=["empty", "unusable"])
def test_a_set_without_usable_keys_withdraws_the_old_ones(serve: Serve, faulty: Faulty, keys: list[Any]) -> None:
    assert reason(serve, faulty.token()) == "ok"
    faulty.answer = JSONResponse({"keys": keys})
    assert reason(serve, faulty.unknown_kid()) == "keys_unavailable"
    assert reason(serve, faulty.token()) == "keys_unavailable"
    assert serve.total("jwks_keys", issuer=faulty.name) == 0
    assert serve.ask(path="/ready").status_code == 200
    faulty.answer = None
    eventually(lambda: reason(serve, faulty.token()) == "ok", "the keys that came back are in force")


def test_the_first_token_of_a_new_key_passes(serve: Serve, faulty: Faulty) -> None:
    old = faulty.token()
    assert reason(serve, old) == "ok"
    faulty.issuer.rotate()
    assert reason(serve, faulty.token()) == "ok"
    assert reason(serve, old) == "ok"


def test_cached_tokens_of_a_removed_key_are_refused(serve: Serve, faulty: Faulty) -> None:
    old = faulty.token()
    before = serve.total("token_cache_requests_total", result="hit")
    assert [reason(serve, old), reason(serve, old)] == ["ok", "ok"]
    assert serve.total("token_cache_requests_total", result="hit") == before + 1
    faulty.issuer.rotate()
    faulty.issuer.drop_old_keys()
    assert reason(serve, faulty.token()) == "ok"  # its unknown key id caused a fetch
    assert reason(serve, old) == "unknown_key"


def test_issuers_that_fail_at_the_start_give_503_until_they_recover(tmp_path: Path, lab: Issuer) -> None:
    with issuers(3) as (absent, page, redirecting):
        absent.down()
        page.answer = Response("<html>We will be right back</html>", media_type="text/html")
        redirecting.answer = RedirectResponse(lab.jwks_url)
        failing = (absent, page, redirecting)
        with Serve(configuration(*(one.entry for one in failing)), tmp_path, ready=False) as serve:
            for one in failing:
                answer = serve.ask(one.token())
                assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            assert serve.ask(path="/ready").status_code == 503
            assert serve.ask(path="/health").status_code == 200
            assert serve.total("jwks_keys") == 0
            absent.up()
            page.answer = redirecting.answer = None
            for one in failing:
                token = one.token()
                eventually(lambda: reason(serve, token) == "ok", f"tokens of {one.name} pass")  # noqa: B023
            assert serve.ask(path="/ready").json()["issuers"] == {one.name: True for one in failing}


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_broken_file_is_refused_and_seen_and_the_old_one_stays_in_force(lab: Issuer, tmp_path: Path) -> None:
    good = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
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
    lab: Issuer, api: Background, tmp_path: Path, workers: int
) -> None:
    settings = configuration(entry(lab))
    token, other = (lab.mint(lab.machine_claims(client, ["read"])) for client in ("etl", "leaver"))
    with Serve(settings, tmp_path, workers=workers) as serve:
        gateway = Gateway(
            tmp_path / "nginx",
            free_port(),
            [serve.address],
            {"api": api.address},
            [Location("/", auth="/verify")],
            keepalive=True,
        )
        with Nginx(gateway), Load(gateway.port, token, threads=2, pause=0.005) as load:
            load.more(100)
            for revoked in (["leaver"], []):
                serve.write(settings | {"revoked": {"clients": revoked}})
                wanted = "revoked" if revoked else "ok"
                eventually(lambda: all(reason(serve, other) == wanted for _ in range(8)), "the change is in force")  # noqa: B023
            load.more(100)
            results = load.stop()
        assert set(results) == {"200"}, results


def test_a_new_issuer_comes_and_goes_with_the_file(lab: Issuer, tmp_path: Path) -> None:
    with issuers(1) as (new,), Serve(configuration(entry(lab)), tmp_path) as serve:
        token = new.token()
        assert reason(serve, token) == "unknown_issuer"
        serve.write(configuration(entry(lab), new.entry))
        eventually(lambda: reason(serve, token) == "ok", "the new issuer's tokens pass")
        serve.write(configuration(entry(lab)))
        eventually(lambda: reason(serve, token) == "unknown_issuer", "they are refused again")
        assert reason(serve, lab.mint(lab.machine_claims("etl", []))) == "ok"


def test_a_changed_key_file_is_in_force_and_a_broken_one_refused_unquoted(tmp_path: Path, lab: Issuer) -> None:
    one, two = HsKey("one"), HsKey("two")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [one.jwk()]}))
    local = {"name": "local", "profile": "cognito", "issuer": "https://local.example", "jwks_file": str(keys)}
    claims = lab.machine_claims("etl", []) | {"iss": "https://local.example"}
    with Serve(configuration(local | {"algorithms": ["HS256"]}), tmp_path) as serve:
        old, new = one.mint(claims), two.mint(claims)
        assert [reason(serve, old), reason(serve, new)] == ["ok", "unknown_key"]
        keys.write_text(json.dumps({"keys": [one.jwk()]})[:-3])
        eventually(lambda: serve.total("config_reloads_total", result="failure") == 1, "the broken file is refused")
        assert reason(serve, old) == "ok"
        assert one.jwk()["k"][:16] not in serve.log
        keys.write_text(json.dumps({"keys": [two.jwk()]}))
        eventually(lambda: reason(serve, new) == "ok", "the new key is in force")
        assert reason(serve, old) == "unknown_key"


def slow_to_read(settings: dict[str, Any], clients: list[str]) -> str:
    """A file that takes seconds to read, so that the next change comes meanwhile."""
    roles = {"clients": {f"client-{number}": "role" for number in range(8_000)}}
    return yaml.safe_dump(settings | {"revoked": {"clients": clients}, "roles": roles})


def processor_time(serve: Serve) -> float:
    """Seconds that the process has used."""
    fields = Path(f"/proc/{serve.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("at_start", [False, True], ids=["while another is read", "while it starts"])
def test_a_change_that_comes_while_the_file_is_read_is_not_missed(lab: Issuer, tmp_path: Path, at_start: bool) -> None:
    settings = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
    serve = Serve(settings, tmp_path)
    if at_start:
        serve.write(slow_to_read(settings, ["somebody"]))
    with serve.started():
        if not at_start:
            serve.wait_until_up()
            serve.write(slow_to_read(settings, ["somebody"]))
        before = processor_time(serve)
        eventually(lambda: processor_time(serve) > before + 1, "it is reading")
        serve.write(settings | {"revoked": {"clients": ["etl"]}})
        serve.wait_until_up()
        eventually(lambda: reason(serve, token) == "revoked", "the last change is in force")
