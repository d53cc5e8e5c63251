"""MicroEmo: open, explainable emotion recognition from video dialogue (Zhang et al., MRAC 2024).

Importing the package registers its classes with Transformers' Auto classes. Model code, PyAV and MediaPipe load on
first use.
"""

import importlib

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from .configuration.configuration_microemo import MicroEmoConfig

__version__ = "0.1.0"

_MODULES = {
    "MicroEmoFeatureExtractor": "processing.feature_extraction_microemo",
    "MicroEmoForConditionalGeneration": "modeling_microemo.modeling_microemo",
    "MicroEmoModel": "modeling_microemo.modeling_microemo",
    "MicroEmoProcessor": "processing.processing_microemo",
    "MicroEmoVideoProcessor": "processing.video_processing_microemo",
}

__all__ = ["MicroEmoConfig", *_MODULES]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_MODULES])


class _OnFirstUse:
    """Stands for one of our classes in an Auto mapping until somebody asks it for anything but its name."""

    def __init__(self, name: str):
        self.__name__ = name

    def __getattr__(self, attribute: str):
        return getattr(__getattr__(self.__name__), attribute)

    def __call__(self, *args, **kwargs):
        return __getattr__(self.__name__)(*args, **kwargs)


AutoConfig.register("microemo", MicroEmoConfig, exist_ok=True)
for _mapping, _name in (
    (AutoModel._model_mapping, "MicroEmoModel"),
    (AutoModelForMultimodalLM._model_mapping, "MicroEmoForConditionalGeneration"),
    (AutoModelForImageTextToText._model_mapping, "MicroEmoForConditionalGeneration"),
    (PROCESSOR_MAPPING, "MicroEmoProcessor"),
    (VIDEO_PROCESSOR_MAPPING, "MicroEmoVideoProcessor"),
    (FEATURE_EXTRACTOR_MAPPING, "MicroEmoFeatureExtractor"),
):
    _mapping.register(MicroEmoConfig, _OnFirstUse(_name), exist_ok=True)
