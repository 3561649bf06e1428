"""Reads pickles and files of `torch.save` without executing anything in them."""

from diffspace.pickles.machine import PickleError as PickleError, Record as Record, short_repr as short_repr
from diffspace.pickles.reader import read_pickle as read_pickle
