"""Configuration of MicroEmo: a class with flat fields, and a sub-configuration for each part of the model."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig
from transformers.models.instructblipvideo.configuration_instructblipvideo import (
    InstructBlipVideoQFormerConfig,
    InstructBlipVideoVisionConfig,
)

from .remote_code import IS_REMOTE_CODE, PACKAGE_PIPELINE, drop_code_references
from .tower_table import audio_row, vision_row


@strict
class MicroEmoVisionConfig(InstructBlipVideoVisionConfig):
    r"""
    Configuration of the frozen image encoder, which is EVA-CLIP ViT-g/14 in the paper.

    Args:
        post_layernorm_eps (`float`, *optional*, defaults to 1e-05):
            The epsilon of the LayerNorm after the last block. The original `ln_vision` has another epsilon than the
            blocks (`layer_norm_eps`, 1e-6).
        initializer_range (`float`, *optional*, defaults to 0.02):
            The standard deviation of random weights. A small encoder that is never trained needs about
            `hidden_size**-0.5`: with 0.02 its features hardly depend on the picture.
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
        """The number of patches P of a frame, without the class token."""
        return (self.image_size // self.patch_size) ** 2


@strict
class MicroEmoImageQFormerConfig(InstructBlipVideoQFormerConfig):
    r"""
    Configuration of the timestamp-bound image Q-Former (paper 3.2).

    Args:
        vocab_size (`int`, *optional*, defaults to 30523):
            The number of text tokens: the 30,522 of BERT, and `[DEC]`.
        use_qformer_text_input (`bool`, *optional*, defaults to `False`):
            Whether the Q-Former takes text. Only the text-free Q-Former of Transformers reads it, which is used if
            `MicroEmoConfig.use_frame_timestamps` is `False`.
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
    r"""
    Configuration of the utterance-aware video Q-Former (paper 3.3).

    Args:
        num_hidden_layers (`int`, *optional*, defaults to 2): The number of layers.
        cross_attention_frequency (`int`, *optional*, defaults to 1):
            The distance between layers with cross-attention; with 1 every layer has it.
    """

    model_type = "microemo_video_qformer"
    base_config_key = "video_qformer_config"

    num_hidden_layers: int = 2
    cross_attention_frequency: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_divides(self.base_config_key, self.hidden_size, self.num_attention_heads)


@strict
class MicroEmoAudioQFormerConfig(MicroEmoVideoQFormerConfig):
    r"""
    Configuration of the audio Q-Former, which is built as the video Q-Former and reads the segment features of the audio
    tower.
    """

    model_type = "microemo_audio_qformer"
    base_config_key = "audio_qformer_config"


@strict
class MicroEmoAudioConfig(PreTrainedConfig):
    r"""
    Configuration of ImageBind's audio tower, a ViT over the log-mel spectrogram of a segment of sound.

    Args:
        hidden_size (`int`, *optional*, defaults to 768): The width of the blocks.
        intermediate_size (`int`, *optional*, defaults to 3072): The width of the feed-forward layers.
        num_hidden_layers (`int`, *optional*, defaults to 12): The number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 12): The number of attention heads of a block.
        segment_duration (`float`, *optional*, defaults to 2.0):
            The duration of a segment of sound in seconds. A mel frame is computed every 10 ms.
        num_mel_bins (`int`, *optional*, defaults to 128): The height of the spectrogram.
        num_mel_frames (`int`, *optional*, defaults to 204):
            The width of the spectrogram, which must hold a whole segment.
        kernel_size (`int`, *optional*, defaults to 16): The side length of the convolution stem's square kernel.
        stride (`int`, *optional*, defaults to 10): The stride of the convolution stem in both directions.
        projection_dim (`int`, *optional*, defaults to 1024):
            The width of ImageBind's joint space, which is the width of the features of a segment.
        hidden_act (`str`, *optional*, defaults to `"gelu"`): The activation function of the feed-forward layers.
        layer_norm_eps (`float`, *optional*, defaults to 1e-06): The epsilon of the LayerNorms of the blocks.
        stem_layer_norm_eps (`float`, *optional*, defaults to 1e-05): The epsilon of the LayerNorm of the stem.
        attention_dropout (`float`, *optional*, defaults to 0.0): The dropout probability of the attention weights.
        logit_scale_init_value (`float`, *optional*, defaults to 20.0): The initial length of the features of a segment.
        initializer_range (`float`, *optional*, defaults to 0.02):
            The standard deviation of random weights, see [`MicroEmoVisionConfig`].
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
        """The number of patches of a spectrogram, without the class token."""
        height, width = (
            (side - self.kernel_size) // self.stride + 1 for side in (self.num_mel_bins, self.num_mel_frames)
        )
        return height * width


@strict
class MicroEmoConfig(PreTrainedConfig):
    r"""
    Configuration of [`MicroEmoForConditionalGeneration`]. The defaults are the paper's sizes (`microemo-7b`).

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            The configuration of the image encoder, by default [`MicroEmoVisionConfig`]. `VISION_TOWERS` in
            `configuration/tower_table.py` lists the encoders of Transformers that it may be of, by `model_type`.
        image_qformer_config (`dict` or [`MicroEmoImageQFormerConfig`], *optional*):
            The configuration of the image Q-Former.
        video_qformer_config (`dict` or [`MicroEmoVideoQFormerConfig`], *optional*):
            The configuration of the video Q-Former.
        audio_config (`dict` or `PreTrainedConfig`, *optional*):
            The configuration of the audio tower, by default [`MicroEmoAudioConfig`]. `AUDIO_TOWERS` in
            `configuration/tower_table.py` lists the encoders that it may be of.
        audio_qformer_config (`dict` or [`MicroEmoAudioQFormerConfig`], *optional*):
            The configuration of the audio Q-Former.
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            The configuration of the language model. By default it is that of LLaMA-2-7B.
        num_query_tokens (`int`, *optional*, defaults to 32): The number of queries of the image Q-Former, per frame.
        num_video_query_tokens (`int`, *optional*, defaults to 32):
            The number of queries n of the video Q-Former, per window.
        num_audio_query_tokens (`int`, *optional*, defaults to 8):
            The number of queries m of the audio Q-Former, per window.
        max_frames (`int`, *optional*, defaults to 32): The number of rows of the frame position table.
        max_audio_segments (`int`, *optional*, defaults to 8):
            The largest number of segments of sound, where a segment is what the audio tower encodes at once. The position
            table has a row for each of their steps.
        vision_feature_layer (`int` or `list[int]`, *optional*, defaults to -1):
            The hidden state of the image encoder that is read, as in LLaVA: 0 is the output of the embeddings, -1 the last
            hidden state with its last norm. Those of a list are joined on their width.
        audio_feature_layer (`int` or `list[int]`, *optional*, defaults to -1):
            The hidden state of the audio tower that is read, likewise.
        audio_pool_size (`int`, *optional*, defaults to 1):
            The number of steps of the audio tower whose mean is one step of the audio Q-Former. It divides the number of
            steps of a segment.
        frame_size (`int`, *optional*):
            The side of a frame in pixels, by default that of `vision_config`. Encoders that fit their positions to the
            picture (DINOv2, DINOv3, SigLIP 2 NaFlex) can take another one.
        num_regions (`int`, *optional*, defaults to 11):
            The number of facial clue regions R: the paper's eleven, or 1 for the whole face as a control (the video
            processor's `clue_regions`).
        use_local_clue_attention (`bool`, *optional*, defaults to `True`):
            Whether to use the local view of the global-local visual encoder (paper 3.2). Otherwise there are global
            tokens only (Table 2).
        local_view (`str`, *optional*, defaults to `"frame"`):
            Whose patches the clue regions cover: those of the frame (`"frame"`, as in the paper), or those of a crop
            around the face (`"face_crop"`).
        local_clue_num_attention_heads (`int`, *optional*, defaults to 16):
            The number of attention heads of the local clue attention.
        fusion_gate_init (`float`, *optional*, defaults to 0.0):
            The initial value of the gate in `global + gate * project(local)`. It is 0 for converted weights (the model
            then equals the one without the local view), and 1 for a model trained from scratch.
        use_frame_timestamps (`bool`, *optional*, defaults to `True`):
            Whether the image Q-Former reads "This frame is sampled at 2.0s.". Otherwise it takes no text at all.
        keep_timestamp_tokens (`bool`, *optional*, defaults to `False`):
            Whether the video Q-Former reads the rows of the timestamp too, as in TimeChat.
        windows (`str`, *optional*, defaults to `"utterance"`):
            The windows of the video Q-Former: `"utterance"` (paper 3.3), `"sliding"` (as in TimeChat) or `"none"` (the
            ablation of Table 2). The processor makes the windows, and the model refuses prompts of another setting.
        window_size (`float`, *optional*, defaults to 32): The length of a sliding window, in `window_unit`.
        window_stride (`float`, *optional*, defaults to 32):
            The distance between the starts of sliding windows, in `window_unit`.
        window_unit (`str`, *optional*, defaults to `"frames"`):
            The unit of `window_size` and `window_stride`, `"frames"` or `"seconds"`.
        use_global_window (`bool`, *optional*, defaults to `True`):
            Whether the video Q-Former also reads the whole clip, which TimeChat's does not.
        share_video_qformer (`bool`, *optional*, defaults to `False`):
            Whether the whole clip and the windows are read with the same weights.
        use_clip_baseline (`bool`, *optional*, defaults to `False`):
            Whether the video Q-Former also reads how the tokens of a frame differ from their mean over the clip, so that an
            expression is seen against the person's own face. The paper has no such part; the known models of facial
            action units calibrate persons so. It starts as 0: a model without it is unchanged.
        use_utterance_audio (`bool`, *optional*, defaults to `False`):
            Whether the audio Q-Former reads utterance windows too (the paper's future work), independently of
            `windows`.
        video_token_id (`int`, *optional*, defaults to 32000): The id of the `<video>` placeholder.
        audio_token_id (`int`, *optional*, defaults to 32001): The id of the `<audio>` placeholder.
        tie_word_embeddings (`bool`, *optional*, defaults to `False`):
            Whether the language model uses its input embeddings as output embeddings. It is `True` if that of
            `text_config` is.

    Raises:
        ValueError: if sizes do not fit together. The message names the field and the value.

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
    # TRL reads it when it loads a model by its path. Only code that came with a checkpoint has entries.
    auto_map: ClassVar[dict[str, str]] = {}
    custom_pipelines: ClassVar[dict[str, dict]] = {} if IS_REMOTE_CODE else PACKAGE_PIPELINE
    # Lists of tensors, one of another length for each clip, which `Trainer.predict` cannot gather.
    keys_to_ignore_at_inference = ["past_key_values", "cache", "video_hidden_states", "audio_hidden_states"]
    # Transformers before 5.22 wants the classes wrapped.
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="microemo_vision"),
        "image_qformer_config": SubConfigSpec(config_class=MicroEmoImageQFormerConfig),
        "video_qformer_config": SubConfigSpec(config_class=MicroEmoVideoQFormerConfig),
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="microemo_audio"),
        "audio_qformer_config": SubConfigSpec(config_class=MicroEmoAudioQFormerConfig),
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
    vision_feature_layer: int | list[int] = -1
    audio_feature_layer: int | list[int] = -1
    audio_pool_size: int = 1
    frame_size: int | None = None
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
    use_clip_baseline: bool = False
    use_utterance_audio: bool = False

    video_token_id: int = 32000
    audio_token_id: int = 32001
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        # Of these classes, whatever classes `AutoConfig` knows by the names: code that came with a checkpoint has its own.
        for name, own_class in (("vision_config", MicroEmoVisionConfig), ("audio_config", MicroEmoAudioConfig)):
            fields = {} if getattr(self, name) is None else getattr(self, name)
            if isinstance(fields, dict) and fields.get("model_type", own_class.model_type) == own_class.model_type:
                setattr(self, name, own_class(**fields))
        super().__post_init__(**drop_code_references(kwargs))
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings

        # Each part reads the output of the one before it, so these widths cannot be chosen.
        self.image_qformer_config.encoder_hidden_size = self.vision_width
        self.video_qformer_config.encoder_hidden_size = self.image_qformer_config.hidden_size
        self.audio_qformer_config.encoder_hidden_size = self.audio_width

        for name in (
            "num_query_tokens",
            "num_video_query_tokens",
            "num_audio_query_tokens",
            "max_frames",
            "max_audio_segments",
            "audio_pool_size",
            "num_regions",
            "local_clue_num_attention_heads",
            "window_size",
            "window_stride",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        self._check_towers()
        if self.use_local_clue_attention:
            _check_divides("local clue attention", self.vision_width, self.local_clue_num_attention_heads)
        if self.keep_timestamp_tokens and not self.use_frame_timestamps:
            raise ValueError("keep_timestamp_tokens=True needs use_frame_timestamps=True, got False")
        if self.windows == "none" and not self.use_global_window:
            raise ValueError("windows='none' with use_global_window=False would leave no video tokens at all")
        if self.video_token_id == self.audio_token_id:
            raise ValueError(f"video_token_id and audio_token_id must differ, both are {self.video_token_id}")

    @property
    def image_size(self) -> int:
        """The side in pixels of the frames that the image encoder is given."""
        return self.frame_size or vision_row(self.vision_config).image_size(self.vision_config)

    @property
    def num_patches(self) -> int:
        """The number of patches P of a frame, without class token and registers."""
        return (self.image_size // self.vision_config.patch_size) ** 2

    @property
    def vision_width(self) -> int:
        """The width of the features of a patch, of all layers that are read."""
        num_layers = len(layer_indices(self.vision_feature_layer, self.vision_config.num_hidden_layers, "vision"))
        return self.vision_config.hidden_size * num_layers

    @property
    def audio_width(self) -> int:
        """The width of the features of a step of sound, of all layers that are read."""
        row, num_layers = audio_row(self.audio_config), self.audio_config.num_hidden_layers
        layers = layer_indices(self.audio_feature_layer, num_layers, "audio")
        return sum(row.width(self.audio_config, layer == num_layers) for layer in layers)

    @property
    def audio_steps_per_segment(self) -> int:
        """The number of steps that the audio Q-Former reads of a segment of sound."""
        return audio_row(self.audio_config).num_steps(self.audio_config) // self.audio_pool_size

    def _check_towers(self) -> None:
        image_row = vision_row(self.vision_config)
        patch_size = self.vision_config.patch_size
        if self.frame_size is not None:
            own_size = image_row.image_size(self.vision_config)
            if self.frame_size != own_size and not image_row.any_size:
                raise ValueError(
                    f"frame_size {self.frame_size}: {self.vision_config.model_type} takes frames of {own_size} pixels"
                )
        if self.image_size % patch_size:
            raise ValueError(f"frames of {self.image_size} pixels are no multiple of patches of {patch_size}")
        row, model_type = audio_row(self.audio_config), self.audio_config.model_type
        if row.num_steps(self.audio_config) % self.audio_pool_size:
            raise ValueError(
                f"audio_pool_size {self.audio_pool_size} must divide the {row.num_steps(self.audio_config)} steps that "
                f"{model_type} makes of a segment"
            )
        if row.reads == "pooled" and self.audio_feature_layer != -1:
            raise ValueError(
                f"audio_feature_layer {self.audio_feature_layer}: {model_type} gives one vector for a segment, -1"
            )
        if getattr(self.audio_config, "add_adapter", False):
            raise ValueError(f"audio_config: the adapter of {model_type} (add_adapter) makes steps of another length")

    @classmethod
    def from_preset(cls, name: str, **kwargs: Any) -> "MicroEmoConfig":
        """Loads a preset of the package.

        Args:
            name (`str`): The name of the preset, `"microemo-7b"`, `"microemo-modern"`, `"microemo-small"` or
                `"microemo-tiny"`.
            kwargs (`Any`, *optional*): Fields that take precedence over those of the preset.

        Returns:
            [`MicroEmoConfig`]: The configuration.

        Raises:
            ValueError: if there is no preset of that name. The message lists the presets.
        """
        presets = {path.parent.name: path.parent for path in Path(__file__).parent.glob("*/config.json")}
        if name not in presets:
            raise ValueError(f"no preset named {name!r}; there are: {', '.join(sorted(presets))}")
        return cls.from_pretrained(presets[name], **kwargs)


def layer_indices(layers: int | list[int], num_layers: int, tower: str) -> list[int]:
    """Returns the hidden states of a tower that are read, counted from 0.

    Args:
        layers (`int` or `list[int]`): What `vision_feature_layer` or `audio_feature_layer` says.
        num_layers (`int`): The number of layers of the tower.
        tower (`str`): `"vision"` or `"audio"`, for messages.

    Returns:
        `list[int]`: The places in its hidden states, of which the last one is `num_layers`.

    Raises:
        ValueError: if there is no such hidden state, or none is named.
    """
    layers = [layers] if isinstance(layers, int) else list(layers)
    count = num_layers + 1  # the output of the embeddings, too
    if not layers or not all(-count <= layer < count for layer in layers):
        raise ValueError(
            f"{tower}_feature_layer {layers} must name hidden states from {-count} to {count - 1}: "
            f"the {tower} tower has {num_layers} layers"
        )
    return [layer % count for layer in layers]


def _check_divides(part: str, hidden_size: int, num_attention_heads: int) -> None:
    if hidden_size % num_attention_heads:
        raise ValueError(f"{part}: hidden size {hidden_size} is no multiple of {num_attention_heads} attention heads")


for _own_class in (MicroEmoVisionConfig, MicroEmoAudioConfig):
    AutoConfig.register(_own_class.model_type, _own_class, exist_ok=True)


__all__ = [
    "MicroEmoAudioConfig",
    "MicroEmoAudioQFormerConfig",
    "MicroEmoConfig",
    "MicroEmoImageQFormerConfig",
    "MicroEmoVideoQFormerConfig",
    "MicroEmoVisionConfig",
]
