"""Services without any authentication code, each behind nginx and the verifier. `make example-NAME` runs one."""
