"""The device's API: load a bundle, give it clips, get emotions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import SpecError
from mer_runtime.inputs.clip import read_clip, timed
from mer_runtime.inputs.given import Arrays, Colour
from mer_runtime.inputs.media_file import MEDIA, Media, MediaFile
from mer_runtime.inputs.tracking import Faces
from mer_runtime.model import Model
from mer_runtime.prediction import Analysis, Prediction

if TYPE_CHECKING:
    from mer_runtime.timeline import Timeline

#: A picture, or several.
Frames = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


class Recognizer(Model):
    """A bundle ready to answer. Several threads may use it: they take turns.

    One decodes while another's window is in the engine; no more than that, since every engine has
    all the threads that it was given for each answer. For as many answers at once as there are
    cores, load one with ``threads=1`` in each thread, or use processes, as ``mer-run --jobs``
    does. A process forked from this one needs a recogniser of its own: engines' threads are not
    copied by a fork.

    Attributes:
        considered: with ``backend="auto"``, what became of each engine (see ``Choice``).
        audio_track: the audio track of clips to listen to, counted from 1, where ``predict`` isn't
            given one; None is the first that isn't silent.

    >>> recognizer = Recognizer.load("ia-compact-int8")                  # doctest: +SKIP
    >>> recognizer.predict("clip.mp4").label                # doctest: +SKIP
    'happy'
    """

    def predict(
        self,
        clip: Media | Frames | None = None,
        *,
        times: Sequence[float] | NDArray[Any] | None = None,
        waveform: NDArray[Any] | None = None,
        sample_rate: int | None = None,
        colour: Colour = "rgb",
        audio_track: int | None = None,
    ) -> Prediction:
        """Recognise the emotion in a clip's centre window, the 3.6 s in its middle.

        Args:
            clip: a path, a file's content (bytes) or a file object opened in binary mode: of a
                clip, or of a still picture (JPEG or PNG). Or frames: one picture (H, W, 3) uint8,
                upright, or several, as a list or as (n, H, W, 3). Or nothing, where there is a
                waveform. One picture alone stands for the whole window.
            times: of frames, (n,) seconds at which each comes on screen, in order. By default
                they are spread evenly over the waveform's length, or without a waveform over
                one window.
            waveform: what is heard with the frames, or alone: (n,), (n, channels) or
                (channels, n), floats in [-1, 1] or integers of full scale (uint8, int16, int32).
                It begins at time 0.
            sample_rate: the waveform's, in Hz.
            colour: the frames' order of colours: ``rgb``, or ``bgr`` as OpenCV's.
            audio_track: of a file, the audio track to listen to, counted from 1; by default that
                of ``self.audio_track``.

        Raises:
            MediaError: the clip can't be decoded, has no such track, or is a URL.
            MissingModalityError: it shows no face that moves on, and holds no voice.
            SpecError: an array isn't such a one, or these arguments don't go together.
        """
        return self.analyse(
            clip,
            times=times,
            waveform=waveform,
            sample_rate=sample_rate,
            colour=colour,
            audio_track=audio_track,
        ).prediction

    def analyse(
        self,
        clip: Media | Frames | None = None,
        *,
        times: Sequence[float] | NDArray[Any] | None = None,
        waveform: NDArray[Any] | None = None,
        sample_rate: int | None = None,
        colour: Colour = "rgb",
        audio_track: int | None = None,
    ) -> Analysis:
        """As ``predict``, keeping the frames, boxes and waveform."""
        source: MediaFile | Arrays
        if isinstance(clip, MEDIA):
            if not (times is None and waveform is None and sample_rate is None):
                raise SpecError(
                    "a file has its own times and sound: give frames, or the file alone"
                )
            source = MediaFile(clip)
        else:
            source = Arrays(clip, times, waveform, sample_rate, colour)
        with self._reading:
            read = read_clip(source, self.spec, self._search, audio_track or self.audio_track)
        faces, seconds, window = read.faces, read.seconds, read.window
        with timed(seconds, "inference"):
            logits = self.infer(read.mfcc, faces.crops if faces else None)
        seconds["total"] = sum(seconds.values())
        face, voice = faces is not None, read.mfcc is not None
        probabilities = self.find_probabilities(logits, face=face, voice=voice)
        prediction = Prediction(
            source=read.source,
            start=window.start,
            end=window.end,
            label=self.spec.labels[int(probabilities.argmax())],
            probabilities=dict(zip(self.spec.labels, probabilities.tolist(), strict=True)),
            face=face,
            voice=voice,
            settled=self.is_settled(probabilities, face=face, voice=voice),
            faces_found=int(faces.found.sum()) if faces else 0,
            people=faces.people if faces else 0,
            seconds=seconds,
            audio_track=window.audio_track,
            notes=window.notes,
        )
        return Analysis(prediction, window, faces)

    def timeline(
        self,
        path: str | Path,
        *,
        faces: Faces = "one",
        hop: float | None = None,
        audio_track: int | None = None,
        overlay: str | Path | None = None,
    ) -> Timeline:
        """Recognise the emotions of a whole clip, an answer every 0.48 s, as a stream's.

        Args:
            path: the clip's. It is read as the answers are, and no more of it than that is held.
            faces: ``one`` is about one person, ``all`` gives an answer for each person in view.
            hop: seconds from answer to answer, a multiple of the slot (0.24 s); by default two.
            audio_track: as for ``predict``.
            overlay: an .mp4 to write: the whole clip with its answers drawn in.

        Returns:
            The answers in order of time, to be read once.

        Raises:
            MediaError: it can't be read, as a rule only when the first answer is asked for.
            OutputError: ``overlay`` can't be written.
            SpecError: ``hop`` isn't a multiple of the slot.
        """
        from mer_runtime.timeline import Timeline

        return Timeline(
            self,
            path,
            faces=faces,
            hop=hop,
            audio_track=audio_track or self.audio_track,
            overlay=overlay,
        )
