"""Checkpoints of other code bases, converted to models of diffspace without executing anything in them."""

from diffspace.interop.conversion import SUFFIXES as SUFFIXES
from diffspace.interop.conversion import Report as Report
from diffspace.interop.conversion import convert as convert
