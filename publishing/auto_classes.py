"""The classes of MicroEmo behind Transformers' Auto classes."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)
from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration, MicroEmoModel
from ..processing.feature_extraction_microemo import MicroEmoFeatureExtractor
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.video_processing_microemo import MicroEmoVideoProcessor

MODEL_CLASSES: dict[Any, type] = {
    AutoModel: MicroEmoModel,
    AutoModelForMultimodalLM: MicroEmoForConditionalGeneration,
    AutoModelForImageTextToText: MicroEmoForConditionalGeneration,
}
PROCESSING_CLASSES: dict[Any, type] = {
    AutoProcessor: MicroEmoProcessor,
    AutoVideoProcessor: MicroEmoVideoProcessor,
    AutoFeatureExtractor: MicroEmoFeatureExtractor,
}


def register_auto_classes() -> None:
    """Registers the classes as `Auto*.register` does for any other model.

    Transformers goes through all registered classes by name, so a stand-in in their place would break the loading of other
    models, too.
    """
    AutoConfig.register("microemo", MicroEmoConfig, exist_ok=True)
    for auto_class, own_class in (MODEL_CLASSES | PROCESSING_CLASSES).items():
        auto_class.register(MicroEmoConfig, own_class, exist_ok=True)
    # Not in `auto_map`: where TRL loads a model by its path, this is the class for architectures that Transformers lacks.
    AutoModelForCausalLM.register(MicroEmoConfig, MicroEmoForConditionalGeneration, exist_ok=True)
