"""Names that a package offers and that lie in its modules: each is loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def make_getattr(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562).

    A command that loads can so say in one line that it was interrupted or that PyTorch is missing,
    a device loads what it uses, and a name's module may import others of the package.

    Args:
        package: its name.
        homes: by module (of the package where it begins with a dot), the names that lie there.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def load_name(name: str) -> Any:
        if name in modules:
            return getattr(import_module(modules[name], package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load_name
