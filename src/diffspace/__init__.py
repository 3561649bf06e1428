"""diffspace: the design space of diffusion models (Karras et al. 2022, arXiv:2206.00364).

x_t = s(t)·(x₀ + σ(t)·ε), and a denoiser D(x; σ) gives the score (D − x)/σ². You choose s, σ, the steps, the solver, the
network's preconditioning and its training noise independently of one another (Table 1).

Importing diffspace does not import torch. The names that `diffspace._api` lists are imported together when you use the
first of them.
"""

from typing import TYPE_CHECKING

from diffspace._version import __version__ as __version__

if TYPE_CHECKING:
    from diffspace import guidance as guidance, networks as networks, oracles as oracles, presets as presets
    from diffspace._api import *
else:  # hidden from type checkers, which would accept any name
    import sys
    from importlib import import_module
    from importlib.util import find_spec
    from types import ModuleType

    def __getattr__(name):
        if find_spec(f"diffspace.{name}"):
            return import_module(f"diffspace.{name}")
        if "__all__" not in globals() and (name == "__all__" or not name.startswith("_")):
            _load()
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module 'diffspace' has no attribute {name!r}", name=name, obj=sys.modules[__name__])

    def __dir__():
        if "__all__" not in globals():
            _load()
        return globals()["__all__"]

    def _load():
        api = vars(import_module("diffspace._api"))
        public = {name: value for name, value in api.items() if not name.startswith("_")}
        public = {name: value for name, value in public.items() if not isinstance(value, ModuleType)}
        names = [*public, "guidance", "networks", "oracles", "presets", "__version__"]
        globals().update(public, __all__=sorted(names))
