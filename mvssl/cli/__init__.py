"""The command line: words in, an exit code out."""

from mvssl.cli.main import main

__all__ = ["main"]
