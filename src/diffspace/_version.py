"""The version of diffspace."""

__version__ = "0.2.0"
