"""OpenVINO's own files are bounded as ONNX graphs are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import model, node

from mer_runtime import Recognizer
from mer_runtime.bundle import write_manifest
from mer_runtime.engines.ir_check import check_ir
from mer_runtime.errors import BundleError

CROPS = 15


pytestmark = pytest.mark.usefixtures("own_cache")

WriteBundle = Callable[..., Path]


class TestIr:
    """OpenVINO's own files."""

    @pytest.fixture
    def folder(self, write_tiny_bundle: WriteBundle) -> Path:
        pytest.importorskip("openvino")
        return write_tiny_bundle(target="openvino")

    def edit(self, folder: Path, before: str, after: str) -> None:
        file = folder / "encoder.xml.gz"
        text = gzip.decompress(file.read_bytes()).decode()
        assert before in text
        file.write_bytes(gzip.compress(text.replace(before, after).encode()))
        content = json.loads((folder / "manifest.json").read_text())
        write_manifest(folder, {k: v for k, v in content.items() if k not in ("files", "digest")})

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ('type="ReduceMean"', 'type="Loop"', "it has the layer Loop"),
            ('type="MatMul"', 'type="ReadValue"', "it has the layer ReadValue"),
            ("<layers>", "<layers><layer id='99' type='Add'><body/></layer>", "a graph in a graph"),
            ("<net", "<!DOCTYPE net [<!ENTITY a 'a'>]><net", "has declarations"),
            ("</net>", "", "it is no IR"),
        ],
    )
    def test_refused(self, before: str, after: str, message: str, folder: Path) -> None:
        self.edit(folder, before, after)
        with pytest.raises(BundleError, match=f"OpenVINO can't load its graphs: .*{message}"):
            Recognizer.load(folder)

    def test_shape_that_is_computed(self) -> None:
        def layer(number: int, kind: str) -> str:
            return f'<layer id="{number}" type="{kind}"/>'

        def edge(giver: int, taker: int, port: int) -> str:
            return f'<edge from-layer="{giver}" to-layer="{taker}" to-port="{port}"/>'

        layers = [layer(0, "Parameter"), layer(1, "Add"), layer(2, "Reshape")]
        edges = [edge(0, 1, 0), edge(0, 2, 0), edge(1, 2, 1)]
        text = f"<net><layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges></net>"
        with pytest.raises(ValueError, match="it has a shape that Add computes"):
            check_ir(text.encode())
        check_ir(text.replace("Add", "ShapeOf").encode())
        doubled = [layer(i, "Concat") for i in range(3, 40)]
        edges = [edge(i, i + 1, port) for i in range(3, 39) for port in (0, 1)]
        edges += [edge(0, 1, 0), edge(1, 3, 0), edge(39, 2, 1)]
        text = (
            f"<net><layers>{''.join([*layers, *doubled])}</layers>"
            f"<edges>{''.join(edges)}</edges></net>"
        )
        with pytest.raises(ValueError, match=r"it has a shape that (Concat|ShapeOf) computes"):
            check_ir(text.replace("Add", "ShapeOf").encode())

    def test_sizes(self) -> None:
        """OpenVINO's own, once it has read the graph."""
        openvino = pytest.importorskip("openvino")
        from mer_runtime.engines.ir_check import check_sizes

        graph = model([node("Add", "x", "a")], (1, 60_000), a=np.zeros((60_000, 1), np.float32))
        read = openvino.Core().read_model(graph.SerializeToString())
        with pytest.raises(ValueError, match="its layer Add takes more memory"):
            check_sizes(read, CROPS)
        check_sizes(openvino.Core().read_model(model([node("Relu", "x")]).SerializeToString()), 1)
