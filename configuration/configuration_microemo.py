"""Configuration of MicroEmo: one flat class of switches over the sub-configurations of its parts."""

from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig
from transformers.models.instructblipvideo.configuration_instructblipvideo import (
    InstructBlipVideoQFormerConfig,
    InstructBlipVideoVisionConfig,
)

from .remote_code import drop_code_references


@strict
class MicroEmoVisionConfig(InstructBlipVideoVisionConfig):
    r"""
    The frozen image encoder (EVA-CLIP ViT-g/14 in the paper).

    Args:
        post_layernorm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the LayerNorm after the last block. The original `ln_vision` differs in it from the blocks
            (`layer_norm_eps`, 1e-6).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Of random weights. A small encoder that stays random wants about `hidden_size**-0.5`: with 0.02 its features
            hardly tell one picture from another.
    """

    model_type = "microemo_vision"
    base_config_key = "vision_config"

    post_layernorm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_divides("vision_config", self.hidden_size, self.num_attention_heads)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"vision_config: image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )

    @property
    def num_patches(self) -> int:
        """Patches P of a frame, the class token left out."""
        return (self.image_size // self.patch_size) ** 2


@strict
class MicroEmoImageQFormerConfig(InstructBlipVideoQFormerConfig):
    r"""
    The timestamp-bound image Q-Former (paper 3.2). `vocab_size` is BERT's 30,522 and one row for `[DEC]`.

    Args:
        use_qformer_text_input (`bool`, *optional*, defaults to `False`):
            Read by Transformers' text-free Q-Former only, which stands in for this one where
            `MicroEmoConfig.use_frame_timestamps` is off.
    """

    model_type = "microemo_image_qformer"
    base_config_key = "image_qformer_config"

    vocab_size: int = 30523
    use_qformer_text_input: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_divides("image_qformer_config", self.hidden_size, self.num_attention_heads)


@strict
class MicroEmoVideoQFormerConfig(Blip2QFormerConfig):
    r"""The utterance-aware video Q-Former (paper 3.3): two layers, cross-attention in both."""

    model_type = "microemo_video_qformer"
    base_config_key = "video_qformer_config"

    num_hidden_layers: int = 2
    cross_attention_frequency: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_divides(self.base_config_key, self.hidden_size, self.num_attention_heads)


@strict
class MicroEmoAudioQFormerConfig(MicroEmoVideoQFormerConfig):
    r"""The audio Q-Former: as the video Q-Former, over the segment features of the audio tower."""

    model_type = "microemo_audio_qformer"
    base_config_key = "audio_qformer_config"


@strict
class MicroEmoAudioConfig(PreTrainedConfig):
    r"""
    ImageBind's audio tower: a ViT over the log-mel picture of a segment of sound.

    Args:
        segment_duration (`float`, *optional*, defaults to 2.0): Seconds of a segment of sound, a mel frame every 10 ms.
        num_mel_bins (`int`, *optional*, defaults to 128): Height of the mel picture.
        num_mel_frames (`int`, *optional*, defaults to 204): Width of the mel picture; it must hold a whole segment.
        kernel_size (`int`, *optional*, defaults to 16): Side of the convolution stem's square kernel.
        stride (`int`, *optional*, defaults to 10): Its stride in both directions.
        projection_dim (`int`, *optional*, defaults to 1024): Width of ImageBind's joint space, hence of a segment's features.
        stem_layer_norm_eps (`float`, *optional*, defaults to 1e-5): Epsilon of the stem's LayerNorm only.
        logit_scale_init_value (`float`, *optional*, defaults to 20.0): Length of a segment's features.
        initializer_range (`float`, *optional*, defaults to 0.02): See [`MicroEmoVisionConfig`].
    """

    model_type = "microemo_audio"
    base_config_key = "audio_config"
    attribute_map = {"clip_duration": "segment_duration"}  # the name of version 0.1

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    segment_duration: float | int = 2.0
    num_mel_bins: int = 128
    num_mel_frames: int = 204
    kernel_size: int = 16
    stride: int = 10
    projection_dim: int = 1024
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    stem_layer_norm_eps: float = 1e-5
    attention_dropout: float | int = 0.0
    logit_scale_init_value: float = 20.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_divides("audio_config", self.hidden_size, self.num_attention_heads)

    @property
    def num_patches(self) -> int:
        """Patches of a mel picture, the class token left out."""
        height, width = (
            (side - self.kernel_size) // self.stride + 1 for side in (self.num_mel_bins, self.num_mel_frames)
        )
        return height * width


@strict
class MicroEmoConfig(PreTrainedConfig):
    r"""
    Configuration of [`MicroEmoForConditionalGeneration`]. The defaults are the paper's sizes (`microemo-7b`).

    Args:
        num_query_tokens (`int`, *optional*, defaults to 32): Queries of the image Q-Former, per frame.
        num_video_query_tokens (`int`, *optional*, defaults to 32): Queries n of the video Q-Former, per window.
        num_audio_query_tokens (`int`, *optional*, defaults to 8): Queries m of the audio Q-Former, per window.
        max_frames (`int`, *optional*, defaults to 32): Rows of the frame position table.
        max_audio_segments (`int`, *optional*, defaults to 8): Rows of the segment position table.
        num_regions (`int`, *optional*, defaults to 11):
            Facial clue regions R: the paper's eleven, or 1 for the whole face as a control (the video processor's
            `clue_regions`).
        use_local_clue_attention (`bool`, *optional*, defaults to `True`):
            The local view of the global-local visual encoder (paper 3.2). Off: global tokens only (Table 2).
        local_view (`"frame"` or `"face_crop"`, *optional*, defaults to `"frame"`):
            Whose patches the clue regions cover: the frame's own (paper), or those of a crop around the face.
        local_clue_num_attention_heads (`int`, *optional*, defaults to 16): Heads of the local clue attention.
        fusion_gate_init (`float`, *optional*, defaults to 0.0):
            Start of the gate in `global + gate * project(local)`. 0 for converted weights (the model then equals the
            chain without the local view), 1 for a model trained from scratch.
        use_frame_timestamps (`bool`, *optional*, defaults to `True`):
            Whether the image Q-Former reads "This frame is sampled at 2.0s."; off, it takes no text at all.
        keep_timestamp_tokens (`bool`, *optional*, defaults to `False`):
            Pass the timestamp's rows on to the video Q-Former too, as TimeChat did.
        windows (`"utterance"`, `"sliding"` or `"none"`, *optional*, defaults to `"utterance"`):
            What the video Q-Former's windows are (paper 3.3; TimeChat slides; `"none"` is Table 2's ablation).
            The processor makes the windows; the model refuses prompts made with another setting.
        window_size (`float`, *optional*, defaults to 32): Length of a sliding window, in `window_unit`.
        window_stride (`float`, *optional*, defaults to 32): Distance between starts of sliding windows.
        window_unit (`"frames"` or `"seconds"`, *optional*, defaults to `"frames"`): Unit of both.
        use_global_window (`bool`, *optional*, defaults to `True`): The pass over the whole clip. TimeChat has none.
        share_video_qformer (`bool`, *optional*, defaults to `False`):
            One set of weights for the global pass and for the windows.
        use_utterance_audio (`bool`, *optional*, defaults to `False`):
            Utterance windows over the sound as well (the paper's future work), whatever `windows` says of the frames.
        video_token_id (`int`, *optional*, defaults to 32000): Id of the `<video>` placeholder.
        audio_token_id (`int`, *optional*, defaults to 32001): Id of the `<audio>` placeholder.

    Raises:
        ValueError: for sizes that do not fit together, naming the field and the value.

    Example:

    ```python
    >>> from microemo import MicroEmoConfig
    >>> config = MicroEmoConfig.from_preset("microemo-tiny")
    >>> config.vision_config.num_patches
    64
    ```"""

    model_type = "microemo"
    attribute_map = {
        "max_audio_clips": "max_audio_segments",  # the name of version 0.1
        "image_token_id": "video_token_id",  # what libraries look for in a model that sees
    }
    # Lists of tensors, one of another length for each clip, which `Trainer.predict` cannot gather.
    keys_to_ignore_at_inference = ["past_key_values", "cache", "video_hidden_states", "audio_hidden_states"]
    sub_configs_defaults = {
        "vision_config": MicroEmoVisionConfig,
        "image_qformer_config": MicroEmoImageQFormerConfig,
        "video_qformer_config": MicroEmoVideoQFormerConfig,
        "audio_config": MicroEmoAudioConfig,
        "audio_qformer_config": MicroEmoAudioQFormerConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    image_qformer_config: dict | PreTrainedConfig | None = None
    video_qformer_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    audio_qformer_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None

    num_query_tokens: int = 32
    num_video_query_tokens: int = 32
    num_audio_query_tokens: int = 8
    max_frames: int = 32
    max_audio_segments: int = 8
    num_regions: int = 11

    use_local_clue_attention: bool = True
    local_view: Literal["frame", "face_crop"] = "frame"
    local_clue_num_attention_heads: int = 16
    fusion_gate_init: float = 0.0
    use_frame_timestamps: bool = True
    keep_timestamp_tokens: bool = False

    windows: Literal["utterance", "sliding", "none"] = "utterance"
    window_size: float | int = 32
    window_stride: float | int = 32
    window_unit: Literal["frames", "seconds"] = "frames"
    use_global_window: bool = True
    share_video_qformer: bool = False
    use_utterance_audio: bool = False

    video_token_id: int = 32000
    audio_token_id: int = 32001
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**drop_code_references(kwargs))
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings

        # Each part reads the one before it: the widths follow and are not for the user to set.
        self.image_qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        self.video_qformer_config.encoder_hidden_size = self.image_qformer_config.hidden_size
        self.audio_qformer_config.encoder_hidden_size = self.audio_config.projection_dim

        for name in (
            "num_query_tokens",
            "num_video_query_tokens",
            "num_audio_query_tokens",
            "max_frames",
            "max_audio_segments",
            "num_regions",
            "local_clue_num_attention_heads",
            "window_size",
            "window_stride",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.use_local_clue_attention:
            _check_divides("local clue attention", self.vision_config.hidden_size, self.local_clue_num_attention_heads)
        if self.keep_timestamp_tokens and not self.use_frame_timestamps:
            raise ValueError("keep_timestamp_tokens=True needs use_frame_timestamps=True, got False")
        if self.windows == "none" and not self.use_global_window:
            raise ValueError("windows='none' with use_global_window=False would leave no video tokens at all")
        if self.video_token_id == self.audio_token_id:
            raise ValueError(f"video_token_id and audio_token_id must differ, both are {self.video_token_id}")

    @classmethod
    def from_preset(cls, name: str, **kwargs: Any) -> "MicroEmoConfig":
        """The shipped preset `name` ("microemo-7b", "microemo-tiny"), with `kwargs` overriding its fields.

        Raises:
            ValueError: if there is no preset of that name; the message lists those that there are.
        """
        presets = {path.parent.name: path.parent for path in Path(__file__).parent.glob("*/config.json")}
        if name not in presets:
            raise ValueError(f"no preset named {name!r}; there are: {', '.join(sorted(presets))}")
        return cls.from_pretrained(presets[name], **kwargs)


def _check_divides(part: str, hidden_size: int, num_attention_heads: int) -> None:
    if hidden_size % num_attention_heads:
        raise ValueError(f"{part}: hidden size {hidden_size} is no multiple of {num_attention_heads} attention heads")


__all__ = [
    "MicroEmoAudioConfig",
    "MicroEmoAudioQFormerConfig",
    "MicroEmoConfig",
    "MicroEmoImageQFormerConfig",
    "MicroEmoVideoQFormerConfig",
    "MicroEmoVisionConfig",
]
