"""Data read from JSON, checked field by field: the first fault is told with its place.

Every function here raises ``CalibrationError`` where the data isn't what it says. ``name`` is how
the error calls the place, as in ``dialects.x86.bias_correction``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mer_calibration.errors import CalibrationError

Number = TypeVar("Number", int, float)


def require(holds: bool, name: str, allowed: str) -> None:
    """Refuse ``name`` unless it ``holds``; ``allowed`` says what it must be."""
    if not holds:
        raise CalibrationError(f"{name} must be {allowed}: calibrate again")


def read_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """An object."""
    require(isinstance(value, Mapping), name, "an object")
    checked: Mapping[str, Any] = value
    return checked


def read_fields(data: Any, cls: type[Any], name: str) -> dict[str, Any]:
    """An object with just the fields of the dataclass ``cls``; they aren't checked."""
    known = {field.name for field in dataclasses.fields(cls)}
    given = read_mapping(data, name)
    for field in sorted(known - given.keys()):
        raise CalibrationError(f"{name}: {field} is missing: calibrate again")
    for field in sorted(given.keys() - known):
        raise CalibrationError(f"{name}: {field} is unknown: calibrate again")
    return dict(given)


def read_number_fields(value: Any, cls: type[Any], name: str) -> dict[str, Any]:
    """An object with the fields of a dataclass of finite numbers."""
    fields = read_fields(value, cls, name)
    return {key: read_number(number, f"{name}.{key}") for key, number in fields.items()}


def read_number(value: Any, name: str) -> Any:
    """A finite number, whole or not."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(real and math.isfinite(value), name, "a finite number")
    return value


def read_numbers(
    value: Any, name: str, kind: Callable[[str], Number], allowed: str
) -> tuple[Number, ...]:
    """Finite numbers in a text, each read by ``kind``."""
    require(isinstance(value, str), name, "a text")
    try:
        numbers = tuple(kind(part) for part in value.split())
    except ValueError:
        raise CalibrationError(f"{name} must be {allowed}: calibrate again") from None
    require(all(map(math.isfinite, numbers)), name, allowed)
    return numbers
