"""The privileged process: socket, authorisation, the Engine API, start and stop."""
