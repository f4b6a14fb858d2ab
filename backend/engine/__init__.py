"""The engine: opens and restores all; containers, execs, events, logs, stats, and the rooms they use."""
