"""``m2m-verifier lint``: the ways an ingress-nginx Ingress loses what the verifier gives it.

Reads manifests, never a cluster. What it says of ingress-nginx was checked against 1.15.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import yaml

from verifier.config import yaml_errors
from verifier.identity import IDENTITY_HEADERS
from verifier.policy.policies import PARAMETERS
from verifier.policy.resources import WELL_KNOWN
from verifier.proxies import nginx

if TYPE_CHECKING:
    from verifier.config import Config

PREFIX = "nginx.ingress.kubernetes.io/"
ACME_PATH = "/.well-known/acme-challenge"  # ingress-nginx never guards it (no-auth-locations), cert-manager opens it

AUTH_PATH = re.compile(rf"{nginx.PREFIX}(/[^/]*)?")
# What ingress-nginx's annotation validation lets through; for fullmatch, because a final newline fails there too.
AUTH_URL = re.compile(r"[A-Za-z0-9\-._~/: ,?&=$]*")
VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]+)\}?")
CLIENT_CHOSEN = re.compile(
    r"(escaped_)?request_uri|(document_)?uri|request|args|is_args|query_string|host|(arg|http|cookie|sent_http)_.*"
)
CACHE_KEY_NEEDS = ("http_authorization", "request_method", "request_uri")


@dataclass(frozen=True, slots=True)
class Known:
    """What the verifier's configuration says; the defaults mean that nobody knows."""

    policies: frozenset[str] | None = None
    resources: frozenset[str] = frozenset()
    """Names of the policies that have a ``resource``, and so a metadata document that agents must be able to read."""
    headers: tuple[str, ...] = ()
    """The further response headers under ``headers:``."""

    @classmethod
    def of(cls, config: Config) -> Known:
        """What a configuration that was read says."""
        policies = config.policies.by_name
        resources = (name for name, policy in policies.items() if policy.resource is not None)
        return cls(frozenset(policies), frozenset(resources), tuple(config.headers))


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    file: str
    object: str
    """namespace/name; empty where the file itself is the trouble."""
    place: str
    """The annotation, or the field where no annotation is at fault."""
    why: str
    write: str
    """The line to write instead."""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.object, self.place) if part)
        return f"{where} [{self.rule}]\n  why:   {self.why}\n  write: {self.write}"


@dataclass(frozen=True, slots=True)
class Route:
    host: str
    """Empty: every host that no other Ingress names."""
    path: str
    backend: str
    """namespace/service:port; empty where the backend is no Service."""


@dataclass(frozen=True, slots=True)
class Ingress:
    file: str
    name: str
    annotations: Mapping[str, str]
    routes: tuple[Route, ...]
    tls: tuple[tuple[str, ...], ...]

    def annotation(self, key: str) -> str:
        return self.annotations.get(PREFIX + key, "")

    @property
    def auth_url(self) -> str:
        return self.annotation("auth-url")

    @property
    def response_headers(self) -> list[str]:
        """What ``auth-response-headers`` lists, as it is written there."""
        return [name.strip() for name in self.annotation("auth-response-headers").split(",") if name.strip()]

    @property
    def ours(self) -> bool:
        """Whether the verifier guards it: by the path nobody else answers, or by the Service's name."""
        url = _split(self.auth_url)
        return bool(AUTH_PATH.fullmatch(url.path)) or "m2m-verifier" in url.netloc

    @property
    def policy(self) -> str:
        return _split(self.auth_url).path.removeprefix(nginx.PREFIX).strip("/") or "default"

    @property
    def canary(self) -> bool:
        # A canary shares the location, and so the guard, of the Ingress that it stands in for.
        return self.annotation("canary") == "true"

    def finding(self, rule: str, place: str, why: str, write: str) -> Finding:
        return Finding(rule, self.file, self.name, place, why, write)

    def trap(self, rule: str, key: str, why: str, value: str | None) -> Finding:
        """A finding at an annotation; ``value`` None means that the line has to go."""
        line = f'{PREFIX}{key}: "{value}"' if value is not None else f"(nothing: delete the {key} line)"
        return self.finding(rule, PREFIX + key, why, line)


def lint_files(paths: Sequence[Path], known: Known | None = None) -> list[Finding]:
    """Every trap in the Ingresses of all the files together: one file's path may undo another's guard."""
    ingresses, findings = _read_all(paths)
    return findings + list(_lint(ingresses, known or Known()))


def main(paths: Sequence[Path], known: Known | None, out: TextIO) -> int:
    """The command: 0 without findings, else 1."""
    ingresses, findings = _read_all(paths)
    findings += _lint(ingresses, known or Known())
    for finding in findings:
        print(finding, file=out)
    guarded = sum(ingress.ours for ingress in ingresses)
    print(
        f"{len(paths)} file(s), {len(ingresses)} Ingress(es), {guarded} guarded by the verifier: "
        f"{len(findings) or 'no'} finding(s)",
        file=out,
    )
    return 1 if findings else 0


def _lint(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    live = [ingress for ingress in ingresses if not ingress.canary]
    for ingress in live:
        if ingress.ours:
            yield from _auth_url(ingress, known)
            yield from _response_headers(ingress, known)
            yield from _annotations(ingress)
            yield from _tls(ingress)
        else:
            yield from _nobody_asked(ingress)
    yield from _side_doors(live)
    yield from _metadata(live, known)


def _auth_url(ingress: Ingress, known: Known) -> Iterator[Finding]:
    url = ingress.auth_url
    split = _split(url)
    base = f"{split.scheme}://{split.netloc}"
    if not AUTH_URL.fullmatch(url):
        strange = "".join(dict.fromkeys(char for char in url if not AUTH_URL.fullmatch(char)))
        yield ingress.trap(
            "auth-url-characters",
            "auth-url",
            f"ingress-nginx refuses an auth-url that holds {strange!r}: the Ingress is rejected or left out, "
            "whole; only A-Za-z0-9-._~/: ,?&=$ may stand there, and no percent-encoding",
            "".join(char for char in url if AUTH_URL.fullmatch(char)),
        )
    chosen = [name for name in VARIABLE.findall(url) if CLIENT_CHOSEN.fullmatch(name)]
    if chosen:
        yield ingress.trap(
            "auth-url-variable",
            "auth-url",
            f"${chosen[0]} is text that the client chose, inside the question put to the verifier: it can add "
            "parameters or end up as the policy's name; the verifier reads the URL from X-Original-URL anyway",
            base + VARIABLE.sub("", split.path).rstrip("/"),
        )
    if not AUTH_PATH.fullmatch(split.path):
        yield ingress.trap(
            "auth-url-path",
            "auth-url",
            f"{split.path or '/'} is not where the verifier answers nginx: /health says 200 to everyone, and "
            "/forward-auth believes X-Forwarded headers that ingress-nginx passes on as the client forged them",
            f"{base}{nginx.PREFIX}/default",
        )
    elif known.policies is not None and not chosen and ingress.policy not in known.policies:
        # Not just any other: it may let in whom this one would not.
        near = difflib.get_close_matches(ingress.policy, known.policies, n=1) or ["POLICY"]
        yield ingress.trap(
            "unknown-policy",
            "auth-url",
            f"the configuration has no policy {ingress.policy!r}: every request is answered 403 unknown_policy; "
            f"it has {', '.join(sorted(known.policies)) or 'none'}",
            f"{base}{nginx.PREFIX}/{near[0]}",
        )
    if AUTH_PATH.fullmatch(split.path) and AUTH_URL.fullmatch(url) and not chosen:
        yield from _parameters(ingress)


def _parameters(ingress: Ingress) -> Iterator[Finding]:
    url, _, query = ingress.auth_url.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    good = [pair for pair in pairs if pair.partition("=")[0] in PARAMETERS]
    strange = [pair for pair in pairs if pair not in good]
    if strange:
        yield ingress.trap(
            "auth-url-query",
            "auth-url",
            f"{strange[0]!r} gets every request a 403 bad_auth_request: the parameters are {', '.join(PARAMETERS)}",
            "?".join(filter(None, (url, "&".join(good)))),
        )


def _nobody_asked(ingress: Ingress) -> Iterator[Finding]:
    """The headers are still there, and the guard that fills them is gone or mistyped."""
    ours = {name.lower() for name in IDENTITY_HEADERS}
    if not ingress.auth_url and any(name.lower() in ours for name in ingress.response_headers):
        yield ingress.trap(
            "no-guard",
            "auth-url",
            "auth-response-headers names the verifier's headers, but without an auth-url nobody is asked: no token is "
            "needed, and X-M2M headers arrive as the client forged them",
            f"http://m2m-verifier.NAMESPACE.svc.cluster.local:8000{nginx.PREFIX}/POLICY",
        )


def _response_headers(ingress: Ingress, known: Known) -> Iterator[Finding]:
    listed = ingress.response_headers
    lower = {name.lower() for name in listed}
    missing = [name for name in (*IDENTITY_HEADERS, *known.headers) if name.lower() not in lower]
    if missing:
        yield ingress.trap(
            "forgeable-header",
            "auth-response-headers",
            f"{', '.join(missing)} not listed: the API gets what the client wrote there, not what the verifier said",
            ", ".join([*listed, *missing]),
        )


def _annotations(ingress: Ingress) -> Iterator[Finding]:
    keepalive = ingress.annotation("auth-keepalive")
    if keepalive and not re.fullmatch(r"0|-\d+", keepalive):
        yield ingress.trap(
            "auth-keepalive",
            "auth-keepalive",
            "turns the subrequest into Lua code that in ingress-nginx 1.13 to 1.15 shifts or breaks the "
            "auth-response-headers: the API may read one header's value under another's name",
            None,
        )
    cache_key = ingress.annotation("auth-cache-key")
    absent = [f"${name}" for name in CACHE_KEY_NEEDS if name not in VARIABLE.findall(cache_key)]
    if cache_key and absent:
        yield ingress.trap(
            "auth-cache-key",
            "auth-cache-key",
            f"without {', '.join(absent)} one request's verdict is handed to another's: another token, method or path",
            "".join(f"${name}" for name in CACHE_KEY_NEEDS),
        )
    if ingress.annotation("auth-snippet"):
        yield ingress.trap(
            "auth-snippet",
            "auth-snippet",
            "a critical-risk annotation that ingress-nginx blocks unless its administrator allows snippets: the "
            "Ingress is refused; the verifier needs no snippet",
            None,
        )
    if not any(_positive(ingress.annotation(key)) for key in ("limit-rps", "limit-rpm")):
        yield ingress.trap(
            "no-rate-limit",
            "limit-rps",
            "neither limit-rps nor limit-rpm: nginx counts requests before it asks the verifier, so this alone keeps "
            "a flood of bad tokens away from it",
            "20",
        )
    if ingress.annotation("enable-global-auth") == "false":
        yield ingress.trap(
            "global-auth-off",
            "enable-global-auth",
            "takes the controller-wide guard away and adds nothing where auth-url is set: the day auth-url is "
            "removed or renamed, this Ingress stands open",
            None,
        )


def _tls(ingress: Ingress) -> Iterator[Finding]:
    # force-ssl-redirect says that TLS ends in front of nginx, on a load balancer.
    if ingress.annotation("force-ssl-redirect") == "true":
        return
    if ingress.annotation("ssl-redirect") == "false":
        yield ingress.trap(
            "no-tls", "ssl-redirect", "plain http is served as well: a token sent there can be read and reused", None
        )
    for host in dict.fromkeys(route.host for route in ingress.routes):
        if not any(not hosts or any(_covers(name, host) for name in hosts) for hosts in ingress.tls):
            yield ingress.finding(
                "no-tls",
                "spec.tls",
                f"no certificate for {host or 'this Ingress'}: bearer tokens cross the network in the clear, and "
                "whoever reads one can use it until it expires",
                f"spec.tls: [{{hosts: [{host or '…'}], secretName: {ingress.name.rpartition('/')[2]}-tls}}]",
            )


def _side_doors(ingresses: Sequence[Ingress]) -> Iterator[Finding]:
    """A way to a guarded host or to the API behind it that no auth-url stands in."""
    guards = [ingress for ingress in ingresses if ingress.ours]
    for ingress in ingresses:
        if ingress.auth_url:
            continue
        seen: set[str] = set()
        for route in ingress.routes:
            if _public(route.path):
                continue
            guard, what = _guard_of(route, guards)
            if guard is None or what in seen:
                continue
            seen.add(what)
            yield ingress.trap(
                "unprotected",
                "auth-url",
                f"{route.host or '*'}{route.path} reaches {what}, which {guard.name} guards, without asking anyone: "
                "no token is needed, and X-M2M headers arrive as the client forged them",
                guard.auth_url,
            )
            if ingress.annotation("enable-global-auth") == "false":
                yield ingress.trap(
                    "global-auth-off",
                    "enable-global-auth",
                    f"takes the controller-wide guard away as well, on {what}, which {guard.name} guards",
                    None,
                )


def _guard_of(route: Route, guards: Iterable[Ingress]) -> tuple[Ingress | None, str]:
    for guard in guards:
        for guarded in guard.routes:
            if guarded.host and _covers(guarded.host, route.host):
                return guard, f"the host {guarded.host}"
            if guarded.backend and guarded.backend == route.backend:
                return guard, f"the backend {guarded.backend}"
    return None, ""


def _metadata(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    why = (
        "the protected-resource document must be readable without a token (RFC 9728): an agent reads it to learn "
        "where tokens come from"
    )
    opened = {
        route.host
        for ingress in ingresses
        if not ingress.auth_url
        for route in ingress.routes
        if route.path.startswith(WELL_KNOWN)
    }
    for ingress in ingresses:
        if not ingress.ours:
            continue
        for host in dict.fromkeys(route.host for route in ingress.routes):
            paths = [route.path for route in ingress.routes if route.host == host]
            write = f"an Ingress of its own for {host or 'the host'} with path {WELL_KNOWN} and no auth-url"
            if any(path.startswith(WELL_KNOWN) for path in paths):
                yield ingress.finding(
                    "metadata-behind-auth", PREFIX + "auth-url", f"{why}; this path asks for one", write
                )
            elif "/" in paths and ingress.policy in known.resources and host not in opened:
                yield ingress.finding(
                    "metadata-behind-auth",
                    PREFIX + "auth-url",
                    f"{why}; the policy {ingress.policy} has one, and / is all there is to answer for it",
                    write,
                )


def _public(path: str) -> bool:
    return path.startswith((WELL_KNOWN, ACME_PATH))


def _covers(pattern: str, host: str) -> bool:
    """Whether a host name, or a wildcard for one label, is or would otherwise answer for ``host``."""
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def _positive(value: str) -> bool:
    return value.isdecimal() and int(value) > 0


def _split(url: str) -> Any:
    try:
        return urlsplit(url.strip())
    except ValueError:  # an unbalanced [ in the host
        return urlsplit("")


def _read_all(paths: Iterable[Path]) -> tuple[list[Ingress], list[Finding]]:
    ingresses: list[Ingress] = []
    findings: list[Finding] = []
    for path in paths:
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except OSError as error:
            findings.append(_unreadable(path, error.strerror or type(error).__name__))
        except UnicodeDecodeError:
            findings.append(_unreadable(path, "not UTF-8 text"))
        # ValueError is how PyYAML says that a date or a number is none; RecursionError, nested beyond reason
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            line, problem = yaml_errors.describe(error)
            findings.append(_unreadable(path, f"line {line}: {problem}" if line else problem))
        else:
            for document in documents:
                found, broken = _ingresses(document, str(path))
                ingresses += found
                findings += broken
    return ingresses, findings


def _unreadable(path: Path, why: str) -> Finding:
    return Finding("unreadable", str(path), "", "", why, "a readable file of Kubernetes YAML")


def _ingresses(document: object, file: str) -> tuple[list[Ingress], list[Finding]]:
    top = _map(document)
    # What `kubectl get -o yaml` prints; the API server nests no lists.
    objects = _list(top.get("items")) if _text(top.get("kind")).endswith("List") else [top]
    ingresses: list[Ingress] = []
    findings: list[Finding] = []
    for item in map(_map, objects):
        if item.get("kind") != "Ingress":
            continue
        metadata, spec = _map(item.get("metadata")), _map(item.get("spec"))
        namespace = _text(metadata.get("namespace"))
        name = f"{namespace}/{_text(metadata.get('name')) or '?'}".removeprefix("/")
        annotations = metadata.get("annotations") or {}
        if not isinstance(annotations, dict):
            findings.append(
                Finding("unreadable", file, name, "metadata.annotations", "not a mapping", 'annotations: {"…": "…"}')
            )
            continue
        ingresses.append(
            Ingress(
                file=file,
                name=name,
                annotations={_text(key): _text(value) for key, value in annotations.items()},
                routes=tuple(_routes(spec, namespace)),
                tls=tuple(tuple(map(_text, _list(_map(entry).get("hosts")))) for entry in _list(spec.get("tls"))),
            )
        )
    return ingresses, findings


def _routes(spec: Mapping[str, Any], namespace: str) -> Iterator[Route]:
    default = {"backend": spec.get("defaultBackend")}
    rules = [_map(rule) for rule in _list(spec.get("rules"))]
    for rule in rules:
        for path in map(_map, _list(_map(rule.get("http")).get("paths")) or [default]):
            yield Route(_text(rule.get("host")), _text(path.get("path")) or "/", _backend(path, namespace))
    if not rules and "defaultBackend" in spec:
        yield Route("", "/", _backend(default, namespace))


def _backend(path: Mapping[str, Any], namespace: str) -> str:
    service = _map(_map(path.get("backend")).get("service"))
    port = _map(service.get("port"))
    name = _text(service.get("name"))
    return (
        f"{namespace}/{name}:{_text(port.get('number')) or _text(port.get('name'))}".removeprefix("/") if name else ""
    )


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """Kubernetes takes strings alone, but what an unquoted ``false`` was meant to say is plain."""
    if isinstance(value, bool):
        return str(value).lower()
    # never a collection: YAML aliases make one that is small to read and endless to print
    return str(value) if isinstance(value, str | int | float) else ""
