"""The outputs of the towers for one clip, which take the place of its frames and of its sound in later calls."""

from typing import TYPE_CHECKING

import torch

from ..configuration.model_inputs import MODEL_INPUTS

if TYPE_CHECKING:
    from .modeling_microemo import MicroEmoModel

# The inputs that the towers' features replace.
PIXELS = {str(MODEL_INPUTS[name].computed_from): name for name in ("vision_features", "face_features")}


@torch.inference_mode()
def tower_features(model: "MicroEmoModel", inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Runs the image encoder and the audio tower over one clip.

    Args:
        model ([`MicroEmoModel`]): The model.
        inputs (`dict[str, torch.Tensor]`): The media inputs of the clip, as a processor returns them for a batch of one.

    Returns:
        `dict[str, torch.Tensor]`: The inputs with `vision_features`, `face_features` and `audio_features` (on the CPU) in
        place of frames, face crops and segments.
    """
    inputs = dict(inputs)
    visual_encoder, audio_branch = model.visual_encoder, model.audio_branch
    has_face = inputs["region_masks"][0].flatten(1).any(dim=1) if "region_masks" in inputs else None
    for pixels, name in PIXELS.items():
        if pixels not in inputs:
            continue
        vision_model = visual_encoder.vision_model
        frames = inputs.pop(pixels)[0].to(vision_model.device)
        # The model itself passes over crops without a face.
        is_read = torch.ones(len(frames), dtype=torch.bool)
        if name == "face_features" and has_face is not None:
            is_read = has_face
        num_tokens = visual_encoder.num_class_tokens + model.config.num_patches
        output = torch.zeros(len(frames), num_tokens, model.config.vision_width, dtype=vision_model.dtype)
        if is_read.any():
            hidden_state = visual_encoder.encode(frames[is_read.to(frames.device)]).last_hidden_state
            output[is_read] = hidden_state.to("cpu", output.dtype)
        inputs[name] = output[None]
    if "input_features" in inputs:
        segments = inputs.pop("input_features")[0].to(audio_branch.audio_tower.device)
        is_real = inputs.get("audio_step_mask")
        of_segments = None if is_real is None else is_real[0].unflatten(0, (len(segments), -1)).to(segments.device)
        steps = audio_branch.encode(segments, of_segments).last_hidden_state.flatten(0, 1).cpu()
        if is_real is not None:  # a short sound in a long segment has few steps
            steps, inputs["audio_step_mask"] = steps[is_real[0]], is_real[:, is_real[0]]
        inputs["audio_features"] = steps[None]
    return inputs
