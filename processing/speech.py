"""From the sound of a clip that has no subtitles to utterances: speech recognition between the pauses of the speech."""

import functools
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .decoding.sound_track import AudioTrack
from .feature_extraction_microemo import resample
from .media import load_audio
from .utterances import Utterance, tidy_utterances, transcribe
from .voice_activity import RATE, find_speech

# Seconds of the pauses around a piece that the recogniser hears, too, and the least length of what it is given.
_MARGIN, _SHORTEST_PIECE = 0.12, 1.0
# Pieces are at most ten seconds long: a recogniser that has not ended after so many tokens repeats itself.
_MOST_TOKENS = 200
# Nobody says more letters in a second; a letter of Chinese, Japanese or Korean stands for three.
_MOST_LETTERS = 30.0
_REPEATED = re.compile(r"(.{1,80}?)\1{3,}", re.DOTALL)
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# [BLANK_AUDIO], (laughs), ♪: what a recogniser says of a sound that is no word.
_NO_WORDS = re.compile(r"\[[^\]]*\]|\([^)]*\)|[♪♫*]+")
_BAR_FROM = 60.0  # seconds of sound from which a bar shows how far the recogniser is


class UtteranceStore(ABC):
    """A place that keeps utterances, such as [`UtterancesBesideClips`]."""

    @abstractmethod
    def find(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None
    ) -> list[Utterance] | None:
        """Returns what is kept of a clip.

        Args:
            source (`Path` or `bytes`): The file of the sound, or its content.
            audio_track (`int`, `str` or `None`): The sound track that was asked for.
            recogniser (`str` or `None`): The name of the recogniser.

        Returns:
            `list[Utterance]` or `None`: The utterances, or `None` if there are none of this sound and recogniser.
        """

    @abstractmethod
    def keep(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None, utterances: list[Utterance]
    ) -> None:
        """Keeps the utterances of a clip.

        Args:
            source (`Path` or `bytes`): The file of the sound, or its content.
            audio_track (`int`, `str` or `None`): The sound track that was asked for.
            recogniser (`str` or `None`): The name of the recogniser.
            utterances (`list[Utterance]`): The utterances.
        """


class SpeechReader:
    """Makes the utterances of clips that have sound and no subtitles.

    The speech is divided at its own pauses, and an utterance that is longer than ten seconds at its quietest place. A speech
    recogniser is given each utterance by itself, so that it hears no silence and no music, of which it would make up words.
    Without a recogniser the utterances have times and no words.

    Args:
        asr (`Callable`, *optional*):
            A Transformers `automatic-speech-recognition` pipeline: Whisper and models with CTC return words with times, other
            models the text alone. Another function is given the whole sound, `{"raw": ..., "sampling_rate": ...}` with
            `return_timestamps=True`, and returns what such a pipeline returns; it has `feature_extractor.sampling_rate`.
        name (`str`, *optional*): The name of the recogniser, by which kept utterances are known. By default that of its model.
        store ([`UtteranceStore`], *optional*): A place that keeps utterances, where they are looked up first.
        batch_size (`int`, *optional*, defaults to 8): The number of utterances that Whisper hears at once.
        progress (`bool`, *optional*, defaults to `False`):
            Whether a bar on the standard error stream shows the progress with sounds of more than a minute.

    Example:

    ```python
    >>> from microemo import SpeechReader

    >>> SpeechReader.from_pretrained(None).read(None)  # a clip without sound
    []
    ```"""

    def __init__(
        self,
        asr: Any = None,
        name: str | None = None,
        store: UtteranceStore | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> None:
        self.asr = asr
        self.name = name or getattr(getattr(asr, "model", None), "name_or_path", None) or (asr and type(asr).__name__)
        self.store = store
        self.batch_size = batch_size
        self.progress = progress

    @classmethod
    def from_pretrained(cls, model: str | Path | None, device: Any = None, **options: Any) -> "SpeechReader":
        """Loads a speech recogniser.

        Args:
            model (`str`, `Path` or `None`):
                A folder or Hub id of a model for Transformers' speech recognition, such as `openai/whisper-tiny.en`.
                Without one, utterances have no words.
            device (`Any`, *optional*): The device, such as `"cuda:0"`. By default the first GPU, or the CPU.
            options (`Any`, *optional*): Further arguments of the constructor.

        Returns:
            [`SpeechReader`]: The reader.

        Raises:
            ValueError: If the model cannot be loaded, or is none for speech recognition.
        """
        if model is None:
            return cls(None, **options)
        return cls(load_recogniser(model, device), name=str(model), **options)

    def read(
        self,
        track: AudioTrack | None,
        duration: float | None = None,
        source: Path | bytes | None = None,
        audio_track: int | str | None = None,
    ) -> list[Utterance]:
        """Makes the utterances of one clip whose sound is decoded.

        Args:
            track ([`AudioTrack`] or `None`): The sound; `None` for a clip without sound.
            duration (`float`, *optional*): The length of the clip in seconds. By default that of the sound.
            source (`Path` or `bytes`, *optional*):
                The file of the sound, or its content, for what is kept and for warnings.
            audio_track (`int` or `str`, *optional*): The sound track that was asked for.

        Returns:
            `list[Utterance]`: The utterances in order of time, inside the clip. Their `words` are there where the model
            gives them times.
        """
        return self._find_or_make(lambda: track, duration, source, audio_track)

    def read_file(
        self, source: str | Path | bytes, audio_track: int | str | None = None, duration: float | None = None
    ) -> list[Utterance]:
        """Makes the utterances of one file, which is not decoded if they are kept.

        Args:
            source (`str`, `Path` or `bytes`): A video or sound file, or its content.
            audio_track (`int` or `str`, *optional*): The sound track that is read, as [`MicroEmoProcessor`] takes it.
            duration (`float`, *optional*): The length of the clip in seconds. By default that of the sound.

        Returns:
            `list[Utterance]`: The utterances in order of time, inside the clip.

        Raises:
            MediaError: If the file cannot be used.
        """
        key = source if isinstance(source, bytes) else Path(source) if "://" not in str(source) else None
        return self._find_or_make(lambda: load_audio(source, audio_track), duration, key, audio_track)

    def _find_or_make(
        self,
        load: Callable[[], AudioTrack | None],
        duration: float | None,
        source: Path | bytes | None,
        audio_track: int | str | None,
    ) -> list[Utterance]:
        where = str(source) if isinstance(source, Path) else "the clip"
        found = None if self.store is None or source is None else self.store.find(source, audio_track, self.name)
        if found is None:
            track = load()
            if track is None:
                if self.asr is not None:
                    warnings.warn(f"{where} has no sound, so that no speech can be recognised", stacklevel=3)
                return []
            found = self._recognise(track)
            if self.store is not None and source is not None:
                self.store.keep(source, audio_track, self.name, found)
        found = tidy_utterances(where, found, duration)
        if not found and self.asr is not None:
            warnings.warn(f"{where}: no speech was found in the sound", stacklevel=3)
        return found

    def _recognise(self, track: AudioTrack) -> list[Utterance]:
        if self.asr is not None and not _is_pipeline(self.asr):
            return transcribe(self.asr, track)
        mono = torch.from_numpy(to_mono(track.samples))
        spans = find_speech(resample(mono, track.rate, RATE).numpy())
        if self.asr is None:
            return [Utterance(start, end) for start, end in spans]
        rate = self.asr.feature_extractor.sampling_rate
        sound = resample(mono, track.rate, rate).numpy()
        hide = not self.progress or len(sound) < _BAR_FROM * rate
        outputs = recognise(self.asr, sound, spans, self.batch_size)
        bar = logging.tqdm(
            outputs, "Recognising speech", total=len(spans), unit="utterance", disable=hide, leave=False
        )
        with _without_chatter():
            return list(bar)


def as_speech_reader(asr: Any) -> SpeechReader:
    """Makes a reader of what a user gives as `asr`.

    Args:
        asr (`SpeechReader`, `Callable`, `str` or `Path`): A reader, a recogniser, or the name of a model.

    Returns:
        [`SpeechReader`]: The reader. A model is loaded once.

    Raises:
        TypeError: If it is something else.
        ValueError: If the model cannot be loaded.
    """
    if hasattr(asr, "read_file"):  # a reader, and be it that of another copy of this code
        return asr
    if isinstance(asr, (str, Path)):
        return _reader_of(str(asr))
    if not callable(asr):
        raise TypeError(f"asr must be a speech recogniser or the name of its model, got {type(asr).__name__}")
    return SpeechReader(asr)


@functools.lru_cache(maxsize=1)
def _reader_of(model: str) -> SpeechReader:
    return SpeechReader.from_pretrained(model)


def load_recogniser(model: str | Path, device: Any = None) -> Callable:
    """Loads a Transformers pipeline for speech recognition.

    Args:
        model (`str` or `Path`): A folder or Hub id.
        device (`Any`, *optional*): The device. By default the first GPU, or the CPU.

    Returns:
        `AutomaticSpeechRecognitionPipeline`: The pipeline.

    Raises:
        ValueError: If the model cannot be loaded, or is none for speech recognition.
    """
    from transformers import MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoConfig, pipeline

    try:
        kind = type(AutoConfig.from_pretrained(model))
        if kind not in MODEL_FOR_CTC_MAPPING and kind not in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
            raise ValueError(f"its type is {kind.model_type!r}")
        on_cpu = str(device).startswith("cpu") if device is not None else not torch.accelerator.is_available()
        # Half precision, in which many are stored, is slow on a CPU, or not there.
        dtype = torch.float32 if on_cpu else "auto"
        asr = pipeline("automatic-speech-recognition", model=str(model), device=device, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{model}: cannot be loaded as a model for speech recognition, such as openai/whisper-tiny.en ({reason})"
        ) from error
    if asr.feature_extractor is None or asr.tokenizer is None:
        raise ValueError(
            f"{model}: a model for speech recognition with its feature extractor and tokenizer was expected"
        )
    return asr


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Mixes a sound to one channel.

    Args:
        samples (`np.ndarray` of shape `(channels, n)`): The sound.

    Returns:
        `np.ndarray` of shape `(n,)`: The mean of the channels, or the loudest channel where they cancel each other out.
    """
    mixed = samples.mean(0)
    if len(samples) > 1:
        power = [float(np.vdot(channel, channel)) for channel in samples]
        if float(np.vdot(mixed, mixed)) < 0.05 * sum(power) / len(power):
            return samples[int(np.argmax(power))]
    return mixed


def recognise(
    asr: Any, sound: np.ndarray, spans: list[tuple[float, float]], batch_size: int = 8
) -> Iterator[Utterance]:
    """Recognises utterances whose times are known.

    Args:
        asr (`AutomaticSpeechRecognitionPipeline`): The recogniser.
        sound (`np.ndarray` of shape `(n,)`): The sound at the sampling rate of the recogniser.
        spans (`list[tuple[float, float]]`): The start and end of each utterance in seconds.
        batch_size (`int`, *optional*, defaults to 8): The number of utterances that Whisper hears at once.

    Returns:
        `Iterator[Utterance]`: The utterances in the order of the spans. The text is empty where no word was recognised.
    """
    if not spans:
        return
    rate = asr.feature_extractor.sampling_rate
    limits = [0.0, *((a[1] + b[0]) / 2 for a, b in pairwise(spans)), len(sound) / rate]
    heard = [
        (max(start - _MARGIN, before), min(end + _MARGIN, after))
        for (start, end), before, after in zip(spans, limits[:-1], limits[1:], strict=True)
    ]
    pieces = ({"raw": _piece(sound, rate, *span), "sampling_rate": rate} for span in heard)
    is_whisper = asr.type == "seq2seq_whisper"
    # Others pad the sound to that of the longest in a batch, and some of them hear it.
    options: dict[str, Any] = {"batch_size": batch_size if is_whisper else 1}
    if _gives_words(asr):
        options["return_timestamps"] = "word"
    if is_whisper:
        options["generate_kwargs"] = {
            "max_length": min(_MOST_TOKENS, asr.model.generation_config.max_length or _MOST_TOKENS)
        }
    for span, (begin, _), output in zip(spans, heard, asr(pieces, **options), strict=True):
        yield _to_utterance(output, span, begin)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keeps quiet what Transformers says of its own pipeline, and the divisions by zero in Whisper's alignment."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _is_pipeline(asr: Any) -> bool:
    from transformers import AutomaticSpeechRecognitionPipeline

    return isinstance(asr, AutomaticSpeechRecognitionPipeline)


def _gives_words(asr: Any) -> bool:
    """Tells whether a pipeline can say when each word is spoken. Whisper needs to know which heads align text and sound."""
    if asr.type == "seq2seq_whisper":
        return getattr(asr.model.generation_config, "alignment_heads", None) is not None
    return asr.type in ("ctc", "ctc_with_lm")


def _piece(sound: np.ndarray, rate: int, start: float, end: float) -> np.ndarray:
    piece = sound[round(start * rate) : round(end * rate)]
    return np.pad(piece, (0, max(0, round(_SHORTEST_PIECE * rate) - len(piece))))


def _to_utterance(output: dict, span: tuple[float, float], begin: float) -> Utterance:
    """Makes an utterance of what a pipeline returns for a piece that begins at `begin` seconds."""
    text, words = output["text"], _words(output.get("chunks") or [], span, begin)
    letters = sum(3 if _WIDE.match(letter) else 1 for letter in text)
    # A recogniser that is caught in a loop says more than there is time for.
    if letters > _MOST_LETTERS * max(1.0, span[1] - span[0]):
        text, words = _REPEATED.sub(r"\1", text), []
    if _NO_WORDS.search(text):
        text, words = _NO_WORDS.sub(" ", text), _without_remarks(words)
    text = " ".join(text.split())
    if not any(letter.isalnum() for letter in text):
        text, words = "", []
    return Utterance(*span, text, words=words)


def _words(chunks: list[dict], span: tuple[float, float], begin: float) -> list[dict[str, Any]]:
    """Returns words with times inside the utterance that never run backwards."""
    words: list[dict[str, Any]] = []
    at = span[0]
    for chunk in chunks:
        start, end = chunk["timestamp"]
        start = at if start is None else min(max(begin + start, at), span[1])
        end = span[1] if end is None else min(max(begin + end, start), span[1])
        if chunk["text"].strip():
            words.append({"start": round(start, 3), "end": round(end, 3), "word": chunk["text"].strip()})
        at = start
    return words


def _without_remarks(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drops the words in brackets."""
    kept, depth = [], 0
    for word in words:
        opens = sum(word["word"].count(mark) for mark in "[(")
        closes = sum(word["word"].count(mark) for mark in "])")
        if not depth and not opens and any(letter.isalnum() for letter in word["word"]):
            kept.append(word)
        depth = max(0, depth + opens - closes)
    return kept


__all__ = ["SpeechReader"]
