"""The command line: one file a group of commands; what is slow is imported when it is needed."""

from peftlab.cli.app import main

__all__ = ["main"]
