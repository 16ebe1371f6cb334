"""Verifies machine-to-machine tokens for nginx ``auth_request`` subrequests."""

__version__ = "0.1.0"
