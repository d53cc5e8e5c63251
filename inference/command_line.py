"""The old name of `microemo.commands.main`, kept for one version."""

from ..commands.main import app, main

__all__ = ["app", "main"]
