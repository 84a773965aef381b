"""A protocol with what the caller replaces in it, and as data to keep."""

from __future__ import annotations

import dataclasses
from typing import Any

from mer.errors import TrainingError
from mer.protocols import PROTOCOLS, Protocol


def customise_protocol(
    protocol: str | Protocol,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    weight_decay: float | None,
) -> Protocol:
    """The protocol with what the caller replaces.

    Raises:
        TrainingError: there is no such protocol, or a value is out of range.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise TrainingError(f"there is no protocol {protocol!r}: {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[protocol]
    values: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
    }
    changes = {name: value for name, value in values.items() if value is not None}
    for name, value in changes.items():
        if not value > 0 and not (name == "weight_decay" and value == 0):
            raise TrainingError(f"{name} must be above 0, not {value}")
    return dataclasses.replace(protocol, **changes)


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """The protocol as JSON-ready data; its parts say what kind they are."""
    described: dict[str, Any] = {}
    for field in dataclasses.fields(protocol):
        value = getattr(protocol, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {"kind": type(value).__name__, **dataclasses.asdict(value)}
        described[field.name] = value
    return described
