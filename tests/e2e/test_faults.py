"""What breaks around the verifier, and what must go on all the same."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from tests.e2e.stage import (
    EcKey,
    Load,
    Serve,
    children,
    command_line,
    configuration,
    entry,
    eventually,
    hs256_key,
    silent,
)
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.serving import Background, bind, free_port

RELOAD = 5.0  # seconds within which a change on disk is in force: the contract's


class Moody:
    """An issuer whose answers a test can replace; counts what it is asked."""

    def __init__(self) -> None:
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
    def fetches(self) -> int:
        return len([path for _, path in self.asked if path.endswith("jwks.json")])

    def token(self, client: str = "etl", **claims: Any) -> str:
        return self.issuer.mint(self.issuer.machine_claims(client, ["read"]) | claims)

    def unknown_kid(self, number: int = 0) -> str:
        return self.issuer.mint(self.issuer.machine_claims("etl", ["read"]), header={"kid": f"unknown-{number}"})


@pytest.fixture
def moody() -> Iterator[Moody]:
    made = Moody()
    made.up()
    yield made
    made.down()


def reason(serve: Serve, token: str, **more: str) -> str:
    """The verdict, in the word that metrics have for it."""
    answer = serve.ask(token, **more)
    return "ok" if answer.status_code == 200 else answer.headers["X-M2M-Reason"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_an_issuer_that_is_down_at_the_start_gives_503_until_it_comes(moody: Moody, tmp_path: Path) -> None:
    moody.down()
    with Serve(configuration(entry(moody.issuer)), tmp_path, ready=False) as serve:
        answer = serve.ask(moody.token())
        assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert serve.ask(path="/ready").status_code == 503
        assert serve.ask(path="/health").status_code == 200
        moody.up()
        eventually(lambda: serve.ask(moody.token()).status_code == 200, "the issuer's tokens pass")
        assert serve.ask(path="/ready").json()["issuers"] == {"lab": True}


def test_an_issuer_that_goes_down_later_costs_nothing(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        known = moody.token()
        assert reason(serve, known) == "ok"
        moody.down()
        assert reason(serve, moody.unknown_kid()) == "unknown_key"  # asks the issuer, in vain
        assert serve.total("jwks_refreshes_total", result="failure") >= 1
        assert [reason(serve, token) for token in (known, moody.token())] == ["ok", "ok"]
        assert serve.ask(path="/ready").status_code == 200


BAD_ANSWERS = {
    "a page instead of JSON": Response("<html>We will be right back</html>", media_type="text/html"),
    "an error": Response("{}", status_code=500),
    "no keys": JSONResponse({"keys": []}),
    "keys of a kind that verifies nothing": JSONResponse({"keys": [{"kty": "oct", "kid": "x", "k": "c2VjcmV0"}]}),
    "broken JSON": Response('{"keys": [', media_type="application/json"),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_bad_answer_leaves_the_old_keys_in_force(moody: Moody, tmp_path: Path, answer: Response) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        moody.answer = answer
        assert reason(serve, moody.unknown_kid()) == "unknown_key"
        assert serve.total("jwks_refreshes_total", result="failure") == 1
        assert serve.total("jwks_keys") == 1
        assert reason(serve, moody.token()) == "ok"


def test_a_page_instead_of_keys_at_the_start_gives_503(moody: Moody, tmp_path: Path) -> None:
    moody.answer = BAD_ANSWERS["a page instead of JSON"]
    with Serve(configuration(entry(moody.issuer)), tmp_path, ready=False) as serve:
        assert reason(serve, moody.token()) == "keys_unavailable"
        moody.answer = None
        eventually(lambda: reason(serve, moody.token()) == "ok", "the issuer's tokens pass")


def test_an_oversized_key_set_is_refused(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        known = moody.token()
        moody.issuer.rotate()
        keys = [key.jwk() for key in moody.issuer.keys]
        moody.answer = JSONResponse({"keys": keys, "padding": "x" * 512 * 1024})
        assert reason(serve, moody.token()) == "unknown_key"
        assert reason(serve, known) == "ok"


def test_a_redirecting_key_url_is_not_followed(moody: Moody, lab: Issuer, tmp_path: Path) -> None:
    moody.answer = RedirectResponse(lab.jwks_url)
    with Serve(configuration(entry(moody.issuer)), tmp_path, ready=False) as serve:
        stolen = lab.mint(moody.issuer.machine_claims("etl", ["read"]))
        assert reason(serve, stolen) == "keys_unavailable"
        assert moody.fetches >= 1
        assert serve.total("jwks_keys") == 0


def test_a_hanging_issuer_delays_no_request_of_another(moody: Moody, tmp_path: Path) -> None:
    with silent() as port:
        hanging = Issuer(f"http://127.0.0.1:{port}", pool="hangs")
        settings = configuration(entry(moody.issuer), entry(hanging, "hanging"))
        with Serve(settings, tmp_path, ready=False) as serve, ThreadPoolExecutor(50) as pool:
            eventually(lambda: reason(serve, moody.token()) == "ok", "the other issuer's keys are there")
            waiting = [
                pool.submit(reason, serve, hanging.mint(hanging.machine_claims(f"c{number}", [])))
                for number in range(40)
            ]
            slowest = 0.0
            while not all(one.done() for one in waiting):
                token = moody.token()
                start = time.monotonic()
                assert reason(serve, token) == "ok"
                slowest = max(slowest, time.monotonic() - start)
            assert {one.result() for one in waiting} == {"keys_unavailable"}
            assert slowest < 1.0  # each of the forty waited about 2 s


def test_a_new_key_s_token_passes_at_its_first_try(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        old = moody.token()
        assert reason(serve, old) == "ok"
        moody.issuer.rotate()
        assert reason(serve, moody.token()) == "ok"
        assert reason(serve, old) == "ok"


def test_cached_tokens_of_a_removed_key_are_refused(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        old = moody.token()
        assert [reason(serve, old), reason(serve, old)] == ["ok", "ok"]
        assert serve.total("token_cache_requests_total", result="hit") == 1
        moody.issuer.rotate()
        moody.issuer.drop_old_keys()
        assert reason(serve, moody.token()) == "ok"  # which made the verifier look
        assert reason(serve, old) == "unknown_key"


def test_300_unknown_kids_cause_one_fetch_in_10_s_and_are_all_refused(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        before = moody.fetches
        tokens = [moody.unknown_kid(number) for number in range(300)]
        start = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(serve.ask, tokens))
        seconds = time.monotonic() - start
        assert {(answer.status_code, answer.headers["X-M2M-Reason"]) for answer in answers} == {(401, "unknown_key")}
        assert moody.fetches - before <= 1 + seconds // 10
        assert moody.fetches - before >= 1
        assert serve.total("decisions_total", reason="unknown_key") == 300
        assert reason(serve, moody.token()) == "ok"


def test_the_next_unknown_kid_10_s_later_finds_the_new_key(moody: Moody, tmp_path: Path) -> None:
    with Serve(configuration(entry(moody.issuer)), tmp_path) as serve:
        assert reason(serve, moody.unknown_kid()) == "unknown_key"
        start = time.monotonic()
        moody.issuer.rotate()
        eventually(lambda: reason(serve, moody.token()) == "ok", "the new key's tokens pass")
        assert 8 < time.monotonic() - start < 20
        assert moody.fetches == 3  # the start's, the unknown kid's, and this one


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_broken_file_is_refused_and_seen_and_the_old_one_stays_in_force(lab: Issuer, tmp_path: Path) -> None:
    good = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
    with Serve(good, tmp_path) as serve:
        assert serve.total("config_last_reload_successful") == 1
        for count, broken in enumerate(
            ("issuers: [", "isuers: []\n", "", yaml.safe_dump(good | {"leeway": "long"})), 1
        ):
            serve.write(broken)
            eventually(lambda: serve.total("config_reloads_total", result="failure") == count, "it is refused")  # noqa: B023
            assert serve.total("config_last_reload_successful") == 0
            assert serve.log.count("configuration is refused") == count
            assert reason(serve, token) == "ok"
        serve.write(good | {"revoked": {"clients": ["etl"]}})
        eventually(lambda: reason(serve, token) == "revoked", "the repaired file is in force")
        assert serve.total("config_last_reload_successful") == 1
        assert serve.total("config_reloads_total", result="success") == 1


def test_a_removed_file_leaves_the_old_one_in_force(lab: Issuer, tmp_path: Path) -> None:
    token = lab.mint(lab.machine_claims("etl", []))
    with Serve(configuration(entry(lab)), tmp_path) as serve:
        serve.config.unlink()
        eventually(lambda: serve.total("config_reloads_total", result="failure") == 1, "it is refused")
        assert reason(serve, token) == "ok"


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
        with Nginx(gateway), Load(gateway.port, token, threads=2) as load:
            load.more(100)
            for revoked in (["leaver"], []):
                serve.write(settings | {"revoked": {"clients": revoked}})
                wanted = "revoked" if revoked else "ok"
                eventually(
                    lambda: all(reason(serve, other) == wanted for _ in range(8)),  # noqa: B023
                    "the change is in force",
                    RELOAD,
                )
            load.more(100)
            results = load.stop()
        assert set(results) == {"200"}, results


def test_new_issuers_and_changed_keys_come_and_go_with_the_file(moody: Moody, lab: Issuer, tmp_path: Path) -> None:
    with Serve(configuration(entry(lab)), tmp_path) as serve:
        theirs = moody.token()
        assert reason(serve, theirs) == "unknown_issuer"
        serve.write(configuration(entry(lab), entry(moody.issuer, "new")))
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
        eventually(lambda: reason(serve, fresh.mint(claims)) == "ok", "the new keys are in force", RELOAD)
        assert reason(serve, old) == "unknown_key"
        publish("2026_03", [fresh.jwk()], revoked={"clients": ["etl"]})
        eventually(lambda: reason(serve, fresh.mint(claims)) == "revoked", "the new file is in force", RELOAD)


def test_a_changed_key_file_is_in_force_and_a_broken_one_refused(tmp_path: Path, lab: Issuer) -> None:
    one, two = EcKey("one"), EcKey("two")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [one.jwk()]}))
    local = {"name": "local", "profile": "cognito", "issuer": "https://local.example", "jwks_file": str(keys)}
    claims = lab.machine_claims("etl", []) | {"iss": "https://local.example"}
    with Serve(configuration(local | {"algorithms": ["ES256"]}), tmp_path) as serve:
        old, new = one.mint(claims), two.mint(claims)
        assert [reason(serve, old), reason(serve, new)] == ["ok", "unknown_key"]
        keys.write_text('{"keys": [')
        eventually(lambda: serve.total("config_reloads_total", result="failure") == 1, "the broken file is refused")
        assert reason(serve, old) == "ok"
        keys.write_text(json.dumps({"keys": [two.jwk()]}))
        eventually(lambda: reason(serve, new) == "ok", "the new key is in force", RELOAD)
        assert reason(serve, old) == "unknown_key"


def test_a_symmetric_key_never_shows_in_the_log(tmp_path: Path, lab: Issuer) -> None:
    secret = b"correct horse battery staple, 32+"
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [hs256_key("one", secret)]}))
    local = {"name": "local", "profile": "cognito", "issuer": "https://local.example", "jwks_file": str(keys)}
    with Serve(configuration(local | {"algorithms": ["HS256"]}), tmp_path) as serve:
        keys.write_text(json.dumps({"keys": [hs256_key("one", secret)]})[:-3])
        eventually(lambda: serve.total("config_reloads_total", result="failure") == 1, "the broken file is refused")
        assert hs256_key("one", secret)["k"][:20] not in serve.log


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
        eventually(lambda: reason(serve, token) == "revoked", "the second change is in force", 20)


def test_a_change_that_comes_while_the_verifier_starts_is_not_missed(lab: Issuer, tmp_path: Path) -> None:
    settings = configuration(entry(lab))
    token = lab.mint(lab.machine_claims("etl", []))
    serve = Serve(settings, tmp_path)
    serve.write(slow_to_read(settings, ["somebody"]))
    serve.start()
    try:
        eventually(lambda: being_read(serve), "the file is being read")
        serve.write(settings | {"revoked": {"clients": ["etl"]}})
        serve.wait_until_up()
        eventually(lambda: reason(serve, token) == "revoked", "the change is in force", 10)
    finally:
        serve.kill()
