"""The proof on other processors, as far as this one goes; the rest is ``make test-cpus``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from mer.data.cache import Cache
from mer_export.proof.validation import ValidationSet
from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.files import read_graph

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def exported(load_script: Load) -> Any:
    """The bundle that ships, without the graphs that it was made of."""
    shipped = load_bundle("ia-int8").path
    return load_script("quantised_exports").Exported("ia", "x86", shipped, {})


def test_answers_are_compared_with_the_first_processors(load_script: Load, exported: Any) -> None:
    checks, emulation = load_script("cpu_checks"), load_script("emulation")
    here = emulation.run_here()
    first = checks.read_answers(exported, here, "here")
    recognizer = Recognizer.load(exported.bundle, threads=1)
    golden = recognizer.bundle.golden()
    mfcc, faces = golden.case(0)
    assert np.array_equal(first.logits[0], recognizer.infer(mfcc, faces))
    assert first.integers.dtype == np.uint8
    # Features are averages over places of the last integers.
    means = first.integers.astype(np.float64).mean(axis=(2, 3))
    assert np.corrcoef(means.ravel(), first.features.ravel())[0, 1] > 0.999
    again = checks.compare_answers(exported, first, here, "here")
    assert again.right
    assert again.result.startswith("integers equal; |Δfeature| 0.0e+00, |Δlogit| 0.0e+00")
    other = checks.Answers(first.logits, first.integers.copy(), first.features)
    other.integers[0, 0, 0, 0] ^= 3
    right, result = checks.judge(golden, first, other, exact=True)
    assert not right
    assert result.startswith("1 integers differ, by ")
    assert checks.judge(golden, first, other, exact=False)[0]
    far = checks.Answers(first.logits + np.float32(0.1), first.integers, first.features)
    assert not checks.judge(golden, first, far, exact=False)[0]
    elsewhere = dataclasses.replace(golden, answers=golden.answers + 1)
    assert not checks.judge(elsewhere, first, first, exact=True)[0]


def test_copy_puts_the_last_integers_out(load_script: Load, exported: Any) -> None:
    encoder = onnx.load_from_string(read_graph(exported.bundle / "encoder.onnx.gz"))
    copy = load_script("quantised_exports").put_out_integers(encoder)
    assert len(encoder.graph.output) == 1
    features, integers = copy.graph.output
    assert features.name == "features"
    (made,) = (node for node in copy.graph.node if integers.name in node.output)
    assert made.op_type == "QuantizeLinear"


def test_layers_are_written_once(load_script: Load, exported: Any, tmp_path: Path) -> None:
    """Every layer of the graphs; of those that differ in weights alone one, where that is asked."""
    checks = load_script("cpu_checks")
    graphs = {"head": _two_layers(seed=1), "encoder": _two_layers(seed=2)}
    one = dataclasses.replace(exported, graphs=graphs)
    every = checks.write_cases([one, one], tmp_path / "every")
    assert len(list(every.glob("*.onnx"))) == 3 * 4
    few = checks.write_cases([one, one], tmp_path / "few", every=False)
    assert len(list(few.glob("*.onnx"))) == 3
    plain = checks.write_cases([one], tmp_path / "plain", every=False, plain=True)
    assert len(list(plain.glob("*.onnx"))) == 1


def _two_layers(seed: int) -> onnx.ModelProto:
    """Two int8 matrix products, one behind the other."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(-40, 41, (2, 16, 16)).astype(np.int8)
    constants = {
        "first": weights[0],
        "second": weights[1],
        "scales": np.full(16, 0.01, np.float32),
        "scale": np.array(0.05, np.float32),
        "zero": np.array(128, np.uint8),
    }
    nodes, name = [], "data"
    for weight in ("first", "second"):
        nodes += [
            onnx.helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
            onnx.helper.make_node(
                "DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]
            ),
            onnx.helper.make_node("DequantizeLinear", [weight, "scales"], [f"{weight}_dq"], axis=1),
            onnx.helper.make_node("MatMul", [f"{name}_dq", f"{weight}_dq"], [f"{weight}_sums"]),
        ]
        name = f"{weight}_sums"
    nodes.append(onnx.helper.make_node("QuantizeLinear", [name, "scale", "zero"], ["out"]))
    shape = [None, 16]
    graph = onnx.helper.make_graph(
        nodes,
        "two",
        [onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.UINT8, shape)],
        [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


def test_planted_fault_must_be_found(load_script: Load) -> None:
    row = load_script("cpu_checks").Row
    expect_wrong = load_script("prove_cpus").expect_wrong
    found = row("planted", "onnx", "Haswell", False, "21 cases, 12 of them wrong", 1.0)
    assert expect_wrong(lambda: found).right
    assert not expect_wrong(lambda: dataclasses.replace(found, right=True)).right


def test_all_cases_must_be_run(load_script: Load, tmp_path: Path) -> None:
    class Silent:
        def python(self, *arguments: object) -> str:
            return ""

    (tmp_path / "0000.onnx").touch()
    with pytest.raises(load_script("steps").ProofError, match="only 0 cases were run"):
        load_script("cpu_checks").drive_layers("layers", "onnx", Silent(), "Haswell", tmp_path)


def test_rows_are_told_with_what_is_wrong_marked(load_script: Load) -> None:
    checks = load_script("cpu_checks")
    rows = [
        checks.Row("layers of x86", "onnx", "Haswell", False, "3 cases, 1 of them wrong", 12.4),
        checks.Row("ia, golden inputs", "openvino", "max", True, "integers equal", 100.0),
    ]
    assert checks.format_rows(rows).splitlines() == [
        "! layers of x86      onnx      Haswell     12 s  3 cases, 1 of them wrong",
        "  ia, golden inputs  openvino  max        100 s  integers equal",
    ]


def test_clips_are_answered_by_what_is_fed(
    load_script: Load, exported: Any, tmp_path: Path
) -> None:
    recognizer = Recognizer.load(exported.bundle, threads=1)
    golden = recognizer.bundle.golden()
    mfcc, crops = golden.case(0)
    np.savez(tmp_path / "clips.npz", mfcc=mfcc[None], crops=crops[None])
    out = tmp_path / "out.npz"
    load_script("drive_bundle").main(str(exported.bundle), str(out), str(tmp_path / "clips.npz"))
    with np.load(out) as found:
        for fed, inputs in (
            ("both", (mfcc, crops)),
            ("audio", (mfcc, None)),
            ("video", (None, crops)),
        ):
            assert np.array_equal(found[fed][0], recognizer.infer(*inputs)), fed


def test_clips_are_spread_and_show_a_face(
    load_script: Load, write_cache: Callable[..., Path], tmp_path: Path
) -> None:
    hidden = "01-01-01-01-01-01-11"  # the first that validates
    cache = Cache.open(write_cache(tmp_path / "cache", without_face=[hidden]))
    choose = load_script("measure_arm").choose_clips
    clips = ValidationSet(cache, cache.spec)
    assert choose(clips, 3).tolist() == [1, 4, 7]
    assert choose(clips, 60).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_tables_show_the_figures(load_script: Load) -> None:
    tables = load_script("cpu_tables")
    row = {"what": "layers of x86", "engine": "onnx", "cpu": "this machine", "right": True}
    data = {
        "machine": "a Xeon",
        "rows": [
            {**row, "result": "9 cases, 0 of them wrong"},
            {**row, "cpu": "max", "right": False, "result": "|Δlogit| 0.3"},
        ],
    }
    assert tables.format_cpus(data).splitlines()[2:] == [
        "| layers of x86 | ONNX Runtime | a Xeon | 9 cases, 0 of them wrong |",
        r"| layers of x86 | ONNX Runtime | max | **wrong**: \|Δlogit\| 0.3 |",
    ]
    arm = {
        **{"fusion": "ia", "modality": "video", "n": 60, "agreement": 98.3333, "only_a": 1},
        **{"only_b": 0, "max_logit_difference": 0.123, "mean_logit_difference": 0.0123},
        "prec1": {"float": 55.0, "engine": 56.6667},
    }
    assert tables.format_arm({"rows": [arm]}).splitlines()[2:] == [
        "| `ia` | face alone | 60 | 55.00 → 56.67 | 98.33 | +1 -0 | 0.12 / 0.012 |"
    ]


def test_without_the_emulator_it_says_what_to_install(
    load_script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(load_script("prove_cpus").main, ["--fast"])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "Error: this needs QEMU's emulator: sudo apt install qemu-user-static"
    ]


def test_emulation_has_settings_of_its_own(load_script: Load, monkeypatch: Any) -> None:
    """Neither this environment's face detector nor its cache gets in."""
    monkeypatch.setenv("MER_FACE_DETECTOR", "elsewhere")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(load_script("emulation").run_here().python("-c", code))
    assert "MER_FACE_DETECTOR" not in seen
    assert seen["MER_CACHE"] != os.environ["MER_CACHE"]
    assert not Path(seen["MER_CACHE"]).exists()  # it was for that run alone
