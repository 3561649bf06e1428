"""The version, in a file that everything may read."""

__version__ = "0.1.0.dev0"
