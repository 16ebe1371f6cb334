"""Everything around the verifier on one machine: a token issuer, nginx, an API. For trying it out and for tests."""
