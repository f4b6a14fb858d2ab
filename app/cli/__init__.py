"""The slipway command line: a client of the socket, one module a verb."""
