"""Rules, scopes, clients, issuers and auth URLs that narrow a policy."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest

from tests.unit.support import make_principal
from verifier.identity import Principal
from verifier.policy.clients import ClientIds
from verifier.policy.paths import PathPattern
from verifier.policy.policies import (
    MAX_QUERY,
    MAX_REMEMBERED,
    MAX_REMEMBERED_QUERY,
    Policies,
    Policy,
    Rule,
    scopes_to_request,
)
from verifier.reasons import Reason, Rejected

URL = b"https://api.example"


def reason(
    policy: Policy, principal: Principal | None = None, method: str = "GET", path: bytes = b"/db/users"
) -> Reason:
    try:
        policy.authorize(principal or make_principal(), method, URL + path)
    except Rejected as rejected:
        return rejected.reason
    return Reason.OK


def needs(text: str) -> tuple[tuple[str, ...], ...]:
    """Scopes that are all needed, separated by spaces; alternatives by commas."""
    return tuple(tuple(one.split(",")) for one in text.split())


def rule(path: str, methods: str = "", scopes: str = "") -> Rule:
    return Rule(PathPattern(path), frozenset(methods.split()) or None, needs(scopes))


RULES = (
    rule("/db/**", "GET HEAD"),
    rule("/db/**", "POST PUT", "write"),
    rule("/admin/public"),
    rule("/admin/**", "", "admin,root"),
)
API = Policy("api", needs=needs("read"), rules=RULES)

# --- rules ---


@pytest.mark.parametrize(
    ("method", "path", "scope", "expected"),
    [
        pytest.param("GET", "/db/a", "read", Reason.OK, id="allowed"),
        pytest.param("GET", "/db/a", "write", Reason.INSUFFICIENT_SCOPE, id="the policy's scope is needed too"),
        pytest.param("POST", "/db/a", "read", Reason.INSUFFICIENT_SCOPE, id="the rule's scope is missing"),
        pytest.param("POST", "/db/a", "read write", Reason.OK, id="both held"),
        pytest.param("DELETE", "/db/a", "read write", Reason.NO_MATCHING_RULE, id="another method"),
        pytest.param("get", "/db/a", "read", Reason.NO_MATCHING_RULE, id="methods are exact"),
        pytest.param("GET", "/other", "read", Reason.NO_MATCHING_RULE, id="another path"),
        pytest.param("GET", "/other", "nothing", Reason.NO_MATCHING_RULE, id="a rule is needed before the scope"),
        pytest.param("GET", "/admin/public", "read", Reason.OK, id="the first rule decides"),
        pytest.param("GET", "/admin/x", "read", Reason.INSUFFICIENT_SCOPE, id="none of the alternatives"),
        pytest.param("GET", "/admin/x", "read root", Reason.OK, id="one of the alternatives"),
        pytest.param("PATCH", "/admin/x", "read admin", Reason.OK, id="a rule without methods takes any"),
        pytest.param("GET", "/db/a?x=/admin", "read", Reason.OK, id="the query is no part of the path"),
        pytest.param("GET", "/db/%61", "read", Reason.OK, id="decoded"),
        pytest.param("GET", "/db/a%2fb", "read", Reason.AMBIGUOUS_PATH, id="encoded slash"),
        pytest.param("GET", "/db/./a", "read", Reason.OK, id="dots: the same rule either way"),
        pytest.param("GET", "/db/../admin/x", "read admin", Reason.AMBIGUOUS_PATH, id="dots: another rule"),
        pytest.param("GET", "/admin/./public", "read admin", Reason.AMBIGUOUS_PATH, id="dots: a later rule"),
        pytest.param("GET", "/db//a", "read", Reason.OK, id="slashes: the same rule either way"),
        pytest.param("GET", "/admin//public", "read admin", Reason.AMBIGUOUS_PATH, id="slashes: another rule"),
        pytest.param("GET", "//db/a", "read", Reason.AMBIGUOUS_PATH, id="slashes: an authority"),
        pytest.param("GET", "/admin/public;x", "read admin", Reason.AMBIGUOUS_PATH, id="parameters: another rule"),
        pytest.param("GET", "/db/a;v=1", "read", Reason.OK, id="parameters: the same rule either way"),
    ],
)
def test_the_first_rule_that_matches_decides(method: str, path: str, scope: str, expected: Reason) -> None:
    assert reason(API, make_principal(scope), method, path.encode()) is expected


NESTED = Policy("nested", rules=(rule("/public/**"), rule("/@me/**"), rule("/**", "", "admin")))


@pytest.mark.parametrize(
    ("path", "scope", "expected"),
    [
        pytest.param("/%70ublic/x", "read", Reason.AMBIGUOUS_PATH, id="a needless escape, a stricter rule"),
        pytest.param("/%70ublic/x", "admin", Reason.OK, id="a needless escape, both rules allow"),
        pytest.param("/%40me/x", "read", Reason.AMBIGUOUS_PATH, id="a needless escape of a delimiter"),
        pytest.param("/public/%70", "read", Reason.OK, id="a needless escape, the same rule"),
        pytest.param("/public/%7Bp%7D", "read", Reason.OK, id="a needed escape"),
        pytest.param("/public%3Fx", "admin", Reason.OK, id="an encoded ?, both rules allow"),
        pytest.param("/%61dmin", "read", Reason.INSUFFICIENT_SCOPE, id="the scope is checked before rare readings"),
    ],
)
def test_an_escape_that_some_parsers_leave_must_not_meet_a_stricter_rule(
    path: str, scope: str, expected: Reason
) -> None:
    assert reason(NESTED, make_principal(scope), path=path.encode()) is expected


@pytest.mark.parametrize("path", ["/admin%3Fx", "/admin%23x"])
def test_an_encoded_query_mark_must_not_hide_a_stricter_rule(path: str) -> None:
    policy = Policy("p", rules=(rule("/admin", "", "admin"), rule("/**")))

    assert reason(policy, path=path.encode()) is Reason.AMBIGUOUS_PATH


def test_a_rare_reading_that_meets_no_rule_is_ignored() -> None:
    assert reason(API, path=b"/%64b/a%3Fb") is Reason.OK


def test_a_policy_without_rules_looks_at_no_path() -> None:
    assert reason(Policy("default"), path=b"/a/..;/%2f\x00") is Reason.OK


# --- rules that need no token ---

OPEN = Policy(
    "open",
    needs=needs("read"),
    rules=(
        rule("/shut/**"),
        Rule(PathPattern("/**"), frozenset({"OPTIONS"}), needs_token=False),
        Rule(PathPattern("/health"), needs_token=False),
        rule("/**"),
    ),
)


@pytest.mark.parametrize(
    ("method", "path", "needs_token"),
    [
        ("OPTIONS", "/db/a", False),
        ("GET", "/health", False),
        ("OPTIONS", "/%64b/a%3Fb", False),
        ("OPTIONS", "/db/a;x//b", False),
        ("GET", "/db/a", True),
        ("GET", "/health/", True),
        ("OPTIONS", "/shut/a", True),
        ("OPTIONS", "/shut;x/a", True),
        ("OPTIONS", "/db/../shut/a", True),
        ("OPTIONS", "/%73hut/a", True),
        ("OPTIONS", "/x/..;/y", True),
        ("OPTIONS", "//x/db", True),
        ("GET", "/health%3Fx", True),
        ("GET", "/health;x", True),
    ],
)
def test_no_token_is_needed_where_each_reading_meets_a_rule_without_one(
    method: str, path: str, needs_token: bool
) -> None:
    assert OPEN.needs_token(method, URL + path.encode()) is needs_token


def test_a_path_without_a_rule_needs_a_token() -> None:
    policy = Policy("p", rules=(Rule(PathPattern("/health"), needs_token=False),))

    assert policy.needs_token("GET", URL + b"/other")


def test_a_narrowed_policy_keeps_its_rules_without_a_token() -> None:
    assert policies(open=OPEN).find("open", b"scope=read").has_open_rules


@pytest.mark.parametrize(("scope", "expected"), [("read", Reason.OK), ("x", Reason.INSUFFICIENT_SCOPE)])
def test_a_token_that_is_needed_after_all_needs_the_scope_of_the_policy(scope: str, expected: Reason) -> None:
    assert reason(OPEN, make_principal(scope), path=b"/health") is expected


# --- final slashes ---


@pytest.mark.parametrize(
    ("rules", "gaps"),
    [
        pytest.param([("/admin", "", "admin"), ("/**",)], ["/admin/"], id="without a final slash"),
        pytest.param([("/admin/", "", "admin"), ("/**",)], ["/admin"], id="with a final slash"),
        pytest.param([("/a/*", "", "admin"), ("/**",)], ["/a/*/"], id="one segment"),
        pytest.param([("/admin", "GET", "admin"), ("/**", "GET")], ["/admin/"], id="one method"),
        pytest.param([("/admin", "GET PUT", "admin"), ("/**",)], ["/admin/"], id="several methods"),
        pytest.param([("/admin", "", "admin"), ("/**", "PUT")], ["/admin/"], id="a method that another rule names"),
        pytest.param([("/admin", "GET", "admin"), ("/**", "PUT")], [], id="other methods"),
        pytest.param([("/admin", "", "admin"), ("/admin/", "", "admin"), ("/**",)], [], id="a rule for each"),
        pytest.param([("/admin", "", "admin"), ("/**", "", "admin")], [], id="as strict"),
        pytest.param([("/admin", "", "admin"), ("/**", "", "admin root")], [], id="stricter"),
        pytest.param([("/admin", "", "admin"), ("/**", "", "root")], ["/admin/"], id="another scope"),
        pytest.param([("/admin", "", "admin")], [], id="no rule for the other"),
        pytest.param([("/admin/**", "", "admin"), ("/**",)], [], id="any number of segments"),
        pytest.param([("/**",), ("/admin", "", "admin")], [], id="a rule that never decides"),
        pytest.param([("/", "", "admin"), ("/**",)], [], id="the root"),
    ],
)
def test_a_rule_that_a_final_slash_evades_is_found(rules: list[tuple[str, ...]], gaps: list[str]) -> None:
    policy = Policy("p", rules=tuple(rule(*one) for one in rules))

    assert [path for _, path, _ in policy.slash_gaps()] == gaps


def test_a_rule_that_a_path_without_a_token_evades_is_found() -> None:
    policy = Policy("p", rules=(rule("/admin"), Rule(PathPattern("/**"), needs_token=False)))

    assert [path for _, path, _ in policy.slash_gaps()] == ["/admin/"]


# --- scope ---


@pytest.mark.parametrize(
    ("needed", "scope", "allowed"),
    [
        ("", "", True),
        ("a", "a", True),
        ("a", "b", False),
        ("a", "", False),
        ("a", "A", False),
        ("a", "ab", False),
        ("a b", "a", False),
        ("a b", "b a", True),
        ("a,b", "b", True),
        ("a,b", "c", False),
        ("a,b c", "b c", True),
        ("a,b c", "a b", False),
    ],
)
def test_all_scopes_are_needed_and_one_of_each_alternative(needed: str, scope: str, allowed: bool) -> None:
    policy = Policy("p", needs=needs(needed))

    assert (reason(policy, make_principal(scope)) is Reason.OK) is allowed


@pytest.mark.parametrize("granted", ["read", "https://api/read"])
def test_a_scope_is_held_with_or_without_the_prefix(granted: str) -> None:
    assert reason(Policy("p", needs=needs("read")), make_principal(granted, prefix="https://api/")) is Reason.OK


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
    with pytest.raises(Rejected) as caught:
        API.authorize(make_principal("https://api/read", prefix="https://api/"), "POST", URL + b"/db/a")

    assert caught.value.scope == "https://api/read https://api/write"


# --- clients, issuers, roles, and their order ---


@pytest.mark.parametrize(
    ("policy", "principal", "expected"),
    [
        pytest.param({"clients": {("lab", "etl")}}, {}, Reason.OK, id="client listed"),
        pytest.param({"clients": {("lab", "x")}}, {}, Reason.CLIENT_NOT_ALLOWED, id="client not listed"),
        pytest.param({"clients": {("okta", "etl")}}, {}, Reason.CLIENT_NOT_ALLOWED, id="a client of another issuer"),
        pytest.param({"clients": set()}, {}, Reason.CLIENT_NOT_ALLOWED, id="empty list"),
        pytest.param({}, {"listed": False}, Reason.CLIENT_NOT_ALLOWED, id="not on the issuer's own list"),
        pytest.param({"clients": {("lab", "etl")}}, {"listed": False}, Reason.CLIENT_NOT_ALLOWED, id="both must"),
        pytest.param({"issuers": {"lab"}}, {}, Reason.OK, id="issuer listed"),
        pytest.param({"issuers": {"okta"}}, {}, Reason.ISSUER_NOT_ALLOWED, id="issuer not listed"),
        pytest.param({"role_required": True}, {"role": "r"}, Reason.OK, id="role present"),
        pytest.param({"role_required": True}, {}, Reason.NO_ROLE, id="role missing"),
        pytest.param({}, {}, Reason.OK, id="role not required"),
    ],
)
def test_clients_issuers_and_roles_are_checked(
    policy: dict[str, Any], principal: dict[str, Any], expected: Reason
) -> None:
    made: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, set) else value for name, value in policy.items()
    }

    assert reason(Policy("p", **made), make_principal(**principal)) is expected


ORDER: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.CLIENT_NOT_ALLOWED, {"clients": frozenset()}),
    (Reason.ISSUER_NOT_ALLOWED, {"issuers": frozenset()}),
    (Reason.NO_MATCHING_RULE, {"rules": (rule("/nowhere"),)}),
    (Reason.INSUFFICIENT_SCOPE, {"needs": needs("admin")}),
    (Reason.NO_ROLE, {"role_required": True}),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[str(why) for why, _ in ORDER])
def test_the_first_check_that_fails_gives_the_reason(first: int) -> None:
    failing: dict[str, Any] = {}
    for _, part in ORDER[first:]:
        failing |= part

    assert reason(Policy("p", **failing)) is ORDER[first][0]


# --- auth URLs ---

ONE = ClientIds(("lab",))
BOTH = ClientIds(("lab", "okta"))


def policies(ids: ClientIds = ONE, **by_name: Policy) -> Policies:
    return Policies({"default": Policy("default"), **by_name}, ids)


def narrowed(query: str, ids: ClientIds = ONE, **changes: Any) -> Reason:
    try:
        policy = policies(ids, p=Policy("p", **changes)).find("p", query.encode())
    except Rejected as rejected:
        return rejected.reason
    return reason(policy)


def test_a_policy_is_found_by_its_name() -> None:
    assert policies(api=API).find("api", b"") is API


@pytest.mark.parametrize("name", ["other", "", "API", "api/x"])
def test_a_policy_that_is_not_configured_is_unknown(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        policies(api=API).find(name, b"")

    assert caught.value.reason is Reason.UNKNOWN_POLICY


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("scope=read", Reason.OK),
        ("scope=write", Reason.INSUFFICIENT_SCOPE),
        ("scope=read&scope=write", Reason.INSUFFICIENT_SCOPE),
        ("scope=write,read", Reason.OK),
        ("scope=re%61d", Reason.OK),
        ("client=etl", Reason.OK),
        ("client=x,etl", Reason.OK),
        ("client=lab/etl", Reason.OK),
        ("client=x", Reason.CLIENT_NOT_ALLOWED),
        ("client=etl&client=x", Reason.CLIENT_NOT_ALLOWED),
        ("issuer=lab", Reason.OK),
        ("issuer=okta", Reason.ISSUER_NOT_ALLOWED),
        ("issuer=lab&issuer=okta", Reason.ISSUER_NOT_ALLOWED),
        ("scope=read&client=etl&issuer=lab", Reason.OK),
        ("", Reason.OK),
        ("&&", Reason.OK),
    ],
)
def test_a_query_requires_more(query: str, expected: Reason) -> None:
    assert narrowed(query) is expected


@pytest.mark.parametrize(
    "query",
    [
        "x=1", "Scope=read", "scopes=read", "scope", "scope=", "scope=a,", "scope=,", "scope=a%20b", 'scope=a"b',
        "scope=%C3%A9", "scope=%FF", "client=", "client=a,,b", "issuer=", "issuer", "=", "=read", "policy=default",
        "mode=report", "scope=read&x=1", "%73cope=read",
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood_is_refused(query: str) -> None:
    assert narrowed(query) is Reason.BAD_AUTH_REQUEST


@pytest.mark.parametrize(
    ("query", "expected"), [("client=etl", Reason.BAD_AUTH_REQUEST), ("client=lab/etl", Reason.OK)]
)
def test_with_several_issuers_a_client_in_a_query_needs_its_issuer(query: str, expected: Reason) -> None:
    assert narrowed(query, BOTH) is expected


ALLOWED_BY_QUERY = ["scope=read", "scope=read,write", "client=etl", "client=etl,x", "issuer=lab"]


@pytest.mark.parametrize(
    "denied", ["scope=admin", "client=x", "issuer=okta", "issuer=lab&issuer=okta", "client=etl&client=x"]
)
def test_no_added_parameter_restores_what_another_removed(denied: str) -> None:
    for added in itertools.permutations(ALLOWED_BY_QUERY, 2):
        for query in ("&".join([denied, *added]), "&".join([*added, denied]), "&".join([added[0], denied, added[1]])):
            assert narrowed(query) is not Reason.OK, query


@pytest.mark.parametrize(
    ("changes", "query"),
    [
        pytest.param({"needs": needs("admin")}, "scope=read", id="scope"),
        pytest.param({"clients": frozenset({("lab", "x")})}, "client=etl", id="client"),
        pytest.param({"clients": frozenset()}, "client=etl", id="no client"),
        pytest.param({"issuers": frozenset({"okta"})}, "issuer=lab", id="issuer"),
        pytest.param({"role_required": True}, "scope=read", id="role"),
        pytest.param({"rules": (rule("/nowhere"),)}, "scope=read", id="rule"),
    ],
)
def test_a_query_allows_nothing_that_the_policy_refuses(changes: dict[str, Any], query: str) -> None:
    assert narrowed(query, **changes) is not Reason.OK


def test_a_query_does_not_change_the_policy_itself() -> None:
    known = policies(api=Policy("api"))
    known.find("api", b"scope=admin")

    assert reason(known.find("api", b"")) is Reason.OK


def test_a_narrowed_policy_keeps_its_name_and_mode() -> None:
    policy = policies(api=Policy("api", report=True)).find("api", b"scope=read")

    assert (policy.name, policy.report) == ("api", True)


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
    tracemalloc.start()
    try:
        for number in range(2 * MAX_REMEMBERED):
            known.find("default", largest_query(parameter, number, length))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert used < 4 * 2**20
