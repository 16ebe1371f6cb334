"""Who may do what."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.unit.support import make_principal
from verifier.reasons import Reason, Rejected
from verifier.identity import Principal
from verifier.policy.paths import PathPattern
from verifier.policy.policies import MAX_QUERY, ClientIds, Policies, Policy, Revoked, Roles, Rule, challenge_scope

URL = b"https://api.example"


def reason(
    policy: Policy, principal: Principal | None = None, method: str = "GET", path: bytes = b"/db/users"
) -> Reason:
    try:
        policy.authorize(principal or make_principal(), method, URL + path)
    except Rejected as no:
        return no.reason
    return Reason.OK


def rule(path: str, methods: str = "", needs: str = "") -> Rule:
    """``needs``: scopes that are all needed, separated by spaces; alternatives by commas."""
    wanted = tuple(tuple(one.split(",")) for one in needs.split())
    return Rule(PathPattern(path), frozenset(methods.split()) or None, wanted)


RULES = (
    rule("/db/**", "GET HEAD"),
    rule("/db/**", "POST PUT", "write"),
    rule("/admin/public"),
    rule("/admin/**", "", "admin,root"),
)
API = Policy("api", needs=(("read",),), rules=RULES)

# --- rules ---


@pytest.mark.parametrize(
    ("method", "path", "scope", "wanted"),
    [
        pytest.param("GET", "/db/a", "read", Reason.OK, id="allowed"),
        pytest.param("GET", "/db/a", "write", Reason.INSUFFICIENT_SCOPE, id="the policy's scope is needed too"),
        pytest.param("POST", "/db/a", "read", Reason.INSUFFICIENT_SCOPE, id="the rule's scope is missing"),
        pytest.param("POST", "/db/a", "read write", Reason.OK, id="both held"),
        pytest.param("DELETE", "/db/a", "read write", Reason.NO_MATCHING_RULE, id="another method"),
        pytest.param("get", "/db/a", "read", Reason.NO_MATCHING_RULE, id="methods are exact"),
        pytest.param("GET", "/other", "read", Reason.NO_MATCHING_RULE, id="another path"),
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
        pytest.param("GET", "//db/a", "read", Reason.AMBIGUOUS_PATH, id="slashes: no rule as sent"),
        pytest.param("GET", "/admin/public;x", "read admin", Reason.AMBIGUOUS_PATH, id="parameters: another rule"),
        pytest.param("GET", "/db/a;v=1", "read", Reason.OK, id="parameters: the same rule either way"),
    ],
)
def test_the_first_rule_that_matches_decides(method: str, path: str, scope: str, wanted: Reason) -> None:
    assert reason(API, make_principal(scope), method, path.encode()) is wanted


def test_a_policy_without_rules_looks_at_no_path() -> None:
    assert reason(Policy("default"), path=b"/a/..;/%2f\x00") is Reason.OK


def test_a_rule_is_looked_for_before_the_policys_scope() -> None:
    assert reason(API, make_principal("nothing"), path=b"/other") is Reason.NO_MATCHING_RULE


# --- scope ---


@pytest.mark.parametrize(
    ("needs", "scope", "allowed"),
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
def test_all_scopes_are_needed_and_one_of_each_alternative(needs: str, scope: str, allowed: bool) -> None:
    policy = Policy("p", needs=tuple(tuple(one.split(",")) for one in needs.split()))

    assert (reason(policy, make_principal(scope)) is Reason.OK) is allowed


@pytest.mark.parametrize("granted", ["read", "https://api/read"])
def test_a_scope_is_held_with_or_without_the_prefix(granted: str) -> None:
    principal = make_principal(granted, prefix="https://api/")

    assert reason(Policy("p", needs=(("read",),)), principal) is Reason.OK


@pytest.mark.parametrize(
    ("needs", "prefix", "held", "told"),
    [
        ([("read",)], "", set(), "read"),
        ([("read",), ("write",)], "", set(), "read write"),
        ([("read",), ("read",)], "", set(), "read"),
        ([("read",)], "https://api/", set(), "https://api/read"),
        ([("https://api/read",)], "https://api/", set(), "https://api/read"),
        ([("admin", "root")], "", set(), "admin"),
        ([("admin", "root")], "", {"root"}, "root"),
        ([], "", set(), ""),
    ],
)
def test_a_challenge_names_scopes_as_a_token_would_hold_them(
    needs: Any, prefix: str, held: set[str], told: str
) -> None:
    assert challenge_scope(needs, prefix, frozenset(held)) == told


def test_a_refusal_for_scope_names_all_that_the_request_needs() -> None:
    with pytest.raises(Rejected) as caught:
        API.authorize(make_principal("https://api/read", prefix="https://api/"), "POST", URL + b"/db/a")

    assert caught.value.scope == "https://api/read https://api/write"


# --- clients, issuers, roles, and their order ---

BOTH = ClientIds(("lab", "okta"))
ONE = ClientIds(("lab",))


@pytest.mark.parametrize(
    ("policy", "principal", "wanted"),
    [
        pytest.param({"clients": {("lab", "etl")}}, {}, Reason.OK, id="client listed"),
        pytest.param({"clients": {("lab", "x")}}, {}, Reason.CLIENT_NOT_ALLOWED, id="client not listed"),
        pytest.param({"clients": {("okta", "etl")}}, {}, Reason.CLIENT_NOT_ALLOWED, id="another issuer's client"),
        pytest.param({"clients": set()}, {}, Reason.CLIENT_NOT_ALLOWED, id="empty list"),
        pytest.param({}, {"listed": False}, Reason.CLIENT_NOT_ALLOWED, id="not on the issuer's own list"),
        pytest.param({"clients": {("lab", "etl")}}, {"listed": False}, Reason.CLIENT_NOT_ALLOWED, id="both must"),
        pytest.param({"issuers": {"lab"}}, {}, Reason.OK, id="issuer listed"),
        pytest.param({"issuers": {"okta"}}, {}, Reason.ISSUER_NOT_ALLOWED, id="issuer not listed"),
        pytest.param({"role_required": True}, {"role": "r"}, Reason.OK, id="role there"),
        pytest.param({"role_required": True}, {}, Reason.NO_ROLE, id="role missing"),
        pytest.param({}, {}, Reason.OK, id="role not required"),
    ],
)
def test_clients_issuers_and_roles_are_looked_at(
    policy: dict[str, Any], principal: dict[str, Any], wanted: Reason
) -> None:
    made = {name: frozenset(value) if isinstance(value, set) else value for name, value in policy.items()}

    assert reason(Policy("p", **made), make_principal(**principal)) is wanted


ORDER = [
    (Reason.CLIENT_NOT_ALLOWED, {"clients": frozenset()}),
    (Reason.ISSUER_NOT_ALLOWED, {"issuers": frozenset()}),
    (Reason.NO_MATCHING_RULE, {"rules": (rule("/nowhere"),)}),
    (Reason.INSUFFICIENT_SCOPE, {"needs": (("admin",),)}),
    (Reason.NO_ROLE, {"role_required": True}),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[str(why) for why, _ in ORDER])
def test_the_first_check_that_fails_gives_the_reason(first: int) -> None:
    broken: dict[str, Any] = {}
    for _, part in ORDER[first:]:
        broken |= part

    assert reason(Policy("p", **broken)) is ORDER[first][0]


# --- client ids as people write them ---


@pytest.mark.parametrize(
    ("ids", "written", "client"),
    [
        (ONE, "etl", ("lab", "etl")),
        (ONE, "lab/etl", ("lab", "etl")),
        (ONE, "repo:acme/etl", ("lab", "repo:acme/etl")),
        (BOTH, "okta/etl", ("okta", "etl")),
        (BOTH, "lab/repo:acme/etl", ("lab", "repo:acme/etl")),
    ],
)
def test_a_client_id_is_read(ids: ClientIds, written: str, client: tuple[str, str]) -> None:
    assert ids.parse(written) == client


@pytest.mark.parametrize("written", ["etl", "other/etl", "lab/", "/etl", ""])
def test_with_several_issuers_a_client_id_needs_its_issuer(written: str) -> None:
    with pytest.raises(ValueError, match="issuer-name/client-id"):
        BOTH.parse(written)


# --- what auth URLs ask on top ---


def policies(ids: ClientIds = ONE, **by_name: Policy) -> Policies:
    return Policies({"default": Policy("default"), **by_name}, ids)


def narrowed(query: str, principal: Principal | None = None, ids: ClientIds = ONE, **changes: Any) -> Reason:
    try:
        policy = policies(ids, p=Policy("p", **changes)).find("p", query.encode())
    except Rejected as no:
        return no.reason
    return reason(policy, principal)


def test_a_policy_is_found_by_its_name() -> None:
    assert policies(api=API).find("api", b"") is API


@pytest.mark.parametrize("name", ["other", "", "API", "api/x"])
def test_a_policy_that_is_not_configured_is_unknown(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        policies(api=API).find(name, b"")

    assert caught.value.reason is Reason.UNKNOWN_POLICY


@pytest.mark.parametrize(
    ("query", "wanted"),
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
def test_a_query_asks_for_more(query: str, wanted: Reason) -> None:
    assert narrowed(query) is wanted


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


def test_with_several_issuers_a_bare_client_in_a_query_is_refused() -> None:
    assert narrowed("client=etl", ids=BOTH) is Reason.BAD_AUTH_REQUEST
    assert narrowed("client=lab/etl", ids=BOTH) is Reason.OK


ALLOWED_BY_QUERY = ["scope=read", "scope=read,write", "client=etl", "client=etl,x", "issuer=lab"]
DENIED_BY_QUERY = ["scope=admin", "client=x", "issuer=okta", "issuer=lab&issuer=okta", "client=etl&client=x"]


@pytest.mark.parametrize("denied", DENIED_BY_QUERY)
def test_no_parameter_added_anywhere_gives_back_what_another_took(denied: str) -> None:
    for added in itertools.permutations(ALLOWED_BY_QUERY, 2):
        for query in ("&".join([denied, *added]), "&".join([*added, denied]), "&".join([added[0], denied, added[1]])):
            assert narrowed(query) is not Reason.OK, query


@pytest.mark.parametrize(
    ("changes", "query"),
    [
        ({"needs": (("admin",),)}, "scope=read"),
        ({"clients": frozenset({("lab", "x")})}, "client=etl"),
        ({"clients": frozenset()}, "client=etl"),
        ({"issuers": frozenset({"okta"})}, "issuer=lab"),
        ({"role_required": True}, "scope=read"),
        ({"rules": (rule("/nowhere"),)}, "scope=read"),
    ],
    ids=["scope", "client", "no client", "issuer", "role", "rule"],
)
def test_a_query_gives_nothing_that_the_policy_refuses(changes: dict[str, Any], query: str) -> None:
    assert narrowed(query, **changes) is not Reason.OK


def test_a_query_leaves_the_policy_itself_as_it_was() -> None:
    known = policies(api=Policy("api"))
    known.find("api", b"scope=admin")

    assert reason(known.find("api", b"")) is Reason.OK


def test_a_narrowed_policy_keeps_its_name_and_mode() -> None:
    policy = policies(api=Policy("api", report=True)).find("api", b"scope=read")

    assert (policy.name, policy.report) == ("api", True)


def test_any_number_of_auth_urls_takes_bounded_memory() -> None:
    known = policies()
    for number in range(3000):
        known.find("default", b"scope=s%d" % number)

    assert len(known._narrowed) <= 1024


def test_a_query_that_is_too_long_to_be_remembered_is_refused() -> None:
    longest = f"scope={'s' * (MAX_QUERY - len('scope='))}"

    assert narrowed(longest) is Reason.INSUFFICIENT_SCOPE
    assert narrowed(longest + "s") is Reason.BAD_AUTH_REQUEST


# --- roles ---

ROLES = Roles({("lab", "etl"): "of-client"}, {"query.admin": "of-admin", "query.read": "of-read"})


@pytest.mark.parametrize(
    ("issuer", "client", "scopes", "role"),
    [
        ("lab", "etl", {"query.admin"}, "of-client"),
        ("lab", "x", {"query.read", "query.admin"}, "of-admin"),
        ("lab", "x", {"query.read"}, "of-read"),
        ("okta", "etl", {"query.read"}, "of-read"),
        ("lab", "x", {"other"}, ""),
        ("lab", "x", set(), ""),
    ],
    ids=["client first", "scope in file order", "the other scope", "another issuer's client", "none", "no scope"],
)
def test_a_role_is_by_client_then_by_scope_else_none(issuer: str, client: str, scopes: set[str], role: str) -> None:
    assert ROLES.of(issuer, client, frozenset(scopes)) == role


# --- revocation ---


@pytest.mark.parametrize(
    ("revoked", "covers"),
    [
        (Revoked(), False),
        (Revoked(clients=frozenset({("lab", "etl")})), True),
        (Revoked(clients=frozenset({("okta", "etl")})), False),
        (Revoked(bare_clients=frozenset({"etl"})), True),
        (Revoked(bare_clients=frozenset({"x"})), False),
        (Revoked(tokens=frozenset({"token-1"})), True),
        (Revoked(tokens=frozenset({"token-2"})), False),
    ],
    ids=["nothing", "client", "another issuer's", "bare", "another bare", "jti", "another jti"],
)
def test_a_client_or_a_token_is_revoked(revoked: Revoked, covers: bool) -> None:
    assert revoked.covers(make_principal(), "token-1") is covers
