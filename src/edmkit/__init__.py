"""edmkit: the design space of diffusion models."""

__version__ = "0.1.0.dev0"
