"""A model that answers at once, and the page with it: for handlers that are called, and served to a browser."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from microemo.inference.emotion_analysis import (
    Claim,
    EmotionAnalysis,
    Evidence,
    FrameFacts,
    LabelScore,
    UtteranceAnalysis,
)
from microemo.inference.page import emotion_page
from microemo.inference.page.visitors import Visitors
from microemo.processing.media import probe
from microemo.processing.utterances import read_utterances


class QuickPipeline:
    """Stands in for an `EmotionPipeline`: clips and subtitles are read, and answers are always the same."""

    def __init__(self) -> None:
        self.pause = 0.0
        self.asked: list[dict] = []

    def stream_analysis(
        self, clip: str, utterances=None, asr=None, evidence=False, observations_only=False
    ) -> Iterator:
        self.asked.append({"asr": asr, "evidence": evidence, "observations_only": observations_only})
        info = probe(clip)
        found = [] if utterances is None else read_utterances(utterances, info.duration)
        analysis = EmotionAnalysis(clip, "quick", "0", info.duration, info.has_video, info.has_audio)
        analysis.observations_only = observations_only
        analysis.utterances_found = len(found)
        analysis.description = "Somebody is seen."
        analysis.frames = [FrameFacts(0.5, 1)]
        analysis.warnings = [] if info.has_audio else ["The clip has no sound."]
        if not found:
            yield analysis
        for number, of in enumerate(found, 1):
            time.sleep(self.pause)
            one = UtteranceAnalysis(number, of.start, of.end, of.text, of.speaker, "The brows go up.", "Raised brows.")
            one.faces, one.frames, one.voice = 3, 4, {"loudness": -20.0, "pitch": 180.0}
            if not observations_only:
                one.labels = [LabelScore("surprise", 0.6, True), LabelScore("joy", 0.2)]
            if evidence:
                one.evidence = [Evidence("region", "brow_left", 0.8), Evidence("modality", "sound", -0.1)]
                one.claims = [Claim("The brows go up", "brow_left", True, 0.8)]
            analysis.utterances.append(one)
            yield analysis

    def __call__(self, clip: str, question: str, utterances=None, asr=None) -> dict:
        probe(clip)
        return {"description": f"An answer to: {question}"}


@pytest.fixture
def pipeline() -> QuickPipeline:
    return QuickPipeline()


@pytest.fixture
def page(pipeline, tmp_path) -> emotion_page.EmotionPage:
    return emotion_page.EmotionPage(pipeline, Visitors(tmp_path))


@pytest.fixture
def visitor() -> SimpleNamespace:
    """The request of somebody who visits."""
    return SimpleNamespace(session_hash="ada")


@pytest.fixture
def serve(monkeypatch):
    """`serve(pipeline, **options)`: the page of `serve_page` with this model."""

    def start(pipeline: QuickPipeline, **options):
        monkeypatch.setattr(emotion_page.EmotionPipeline, "from_pretrained", lambda *_, **__: pipeline)
        return emotion_page.serve_page(**options)

    return start


@pytest.fixture
def broken_clip(tmp_path) -> Path:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video" * 100)
    return path
