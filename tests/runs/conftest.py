"""Fixtures of commands that talk."""

from talk_tiny import home

__all__ = ["home"]
