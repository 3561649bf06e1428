"""The type checker that jaxtyping's import hook applies to diffspace in tests: an int passes for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
