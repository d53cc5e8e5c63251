import inspect

from microemo import MicroEmoForConditionalGeneration, MicroEmoModel, MicroEmoProcessor
from microemo.configuration.model_inputs import MODEL_INPUTS, inputs_of
from microemo.publishing.initialize import SHIPPED


def test_every_signature_names_the_inputs_of_the_one_list():
    forward = inspect.signature(MicroEmoForConditionalGeneration.forward).parameters
    assert set(MODEL_INPUTS) <= set(forward)
    for method, modality in ((MicroEmoModel.get_video_features, "video"), (MicroEmoModel.get_audio_features, "audio")):
        assert set(inspect.signature(method).parameters) - {"self", "kwargs"} == set(inputs_of(modality, "media"))


def test_the_processor_makes_all_but_what_is_precomputed():
    names = MicroEmoProcessor.from_pretrained(SHIPPED).model_input_names
    assert len(names) == len(set(names))
    precomputed = {name for name, given in MODEL_INPUTS.items() if given.computed_from}
    assert set(names) == set(MODEL_INPUTS) - precomputed
    assert {MODEL_INPUTS[name].computed_from for name in precomputed} <= set(names)
