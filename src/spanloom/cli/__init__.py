"""The command line."""

from spanloom.cli.main import main

__all__ = ["main"]
