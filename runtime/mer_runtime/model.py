"""A bundle that is loaded: a window's face crops and MFCCs in, logits out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.engines import Backend, read_no_face
from mer_runtime.engines.cores import bound_threads, usable_cores
from mer_runtime.engines.sharing import Turn
from mer_runtime.errors import BundleError, MerWarning, MissingModalityError, SpecError
from mer_runtime.feeds import name_modality
from mer_runtime.inputs.face import DETECTION_SIZE, FaceDetector, check_size, load_detector
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.window_faces import EVERY
from mer_runtime.proof.choice import EngineChoice, choose_backend
from mer_runtime.proof.self_test import SelfTest, run_self_test
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)

M = TypeVar("M", bound="Model")


class Model:
    """A bundle's engine and face detector. Several threads may use it: they take turns.

    ``Recognizer`` is this with clips; a stream needs no more than this.

    Attributes:
        considered: with ``backend="auto"``, what became of each engine (see ``Choice``).
        audio_track: the audio track to listen to, counted from 1, where a call isn't given one;
            None is the first that isn't silent.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        detector: FaceDetector | None = None,
        threads: int | None = None,
        *,
        detect_size: int = DETECTION_SIZE,
        detect_every: int = EVERY,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.considered: Mapping[str, str] = {}
        self.audio_track: int | None = None
        self._detector = detector
        self._detect_size = detect_size
        cores = threads or usable_cores()
        self._search = FaceSearch(self.find_detector, cores, every=detect_every)
        self._reading, self._computing = Turn(self._search), Turn(backend)
        self._no_voice = np.zeros(bundle.spec.audio.shape, np.float32)
        no_face = read_no_face(bundle, backend.feature_width)
        self._no_face = np.tile(no_face, (bundle.spec.video.frames, 1))

    @classmethod
    def load(
        cls: type[M],
        bundle: str | Path,
        threads: int | None = None,
        detector: str | Path | FaceDetector | None = None,
        *,
        detect_size: int = DETECTION_SIZE,
        detect_every: int = EVERY,
        backend: EngineChoice | None = None,
        prove: bool = True,
    ) -> M:
        """Check a bundle's hashes, load its engine, and prove that its answers are right here.

        The proof is a replay of the golden inputs, once for each bundle, version of the engine
        and kind of processor or GPU. Where that can't be kept, it is repeated at each start.

        Args:
            bundle: its folder, or the name of one that comes with mer-edge.
            threads: for the engine and for finding faces; by default as many as this process
                may use cores.
            detector: a YuNet file, or ``haar`` for OpenCV's cascade, or an object of yours with
                the methods of ``mer_runtime.inputs.face.FaceDetector``; by default that of
                ``$MER_FACE_DETECTOR``, else the bundle's, else the YuNet that comes with
                mer-edge (see ``load_detector`` for where that isn't to be had).
            detect_size: pixels, 64 to 4096: the longer side of a frame as faces are looked for
                in it. One that shows none is looked at again at twice that. More finds smaller
                faces and takes longer, with the square of it.
            detect_every: of a clip, look for faces in every so many used frames, and follow them
                in between where that is safe; 1 looks in every one, as a stream does.
            backend: as ``mer-run --backend``: an engine other than the bundle's own
                (``onnxruntime``, ``openvino``, ``tensorrt``, ``tensorrt-rtx``), or ``auto``: the
                fastest of those whose answers are right here.
            prove: False leaves the proof out, and so does ``MER_PROVE=0`` in the environment,
                but ``auto`` can't do without.

        Raises:
            BundleError: the bundle is missing, foreign, edited, can't run or answers wrong here.
            FaceDetectorError: ``detector`` isn't a YuNet file.
            SpecError: ``threads``, ``detect_size`` or ``detect_every`` is out of range.
            MissingExtraError: the bundle's engine isn't installed.
        """
        if threads is not None and threads < 1:
            raise SpecError(f"threads must be at least 1, not {threads}")
        threads = bound_threads(threads)
        loaded = load_bundle(bundle)
        check_size(detect_size)
        if detect_every < 1:
            raise SpecError(f"detect_every must be at least 1, not {detect_every}")
        if isinstance(detector, str | Path):
            detector = load_detector(detector, size=detect_size)
        choice = choose_backend(loaded, backend, threads, prove=prove)
        model = cls(
            loaded,
            choice.backend,
            detector,
            threads,
            detect_size=detect_size,
            detect_every=detect_every,
        )
        model.considered = choice.considered
        return model

    @property
    def spec(self) -> Spec:
        """What the model expects: labels, audio and video preprocessing, fusion."""
        return self.bundle.spec

    def infer(
        self, mfcc: NDArray[np.float32] | None, faces: NDArray[np.uint8] | None
    ) -> NDArray[np.float32]:
        """Run both graphs on a window's prepared inputs.

        Args:
            mfcc: ``spec.audio.shape``, that is (n_mfcc, T), float32, raw (not standardised).
            faces: ``spec.video.shape``, that is (frames, S, S, 3), uint8, 0 to 255, in the
                spec's colour order.

        Returns:
            Logits (classes,) float32.

        Raises:
            MissingModalityError: both are None.
            SpecError: a shape or type isn't the spec's, or an MFCC isn't finite.
            BundleError: the engine fails, or answers with what is no finite number; so do
                ``encode`` and ``classify``.
            MerError: this process was forked from the one that loaded the bundle.
        """
        _check("mfcc", mfcc, self.spec.audio.shape, np.float32)
        _check("faces", faces, self.spec.video.shape, np.uint8)
        with self._computing:
            features = None if faces is None else self._require_numbers(self.backend.encode(faces))
            return self._classify(mfcc, features)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Describe face crops: a stream encodes each crop once, in however many windows it is.

        Args:
            faces: (n, S, S, 3) uint8 as for ``infer``, n from 1 to ``spec.video.frames``.

        Returns:
            Frame features (n, F) float32; F is ``backend.feature_width``.

        Raises:
            SpecError: the shape or type isn't the spec's.
        """
        most, *crop = self.spec.video.shape
        count = len(faces) if faces.ndim else 0
        if not 1 <= count <= most:
            raise SpecError(f"faces must be 1 to {most} crops, not {count}")
        _check("faces", faces, (count, *crop), np.uint8)
        with self._computing:
            return self._require_numbers(self.backend.encode(faces))

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Answer from a window's MFCCs and frame features.

        Args:
            mfcc: as for ``infer``.
            features: (frames, F) float32 from ``encode``, in order of time. None stands for
                black crops, as in training; their features come with the bundle, and the encoder
                isn't run.

        Returns:
            Logits (classes,) float32.

        Raises:
            MissingModalityError: both are None.
            SpecError: a shape or type isn't the spec's, or a value isn't finite.
        """
        window = (self.spec.video.frames, self.backend.feature_width)
        _check("mfcc", mfcc, self.spec.audio.shape, np.float32)
        _check("features", features, window, np.float32)
        with self._computing:
            return self._classify(mfcc, features)

    def find_probabilities(
        self, logits: NDArray[np.float32], *, face: bool, voice: bool
    ) -> NDArray[np.float64]:
        """Logits (classes,) to probabilities, at the bundle's temperature of such windows.

        Args:
            face, voice: what was there.
        """
        return softmax(logits, self.bundle.temperatures.of(name_modality(face=face, voice=voice)))

    def is_settled(self, probabilities: NDArray[np.float64], *, face: bool, voice: bool) -> bool:
        """Whether the two best classes are farther apart than the bundle's rounding reaches.

        How far it reaches was measured when the bundle was proved, for both modalities and for
        each alone; a bundle in float32 leaves hardly an answer unsettled.

        Args:
            probabilities: (classes,), at the bundle's temperature of such windows.
            face, voice: what was there.
        """
        shown = name_modality(face=face, voice=voice)
        best = np.log(np.maximum(np.sort(probabilities)[-2:], np.finfo(np.float64).tiny))
        margin = self.bundle.temperatures.of(shown) * float(best[-1] - best[0])
        return margin > self.bundle.doubtful_margins.get(shown, 0.0)

    def _classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        if mfcc is None and features is None:
            raise MissingModalityError("neither face nor voice: give at least one of them")
        logits = self.backend.classify(
            self._no_voice if mfcc is None else mfcc,
            self._no_face if features is None else features,
        )
        return self._require_numbers(logits)

    def _require_numbers(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        if np.isfinite(answer).all():
            return answer
        raise BundleError(
            self.bundle.path,
            f"{self.backend.name} answers with what are no finite numbers: export the bundle again",
        )

    def self_test(self) -> SelfTest:
        """Replay the bundle's golden inputs on this device's engine."""
        with self._computing:
            return run_self_test(self.bundle, self.backend)

    def find_detector(self) -> FaceDetector:
        """The one that it was given, else that of the environment, the bundle's, or ours.

        Raises:
            FaceDetectorError: the environment's file isn't a YuNet model.
        """
        if self._detector is None:
            self._detector = self._choose_detector()
        return self._detector

    def _choose_detector(self) -> FaceDetector:
        trained = self.spec.video.detector
        detector = load_detector(
            bundled=self.bundle.face_detector, trained=trained, size=self._detect_size
        )
        logger.info("faces are found by %s (%s)", detector.name, detector.file)
        if detector.name != trained:
            warnings.warn(
                f"the model was trained on faces found by {trained}, here {detector.name} finds "
                "them, so answers may be less accurate",
                MerWarning,
                stacklevel=3,
            )
        return detector


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Finite logits (classes,), divided by a temperature of at least 0.01, to probabilities."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max())
    return np.asarray(powers / powers.sum())


def _check(
    name: str, value: NDArray[Any] | None, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    if value is None:
        return
    if value.shape != shape or value.dtype != dtype:
        raise SpecError(
            f"{name} must be {shape} {np.dtype(dtype)}, not {value.shape} {value.dtype}"
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise SpecError(f"{name} holds values that are not finite numbers")
