"""The analysis of a clip, utterance by utterance: what [`EmotionPipeline.analyze`] does.

The clip is decoded and goes through the towers once, or once for each stretch of a long one. Then the model is asked about some
utterances at a time, so that the first are there while the last are not yet asked about.
"""

import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchFeature

from ..processing.clip_metadata import ClipMetadata
from ..processing.decoding.container import source_name
from ..processing.media import load_audio, probe
from ..processing.speech import SpeechReader, as_speech_reader
from ..processing.utterances import Utterance, read_utterances
from .clip_stretches import Stretch, in_stretches
from .emotion_analysis import EmotionAnalysis, FrameFacts, LabelScore, UtteranceAnalysis
from .evidence import find_evidence
from .held_clip import HeldClip
from .label_scores import Calibration, label_log_probabilities, open_vocabulary, score_labels
from .observations import has_emotion_words, without_emotions
from .pipeline_inputs import QUESTION, UTTERANCE_QUESTION
from .voice_measures import measure_voice

if TYPE_CHECKING:
    from .emotion_pipeline import EmotionPipeline

ASK_FACE = "What moves in the face?"  # with observations only; it asks for no emotion
_AT_ONCE = 4  # utterances that the model answers about in one batch


@torch.inference_mode()
def stream_analysis(
    pipeline: "EmotionPipeline",
    clip: Any,
    utterances: Any = None,
    audio: Any = None,
    audio_track: int | str | None = None,
    asr: Any = None,
    question: str | None = None,
    evidence: bool = False,
    observations_only: bool = False,
    vocabulary: Sequence[str] | None = None,
    **generate_kwargs: Any,
) -> Iterator[EmotionAnalysis]:
    """Analyses a clip, see [`EmotionPipeline.analyze`] for the arguments.

    Args:
        pipeline ([`EmotionPipeline`]): The pipeline.
        clip (`Any`): The video or sound file.
        utterances (`Any`, *optional*): The subtitles.
        audio (`Any`, *optional*): A sound file in place of the clip's own sound.
        audio_track (`int` or `str`, *optional*): The sound track that is read.
        asr (`Any`, *optional*): What makes the utterances where there are no subtitles.
        question (`str`, *optional*): The question about each utterance, and about a clip without any.
        evidence (`bool`, *optional*, defaults to `False`): Whether to find what moved the answers.
        observations_only (`bool`, *optional*, defaults to `False`): Whether to leave emotions out.
        vocabulary (`Sequence[str]`, *optional*): The emotion words to compare.
        generate_kwargs (`Any`, *optional*): Arguments of `generate`.

    Yields:
        [`EmotionAnalysis`]: The same analysis again and again, each time with more utterances; the last one is complete.

    Raises:
        ValueError: if the input cannot be used (see [`MicroEmoProcessor`]), or if the vocabulary is empty.
    """
    if question is not None and observations_only:
        raise ValueError("a question of your own may ask for emotions: leave out question or observations_only")
    calibration = Calibration.of(pipeline.model.name_or_path)
    words = list(dict.fromkeys(word.strip() for word in vocabulary)) if vocabulary is not None else None
    if words is not None and not all(words or [""]):
        raise ValueError(f"vocabulary: expected emotion words, got {list(vocabulary or [])}")
    if words is None:
        words = list(calibration.vocabulary) if calibration is not None else open_vocabulary()
    generate_kwargs = {"do_sample": False, **generate_kwargs}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        info = probe(clip, audio_track if audio is None else None)
        found = _find_utterances(clip, utterances, audio, audio_track, asr, info.duration)
    analysis = EmotionAnalysis(
        clip=source_name(clip),
        model=str(pipeline.model.name_or_path),
        version=version("microemo"),
        duration=round(info.duration, 3),
        has_video=info.has_video,
        has_audio=info.has_audio or audio is not None,
        fps=round(info.fps, 3) if info.has_video else None,
        question=ASK_FACE if observations_only else question or UTTERANCE_QUESTION,
        observations_only=observations_only,
        vocabulary=[] if observations_only else words,
        calibrated=calibration is not None and not observations_only,
        utterances_found=len(found),
        warnings=_texts(caught),
    )
    temperature = 1.0 if calibration is None else calibration.temperature
    voices = _voices(clip, audio, audio_track, found) if analysis.has_audio else [{} for _ in found]
    for stretch in in_stretches(clip, found, pipeline.processor, audio, audio_track):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            held = HeldClip(pipeline.model, pipeline.processor, stretch.clip)
        analysis.warnings += [text for text in _texts(caught) if text not in analysis.warnings]
        _add_frames(analysis, held.content.video_metadata, stretch)
        for first in range(0, len(held.utterances), _AT_ONCE):
            numbers = range(first + 1, min(first + _AT_ONCE, len(held.utterances)) + 1)
            questions = [_cite(analysis.question, number) for number in numbers]
            prompts = held.prompts([(held.given(), items) for items in questions])
            answers = pipeline.generate_texts(prompts, **generate_kwargs)
            for number, items, answer in zip(numbers, questions, answers, strict=True):
                place = stretch.first + number - 1
                one = _describe(found[place], place + 1, answer, voices[place], analysis)
                if not observations_only:
                    inputs = held.prompts([(held.given(), items)])
                    one.labels = _labels(pipeline, inputs, words, answer, temperature, generate_kwargs)
                if evidence:
                    emotions = [label.label for label in one.labels if label.said]
                    result = find_evidence(pipeline.model, pipeline.processor, held, items, answer, number, emotions)
                    one.evidence, one.claims = result.evidence, result.claims
                    if observations_only:
                        one.claims = [claim for claim in result.claims if not has_emotion_words(claim.text)]
                    for part in one.evidence:
                        if part.kind == "window":
                            part.name = str(int(part.name) + stretch.first)
                analysis.utterances.append(one)
                yield analysis
        _describe_clip(pipeline, analysis, held, question, words, temperature, generate_kwargs)
    _warn(analysis)
    yield analysis


def _find_utterances(
    clip: Any, utterances: Any, audio: Any, audio_track: int | str | None, asr: Any, duration: float
) -> list[Utterance]:
    if utterances is not None:
        return read_utterances(utterances, duration)
    if asr is False:
        return []
    return as_speech_reader(asr or SpeechReader()).read_file(audio or clip, audio_track, duration)


def _voices(clip: Any, audio: Any, audio_track: int | str | None, found: list[Utterance]) -> list[dict[str, float]]:
    track = load_audio(clip if audio is None else audio, audio_track)
    if track is None or not found:
        return [{} for _ in found]
    spans = [(one.start, one.end) for one in found]
    return measure_voice(track.samples, track.rate, spans, [one.text for one in found])


def _cite(question: str, number: int) -> list[dict]:
    return [{"type": "text", "text": f"{question}\n"}, {"type": "utterance", "index": number}]


def _add_frames(analysis: EmotionAnalysis, metadata: ClipMetadata | None, stretch: Stretch) -> None:
    if metadata is None:
        return
    if metadata.width and metadata.height:
        analysis.size = [int(metadata.width), int(metadata.height)]
    analysis.frames += [
        FrameFacts(round(float(time) + stretch.start, 3), int(faces))
        for time, faces in zip(metadata.frame_times, metadata.faces_found, strict=True)
    ]


def _describe(
    utterance: Utterance, number: int, answer: str, voice: dict[str, float], analysis: EmotionAnalysis
) -> UtteranceAnalysis:
    inside = [frame for frame in analysis.frames if utterance.start <= frame.time < utterance.end]
    observed = without_emotions(answer)
    return UtteranceAnalysis(
        number=number,
        start=round(utterance.start, 3),
        end=round(utterance.end, 3),
        text=utterance.text,
        speaker=utterance.speaker,
        description=observed if analysis.observations_only else answer,
        observation=observed,
        frames=len(inside),
        faces=sum(frame.faces > 0 for frame in inside),
        voice=voice,
    )


def _labels(
    pipeline: "EmotionPipeline",
    inputs: BatchFeature,
    words: list[str],
    answer: str,
    temperature: float,
    generate_kwargs: dict[str, Any],
) -> list[LabelScore]:
    arguments = {"max_new_tokens": pipeline.max_new_tokens, **generate_kwargs}
    scores = label_log_probabilities(pipeline.model, pipeline.processor, inputs, words, **arguments)
    return score_labels(scores, words, answer, temperature)


def _describe_clip(
    pipeline: "EmotionPipeline",
    analysis: EmotionAnalysis,
    held: HeldClip,
    question: str | None,
    words: list[str],
    temperature: float,
    generate_kwargs: dict[str, Any],
) -> None:
    """Adds the answer about the whole clip, or about one more stretch of it."""
    about_clip = question if question is not None and not held.utterances else QUESTION
    items = [{"type": "text", "text": ASK_FACE if analysis.observations_only else about_clip}]
    prompts = held.prompts([(held.given(), items)])
    (answer,) = pipeline.generate_texts(prompts, **generate_kwargs)
    text = without_emotions(answer) if analysis.observations_only else answer
    if not analysis.description:  # of the first stretch; a later one is added
        analysis.description = text
        if not analysis.observations_only:
            analysis.labels = _labels(pipeline, prompts, words, answer, temperature, generate_kwargs)
        return
    analysis.description += f"\n{text}"
    analysis.labels = []  # no one answer is about all of it


def _texts(caught: list[warnings.WarningMessage]) -> list[str]:
    return list(dict.fromkeys(str(one.message) for one in caught))


def _warn(analysis: EmotionAnalysis) -> None:
    """Adds what a reader must know about the clip."""
    notes = []
    if not analysis.has_video:
        notes.append("The clip has no pictures: only the voice and the words count.")
    elif not any(frame.faces for frame in analysis.frames):
        notes.append("No face is found in the frames that the model reads.")
    elif any(frame.faces > 1 for frame in analysis.frames):
        notes.append("Several faces are seen in a frame; the largest one is followed, which need not be who speaks.")
    if not analysis.has_audio:
        notes.append("The clip has no sound: only the picture and the words count.")
    if not analysis.utterances:
        notes.append("No utterance is found: the description is about the whole clip.")
    elif not any(one.text for one in analysis.utterances):
        notes.append("The words are not known: no subtitles and no speech recognition.")
    hidden = [str(one.number) for one in analysis.utterances if one.frames and not one.faces]
    if hidden and any(frame.faces for frame in analysis.frames):
        notes.append(f"No face is found in utterance {', '.join(hidden)}.")
    overlooked = [str(one.number) for one in analysis.utterances if one.faces and "no face" in one.description.lower()]
    if overlooked:
        notes.append(f"The answer sees no face in utterance {', '.join(overlooked)}, where the face mesh finds one.")
    analysis.warnings += [note for note in notes if note not in analysis.warnings]
