"""Rules, scopes, clients, issuers and auth URLs that narrow a policy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.support import by_reason, make_principal, make_token, memory_taken, outcome, rejected, show
from verifier.identity import Principal
from verifier.policy.clients import ClientIds
from verifier.policy.paths import PathPattern
from verifier.policy.policies import (
    MAX_CHALLENGE_SCOPE,
    MAX_QUERY,
    MAX_REMEMBERED,
    MAX_REMEMBERED_QUERY,
    Policies,
    Policy,
    Rule,
    scopes_to_request,
)
from verifier.policy.resources import Resource
from verifier.reasons import Reason

URL = b"https://api.example"


def reason(
    policy: Policy, principal: Principal | None = None, method: str = "GET", path: bytes = b"/db/users"
) -> Reason:
    return outcome(policy.authorize, principal or make_principal(), method, URL + path)


def needs(text: str) -> tuple[tuple[str, ...], ...]:
    """Scopes that are all needed, separated by spaces; alternatives by commas."""
    return tuple(tuple(one.split(",")) for one in text.split())


def rule(path: str, methods: str = "", scopes: str = "", needs_token: bool = True) -> Rule:
    return Rule(PathPattern(path), frozenset(methods.split()) or None, needs(scopes), needs_token)


RULES = (
    rule("/db/**", "GET HEAD"),
    rule("/db/**", "POST PUT", "write"),
    rule("/admin/public"),
    rule("/admin/**", "", "admin,root"),
)
API = Policy("api", needs=needs("read"), rules=RULES)

# --- rules ---


# method, path and scopes held
REQUESTS: dict[Reason, list[tuple[str, str, str]]] = {
    Reason.OK: [
        ("GET", "/db/a", "read"), ("POST", "/db/a", "read write"),
        ("GET", "/admin/public", "read"),  # the first rule decides
        ("GET", "/admin/x", "read root"),  # one of the alternatives
        ("PATCH", "/admin/x", "read admin"),  # a rule without methods takes any
        ("GET", "/db/a?x=/admin", "read"),  # the query is no part of the path
        ("GET", "/db/%61", "read"),
        # the same rule in each reading
        ("GET", "/db/./a", "read"), ("GET", "/db//a", "read"), ("GET", "/db/a;v=1", "read"),
        ("GET", "/%64b/a%3Fb", "read"),  # a rare reading that meets no rule is ignored
    ],
    Reason.INSUFFICIENT_SCOPE: [
        ("GET", "/db/a", "write"),  # the policy's scope is needed too
        ("POST", "/db/a", "read"), ("GET", "/admin/x", "read"),
    ],
    Reason.NO_MATCHING_RULE: [
        ("DELETE", "/db/a", "read write"), ("get", "/db/a", "read"), ("GET", "/other", "read"),
        ("GET", "/other", "nothing"),  # a rule is needed before the scope
    ],
    Reason.AMBIGUOUS_PATH: [
        ("GET", "/db/a%2fb", "read"), ("GET", "//db/a", "read"),
        # another rule with dots, slashes or parameters as sent
        ("GET", "/db/../admin/x", "read admin"), ("GET", "/admin/./public", "read admin"),
        ("GET", "/admin//public", "read admin"), ("GET", "/admin/public;x", "read admin"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), by_reason(REQUESTS), ids=show)
def test_the_first_rule_that_matches_decides(request_: tuple[str, str, str], expected: Reason) -> None:
    method, path, scope = request_

    assert reason(API, make_principal(scope), method, path.encode()) is expected


NESTED = Policy("nested", rules=(rule("/public/**"), rule("/@me/**"), rule("/**", "", "admin")))


READINGS: dict[Reason, list[tuple[str, str]]] = {
    # a needed escape, the same rule, or both rules allow
    Reason.OK: [
        ("/public/%7Bp%7D", "read"), ("/public/%70", "read"), ("/%70ublic/x", "admin"), ("/public%3Fx", "admin"),
    ],
    Reason.AMBIGUOUS_PATH: [("/%70ublic/x", "read"), ("/%40me/x", "read")],
    Reason.INSUFFICIENT_SCOPE: [("/%61dmin", "read")],  # the scope is checked before rare readings
}  # fmt: skip


@pytest.mark.parametrize(("case", "expected"), by_reason(READINGS), ids=show)
def test_an_escape_that_some_parsers_leave_must_not_meet_a_stricter_rule(
    case: tuple[str, str], expected: Reason
) -> None:
    path, scope = case

    assert reason(NESTED, make_principal(scope), path=path.encode()) is expected


@pytest.mark.parametrize("path", ["/admin%3Fx", "/admin%23x"])
def test_an_encoded_query_mark_must_not_hide_a_stricter_rule(path: str) -> None:
    policy = Policy("p", rules=(rule("/admin", "", "admin"), rule("/**")))

    assert reason(policy, path=path.encode()) is Reason.AMBIGUOUS_PATH


def test_a_policy_without_rules_looks_at_no_path() -> None:
    assert reason(Policy("default"), path=b"/a/..;/%2f\x00") is Reason.OK


# --- rules that need no token ---

OPEN = Policy(
    "open",
    needs=needs("read"),
    rules=(
        rule("/shut/**"),
        rule("/**", "OPTIONS", needs_token=False),
        rule("/health", needs_token=False),
        rule("/**"),
    ),
)


NO_TOKEN = ["OPTIONS /db/a", "GET /health", "OPTIONS /%64b/a%3Fb", "OPTIONS /db/a;x//b"]
A_TOKEN = [
    "GET /db/a", "GET /health/", "GET /health%3Fx", "GET /health;x", "OPTIONS /shut/a", "OPTIONS /shut;x/a",
    "OPTIONS /db/../shut/a", "OPTIONS /%73hut/a", "OPTIONS /x/..;/y", "OPTIONS //x/db",
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "needs_token"), [*((one, False) for one in NO_TOKEN), *((one, True) for one in A_TOKEN)]
)
def test_no_token_is_needed_where_each_reading_meets_a_rule_without_one(request_: str, needs_token: bool) -> None:
    method, path = request_.split()

    assert OPEN.needs_token(method, URL + path.encode()) is needs_token
    assert policies(open=OPEN).find("open", b"scope=read").needs_token(method, URL + path.encode()) is needs_token


def test_a_policy_knows_whether_a_rule_needs_no_token() -> None:
    assert [policy.has_open_rules for policy in (OPEN, API, Policy("p"))] == [True, False, False]


def test_a_path_without_a_rule_needs_a_token() -> None:
    assert Policy("p", rules=(rule("/health", needs_token=False),)).needs_token("GET", URL + b"/other")


@pytest.mark.parametrize(("scope", "expected"), [("read", Reason.OK), ("x", Reason.INSUFFICIENT_SCOPE)])
def test_a_token_that_is_needed_after_all_needs_the_scope_of_the_policy(scope: str, expected: Reason) -> None:
    assert reason(OPEN, make_principal(scope), path=b"/health") is expected


# --- final slashes ---


SLASH_GAPS: list[tuple[list[tuple[Any, ...]], list[str]]] = [
    ([("/admin", "", "admin"), ("/**",)], ["/admin/"]),
    ([("/admin/", "", "admin"), ("/**",)], ["/admin"]),
    ([("/a/*", "", "admin"), ("/**",)], ["/a/*/"]),
    ([("/admin", "GET", "admin"), ("/**", "GET")], ["/admin/"]),
    ([("/admin", "GET PUT", "admin"), ("/**",)], ["/admin/"]),
    ([("/admin", "", "admin"), ("/**", "PUT")], ["/admin/"]),  # a method that another rule names
    ([("/admin", "GET", "admin"), ("/**", "PUT")], []),
    ([("/admin", "", "admin"), ("/admin/", "", "admin"), ("/**",)], []),  # a rule for each
    ([("/admin", "", "admin"), ("/**", "", "admin")], []),  # as strict
    ([("/admin", "", "admin"), ("/**", "", "admin root")], []),  # stricter
    ([("/admin", "", "admin"), ("/**", "", "root")], ["/admin/"]),  # another scope
    ([("/admin", "", "admin,root"), ("/**", "", "admin")], []),  # one of those that are enough
    ([("/admin", "", "admin"), ("/**", "", "admin,root")], ["/admin/"]),
    ([("/admin", "", "admin,root db"), ("/**", "", "admin")], ["/admin/"]),
    ([("/admin", "", "admin")], []),  # no rule for the other
    ([("/admin/**", "", "admin"), ("/**",)], []),
    ([("/**",), ("/admin", "", "admin")], []),  # a rule that never decides
    ([("/", "", "admin"), ("/**",)], []),
    ([("/", "", "admin"), ("/admin", "", "admin"), ("/**",)], ["/admin/"]),
    ([("/admin/*/",), ("/admin/**", "", "admin")], []),
    ([("/admin",), ("/**", "", "", False)], ["/admin/"]),  # without a token
]


@pytest.mark.parametrize(("rules", "gaps"), SLASH_GAPS, ids=show)
def test_a_rule_that_a_final_slash_evades_is_found(rules: list[tuple[Any, ...]], gaps: list[str]) -> None:
    policy = Policy("p", rules=tuple(rule(*one) for one in rules))

    assert [path for _, path, _ in policy.slash_gaps()] == gaps


# --- scope ---


@pytest.mark.parametrize(
    ("needed", "sufficient", "insufficient"),
    [
        ("", ["", "a"], []),
        ("a", ["a", "https://api/a"], ["", "b", "A", "ab", "https://api/b"]),
        ("a b", ["b a"], ["a"]),
        ("a,b", ["b"], ["c"]),
        ("a,b c", ["b c"], ["a b"]),
    ],
)
def test_all_scopes_are_needed_and_one_of_each_alternative_with_or_without_the_prefix(
    needed: str, sufficient: list[str], insufficient: list[str]
) -> None:
    policy = Policy("p", needs=needs(needed))
    reasons = [reason(policy, make_principal(scope, prefix="https://api/")) for scope in sufficient + insufficient]

    assert reasons == [Reason.OK] * len(sufficient) + [Reason.INSUFFICIENT_SCOPE] * len(insufficient)


@pytest.mark.parametrize(
    ("needed", "prefix", "held", "requested"),
    [
        ("read", "", set(), "read"),
        ("read write", "", set(), "read write"),
        ("read read", "", set(), "read"),
        ("read", "https://api/", set(), "https://api/read"),
        ("https://api/read", "https://api/", set(), "https://api/read"),
        ("admin,root", "", set(), "admin"),
        ("admin,root", "", {"root"}, "root"),
        ("", "", set(), ""),
    ],
)
def test_a_challenge_names_scopes_as_a_token_would_hold_them(
    needed: str, prefix: str, held: set[str], requested: str
) -> None:
    assert scopes_to_request(needs(needed), prefix, frozenset(held)) == requested


def test_a_refusal_for_scope_names_all_that_the_request_needs() -> None:
    no = rejected(API.authorize, make_principal("https://api/read", prefix="https://api/"), "POST", URL + b"/db/a")

    assert no.scope == "https://api/read https://api/write"


def test_where_there_is_a_resource_a_refusal_for_scope_also_names_what_the_token_holds_and_the_policy_knows() -> None:
    """A client that asks for exactly these keeps what it had."""
    long = "x" * (MAX_CHALLENGE_SCOPE - len("p:read p:write p:root p:"))
    for scope, held in ((long, f"p:root p:{long}"), (long + "x", "")):
        policy = Policy("api", needs("read"), (*RULES, rule("/x", "", scope)), resource=Resource(URL.decode(), (), ()))
        principal = make_principal(f"p:read p:root p:{scope} other", prefix="p:")
        no = rejected(policy.authorize, principal, "POST", URL + b"/db/a")

        assert no.scope == f"p:read p:write {held}".rstrip()


# --- the resource ---

RESOURCE = Resource("https://api.example/v1", (), ())
OF_RESOURCE = Policy("api", needs("read"), RULES, resource=RESOURCE, challenge_prefix="p:")


def test_a_policy_names_the_origin_and_the_document_of_its_resource() -> None:
    assert (API.origin, API.resource_metadata) == ("", "")
    assert (OF_RESOURCE.origin, OF_RESOURCE.resource_metadata) == ("https://api.example", RESOURCE.metadata_url)


@pytest.mark.parametrize(
    ("policy", "request_", "scope"),
    [
        pytest.param(OF_RESOURCE, "POST /db/a", "p:read p:write", id="policy and rule"),
        pytest.param(OF_RESOURCE, "POST /other", "p:read", id="no rule"),
        pytest.param(OF_RESOURCE, "GET /admin//public", "p:read", id="two rules"),
        pytest.param(OF_RESOURCE, "GET /db/a%2fb", "p:read", id="an ambiguous path"),
        pytest.param(API, "POST /db/a", "", id="no resource"),
    ],
)
def test_a_challenge_before_a_token_is_known_names_the_scopes_of_the_request(
    policy: Policy, request_: str, scope: str
) -> None:
    method, path = request_.split()

    assert policy.challenge_scope(method, URL + path.encode()) == scope


@pytest.mark.parametrize(
    ("policy", "audience", "expected"),
    [
        (OF_RESOURCE, {RESOURCE.url}, Reason.OK),
        (OF_RESOURCE, {RESOURCE.url, "https://other.example"}, Reason.OK),
        (OF_RESOURCE, set(), Reason.OK),  # it names no resource at all
        (OF_RESOURCE, {"https://other.example"}, Reason.WRONG_AUDIENCE),
        (API, {"https://other.example"}, Reason.OK),
    ],
    ids=show,
)
def test_a_token_for_another_resource_is_refused(policy: Policy, audience: set[str], expected: Reason) -> None:
    assert outcome(policy.check_audience, replace(make_token(), resources=frozenset(audience))) is expected


# --- clients, issuers, roles ---


# what a policy requires, and another principal than that of lab/etl
LISTS: dict[Reason, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    Reason.OK: [
        ({}, {}), ({"clients": {("lab", "etl")}}, {}), ({"issuers": {"lab"}}, {}),
        ({"role_required": True}, {"role": "r"}),
    ],
    Reason.CLIENT_NOT_ALLOWED: [
        ({"clients": {("lab", "x")}}, {}), ({"clients": {("okta", "etl")}}, {}), ({"clients": set()}, {}),
        ({}, {"listed": False}), ({"clients": {("lab", "etl")}}, {"listed": False}),
    ],
    Reason.ISSUER_NOT_ALLOWED: [({"issuers": {"okta"}}, {})],
    Reason.NO_ROLE: [({"role_required": True}, {})],
}  # fmt: skip


@pytest.mark.parametrize(("case", "expected"), by_reason(LISTS), ids=show)
def test_clients_issuers_and_roles_are_checked(case: tuple[dict[str, Any], dict[str, Any]], expected: Reason) -> None:
    policy, principal = case

    assert reason(Policy("p", **policy), make_principal(**principal)) is expected


# --- auth URLs ---


def policies(**by_name: Policy) -> Policies:
    return Policies({"default": Policy("default"), **by_name}, ClientIds(("lab",)))


def narrowed(query: str, **changes: Any) -> Reason:
    known = policies(p=Policy("p", **changes))
    return outcome(lambda: known.find("p", query.encode()).authorize(make_principal(), "GET", URL + b"/db/users"))


def test_a_policy_is_found_by_its_name() -> None:
    assert policies(api=API).find("api", b"") is API


@pytest.mark.parametrize("name", ["other", "", "API", "api/x"])
def test_a_policy_that_is_not_configured_is_unknown(name: str) -> None:
    assert outcome(policies(api=API).find, name, b"") is Reason.UNKNOWN_POLICY


QUERIES: dict[Reason, list[str]] = {
    Reason.OK: [
        "", "&&", "scope=read", "scope=write,read", "scope=re%61d", "client=etl", "client=x,etl", "client=lab/etl",
        "issuer=lab", "scope=read&client=etl&issuer=lab",
    ],
    Reason.INSUFFICIENT_SCOPE: ["scope=write", "scope=read&scope=write"],
    Reason.CLIENT_NOT_ALLOWED: ["client=x", "client=etl&client=x"],
    Reason.ISSUER_NOT_ALLOWED: ["issuer=okta", "issuer=lab&issuer=okta"],
    Reason.BAD_AUTH_REQUEST: [
        "x=1", "Scope=read", "scopes=read", "scope", "scope=", "scope=a,", "scope=,", "scope=a%20b", 'scope=a"b',
        "scope=%C3%A9", "scope=%FF", "client=", "client=a,,b", "client=okta/etl", "issuer=", "issuer", "=", "=read",
        "policy=default", "mode=report", "scope=read&x=1", "%73cope=read",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), by_reason(QUERIES))
def test_a_query_requires_more_or_is_refused(query: str, expected: Reason) -> None:
    assert narrowed(query) is expected


@pytest.mark.parametrize(
    ("changes", "query"),
    [
        ({"needs": needs("admin")}, "scope=read"),
        ({"clients": frozenset({("lab", "x")})}, "client=etl"),
        ({"clients": frozenset()}, "client=etl"),
        ({"issuers": frozenset({"okta"})}, "issuer=lab"),
        ({"role_required": True}, "scope=read"),
        ({"rules": (rule("/nowhere"),)}, "scope=read"),
    ],
    ids=show,
)
def test_a_query_allows_nothing_that_the_policy_refuses(changes: dict[str, Any], query: str) -> None:
    assert narrowed(query, **changes) is not Reason.OK


def test_a_narrowed_policy_keeps_name_and_mode_and_leaves_the_policy_as_it_is() -> None:
    known = policies(api=Policy("api", report=True))
    policy = known.find("api", b"scope=admin")

    assert (policy.name, policy.report) == ("api", True)
    assert reason(known.find("api", b"")) is Reason.OK


@pytest.mark.parametrize(
    ("length", "expected"), [(MAX_QUERY, Reason.INSUFFICIENT_SCOPE), (MAX_QUERY + 1, Reason.BAD_AUTH_REQUEST)]
)
def test_a_query_longer_than_the_limit_is_refused(length: int, expected: Reason) -> None:
    assert narrowed("scope=".ljust(length, "s")) is expected


def largest_query(parameter: str, number: int, length: int) -> bytes:
    """Another query for each number, with as many different values as fit: these take the most memory."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"
    values = ",".join(map("".join, itertools.islice(itertools.product(letters, repeat=2), length // 3)))
    start = f"{parameter}={number:04},"
    return (start + values)[:length].rstrip(",").encode()


@pytest.mark.parametrize("parameter", ["scope", "client", "issuer"])
@pytest.mark.parametrize("length", [MAX_REMEMBERED_QUERY, MAX_QUERY])
def test_remembered_auth_urls_take_bounded_memory(parameter: str, length: int) -> None:
    known = policies()

    def fill() -> None:
        for number in range(2 * MAX_REMEMBERED):
            known.find("default", largest_query(parameter, number, length))

    assert memory_taken(fill) < 4 * 2**20
