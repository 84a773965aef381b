"""Training protocols as data: the paper's, the reference implementation's, and our own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from mer_runtime.feeds import Modality

ProtocolName = Literal["paper", "reference-optimiser", "tuned", "balanced", "robust"]


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent as ``torch.optim.SGD`` has it, without Nesterov."""

    momentum: float = 0.9
    dampening: float = 0.0


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, PyTorch's betas."""


@dataclass(frozen=True)
class Plateau:
    """Multiply the rate by ``factor`` after ``patience`` epochs without a lower validation loss."""

    patience: int = 10
    factor: float = 0.1


@dataclass(frozen=True)
class Steps:
    """Multiply the rate by ``factor`` from each of these epochs on (the first epoch is 1)."""

    epochs: tuple[int, ...]
    factor: float = 0.1


@dataclass(frozen=True)
class Cosine:
    """From the full rate to zero along half a cosine over the run."""


@dataclass(frozen=True)
class ModalityDropout:
    """A clip loses its voice or, otherwise, its face with these probabilities."""

    voice: float
    face: float


@dataclass(frozen=True)
class SoftHard:
    """The reference's ``softhard`` mask: a batch becomes four, shuffled together.

    One copy is untouched; one has its MFCCs multiplied by c and its crops by 1 - c, c being drawn
    for each clip from 0, 0.01 … 0.99; one has no voice; one has no face.
    """


@dataclass(frozen=True)
class EachAlone:
    """A batch becomes three, shuffled together: untouched, without voice, without face."""


@dataclass(frozen=True)
class FaceAugmentation:
    """Drawn once for a clip, the same for its 15 crops."""

    flip: float = 0.5  # probability of a mirror image
    max_angle: int = 10  # whole degrees to either side
    spoilt: float = 0.0  # probability of a fault (mer.data.spoiling.CROP_KINDS)


@dataclass(frozen=True)
class VoiceAugmentation:
    """Changes to the waveform before its MFCCs are computed, then masks on them.

    A gain alone would change nothing: amplitudes are normalised before the MFCCs.
    """

    speed: float = 0.1  # played slower or faster by up to this share, the pitch with it
    shift: float = 0.2  # seconds earlier or later, at most
    noise: float = 0.5  # probability of white noise
    snr: tuple[float, float] = (10.0, 40.0)  # dB, of the clip's mean power
    mask_frames: int = 16  # widest run of MFCC frames blanked
    mask_coefficients: int = 1  # most neighbouring coefficients blanked
    spoilt: float = 0.0  # probability of noise, a telephone … (mer.data.spoiling.VoiceSpoiler)


@dataclass(frozen=True)
class Protocol:
    """All that is chosen about a training run apart from the model and the data.

    A missing modality is raw zeros in every protocol, and so is scaling: both act on raw MFCCs
    and on pixels, before standardisation. (The reference standardises neither, so there it is
    the same thing.)
    """

    name: str
    epochs: int
    batch_size: int  # clips drawn for a step
    learning_rate: float
    weight_decay: float
    optimizer: Sgd | AdamW
    schedule: Plateau | Steps | Cosine
    missing: ModalityDropout | SoftHard | EachAlone
    face: FaceAugmentation
    voice: VoiceAugmentation | None = None
    label_smoothing: float = 0.0
    feature_dropout: float = 0.0  # probability that a frame feature's channel is zero for a clip
    ema_decay: float | None = None  # per step; the moving average is what is validated and kept
    validated_on: tuple[Modality, ...] = ("both",)  # the best epoch is the best on average

    @property
    def modality(self) -> Modality:
        """What is left where one modality is missing in every clip: validation is of that, too."""
        if isinstance(self.missing, ModalityDropout):
            if self.missing.voice == 1:
                return "video"
            if self.missing.face == 1:
                return "audio"
        return "both"


#: Paper, section 6.1. It names neither batch size nor how modalities are dropped: the batch is
#: the reference's, and each modality is dropped in 15 % of the clips.
PAPER = Protocol(
    name="paper",
    epochs=100,
    batch_size=8,
    learning_rate=0.04,
    weight_decay=1e-3,
    optimizer=Sgd(momentum=0.9, dampening=0.0),
    schedule=Plateau(patience=10, factor=0.1),
    missing=ModalityDropout(voice=0.15, face=0.15),
    face=FaceAugmentation(),
)

#: What the reference implementation does with its defaults. Its plateau scheduler is built but
#: never stepped; dampening 0.9 makes a step a tenth of plain momentum's.
REFERENCE = Protocol(
    name="reference-optimiser",
    epochs=100,
    batch_size=8,
    learning_rate=0.04,
    weight_decay=1e-3,
    optimizer=Sgd(momentum=0.9, dampening=0.9),
    schedule=Steps(epochs=(40, 55, 65, 70), factor=0.1),
    missing=SoftHard(),
    face=FaceAugmentation(),
)

#: For small corpora and a frozen encoder; chosen on validation actors.
TUNED = Protocol(
    name="tuned",
    epochs=60,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.05,
    optimizer=AdamW(),
    schedule=Cosine(),
    missing=ModalityDropout(voice=0.1, face=0.1),
    face=FaceAugmentation(max_angle=0),  # the encoder was pre-trained on turned faces
    voice=VoiceAugmentation(),
    label_smoothing=0.1,
    feature_dropout=0.3,
    ema_decay=0.99,
    # A device loses a face or a voice every so often, and each alone says more than chance.
    validated_on=("both", "audio", "video"),
)

#: A clip that shows both teaches mostly what the face says, and the voice alone stays weak. More
#: accurate than TUNED for ia, level with it for it and lt (docs/explanation/accuracy-models.md).
BALANCED = dataclasses.replace(TUNED, name="balanced", epochs=40, missing=EachAlone())

#: Each modality is spoilt in half of the clips, on its own, beside being missing: so that the other
#: one outvotes it. Strong spoiling takes longer to learn.
ROBUST = dataclasses.replace(
    BALANCED,
    name="robust",
    epochs=60,
    face=FaceAugmentation(max_angle=0, spoilt=0.5),
    voice=VoiceAugmentation(spoilt=0.5),
)

PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (PAPER, REFERENCE, TUNED, BALANCED, ROBUST)}


def restrict_protocol(protocol: Protocol, modality: Modality) -> Protocol:
    """The protocol with one modality missing in every clip: it trains a single-modality model.

    With ``both`` it stays what it is.
    """
    if modality == "both":
        return protocol
    missing = ModalityDropout(voice=float(modality == "video"), face=float(modality == "audio"))
    return dataclasses.replace(protocol, missing=missing, validated_on=(modality,))
