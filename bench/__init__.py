"""Measures the verifier beside what users would pick instead: ``make bench``."""
