"""The live mirror of the engine, and Qt item models on it."""
