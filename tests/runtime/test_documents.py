"""JSON from others' hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from mer_runtime.documents import MOST_NESTED, parse_json, read_json


def test_ordinary_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": [1, -2.5, "嬉しい", null, true], "b": {"c": 1e3}}', "utf-8"
    )
    assert read_json(tmp_path / "a.json") == {
        "a": [1, -2.5, "嬉しい", None, True],
        "b": {"c": 1000.0},
    }
    assert parse_json('"\\ud83d\\ude00"') == "😀"
    assert parse_json("12345678901234567890") == 12345678901234567890
    assert parse_json("[" * MOST_NESTED + "]" * MOST_NESTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "."),
        (b"{", "."),
        (b"\xff\xfe", "utf-8"),
        ('"\\ud800"', "surrogates"),
        ('{"\\udfff": 1}', "surrogates"),
        ('[[{"a": "b\\ud800"}]]', "surrogates"),
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        ("[" * 100_000, "nested deeper than 32|Expecting"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 32"),
        ("[" * 990 + "]" * 990, "nested deeper than 32"),
        ("1" * 21, "whole number of 21 digits"),
        ("-" + "9" * 1_000_000, "whole number of 1000001 digits"),
        (b" " * (1 << 25) + b"1", "larger than 32 MB"),
    ],
)
def test_refused(content: bytes | str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)
    file = tmp_path / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_json(file)
