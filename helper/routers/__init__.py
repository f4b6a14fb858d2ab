"""One file a section of the Engine API: read the request, call the engine, shape the answer."""
