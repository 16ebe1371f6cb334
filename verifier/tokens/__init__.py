"""Tokens: form, signature, claims and the cache."""
