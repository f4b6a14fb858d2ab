"""Volumes: the local driver."""
