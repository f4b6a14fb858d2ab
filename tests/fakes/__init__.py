"""Stand-ins for the engine: the same methods as `backend.client.Client`, state in memory, events by hand."""
