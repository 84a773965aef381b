"""What the bench needs besides the base install: asked for before anything is measured."""

from __future__ import annotations

from importlib.util import find_spec

from mer_runtime.errors import MissingExtraError


def require(package: str, extra: str, purpose: str) -> None:
    """Refuse ``purpose`` where a package of an extra is missing.

    Raises:
        MissingExtraError: it isn't installed.
    """
    if find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)
