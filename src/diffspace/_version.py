"""The version, in a file that everything may read."""

__version__ = "0.2.0"
