"""MicroEmo: the multimodal model and its language modelling head (paper 3.1, 3.4)."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.keywords import refuse_unknown
from .audio_branch import AudioBranch
from .generation_microemo import CACHE_NAME, MicroEmoGenerationMixin
from .media_encoder import AUDIO_ARGS, MEDIA_ARGS, VIDEO_ARGS, MediaEncoderMixin
from .media_inputs import LOSS_KEYWORDS, MEDIA_INPUTS, OTHER_NAMES, TEXT_INPUTS, refuse_both
from .towers import MicroEmoAudioModel
from .video_qformer import ClipBaseline, UtteranceAwareVideoQFormer, WindowQFormer
from .visual_encoder import GlobalLocalFusion, GlobalLocalVisualEncoder

# Saved keys of version 0.1.
OLD_KEYS = {r"audio_branch\.clip_positions\.": "audio_branch.segment_positions."}

# The documentation of what both models take beside the inputs of each language model.
FORWARD_ARGS = r"""
    mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
        What [`~MicroEmoModel.encode_media`] returned, in place of media.
    past_key_values (`Cache`, *optional*):
        The keys and values of the tokens before; then only the tokens that follow are given. A new `DynamicCache` is
        made where there is none and `use_cache=True`.
    cache (`Cache`, *optional*):
        The same as `past_key_values`, by the name that Transformers uses from version 5.24 on.
"""


@auto_docstring(custom_intro="What [`MicroEmoModel`] returns.")
@dataclass
class MicroEmoModelOutputWithPast(BaseModelOutputWithPast):
    r"""
    video_hidden_states (`list[torch.Tensor]`, *optional*):
        The tokens of the video in the language model's width, a tensor `(tokens, width)` for each prompt.
    audio_hidden_states (`list[torch.Tensor]`, *optional*):
        The tokens of the sound, likewise.
    """

    video_hidden_states: list[torch.Tensor] | None = None
    audio_hidden_states: list[torch.Tensor] | None = None


@auto_docstring(custom_intro="What [`MicroEmoForConditionalGeneration`] returns.")
@dataclass
class MicroEmoCausalLMOutputWithPast(CausalLMOutputWithPast):
    r"""
    video_hidden_states (`list[torch.Tensor]`, *optional*):
        The tokens of the video in the language model's width, a tensor `(tokens, width)` for each prompt.
    audio_hidden_states (`list[torch.Tensor]`, *optional*):
        The tokens of the sound, likewise.
    """

    video_hidden_states: list[torch.Tensor] | None = None
    audio_hidden_states: list[torch.Tensor] | None = None


@auto_docstring
class MicroEmoPreTrainedModel(PreTrainedModel):
    config: MicroEmoConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Their own parameters (queries, positions, gate) meet their children's outputs: one device each.
    _no_split_modules = ["GlobalLocalVisualEncoder", "UtteranceAwareVideoQFormer", "AudioBranch"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _keep_in_fp32_modules_strict = MicroEmoAudioModel._keep_in_fp32_modules_strict

    def post_init(self) -> None:
        """Notes which parts stay in full precision: the quantised language model and towers are joined by parts that
        are small, that are trained, and that nobody would gain from quantising."""
        self._keep_in_fp32_modules = list(_parts_beside(self, self._large_parts()))
        super().post_init()

    @property
    def dtype(self) -> torch.dtype:
        """`torch.dtype`: The dtype of the language model. In float16 the parts before it are of another one."""
        return self.get_decoder().dtype

    def _large_parts(self) -> set[nn.Module]:
        """The modules that quantised loading converts, and the head, which follows the language model."""
        parts = {self.get_encoder("video"), self.get_encoder("audio"), self.get_decoder()}
        return parts | {self.get_output_embeddings()} - {None}

    @classmethod
    def from_pretrained(
        cls, *args: Any, key_mapping: dict[str, str] | None = None, **kwargs: Any
    ) -> "MicroEmoPreTrainedModel":
        """Loads a checkpoint as Transformers does. The saved keys of version 0.1 are known, and saved by their new
        names.

        Args:
            args (`Any`): What [`~PreTrainedModel.from_pretrained`] takes, the folder or id first.
            key_mapping (`dict[str, str]`, *optional*): Other saved keys, by patterns, and what they are called here.
            kwargs (`Any`, *optional*): What [`~PreTrainedModel.from_pretrained`] takes.

        Returns:
            [`MicroEmoPreTrainedModel`]: The model; with `output_loading_info` a tuple of it and the report.
        """
        loaded = super().from_pretrained(*args, key_mapping=OLD_KEYS | (key_mapping or {}), **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        targets = set(OLD_KEYS.values())
        model._weight_conversions = [
            conversion
            for conversion in model._weight_conversions or []
            if not targets & set(conversion.target_patterns)
        ] or None
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GlobalLocalVisualEncoder):
            init.normal_(module.query_tokens, std=self.config.image_qformer_config.initializer_range)
        elif isinstance(module, WindowQFormer):
            init.normal_(module.query_tokens, std=module.qformer.config.initializer_range)
        elif isinstance(module, ClipBaseline):
            init.zeros_(module.weight)
        elif isinstance(module, GlobalLocalFusion):
            init.constant_(module.gate, self.config.fusion_gate_init)


def _parts_beside(module: nn.Module, others: set[nn.Module], prefix: str = "") -> Iterator[str]:
    """The names of all parts of a module, each as large as can be, that hold none of the other modules."""
    for name, part in module.named_children():
        if part in others:
            continue
        if others.isdisjoint(part.modules()):
            yield f"{prefix}{name}"
        else:
            yield from _parts_beside(part, others, f"{prefix}{name}.")
    yield from (f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False))


@auto_docstring(
    custom_intro="""
    The global-local visual encoder, the utterance-aware video Q-Former, the audio branch, and a language model that
    reads their tokens in place of `<video>` and `<audio>` placeholders.
    """
)
class MicroEmoModel(MediaEncoderMixin, MicroEmoPreTrainedModel):
    def __init__(self, config: MicroEmoConfig):
        super().__init__(config)
        self.visual_encoder = GlobalLocalVisualEncoder(config)
        self.video_qformer = UtteranceAwareVideoQFormer(config)
        self.video_projection = nn.Linear(config.video_qformer_config.hidden_size, config.text_config.hidden_size)
        self.audio_branch = AudioBranch(config)
        self.audio_projection = nn.Linear(config.audio_qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self._keywords = frozenset(
            (
                *(*MEDIA_INPUTS, *TEXT_INPUTS, *LOSS_KEYWORDS, *TransformersKwargs.__annotations__),
                *inspect.signature(self.language_model.forward).parameters,
            )
        )
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Returns the frozen encoder of a modality.

        Args:
            modality (`str`, *optional*): `"video"` (or `"image"`) or `"audio"`.

        Returns:
            `nn.Module`: The image encoder, the audio tower, or the model itself where no modality is named.
        """
        if modality in ("image", "video"):
            return self.visual_encoder.vision_model
        if modality == "audio":
            return self.audio_branch.audio_tower
        return super().get_encoder(modality)

    def set_encoder(self, encoder: nn.Module, modality: str | None = None) -> None:
        """Replaces the frozen encoder of a modality.

        Args:
            encoder (`nn.Module`): The new encoder.
            modality (`str`, *optional*): `"video"` (or `"image"`) or `"audio"`.
        """
        if modality in ("image", "video"):
            self.visual_encoder.vision_model = encoder
        elif modality == "audio":
            self.audio_branch.audio_tower = encoder
        else:
            super().set_encoder(encoder, modality)

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        video_features: list[torch.Tensor] | torch.Tensor | None = None,
        audio_features: list[torch.Tensor] | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the placeholders of a batch, and compares their numbers with those of the features.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`):
                The prompts, or `None`: then placeholders are found by their embedding.
            inputs_embeds (`torch.Tensor` of shape `(B, S, width)`): The embedded prompts.
            video_features (`list[torch.Tensor]`, *optional*): The tokens of the video of each prompt `(tokens, width)`.
            audio_features (`list[torch.Tensor]`, *optional*): The tokens of the sound of each prompt.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The masks `(B, S, 1)` of `<video>` and of `<audio>`.

        Raises:
            ValueError: If a prompt has another number of placeholders than of features. The message has both.
        """
        masks = []
        for modality, features in (("video", video_features), ("audio", audio_features)):
            token_id = getattr(self.config, f"{modality}_token_id")
            if input_ids is not None:
                placeholders = input_ids == token_id
            else:
                embedding = self.get_input_embeddings()(torch.tensor(token_id, device=inputs_embeds.device))
                placeholders = (inputs_embeds == embedding).all(dim=-1)
            # A compiled graph does not depend on numbers: there a wrong one is left to `masked_scatter`.
            if features is not None and not torch.compiler.is_compiling():
                self._check_placeholders(modality, placeholders, features)
            masks.append(placeholders[..., None].to(inputs_embeds.device))
        return masks[0], masks[1]

    def _check_placeholders(
        self, modality: str, placeholders: torch.Tensor, features: list[torch.Tensor] | torch.Tensor
    ) -> None:
        num_tokens, num_features = placeholders.sum(dim=1).tolist(), [len(row) for row in features]
        if sum(num_tokens) == sum(num_features) and (
            len(num_tokens) != len(num_features) or num_tokens == num_features
        ):
            return
        fields = (
            ("num_video_query_tokens", "windows", "use_global_window")
            if modality == "video"
            else ("num_audio_query_tokens", "use_utterance_audio")
        )
        raise ValueError(
            f"{modality.capitalize()} features and {modality} tokens do not match, "
            f"tokens: {num_tokens}, features: {num_features}. The model has "
            + ", ".join(f"{name}={getattr(self.config, name)!r}" for name in fields)
            + "; the processor's fields must be the same"
        )

    def embed_prompts(
        self, input_ids: torch.LongTensor, mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None
    ) -> torch.Tensor:
        """Embeds prompts, with the tokens of their media where the placeholders stand.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): The prompts.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
                What [`~MicroEmoModel.encode_media`] returned.

        Returns:
            `torch.Tensor`: What the language model reads, of shape `(B, S, width)`.

        Raises:
            ValueError: If a prompt has another number of placeholders than of features.
        """
        features = {modality: output.pooler_output for modality, output in (mm_encoder_outputs or {}).items()}
        return self._fill_placeholders(input_ids, self.get_input_embeddings()(input_ids), features)

    def _fill_placeholders(
        self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor, features: dict[str, list[torch.Tensor]]
    ) -> torch.Tensor:
        # A prompt with placeholders and no media would be read as if it were words.
        no_media: dict[str, list[torch.Tensor]] = {"video_features": [], "audio_features": []}
        expected = no_media if input_ids is not None else {}
        expected |= {f"{modality}_features": rows for modality, rows in features.items()}
        masks = self.get_placeholder_mask(input_ids, inputs_embeds, **expected)
        for mask, rows in zip(masks, (features.get("video"), features.get("audio")), strict=True):
            if rows is not None and len(rows):
                flat = torch.cat(list(rows)).to(inputs_embeds.device, inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(mask, flat)
        return inputs_embeds

    @can_return_tuple
    @auto_docstring(
        custom_intro="""
        Reads prompts with media. The media inputs are keywords, as those of [`~MicroEmoModel.get_video_features`] and
        [`~MicroEmoModel.get_audio_features`]; `output_hidden_states` and `output_attentions` are the language model's.
        A `TypeError` names keywords that nobody takes, a `ValueError` the numbers of placeholders and of features where
        they differ.
        """,
        custom_args=FORWARD_ARGS,
    )
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MicroEmoModelOutputWithPast:
        refuse_unknown(kwargs, self._keywords, "MicroEmo's forward", OTHER_NAMES)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if past_key_values is not None and cache is not None:
            raise ValueError("past_key_values and cache are two names of one input; give one of them")
        cache = past_key_values if cache is None else cache
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        for name in ("token_type_ids", "mm_token_type_ids"):  # which no part reads
            kwargs.pop(name, None)
        media = {name: kwargs.pop(name) for name in MEDIA_INPUTS if name in kwargs}
        has_media = any(value is not None for value in media.values())
        features = {}
        # What is given decides, never what a tensor holds: a step of decoding has a cache and no media.
        if has_media or mm_encoder_outputs is not None or cache is None:
            refuse_both(mm_encoder_outputs, media)
            encoded = mm_encoder_outputs or self.encode_media(**media)
            features = {modality: output.pooler_output for modality, output in encoded.items()}
            inputs_embeds = self._fill_placeholders(input_ids, inputs_embeds, features)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            return_dict=True,
            **{CACHE_NAME: cache},
            **kwargs,
        )
        return MicroEmoModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=features.get("video"),
            audio_hidden_states=features.get("audio"),
            **{CACHE_NAME: outputs.get(CACHE_NAME)},
        )


@auto_docstring(
    custom_intro="""
    MicroEmo with its language modelling head. It reads a clip, its subtitles and a question, and describes emotions and
    their clues.
    """
)
class MicroEmoForConditionalGeneration(MicroEmoPreTrainedModel, MicroEmoGenerationMixin):
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: MicroEmoConfig):
        super().__init__(config)
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(config.text_config, name, None) not in (None, 1.0):
                raise ValueError(
                    f"text_config: {config.text_config.model_type} scales its logits "
                    f"({name}={getattr(config.text_config, name)}), which MicroEmo's head does not; choose another"
                )
        self.model = MicroEmoModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self._tied_weights_keys = {"lm_head.weight": self._embedding_name()} if config.tie_word_embeddings else None
        self.post_init()
        # A placeholder stands for media; as an answer's token it would ask for media that is not there.
        self.generation_config.suppress_tokens = [config.video_token_id, config.audio_token_id]

    def _embedding_name(self) -> str:
        embedding = self.model.language_model.get_input_embeddings()
        name = next(name for name, module in self.model.named_modules() if module is embedding)
        return f"model.{name}.weight"

    def get_video_features(self, *args: Any, **kwargs: Any) -> tuple | BaseModelOutputWithPooling:
        """Makes tokens of the language model from frames, see [`~MicroEmoModel.get_video_features`].

        Args:
            args (`Any`): What [`~MicroEmoModel.get_video_features`] takes.
            kwargs (`Any`, *optional*): What [`~MicroEmoModel.get_video_features`] takes.

        Returns:
            `BaseModelOutputWithPooling`: What it returns.
        """
        return self.model.get_video_features(*args, **kwargs)

    def get_audio_features(self, *args: Any, **kwargs: Any) -> tuple | BaseModelOutputWithPooling:
        """Makes tokens of the language model from mel segments, see [`~MicroEmoModel.get_audio_features`].

        Args:
            args (`Any`): What [`~MicroEmoModel.get_audio_features`] takes.
            kwargs (`Any`, *optional*): What [`~MicroEmoModel.get_audio_features`] takes.

        Returns:
            `BaseModelOutputWithPooling`: What it returns.
        """
        return self.model.get_audio_features(*args, **kwargs)

    @can_return_tuple
    @auto_docstring(custom_args=VIDEO_ARGS + AUDIO_ARGS + MEDIA_ARGS + FORWARD_ARGS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        utterance_windows: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_segment_mask: torch.Tensor | None = None,
        audio_step_mask: torch.Tensor | None = None,
        audio_windows: torch.Tensor | None = None,
        cited_utterances: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        frame_tokens: torch.Tensor | None = None,
        clip_index: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | MicroEmoCausalLMOutputWithPast:
        r"""
        Example:

        ```python
        >>> from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor

        >>> model = MicroEmoForConditionalGeneration.from_pretrained(folder)
        >>> processor = MicroEmoProcessor.from_pretrained(folder)
        >>> inputs = processor(text="What does the speaker feel, and why?", videos="clip.mp4", return_tensors="pt")
        >>> processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
        ```"""
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            frame_mask=frame_mask,
            region_masks=region_masks,
            pixel_values_faces=pixel_values_faces,
            qformer_input_ids=qformer_input_ids,
            qformer_attention_mask=qformer_attention_mask,
            utterance_windows=utterance_windows,
            input_features=input_features,
            audio_segment_mask=audio_segment_mask,
            audio_step_mask=audio_step_mask,
            audio_windows=audio_windows,
            cited_utterances=cited_utterances,
            vision_features=vision_features,
            face_features=face_features,
            audio_features=audio_features,
            frame_tokens=frame_tokens,
            clip_index=clip_index,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            cache=cache,
            return_dict=True,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden_states = outputs.last_hidden_state[:, keep]
        # As rows: of a slice in bfloat16 on a CPU, torch copies the head's weight for each prompt (pytorch#151934).
        logits = self.lm_head(hidden_states.flatten(0, 1)).unflatten(0, hidden_states.shape[:2])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return MicroEmoCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
            audio_hidden_states=outputs.audio_hidden_states,
            **{CACHE_NAME: outputs.get(CACHE_NAME)},
        )


__all__ = ["MicroEmoForConditionalGeneration", "MicroEmoModel", "MicroEmoPreTrainedModel"]
