"""Checkpoints of others, made models of ours without executing anything in them."""

from edmkit.interop.convert import SUFFIXES as SUFFIXES
from edmkit.interop.convert import convert as convert
from edmkit.interop.foreign import Report as Report
