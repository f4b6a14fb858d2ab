"""Compose, as the user: load, interpolate, model (pure), observe, reconcile (pure), execute."""
