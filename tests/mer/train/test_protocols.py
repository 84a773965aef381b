"""Protocols are what they name: the paper's, the public code's."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mer.protocols import (
    PAPER,
    PROTOCOLS,
    REFERENCE,
    ModalityDropout,
)
from mer.train.learner import make_optimizer, make_scheduler


def test_paper_protocol_is_the_paper_s() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = make_optimizer(model, PAPER)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.04, 0.9, 0)
    assert (group["weight_decay"], group["nesterov"]) == (1e-3, False)
    assert (PAPER.epochs, PAPER.batch_size) == (100, 8)
    scheduler = make_scheduler(optimizer, PAPER)
    rates = []
    for loss in [1.0, *[2.0] * 12]:  # the best epoch, then a plateau
        scheduler.step(loss)
        rates.append(round(group["lr"], 6))
    assert rates == [0.04] * 11 + [0.004] * 2


def test_reference_protocol_is_the_public_code_s() -> None:
    optimizer = make_optimizer(torch.nn.Linear(1, 1), REFERENCE)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.04, 0.9, 0.9)
    assert group["weight_decay"] == 1e-3
    scheduler = make_scheduler(optimizer, REFERENCE)
    rates = {}
    for epoch in range(1, 101):
        rates[epoch] = group["lr"]
        optimizer.step()
        scheduler.step()
    drops = [epoch for epoch in range(2, 101) if rates[epoch] < 0.5 * rates[epoch - 1]]
    assert drops == [40, 55, 65, 70]
    assert rates[100] == pytest.approx(0.04e-4)


def test_protocols_are_named_and_serialisable() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        json.dumps(dataclasses.asdict(protocol))
    assert isinstance(PAPER.missing, ModalityDropout)
