"""The public modules: those that have an `__all__`."""

from types import ModuleType

import jconv

_SUBMODULES = [module for module in vars(jconv).values() if isinstance(module, ModuleType)]
MODULES = [jconv, *(module for module in _SUBMODULES if hasattr(module, "__all__"))]
