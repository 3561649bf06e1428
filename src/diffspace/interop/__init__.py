"""Checkpoints of others, made models of ours without executing anything in them."""

from diffspace.interop.convert import SUFFIXES as SUFFIXES
from diffspace.interop.convert import convert as convert
from diffspace.interop.foreign import Report as Report
