"""Shared floor, pure: names and data of images, of the runtime's bundle and of the Engine API's wire."""
