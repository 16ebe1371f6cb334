"""Verifies machine-to-machine tokens for nginx and other proxies."""

__version__ = "0.1.0"
