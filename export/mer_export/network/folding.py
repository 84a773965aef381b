"""Convolutions rewritten: batch normalisations folded in, channels reordered, groups undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mer_export.network.channels import pad_order


def fold(
    layers: nn.Module,
    *,
    inputs: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
) -> list[nn.Module]:
    """Fold each batch normalisation into the convolution before it, and reorder channels.

    Args:
        layers: a sequence of convolutions, batch normalisations and activations.
        inputs: the original numbers of the channels that come in, if not in order.
        outputs: the original numbers of the channels that shall go out, if not in order.
    """
    modules = list(layers.children())
    folded: list[nn.Module] = []
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.BatchNorm2d):
            continue
        if not isinstance(module, nn.Conv2d):
            folded.append(nn.ReLU())
            continue
        conv = module
        if isinstance(following, nn.BatchNorm2d):
            conv = fuse_conv_bn_eval(module, following)
        if conv.groups == 1:  # from here on channels are in their own order
            order = pad_order(range(conv.out_channels))
            conv, inputs = reorder_channels(conv, inputs=inputs, outputs=order), order
        else:
            conv = reorder_channels(conv, inputs=inputs)
        folded.append(conv)
    if outputs is not None:
        last = max(i for i, module in enumerate(folded) if isinstance(module, nn.Conv2d))
        folded[last] = reorder_channels(folded[last], outputs=outputs)
    return folded


def reorder_channels(
    conv: Any, *, inputs: Sequence[int] | None = None, outputs: Sequence[int] | None = None
) -> nn.Conv2d:
    """A convolution whose channels come in and go out in other orders.

    ``NO_CHANNEL`` in an order is a channel of zeros. A depthwise convolution has one order.
    """
    weight, bias = conv.weight, conv.bias
    depthwise = conv.groups > 1
    if inputs is not None and not depthwise:
        weight = pick_channels(weight, inputs, dim=1)
    if depthwise:
        outputs = inputs if outputs is None else outputs
    if outputs is not None:
        weight = pick_channels(weight, outputs)
        bias = None if bias is None else pick_channels(bias, outputs)
    return with_weights(conv, weight, bias, groups=len(weight) if depthwise else 1)


def pick_channels(values: Tensor, order: Sequence[int], dim: int = 0) -> Tensor:
    zeros = torch.zeros_like(values.narrow(dim, 0, 1))
    padded = torch.cat((values, zeros), dim)  # NO_CHANNEL finds the last
    return padded.index_select(dim, torch.tensor(order) % padded.shape[dim])


def with_weights(conv: Any, weight: Tensor, bias: Tensor | None, groups: int) -> nn.Conv2d:
    """A convolution like ``conv`` with other weights, in ``groups``."""
    new = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        groups,
        bias=bias is not None,
    )
    new.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return new


def ungroup(conv: nn.Conv2d) -> nn.Conv2d:
    """A grouped convolution as one without groups."""
    outputs, _, *kernel = conv.weight.shape
    weight = conv.weight.new_zeros(outputs, conv.in_channels, *kernel)
    for i in range(outputs):  # one input channel a group
        weight[i, i * conv.groups // outputs] = conv.weight[i, 0]
    return with_weights(conv, weight, conv.bias, groups=1)
