"""The server: sockets, connections, workers and signals."""
