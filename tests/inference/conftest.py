"""The shipped microemo-tiny and small clips, made once for all tests of the analysis."""

from pathlib import Path

import numpy as np
import pytest

from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.publishing.initialize import SHIPPED

GREY = np.full((120, 160, 3), 128, np.uint8)


@pytest.fixture(scope="session")
def tiny() -> EmotionPipeline:
    """A pipeline whose answers are short, so that tests are."""
    return EmotionPipeline.from_pretrained(SHIPPED, max_new_tokens=8)


@pytest.fixture(scope="session")
def faceless_clip(make_clip) -> Path:
    """Two seconds of grey pictures with a tone."""
    return make_clip("faceless.mp4", times=np.arange(10) / 5, sound=2.0, picture=GREY)


@pytest.fixture(scope="session")
def silent_clip(make_clip) -> Path:
    """Two seconds of grey pictures."""
    return make_clip("silent.mp4", times=np.arange(10) / 5, sound=None, picture=GREY)


@pytest.fixture(scope="session")
def sound_clip(make_clip) -> Path:
    """Two seconds of a tone."""
    return make_clip("sound.mka", times=[], sound=2.0)
