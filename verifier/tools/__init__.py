"""Commands that read: they never start the server."""
