"""Checkpoints of other code bases, converted to models of diffspace without executing anything in them."""

from diffspace.interop.conversion import SUFFIXES as SUFFIXES, Report as Report, convert as convert
