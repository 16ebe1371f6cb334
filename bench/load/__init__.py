"""The load generators: wrk as fast as a side can go, and an open loop at a fixed rate."""
