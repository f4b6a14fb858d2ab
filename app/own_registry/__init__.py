"""A registry of one's own: what `slipway registry` makes before it asks the engine for a container."""
