"""What a ``with`` block closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_Self = TypeVar("_Self", bound="Closing")


class Closing(ABC):
    """Is itself in a ``with`` block, and closed when that ends, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held. A second time does nothing."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
