"""A newcomer: is everything right on this device? What is in it, and may I use it?"""

from __future__ import annotations

import json

from click.testing import CliRunner

from mer import shipped_checkpoint
from mer_runtime.cli.doctor import main as mer_doctor


def test_is_this_device_ready() -> None:
    result = CliRunner().invoke(mer_doctor, ["--json"])
    found = {one["subject"]: one for one in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 0
    assert found["onnxruntime"]["max_difference"] <= found["onnxruntime"]["tolerance"]


def test_may_i_use_the_weights() -> None:
    card = shipped_checkpoint("ia").with_name("MODEL_CARD.md").read_text("utf-8")
    assert "CC BY-NC-SA 4.0" in card
