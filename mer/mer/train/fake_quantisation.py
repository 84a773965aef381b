"""Weights and activations rounded in float, as an int8 engine will round them.

The grid is the exporter's: weights int8, symmetric, one scale an output channel; activations
uint8, asymmetric, one scale a tensor, at the inputs of convolutions and linear layers. Biases,
attention maps and normalisations stay float. (The exporter also rounds what leaves a layer where
no other layer takes it, and leaves a few narrow layers in float.) Gradients pass straight through
the rounding (Bengio et al., 2013; Jacob et al., CVPR 2018), but for activations that are clipped.

The exporter folds batch normalisation into the weights. That multiplies an output channel by one
factor, and its scale too, so that rounding the weights before folding or after is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

#: What an int8 engine computes in integers: functions of (input, weight, ...).
WEIGHTED = {functional.conv1d, functional.conv2d, functional.linear}
#: Largest integers of weights (symmetric) and activations.
WEIGHT_LEVELS, ACTIVATION_LEVELS = 127, 255
#: How much of its batch a moving average of ranges takes.
RANGE_MOMENTUM = 0.1
#: Least scale: that of a tensor of zeros.
TINY = 1e-12

#: Lowest and highest value of an activation.
Range = tuple[float, float]


class FakeQuantisation(TorchFunctionMode):
    """A context within which the weighted layers of ``model`` are fake-quantised.

    A mode rather than wrapped layers: the model's weights keep their names and stay float, and
    layers of which only a part is used (``CrossAttention.kv``) need no care. The weights must
    stay where they are in memory. Layers of other models are left alone.

    Attributes:
        ranges: of the input of each layer, by the name of its weight: moving averages of its
            batches' extremes. A layer can only be fake-quantised once it was observed.
        observing: while true, layers compute in float and their ranges are followed.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ranges: dict[str, Range] = {}
        # By storage, which a part of a weight shares.
        self._names = {
            weight.untyped_storage().data_ptr(): name for name, weight in model.named_parameters()
        }
        self.observing = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in WEIGHTED:
            x, weight, *rest = args
            name = self._names.get(weight.untyped_storage().data_ptr())
            if name is not None and self.observing:
                self._observe(name, x.detach())
            elif name is not None:
                args = round_activations(x, self.ranges[name]), round_weights(weight), *rest
        return func(*args, **(kwargs or {}))

    def _observe(self, name: str, x: Tensor) -> None:
        seen = x.min().item(), x.max().item()
        before = self.ranges.get(name, seen)
        low, high = (b + RANGE_MOMENTUM * (s - b) for b, s in zip(before, seen, strict=True))
        self.ranges[name] = low, high


def round_weights(weight: Tensor) -> Tensor:
    """Weights (outputs, ...) float32 on the int8 grid of each output channel."""
    scale = weight.detach().abs().flatten(1).amax(dim=1) / WEIGHT_LEVELS
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scale.clamp(min=TINY), zeros, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
    )


def round_activations(x: Tensor, span: Range) -> Tensor:
    """Activations float32 on the uint8 grid over ``span`` widened to hold 0; outside, clipped."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = max((high - low) / ACTIVATION_LEVELS, TINY)
    zero_point = round(-low / scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, ACTIVATION_LEVELS)
