"""MicroEmo: open, explainable emotion recognition from video dialogue (Zhang et al., MRAC 2024).

Importing the package registers its classes with Transformers' Auto classes, and its pipeline with Transformers'
pipelines. The `microemo` command alone does without: it answers at once where no model is needed, and its commands register
the classes when they begin. MediaPipe and all that training needs load on first use.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .configuration.configuration_microemo import MicroEmoConfig
    from .inference.emotion_pipeline import EmotionPipeline
    from .modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration, MicroEmoModel
    from .processing.feature_extraction_microemo import MicroEmoFeatureExtractor
    from .processing.processing_microemo import MicroEmoProcessor
    from .processing.speech import SpeechReader
    from .processing.utterances import read_utterances
    from .processing.video_processing_microemo import MicroEmoVideoProcessor

__version__ = "0.1.0"

__all__ = [
    "EmotionPipeline",
    "MicroEmoConfig",
    "MicroEmoFeatureExtractor",
    "MicroEmoForConditionalGeneration",
    "MicroEmoModel",
    "MicroEmoProcessor",
    "MicroEmoVideoProcessor",
    "SpeechReader",
    "read_utterances",
]

_MODULES = {
    "EmotionPipeline": "inference.emotion_pipeline",
    "MicroEmoConfig": "configuration.configuration_microemo",
    "MicroEmoFeatureExtractor": "processing.feature_extraction_microemo",
    "MicroEmoForConditionalGeneration": "modeling_microemo.modeling_microemo",
    "MicroEmoModel": "modeling_microemo.modeling_microemo",
    "MicroEmoProcessor": "processing.processing_microemo",
    "MicroEmoVideoProcessor": "processing.video_processing_microemo",
    "SpeechReader": "processing.speech",
    "read_utterances": "processing.utterances",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    importlib.import_module(".publishing.auto_classes", __name__).register_auto_classes()
    importlib.import_module(".inference.emotion_pipeline", __name__).register_emotion_pipeline()


def _is_command() -> bool:
    """Whether this process is the `microemo` command, by the interpreter's own arguments: the processes that it starts
    take over its `sys.argv`, but not its way to register the classes."""
    program = next((word for word in sys.orig_argv[1:] if not word.startswith("-")), "")
    return program == "microemo.commands.main" or Path(program).name in ("microemo", "microemo.exe")


if not _is_command():
    _register()
