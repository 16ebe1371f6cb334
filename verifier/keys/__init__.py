"""Keys: JWK parsing, key sets and how they are fetched."""
