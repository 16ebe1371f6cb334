"""The only places that know a proxy's header names: each trusts exactly one family of headers."""
