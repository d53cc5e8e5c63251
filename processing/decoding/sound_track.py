"""Decoded sound put together on the clip's clock, whatever formats it comes in."""

from dataclasses import dataclass

import numpy as np
import torch

from ..feature_extraction_microemo import resample
from .container import PTS_TOLERANCE

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]  # the error names what to install

# Sound that pauses for more seconds than this has wrong times: the pause is not filled.
LONGEST_SILENCE = 3600.0


@dataclass
class AudioTrack:
    """Holds a sound track on the clip's clock.

    Attributes:
        samples (`np.ndarray` of shape `(channels, n)`): The float32 samples. Decoded sound can exceed 1.
        rate (`int`): The number of samples per second.
    """

    samples: np.ndarray
    rate: int


class TrackBuilder:
    """Gathers decoded sound in the format of its first frame.

    Args:
        frame (`av.AudioFrame`): The first decoded frame.
        seconds (`float`): The expected length of the sound.
        counted (`bool`): Whether FFmpeg counts the times of the file, see [`is_counted`].

    Attributes:
        changed (`bool`): Whether the format changes after the first frame.
        leap (`float`, *optional*): The seconds of the first time that was not believed.
    """

    def __init__(self, frame: "av.AudioFrame", seconds: float, counted: bool) -> None:
        self.counted, self.changed = counted, False
        self.leap: float | None = None
        self._rate, self._end = frame.sample_rate, 0
        shape = frame.layout.nb_channels, int((min(seconds, 600) + 1) * frame.sample_rate)
        self._samples = np.zeros(shape, np.float32)  # grows
        self._run: _Run | None = None

    def add(self, frame: "av.AudioFrame", seconds: float | None) -> None:
        """Adds a decoded frame.

        Args:
            frame (`av.AudioFrame`): The frame.
            seconds (`float` or `None`): The time of the frame after the clip's start. `None` stands for the end of
                the frame before it.
        """
        sound = _to_float(frame)
        if len(sound) == len(self._samples) and frame.sample_rate == self._rate:
            self._close_run()
            self._put(sound, None if self.counted and self.changed else seconds)
            return
        self.changed = True
        seconds = None if self.counted else seconds
        if self._run is None or not self._run.takes(sound, frame, seconds):
            self._close_run()
            self._run = _Run(frame, seconds)
        self._run.add(sound)

    def finish(self) -> AudioTrack:
        """Returns the sound of all frames.

        Returns:
            `AudioTrack`: The sound in the format of the first frame.
        """
        self._close_run()
        return AudioTrack(self._samples[:, : self._end], self._rate)

    def _close_run(self) -> None:
        if self._run is not None:
            self._put(self._run.convert(len(self._samples), self._rate), self._run.seconds)
            self._run = None

    def _put(self, sound: np.ndarray, seconds: float | None) -> None:
        at = self._end if seconds is None else round(seconds * self._rate)
        if at - self._end > LONGEST_SILENCE * self._rate:
            self.leap = self.leap or seconds
        if abs(at - self._end) < PTS_TOLERANCE * self._rate or not 0 <= at - self._end <= LONGEST_SILENCE * self._rate:
            at = self._end  # it follows on; times that run backwards or leap are no times
        self._end = at + sound.shape[1]
        if self._end > self._samples.shape[1]:
            self._samples = np.pad(self._samples, ((0, 0), (0, self._end)))
        self._samples[:, at : self._end] = sound


class _Run:
    """Holds sound of another format than the first frame, without a gap."""

    def __init__(self, frame: "av.AudioFrame", seconds: float | None) -> None:
        self.seconds = seconds
        self._sounds: list[np.ndarray] = []
        self._length = 0
        self._rate = frame.sample_rate
        self._names = [channel.name for channel in frame.layout.channels]

    def takes(self, sound: np.ndarray, frame: "av.AudioFrame", seconds: float | None) -> bool:
        """Tells whether a frame has the format of this sound and follows it without a gap."""
        end = (self.seconds or 0) + self._length / self._rate
        follows = seconds is None or abs(seconds - end) < PTS_TOLERANCE
        return follows and frame.sample_rate == self._rate and len(sound) == len(self._sounds[0])

    def add(self, sound: np.ndarray) -> None:
        """Appends the samples of a frame, `(channels, n)`."""
        self._sounds.append(sound)
        self._length += sound.shape[1]

    def convert(self, channels: int, rate: int) -> np.ndarray:
        """Converts all of the sound to a number of channels and a sampling rate."""
        sound = np.concatenate(self._sounds, axis=1)
        if len(sound) != channels:
            sound = _mix(sound, self._names, channels)
        return resample(torch.from_numpy(sound), self._rate, rate).numpy()


def _mix(sound: np.ndarray, names: list[str], channels: int) -> np.ndarray:
    """Mixes a sound to `(channels, n)`, with left and right in the first two channels, or their mean in a single one.

    Channels in the middle, beside or behind are added to their side with the weight that broadcasters give them (ITU-R
    BS.775); the bass channel is left out. Channels without a name are left and right.
    """
    sides = np.zeros((2, len(sound)), np.float32)
    for number, name in enumerate(names):
        front = 1.0 if name in ("FL", "FR") else 2**-0.5
        sides[0, number] = front * (name.endswith("L") or name.endswith("C"))
        sides[1, number] = front * (name.endswith("R") or name.endswith("C"))
    if len(sound) == 1 or not sides.any(1).all():
        sides[:] = np.eye(2, len(sound)) if len(sound) > 1 else 1
    mixed = sides @ sound
    if channels == 1:
        return mixed.mean(0, keepdims=True)
    return np.pad(mixed, ((0, channels - 2), (0, 0)))


def _to_float(frame: "av.AudioFrame") -> np.ndarray:
    """Returns a decoded sound frame as `(channels, n)` float32. Integer formats are scaled by their half range."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 7:  # PyAV's own conversion reads beyond the eighth
        dtype = av.AudioFrame(frame.format, "mono", 1).to_ndarray().dtype
        sound = np.stack([np.frombuffer(memoryview(frame.planes[i]), dtype)[: frame.samples] for i in range(channels)])
    else:
        sound = frame.to_ndarray()
    if not frame.format.is_planar:
        sound = sound.reshape(-1, channels).T
    if sound.dtype.kind == "f":
        return sound.astype(np.float32, copy=False)
    half_range = 2.0 ** (8 * sound.dtype.itemsize - 1)
    return ((sound - (half_range if sound.dtype.kind == "u" else 0)) / half_range).astype(np.float32)
