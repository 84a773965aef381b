"""Torchvision beside a PyTorch without CUDA, for MTCNN's sake.

On Linux the package index has torchvision with CUDA alone. Beside a CPU build of PyTorch its
compiled part doesn't load, and of that MTCNN needs non-maximum suppression: OpenCV's serves then.
"""

from __future__ import annotations

import importlib
from typing import Any

import cv2
import numpy as np
import torch

#: Of torchvision's operators for it.
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def load_torchvision() -> str:
    """Import torchvision; who suppresses: ``torchvision`` or ``opencv``."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):
        # It describes its operators when it is imported, so there have to be some of that name.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", SIGNATURE)
        importlib.import_module("torchvision.ops.boxes").nms = suppress  # type: ignore[attr-defined]
        return "opencv"
    return "torchvision"


def suppress(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices (k,) int64 of the boxes to keep, best score first, as ``torchvision.ops.nms``.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,), above 0: MTCNN's are probabilities.
        iou_threshold: a box that overlaps a better one by more is dropped.
    """
    edges = boxes.detach().numpy().astype(np.float64)
    # OpenCV's stubs ask for sequences; it takes arrays, and lists would cost time.
    sizes: Any = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)
    values: Any = scores.detach().numpy()
    kept = cv2.dnn.NMSBoxes(sizes, values, 0.0, iou_threshold)
    return torch.from_numpy(np.array(kept, np.int64).reshape(-1))
