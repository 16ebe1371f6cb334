"""What lint knows of the verifier's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.config import Config


@dataclass(frozen=True, slots=True)
class Known:
    """The part of a configuration that manifests have to agree with. The defaults stand for no configuration."""

    policies: frozenset[str] | None = None
    resources: frozenset[str] = frozenset()
    """Names of the policies with a ``resource``: each has a metadata document that agents must be able to read."""
    headers: tuple[str, ...] = ()
    """The further response headers under ``headers:``."""
    certificates: tuple[str, ...] = ()
    """The request headers in which issuers expect a client's certificate, in lower case."""
    challenges: frozenset[str] = frozenset()
    """Names of the policies whose 403 says which scopes an agent has to ask for."""

    @classmethod
    def of(cls, config: Config) -> Known:
        """Read from a loaded configuration."""
        policies = config.policies.by_name
        resources = {name for name, policy in policies.items() if policy.resource is not None}
        challenges = (
            name for name in resources if policies[name].named_scopes and policies[name].scope_challenge == 403
        )
        headers, certificates = tuple(config.headers), config.certificate_headers
        return cls(frozenset(policies), frozenset(resources), headers, certificates, frozenset(challenges))
