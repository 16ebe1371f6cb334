"""Our reading of a path compared with nginx's own: what nginx logs as `$uri`, and the location that it chose.

Requests are written to sockets byte for byte, as no HTTP library would. `FUZZ_PATHS` is the number of random targets
(`make fuzz-paths`), `FUZZ_SEED` another seed.
"""

from __future__ import annotations

import json
import os
import posixpath
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import pytest

from tests.e2e.stage import Serve, Wire, configuration, entry, eventually, free_port
from verifier.config.load import load
from verifier.demo import templates
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Nginx
from verifier.policy.paths import AmbiguousPathError, parse_url
from verifier.policy.policies import Policy

COUNT = int(os.environ.get("FUZZ_PATHS", "10000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))

# nginx's locations and the scope that each needs; the token has `read` alone, so nothing may come from a closed one.
PLACES = {
    "/db/private": ["root"],
    "/db": ["read"],
    "/admin": ["root"],
    "/public": [],
    "/": None,  # no rule
}
OPEN = {"/db", "/public"}
RULES = [{"path": f"{path}/**", "scope": scope} for path, scope in PLACES.items() if scope is not None]


class Routed(NamedTuple):
    """The result of one request: nginx's log line."""

    raw: bytes
    """What the verifier received: `$scheme://$http_host$request_uri`."""
    uri: bytes
    place: str
    status: int
    reason: str

    @classmethod
    def of(cls, line: dict[str, str]) -> Routed:
        raw, uri = line["raw"].encode("latin-1"), line["uri"].encode("latin-1")
        return cls(raw, uri, line["place"], int(line["status"]), line["reason"])


Route = Callable[..., list[Routed]]


@pytest.fixture(scope="module")
def serve(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    settings = configuration(entry(lab), policies={"paths": {"rules": RULES}})
    with Serve(settings, tmp_path_factory.mktemp("paths")) as running:
        yield running


@pytest.fixture(scope="module")
def route(lab: Issuer, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Route]:
    """Sends targets and returns nginx's log line of each that nginx did not answer with 400 itself; all are safe."""
    prefix = tmp_path_factory.mktemp("front")
    log = prefix / "requests.log"
    reuse = 'proxy_set_header Connection "";'
    auth = {"auth_path": "/_auth", "target": "http://verifier/verify/paths", "reuse": reuse}
    # try_files comes after auth_request, as a proxied API would; `return` would come before it.
    locations = [templates.AUTH % auth] + [
        f"location {match} {{ set $place {place}; auth_request /_auth; "
        "auth_request_set $reason $upstream_http_x_m2m_reason; try_files /no-such-file =204; }"
        for place in PLACES
        for match in (f"{place.rstrip('/')}/", f"= {place}")
    ]
    fields = {
        "n": "$http_x_n", "uri": "$uri", "place": "$place", "raw": "$scheme://$http_host$request_uri",
        "status": "$status", "reason": "$reason",
    }  # fmt: skip
    gateway = Gateway(
        prefix,
        free_port(),
        [serve.address],
        locations=(),
        keepalive=True,
        access_log=f"off; log_format requests escape=json '{json.dumps(fields)}'",
        server_snippet="\n".join([f"access_log {log} requests;", *locations]),
    )
    token = lab.mint(lab.machine_claims("fuzz", ["read"], lifetime=36000))
    policy = load(serve.config).policies.by_name["paths"]

    def route(targets: list[bytes], **host: bytes | None) -> list[Routed]:
        routed = _route(gateway.port, log, token, targets, **host)
        for one in routed:
            assert_safe(one, policy)
        return routed

    with Nginx(gateway):
        yield route


def _route(
    port: int, log: Path, token: str, targets: list[bytes], *, host: bytes | None = b"api.example"
) -> list[Routed]:
    head = b"GET %b HTTP/1.0" if host is None else b"GET %b HTTP/1.1\r\nHost: " + host.replace(b"%", b"%%")
    head += b"\r\nX-N: %d\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n"
    heads = [head % (target, number) for number, target in enumerate(targets)]
    log.write_text("")
    statuses: list[int] = []
    while len(statuses) < len(heads):
        with Wire(port) as wire:
            statuses += _pipeline(wire, heads[len(statuses) :])
    for status, target in zip(statuses, targets):
        assert status in (204, 400, 403, 404), f"{status} for {target!r}"
    decided = [number for number, status in enumerate(statuses) if status in (204, 403)]

    def read_log() -> dict[int, Routed]:
        lines = [json.loads(line) for line in log.read_text("latin-1").split("\n")[:-1]]
        return {int(line["n"]): Routed.of(line) for line in lines if line["status"] in ("204", "403")}

    eventually(lambda: read_log().keys() >= set(decided), "nginx's log is complete")
    logged = read_log()
    for number in decided:
        assert logged[number].status == statuses[number]
    return [logged[number] for number in decided]


def _pipeline(wire: Wire, heads: list[bytes]) -> Iterator[int]:
    """The statuses of as many as the connection takes: nginx closes it after a 400 and after many requests."""
    for start in range(0, len(heads), 40):
        batch = heads[start : start + 40]
        wire.send(b"".join(batch))
        for head in batch:
            answer = wire.read()
            assert answer is not None, f"closed without an answer to {head!r}"
            yield answer.status
            if answer.headers.get("connection") == "close":
                return


def assert_safe(routed: Routed, policy: Policy) -> None:
    """What must hold for every target."""
    assert routed.reason in ("", "ambiguous_path", "no_matching_rule", "insufficient_scope"), routed
    try:
        ours = parse_url(routed.raw).path
    except AmbiguousPathError:
        assert (routed.status, routed.reason) == (403, "ambiguous_path"), routed
        return
    assert ours.encode() == routed.uri, f"nginx reads another path: {routed}"
    if routed.status == 204:
        assert routed.place in OPEN, routed
        rule = policy.rule_for("GET", ours)
        assert rule is not None
        assert rule.path.text == f"{routed.place}/**", routed
        for reading in other_readings(routed):
            assert policy.rule_for("GET", reading) is rule, f"an API may read {reading!r}: {routed}"


def other_readings(routed: Routed) -> Iterator[str]:
    """How an API might read the raw path that nginx passes on."""
    raw = re.sub(r"^http://[^/]*", "", routed.raw.decode("latin-1")).partition("?")[0]
    decoded = unquote(raw)
    yield decoded  # a parser that resolves nothing
    yield unquote(decoded)  # a parser behind another that decodes too
    for path in (decoded, re.sub(r";[^/]*", "", decoded)):  # a parser that removes path parameters, as servlets do
        resolved = posixpath.normpath(path).replace("//", "/")
        yield resolved if resolved.endswith("/") or not path.endswith("/") else resolved + "/"


ORDINARY = [
    "/db/orders", "/db/", "/db", "/db/orders/", "/db/a.b/v1.2.3/file.tar.gz", "/db/.hidden/..data/...",
    "/db/a..b/c.", "/db/~user/-/_", "/db/%7Euser", "/db/two%20words", "/db/a+b", "/db/a%2Bb", "/db/a;v=1;w=2/b",
    "/db/100%25", "/db/100%25/of", "/db/50%25%20off", "/db/caf%C3%A9/%E6%97%A5%E6%9C%AC/%F0%9F%9A%80",
    "/db/caf\u00e9/\u65e5\u672c", "/db/!$&'()*,=:@", "/db/what%3F", "/db/number%23", "/db/a%3Bb", "/db/%22quoted%22",
    "/db/%7Bid%7D/%5Bx%5D", "/db/{id}/[x]|y^z`", "/db/3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "/db/x?q=/../../admin&r=%2f%2e%2e%5c", "/db/x?", "/db/x??a=b", "/db/a/./b", "/db/a/../b", "/db/%2e/a/%2E%2e/b",
    "/db//orders", "/db/orders//", "/db/" + "long/" * 200, "/public/x", "http://elsewhere.example/db/x",
    "http://elsewhere.example:8080/db/x?y",
]  # fmt: skip


def test_ordinary_paths_are_allowed_and_read_as_nginx_reads_them(route: Route) -> None:
    routed = route([target.encode() for target in ORDINARY])
    assert len(routed) == len(ORDINARY)
    assert [one for one in routed if one.status != 204] == []


def test_random_ordinary_paths_are_allowed(route: Route) -> None:
    choose = random.Random(SEED)
    letters = "abcXYZ019-._~!$&'()*+,=:@"
    rare = [" ", "%", "\u00e9", "\u4e2d", "\U0001f680", "?", "#", '"', "<", "[", "|", "^", "`"]
    targets = []
    for _ in range(COUNT // 4):
        segments = ["".join(choose.choices([*letters, *rare], k=choose.randint(1, 8))) for _ in range(3)]
        segments = [segment for segment in segments if segment.strip(".") and not re.search("%[0-9A-Fa-f]{2}", segment)]
        path = "/".join(quote(segment, safe=letters) for segment in segments)
        targets.append(f"/public/{path}{choose.choice(['', '/', '?q=%2f', ';v=1'])}".encode())
    routed = route(targets)
    assert len(routed) == len(targets)
    assert [one for one in routed if one.status != 204] == []


ACCEPTED_PARTS = [
    "db", "admin", "public", "private", "x", "d%62", "%64b", "DB", "adm%69n", "%70rivate",
    "db", "admin", "public", "private", "x", "d%62", "%64b", "DB", "adm%69n", "%70rivate",
    ".", "..", "..", "...", "%2e", ".%2e", "..;", ".;", ";", ";v=1", "..%3b", "+", "%20",
]  # fmt: skip
ACCEPTED_JOINTS = ["/", "/", "/", "/", "/", "/", "//", "/./", "/../", ";/"]
PARTS = [
    "db", "admin", "public", "private", "x", "d%62", "%64b", "DB", "adm%69n", "%70rivate", "",
    ".", "..", "...", "%2e", "%2E%2e", ".%2e", "%2e.", "..;", "..;x", ".;", "%2e%2e;x", ";", ";..", "..%3b", "..%00",
    "..%20", "..+", ".. ", " ..", "..%09", "..\t", "..%0a", "..\\", "..%5c", "..%2f", "%2f..", "%252e%252e",
    "%25%32%65", "%2f", "%2F", "%5c", "\\", "%252f", "%25%32%66", "%c0%ae", "%c0%af", "%e0%80%af", "%ef%bc%8f",
    "\u2215", "%u002f", "#", "%23", "?", "%3f", "&", "%00", "\x00", "%0d%0a", "%7f", "%80", "%ff", "\xe9", "%", "%4",
    "%zz", "%%32%65", "a b", "+", "%20", "%25", "~", "*", "**", "|", "^", "<", ":", "@", "http:", "api.example",
]  # fmt: skip
JOINTS = ["/", "/", "/", "/", "/", "//", "/./", "/../", "\\", "%2f", ";/", "", "///"]
STARTS = [
    "/", "/", "/", "/", "/db/", "/db/", "/public/", "/admin/", "//", "/./", "/../", "", "http://h/", "http://h", "*",
]  # fmt: skip


def hostile(choose: random.Random) -> bytes:
    """A target that no ordinary client sends."""
    target = choose.choice(STARTS)
    for _ in range(choose.randint(1, 6)):
        # Mostly parts that nginx accepts, or little would be compared.
        parts, joints = (ACCEPTED_PARTS, ACCEPTED_JOINTS) if choose.random() < 0.8 else (PARTS, JOINTS)
        target += choose.choice(parts) + choose.choice(joints)
    data = bytearray(target.encode("latin-1", "ignore") if choose.random() < 0.2 else target.encode())
    while choose.random() < 0.15:
        data.insert(choose.randint(0, len(data)), choose.randrange(256))
    return bytes(data).translate(None, b"\r\n")  # these would end the line


def test_random_hostile_targets_are_never_allowed_where_nginx_goes_elsewhere(route: Route) -> None:
    choose = random.Random(SEED)
    routed = [one for _ in range(0, COUNT, 1000) for one in route([hostile(choose) for _ in range(min(COUNT, 1000))])]
    allowed = sum(one.status == 204 for one in routed)
    refused = sum(one.reason == "ambiguous_path" for one in routed)
    print(f"seed {SEED}: of {COUNT} targets nginx accepted {len(routed)}; {allowed} allowed, {refused} ambiguous")
    assert allowed > COUNT / 20  # else little was compared
    assert refused > COUNT / 10


def test_every_combination_of_hostile_parts_behind_each_place_is_safe(route: Route) -> None:
    forms = ("/db/%s%sx", "/public/%s%sadmin/x", "/public%s%s../db/private/x", "/%s%sdb/x")
    pairs = [(part, joint) for part in PARTS for joint in sorted(set(JOINTS))]
    targets = [(form % pair).encode() for form in forms for first in pairs for pair in (first, first[::-1])]
    routed = route([target for target in targets if not {*b"\r\n"} & {*target}])
    assert len(routed) > len(targets) / 2


AMBIGUOUS = [
    "/db/a%2fb", "/public/..%2fdb/private/x", "/db/a\\b", "/db/a%5Cb", "/db/a%0ab", "/db/a%C2%85b",
    "/db/%252e%252e/private", "/db/%2541", "/db/..;/private", "/db/.;x/y", "/db/%ff", "/db/%c0%ae%c0%ae/private",
    "/db//../private/x", "/db/x#y", "/db/#/../../admin", "/public/../db/x", "/db/private/../x", "/db//private/x",
    "//db/x", "/db;x/private", "//db/private/x", "//x/db/y", "///db/x", "//u@h:80/db/x", "/db/a;x/./b",
    "/db;x/../public/x", "/;x/db/y", "/db/%2e/../public/x", "/db" + "/x" * 256,
    "/public/;/../admin/x",  # a server that removes parameters and merges slashes reads /admin/x
    "/public/;x=1/../../public/x",
]  # fmt: skip


def test_a_target_that_two_parsers_could_read_differently_is_refused(route: Route) -> None:
    routed = route([target.encode() for target in AMBIGUOUS])
    assert len(routed) == len(AMBIGUOUS)
    assert {(one.status, one.reason) for one in routed} == {(403, "ambiguous_path")}


PLAIN_HOSTS = ["h:80", "[::1]", "[::1]:80", "H.EXAMPLE.", "127.0.0.1", "h_x"]
HIDING_HOSTS = ["h?", "h#", "u@h", "a\\b"]
HOSTS = [
    *PLAIN_HOSTS, *HIDING_HOSTS, "h?x", "u:p@h", "h:", "h:x", "h:80:80", "[::1", "h%2fx", "h%3f", "h;x", "h,x", "h x",
    "*", "h&x=/db/", "-", ".", "..", "h.", "\xe9", "h\\/db", "h?/db/x", "h#/db/x", "x@h?", "h?=", "'h'", '"h"', "<h>",
    "h|x", "{h}", "h~", "h!", "h$", "h(", "h+", "h=x",
]  # fmt: skip


def test_no_host_moves_the_place_where_the_path_begins(route: Route) -> None:
    paths = [b"/db/x", b"/admin/x", b"/db/private/x", b"/x?/db/x", b"/admin/x/../../db/x", b"//db/x"]
    for host in HOSTS:
        routed = route(paths, host=host.encode("latin-1"))
        if host in PLAIN_HOSTS:
            assert (routed[0].raw, routed[0].status) == (f"http://{host}/db/x".encode(), 204)
        if host in HIDING_HOSTS:
            assert {(one.status, one.reason) for one in routed} == {(403, "ambiguous_path")}


def test_a_request_without_a_host_is_allowed(route: Route) -> None:
    (one,) = route([b"/db/x"], host=None)
    assert (one.raw, one.status) == (b"http:///db/x", 204)
