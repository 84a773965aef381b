"""Raw device inputs to what the network sees; the exporter puts this module into the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_runtime.spec import Spec


class Standardiser(nn.Module):
    """Applies a spec's constants: raw MFCCs and uint8 crops in, float32 network inputs out.

    MFCCs (B, n_mfcc, T) become ``(mfcc - mean) / std`` per coefficient. Crops
    (B, 15, S, S, 3) uint8, or (N, S, S, 3), become ``(crop * scale - mean) / std`` with the
    channels moved before the picture: (B, 15, 3, S, S) or (N, 3, S, S).
    """

    audio_mean: Tensor
    audio_std: Tensor
    video_offset: Tensor
    video_factor: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        audio, video = spec.audio, spec.video
        mean = torch.tensor(audio.mean or [0.0] * audio.n_mfcc, dtype=torch.float32)
        std = torch.tensor(audio.std or [1.0] * audio.n_mfcc, dtype=torch.float32)
        self.register_buffer("audio_mean", mean[:, None], persistent=False)
        self.register_buffer("audio_std", std[:, None], persistent=False)
        factor = video.scale / torch.tensor(video.std, dtype=torch.float64)
        offset = torch.tensor(video.mean, dtype=torch.float64) / torch.tensor(video.std)
        self.register_buffer("video_factor", factor.float()[:, None, None], persistent=False)
        self.register_buffer("video_offset", offset.float()[:, None, None], persistent=False)

    def audio(self, mfcc: Tensor) -> Tensor:
        """(B, n_mfcc, T) float32 in dB-like MFCC units to about zero mean, unit variance."""
        return (mfcc - self.audio_mean) / self.audio_std

    def video(self, crops: Tensor) -> Tensor:
        """(..., S, S, 3) uint8, 0 to 255, to (..., 3, S, S) float32."""
        return crops.movedim(-1, -3).float() * self.video_factor - self.video_offset

    def forward(self, mfcc: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        return self.audio(mfcc), self.video(crops)
