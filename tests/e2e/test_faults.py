"""What breaks around the verifier, and what must go on all the same."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from tests.e2e.stage import (
    EcKey,
    HsKey,
    Load,
    Serve,
    children,
    command_line,
    configuration,
    entry,
    eventually,
    free_port,
    silent,
)
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.serving import Background, bind

RELOAD = 5.0  # seconds within which a change on disk is in force: the contract's
START = 0.3  # seconds that a process of ours takes to start on a machine with nothing else to do


class Moody:
    """An issuer whose answers a test can replace; counts what it is asked."""

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.port = free_port()
        self.issuer = Issuer(f"http://127.0.0.1:{self.port}")
        self.answer: Response | None = None
        """Instead of the right one, to every request."""
        self.asked: list[tuple[float, str]] = []
        self._running: Background | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append((time.monotonic(), scope["path"]))
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

    @property
    def fetches(self) -> int:
        return len([path for _, path in self.asked if path.endswith("jwks.json")])

    def token(self, client: str = "etl", **claims: Any) -> str:
        return self.issuer.mint(self.issuer.machine_claims(client, ["read"]) | claims)

    def unknown_kid(self, number: int = 0) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", ["read"]), header={"kid": f"unknown-{number}"})


@contextlib.contextmanager
def issuers(count: int) -> Iterator[list[Moody]]:
    made = [Moody(f"lab{number}") for number in range(count)]
    try:
        for one in made:
            one.up()
        yield list(made)  # who takes one out of it does not take it from us
    finally:
        for one in made:
            one.down()


@pytest.fixture(scope="module")
def fresh() -> Iterator[list[Moody]]:
    """Issuers of one verifier, of which each test takes one for itself."""
    with issuers(14) as made:
        yield made


@pytest.fixture(scope="module")
def serve(fresh: list[Moody], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A verifier that has the keys of all of them."""
    with Serve(configuration(*(one.entry for one in fresh)), tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture
def moody(fresh: list[Moody], serve: Serve) -> Moody:
    """An issuer of ``serve`` that no other test has touched."""
    return fresh.pop()


def reason(serve: Serve, token: str, **more: str) -> str:
    """The verdict, in the word that metrics have for it."""
    answer = serve.ask(token, **more)
    return "ok" if answer.status_code == 200 else answer.headers["X-M2M-Reason"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_an_issuer_that_goes_down_later_costs_nothing(serve: Serve, moody: Moody) -> None:
    known = moody.token()
    assert reason(serve, known) == "ok"
    moody.down()
    assert reason(serve, moody.unknown_kid()) == "unknown_key"  # asks the issuer, in vain
    assert serve.total("jwks_refreshes_total", issuer=moody.name, result="failure") >= 1
    assert [reason(serve, token) for token in (known, moody.token())] == ["ok", "ok"]
    assert serve.ask(path="/ready").status_code == 200


BAD_ANSWERS = {
    "a page instead of JSON": Response("<html>We will be right back</html>", media_type="text/html"),
    "an error": Response("{}", status_code=500),
    "broken JSON": Response('{"keys": [', media_type="application/json"),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_bad_answer_leaves_the_old_keys_in_force(serve: Serve, moody: Moody, answer: Response) -> None:
    moody.answer = answer
    assert reason(serve, moody.unknown_kid()) == "unknown_key"
    assert serve.total("jwks_refreshes_total", issuer=moody.name, result="failure") == 1
    assert serve.total("jwks_keys", issuer=moody.name) == 1
    assert reason(serve, moody.token()) == "ok"


@pytest.mark.parametrize("keys", [[], [{"kty": "oct", "kid": "x", "k": "c2VjcmV0"}]], ids=["empty", "unusable"])
def test_a_set_without_usable_keys_withdraws_the_old_ones(serve: Serve, moody: Moody, keys: list[Any]) -> None:
    assert reason(serve, moody.token()) == "ok"
    moody.answer = JSONResponse({"keys": keys})
    assert reason(serve, moody.unknown_kid()) == "keys_unavailable"
    assert reason(serve, moody.token()) == "keys_unavailable"
    assert serve.total("jwks_keys", issuer=moody.name) == 0
    assert serve.ask(path="/ready").status_code == 200


def test_an_oversized_key_set_is_refused(serve: Serve, moody: Moody) -> None:
    known = moody.token()
    moody.issuer.rotate()
    keys = [key.jwk() for key in moody.issuer.keys]
    moody.answer = JSONResponse({"keys": keys, "padding": "x" * 512 * 1024})
    assert reason(serve, moody.token()) == "unknown_key"
    assert reason(serve, known) == "ok"


def test_a_redirect_to_other_keys_is_not_followed(serve: Serve, moody: Moody, lab: Issuer) -> None:
    moody.answer = RedirectResponse(lab.jwks_url)
    stolen = lab.mint(moody.issuer.machine_claims("etl", ["read"]))
    assert reason(serve, stolen) == "unknown_key"
    assert moody.fetches == 2
    assert serve.total("jwks_refreshes_total", issuer=moody.name, result="failure") == 1


def test_a_new_key_s_token_passes_at_its_first_try(serve: Serve, moody: Moody) -> None:
    old = moody.token()
    assert reason(serve, old) == "ok"
    moody.issuer.rotate()
    assert reason(serve, moody.token()) == "ok"
    assert reason(serve, old) == "ok"


def test_cached_tokens_of_a_removed_key_are_refused(serve: Serve, moody: Moody) -> None:
    old = moody.token()
    before = serve.total("token_cache_requests_total", result="hit")
    assert [reason(serve, old), reason(serve, old)] == ["ok", "ok"]
    assert serve.total("token_cache_requests_total", result="hit") == before + 1
    moody.issuer.rotate()
    moody.issuer.drop_old_keys()
    assert reason(serve, moody.token()) == "ok"  # which made the verifier look
    assert reason(serve, old) == "unknown_key"


def test_300_unknown_kids_cause_one_fetch_in_10_s_and_are_all_refused(serve: Serve, moody: Moody) -> None:
    tokens = [moody.unknown_kid(number) for number in range(300)]
    start = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(serve.ask, tokens))
    seconds = time.monotonic() - start
    assert {(answer.status_code, answer.headers["X-M2M-Reason"]) for answer in answers} == {(401, "unknown_key")}
    assert 1 <= moody.fetches - 1 <= 1 + seconds // 10  # the first was the start's
    assert serve.total("decisions_total", reason="unknown_key", issuer=moody.name) == 300
    assert reason(serve, moody.token()) == "ok"


def test_a_new_key_is_found_10_s_after_an_unknown_kid(serve: Serve, moody: Moody) -> None:
    assert reason(serve, moody.unknown_kid()) == "unknown_key"
    start = time.monotonic()
    moody.issuer.rotate()
    token = moody.token()
    eventually(lambda: reason(serve, token) == "ok", "the new key's tokens pass")
    assert time.monotonic() - start > 8
    assert moody.fetches == 3  # the start's, the unknown kid's, and this one


def test_issuers_that_fail_at_the_start_give_503_until_they_recover(tmp_path: Path, lab: Issuer) -> None:
    with issuers(3) as (absent, page, redirecting):
        absent.down()
        page.answer = BAD_ANSWERS["a page instead of JSON"]
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


def test_a_hanging_issuer_delays_no_request_of_another(lab: Issuer, tmp_path: Path) -> None:
    with silent() as port:
        hanging = Issuer(f"http://127.0.0.1:{port}", pool="hangs")
        settings = configuration(entry(lab), entry(hanging, "hanging"))
        tokens = [hanging.mint(hanging.machine_claims(f"c{number}", [])) for number in range(40)]
        with Serve(settings, tmp_path, ready=False) as serve, ThreadPoolExecutor(40) as pool:
            token = lab.mint(lab.machine_claims("etl", []))
            eventually(lambda: reason(serve, token) == "ok", "the other issuer's keys are there")
            waiting = [pool.submit(reason, serve, one) for one in tokens]
            slowest, asked = 0.0, 0
            while not all(one.done() for one in waiting):
                start = time.monotonic()
                assert reason(serve, lab.mint(lab.machine_claims("etl", []))) == "ok"
                slowest, asked = max(slowest, time.monotonic() - start), asked + 1
            assert {one.result() for one in waiting} == {"keys_unavailable"}
            assert asked > 10
            assert slowest < 1.5  # each of the forty waited about 2 s


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


def in_time(holds: Callable[[], object], what: str) -> None:
    """Wait until it holds. Fails if that took longer than the contract allows, times how busy the machine is."""
    start = time.monotonic()
    eventually(holds, what)
    seconds = time.monotonic() - start
    if seconds > RELOAD:
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "verifier", "check", "--help"], stdout=subprocess.DEVNULL, check=True)
        slowness = (time.monotonic() - start) / START
        assert seconds < RELOAD * max(slowness, 1), f"{what}, but after {seconds:.1f} s"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_change_is_in_force_within_5_s_without_a_dropped_request(
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
                in_time(lambda: all(reason(serve, other) == wanted for _ in range(8)), "the change is in force")  # noqa: B023
            load.more(100)
            results = load.stop()
        assert set(results) == {"200"}, results


def test_a_new_issuer_comes_and_goes_with_the_file(lab: Issuer, tmp_path: Path) -> None:
    with issuers(1) as (new,), Serve(configuration(entry(lab)), tmp_path) as serve:
        theirs = new.token()
        assert reason(serve, theirs) == "unknown_issuer"
        serve.write(configuration(entry(lab), new.entry))
        eventually(lambda: reason(serve, theirs) == "ok", "the new issuer's tokens pass")
        serve.write(configuration(entry(lab)))
        eventually(lambda: reason(serve, theirs) == "unknown_issuer", "they are refused again")
        assert reason(serve, lab.mint(lab.machine_claims("etl", []))) == "ok"


def test_a_configmap_s_symlink_swap_is_seen(lab: Issuer, tmp_path: Path) -> None:
    """As the kubelet does it: the file is a link into ..data, which is a link that is replaced in one step."""
    key = EcKey()
    mount = tmp_path / "etc"
    mount.mkdir()
    local = {"name": "local", "profile": "cognito", "issuer": "https://local.example", "jwks_file": "keys.json"}

    def publish(version: str, keys: list[dict[str, str]], **more: Any) -> None:
        folder = mount / f"..{version}"
        folder.mkdir()
        (folder / "verifier.yaml").write_text(yaml.safe_dump(configuration(local | {"algorithms": ["ES256"]}, **more)))
        (folder / "keys.json").write_text(json.dumps({"keys": keys}))
        (mount / "..data_tmp").symlink_to(folder.name)
        (mount / "..data_tmp").replace(mount / "..data")

    publish("2026_01", [key.jwk()])
    for name in ("verifier.yaml", "keys.json"):
        (mount / name).symlink_to(f"..data/{name}")
    claims = lab.machine_claims("etl", []) | {"iss": "https://local.example"}
    with Serve(mount / "verifier.yaml", tmp_path) as serve:
        old = key.mint(claims)
        assert reason(serve, old) == "ok"
        fresh = EcKey("ec-2")
        publish("2026_02", [fresh.jwk()])
        in_time(lambda: reason(serve, fresh.mint(claims)) == "ok", "the new keys are in force")
        assert reason(serve, old) == "unknown_key"
        publish("2026_03", [fresh.jwk()], revoked={"clients": ["etl"]})
        in_time(lambda: reason(serve, fresh.mint(claims)) == "revoked", "the new file is in force")


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
        in_time(lambda: reason(serve, new) == "ok", "the new key is in force")
        assert reason(serve, old) == "unknown_key"


def slow_to_read(settings: dict[str, Any], clients: list[str]) -> str:
    """A file that takes seconds to read, so that the next change comes meanwhile."""
    roles = {"clients": {f"client-{number}": "role" for number in range(8_000)}}
    return yaml.safe_dump(settings | {"revoked": {"clients": clients}, "roles": roles})


def being_read(serve: Serve) -> bool:
    """Whether a file was opened and is being parsed: its reader has used more time than its imports take."""
    ticks = os.sysconf("SC_CLK_TCK")
    for pid in children(serve.process.pid):
        if "config_file" in command_line(pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) / ticks > 0.8
    return False


def test_a_change_that_comes_while_the_one_before_is_being_read_is_not_missed(lab: Issuer, tmp_path: Path) -> None:
    settings = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
    with Serve(settings, tmp_path) as serve:
        serve.write(slow_to_read(settings, ["somebody"]))
        eventually(lambda: being_read(serve), "the first change is being read")
        serve.write(settings | {"revoked": {"clients": ["etl"]}})
        eventually(lambda: reason(serve, token) == "revoked", "the second change is in force")


def test_a_change_that_comes_while_the_verifier_starts_is_not_missed(lab: Issuer, tmp_path: Path) -> None:
    settings = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
    serve = Serve(settings, tmp_path)
    serve.write(slow_to_read(settings, ["somebody"]))
    with serve.started():
        eventually(lambda: being_read(serve), "the file is being read")
        serve.write(settings | {"revoked": {"clients": ["etl"]}})
        serve.wait_until_up()
        eventually(lambda: reason(serve, token) == "revoked", "the change is in force")
