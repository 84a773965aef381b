"""Names of the float graphs: from the network's modules, none made up by the exporter."""

from __future__ import annotations

from mer import Checkpoint
from mer_calibration.graph.naming import layer_name
from mer_calibration.graph.placement import find_layers
from mer_export.network.deploy import EncoderGraph
from mer_export.network.graphs import Graphs
from mer_export.network.head import DeploymentHead


def test_layers_are_called_as_modules(exported: tuple[Checkpoint, Graphs]) -> None:
    checkpoint, graphs = exported
    for net, (_, model) in zip(
        (EncoderGraph(checkpoint), DeploymentHead(checkpoint)), graphs.items(), strict=True
    ):
        modules = dict(net.named_modules())
        for layer in find_layers(model):
            path, _, number = layer_name(layer.name).rpartition(".")
            whole = layer_name(layer.name)
            # A weight that is used in parts, as keys and values, has a number behind it.
            assert whole in modules or (path in modules and number.isdigit()), layer.name


def test_every_node_has_a_name_of_its_own(exported: tuple[Checkpoint, Graphs]) -> None:
    for _, model in exported[1].items():
        names = [node.name for node in model.graph.node]
        assert all(names)
        assert len(set(names)) == len(names)
        relus = [node.name for node in model.graph.node if node.op_type == "Relu"]
        assert relus
        assert all(name.endswith("/Relu") or "/Relu." in name for name in relus)
