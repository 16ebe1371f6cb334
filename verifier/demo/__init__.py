"""A token issuer, nginx, an API and the verifier on one machine: for `make run` and for tests."""
