"""Packaged files: icons, themes, default profiles, the recipe of the built-in image."""
