"""Policies: rules, paths, roles and protected-resource documents."""
