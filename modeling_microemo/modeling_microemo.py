"""MicroEmo: the multimodal model and its language modelling head (paper 3.1, 3.4)."""

import inspect
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import TransformersKwargs, can_return_tuple

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.keywords import refuse_unknown
from .audio_branch import AudioBranch
from .media_inputs import (
    AUDIO_INPUTS,
    LOSS_KEYWORDS,
    MEDIA_INPUTS,
    OTHER_NAMES,
    TEXT_INPUTS,
    VIDEO_INPUTS,
    MediaEncodings,
)
from .towers import MicroEmoAudioModel
from .video_qformer import UtteranceAwareVideoQFormer, WindowQFormer, real_first, take_steps
from .visual_encoder import GlobalLocalFusion, GlobalLocalVisualEncoder

# Saved keys of version 0.1.
OLD_KEYS = {r"audio_branch\.clip_positions\.": "audio_branch.segment_positions."}


@dataclass
class MicroEmoModelOutputWithPast(BaseModelOutputWithPast):
    """`video_hidden_states` and `audio_hidden_states`: the projected tokens, a tensor `(tokens, width)` per clip."""

    video_hidden_states: list[torch.Tensor] | None = None
    audio_hidden_states: list[torch.Tensor] | None = None


@dataclass
class MicroEmoCausalLMOutputWithPast(CausalLMOutputWithPast):
    """`video_hidden_states` and `audio_hidden_states`: the projected tokens, a tensor `(tokens, width)` per clip."""

    video_hidden_states: list[torch.Tensor] | None = None
    audio_hidden_states: list[torch.Tensor] | None = None


class MicroEmoPreTrainedModel(PreTrainedModel):
    config: MicroEmoConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # Their own parameters (queries, positions, gate) meet their children's outputs: one device each.
    _no_split_modules = ["GlobalLocalVisualEncoder", "UtteranceAwareVideoQFormer", "AudioBranch"]
    _skip_keys_device_placement = ["past_key_values"]
    _keep_in_fp32_modules_strict = MicroEmoAudioModel._keep_in_fp32_modules_strict

    @classmethod
    def from_pretrained(cls, *args, key_mapping: dict[str, str] | None = None, **kwargs):
        """As in Transformers; the saved keys of version 0.1 are known, and saved by their new names."""
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
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GlobalLocalVisualEncoder):
            init.normal_(module.query_tokens, std=self.config.image_qformer_config.initializer_range)
        elif isinstance(module, WindowQFormer):
            init.normal_(module.query_tokens, std=module.qformer.config.initializer_range)
        elif isinstance(module, GlobalLocalFusion):
            init.constant_(module.gate, self.config.fusion_gate_init)


class MicroEmoModel(MicroEmoPreTrainedModel):
    """The global-local visual encoder, the utterance-aware video Q-Former, the audio branch, and a language model
    that reads their tokens in place of `<video>` and `<audio>` placeholders."""

    def __init__(self, config: MicroEmoConfig):
        super().__init__(config)
        self.visual_encoder = GlobalLocalVisualEncoder(config)
        self.video_qformer = UtteranceAwareVideoQFormer(config)
        self.video_projection = nn.Linear(config.video_qformer_config.hidden_size, config.text_config.hidden_size)
        self.audio_branch = AudioBranch(config)
        self.audio_projection = nn.Linear(config.audio_qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        language = inspect.signature(self.language_model.forward).parameters.keys()
        self._keywords = (
            MEDIA_INPUTS | TEXT_INPUTS | LOSS_KEYWORDS | TransformersKwargs.__annotations__.keys() | language
        )
        self.post_init()

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        utterance_windows: torch.Tensor | None = None,
        cited_utterances: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        frame_tokens: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        r"""
        Frames to language-model tokens (paper 3.2, 3.3).

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`): Frames of B clips.
            frame_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*):
                Real frames, wherever they stand in the padded row; all of them by default.
            region_masks (`torch.BoolTensor` of shape `(B, T, R, P)`):
                Patches of each clue region; needed with `use_local_clue_attention`. All False: no face.
            pixel_values_faces (`torch.Tensor` of shape `(B, T, 3, H, W)`):
                Face crops; needed with `local_view="face_crop"`.
            qformer_input_ids, qformer_attention_mask (`torch.LongTensor` of shape `(B, T, L)`):
                Timestamp tokens; needed with `use_frame_timestamps`.
            utterance_windows (`torch.LongTensor` of shape `(B, K, 2)`, *optional*):
                Frames [start, end) of each window, -1 where padded.
            cited_utterances (`torch.LongTensor` of shape `(B, N)`, *optional*):
                Windows (from 0) whose tokens stand in the prompt once more, in prompt order, -1 where padded.
            vision_features, face_features (`torch.Tensor` of shape `(B, T, 1 + P, hidden_size)`):
                Output of the frozen image encoder in place of `pixel_values_videos` and `pixel_values_faces`.
            frame_tokens (`torch.Tensor` of shape `(B, T, num_query_tokens, hidden_size)`):
                Output of a visual encoder that is frozen as a whole, in place of all that it reads.
            clip_index (`torch.LongTensor` of shape `(rows,)`, *optional*):
                The clip of each prompt, from 0, where several prompts are about one clip. `cited_utterances` then has a
                row for each prompt, all else for each clip.

        Returns:
            `pooler_output`: per prompt a tensor `(tokens, width of the language model)` in the order
            [global; window 1; ...; window K; cited windows]; `last_hidden_state`: the video Q-Former's output
            `(B, W, num_video_query_tokens, hidden_size)`.

        Raises:
            ValueError: if an input that the configuration calls for is missing, or the clip is too long.
        """
        alternatives = (frame_tokens, vision_features, pixel_values_videos)
        frames = next((value for value in alternatives if value is not None), None)
        to_encode = frame_tokens is None
        has_local = to_encode and self.config.use_local_clue_attention
        self._check_inputs(
            {
                "pixel_values_videos": (True, frames),
                "region_masks": (has_local, region_masks),
                "pixel_values_faces": (
                    has_local and self.config.local_view == "face_crop",
                    face_features if face_features is not None else pixel_values_faces,
                ),
                "qformer_input_ids": (to_encode and self.config.use_frame_timestamps, qformer_input_ids),
            }
        )
        if frame_mask is None:
            frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        if qformer_input_ids is not None and qformer_attention_mask is None:
            qformer_attention_mask = torch.ones_like(qformer_input_ids)
        if utterance_windows is None:
            utterance_windows = torch.full((frames.shape[0], 0, 2), -1, device=frames.device)

        num_text = None
        if self.config.keep_timestamp_tokens:
            # TimeChat's video Q-Former sees the padding up to a clip's longest timestamp, and no further.
            num_text = (qformer_attention_mask.sum(dim=-1) * frame_mask).amax(dim=1)
        if to_encode:
            frame_tokens = self._encode_frames(
                frame_mask,
                pixel_values=pixel_values_videos,
                region_masks=region_masks,
                pixel_values_faces=pixel_values_faces,
                qformer_input_ids=qformer_input_ids,
                qformer_attention_mask=qformer_attention_mask,
                vision_features=vision_features,
                face_features=face_features,
            )
        else:
            frame_tokens = _move_to_front(frame_tokens[frame_mask], frame_mask)
        frame_mask = real_first(frame_mask)  # positions and windows count real frames
        utterance_windows = _real_windows_first(utterance_windows)
        token_mask = frame_mask[..., None].expand(frame_tokens.shape[:3])
        if num_text is not None:
            column = torch.arange(frame_tokens.shape[2], device=frame_tokens.device)
            token_mask = token_mask & (column < self.config.num_query_tokens + num_text[:, None])[:, None]

        tokens, real = self.video_qformer(frame_tokens, token_mask, utterance_windows)
        features, has_frames = _project(self.video_projection, tokens), frame_mask.any(dim=1)
        if clip_index is not None:
            features, real, has_frames = features[clip_index], real[clip_index], has_frames[clip_index]
        if cited_utterances is not None:  # a sound file among videos has utterances and no frames
            cited_utterances = cited_utterances.masked_fill(~has_frames[:, None], -1)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=self._in_prompt_order(features, real, cited_utterances, self.config.use_global_window),
        )

    def _encode_frames(self, frame_mask: torch.Tensor, **inputs: torch.Tensor | None) -> torch.Tensor:
        """Frame tokens `(B, T, tokens, hidden_size)` of the real frames `(B, T)` in front, 0 behind them."""
        if not frame_mask.any():  # attention kernels take no empty batch
            shape = (*frame_mask.shape, self.config.num_query_tokens, self.config.image_qformer_config.hidden_size)
            return torch.zeros(shape, dtype=self.dtype, device=frame_mask.device)
        inputs = {name: None if value is None else value[frame_mask] for name, value in inputs.items()}
        return _move_to_front(self.visual_encoder(**inputs), frame_mask)

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        audio_segment_mask: torch.Tensor | None = None,
        audio_windows: torch.Tensor | None = None,
        cited_utterances: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        r"""
        Mel segments to language-model tokens (paper 3.4).

        Args:
            input_features (`torch.Tensor` of shape `(B, C, 1, num_mel_bins, num_mel_frames)`): ImageBind mel segments.
            audio_segment_mask (`torch.BoolTensor` of shape `(B, C)`, *optional*):
                Real segments, wherever they stand in the padded row; all of them by default.
            audio_windows (`torch.LongTensor` of shape `(B, K, 2)`, *optional*):
                Segments [start, end) of each utterance, -1 where padded; read with `use_utterance_audio`.
            cited_utterances (`torch.LongTensor` of shape `(B, N)`, *optional*): As for the video.
            audio_features (`torch.Tensor` of shape `(B, C, projection_dim)`):
                Output of the frozen audio tower in place of `input_features`.
            clip_index (`torch.LongTensor` of shape `(rows,)`, *optional*): As for the video.

        Returns:
            `pooler_output`: per prompt a tensor `(tokens, width of the language model)`, none for a clip without sound;
            `last_hidden_state`: the audio Q-Former's output `(B, W, num_audio_query_tokens, hidden_size)`.
        """
        segments = audio_features if audio_features is not None else input_features
        self._check_inputs({"input_features": (True, segments)})
        if audio_segment_mask is None:
            audio_segment_mask = torch.ones(segments.shape[:2], dtype=torch.bool, device=segments.device)
        if audio_windows is None:
            audio_windows = torch.full((segments.shape[0], 0, 2), -1, device=segments.device)
        audio_windows = _real_windows_first(audio_windows)
        tokens, real = self.audio_branch(input_features, audio_segment_mask, audio_windows, audio_features)
        features, has_sound = _project(self.audio_projection, tokens), audio_segment_mask.any(dim=1)
        if clip_index is not None:
            features, real, has_sound = features[clip_index], real[clip_index], has_sound[clip_index]
        if cited_utterances is not None:
            # Only where utterances have sound of their own, and in clips that have sound.
            has_own = has_sound[:, None] & self.config.use_utterance_audio
            cited_utterances = cited_utterances.masked_fill(~has_own, -1)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=self._in_prompt_order(features, real, cited_utterances, True),
        )

    def _check_inputs(self, inputs: dict[str, tuple[bool, torch.Tensor | None]]) -> None:
        missing = [name for name, (needed, value) in inputs.items() if needed and value is None]
        if missing:
            raise ValueError(
                f"missing inputs: {', '.join(missing)}. This model's configuration calls for them; "
                "a processor made from the same configuration returns them"
            )

    @staticmethod
    def _in_prompt_order(features, real, cited, has_global) -> list[torch.Tensor]:
        """Tokens `(B, W, n, width)` as one flat tensor per clip: its real windows, then those that are cited."""
        num_windows = real.shape[1]
        order = torch.arange(num_windows, device=real.device).expand(real.shape)
        if cited is not None:
            cited_windows = torch.where(cited >= 0, cited + int(has_global), -1).to(real.device)
            available = torch.cat([real, real.new_zeros(real.shape[0], 1)], dim=1)  # the last column stands for -1
            index = torch.where(cited_windows < num_windows, cited_windows, -1) % (num_windows + 1)
            wrong = (cited_windows >= 0) & ~available.gather(1, index)
            if wrong.any():
                raise ValueError(f"cited utterance {int(cited[wrong][0])} (from 0) is no window of its clip")
            order = torch.cat([order, cited_windows.clamp(min=0)], dim=1)
            real = torch.cat([real, cited_windows >= 0], dim=1)
        row = real.nonzero()[:, 0]
        flat = take_steps(features, row, order[real]).flatten(0, 1)
        return list(flat.split((real.sum(dim=1) * features.shape[2]).tolist()))

    def encode_media(self, **media: torch.Tensor | None) -> MediaEncodings:
        """The features of all media inputs given (see `VIDEO_INPUTS`, `AUDIO_INPUTS`), by modality.

        What `forward` and `generate` take as `mm_encoder_outputs`, so that several calls share one encoding.

        Args:
            media: As the processor gives them; `input_ids` and what else belongs to the text is passed over.

        Raises:
            TypeError: for an input that MicroEmo does not have.
        """
        refuse_unknown(media, MEDIA_INPUTS | TEXT_INPUTS, "MicroEmoModel.encode_media", OTHER_NAMES)
        if media.get("clip_index") is not None and getattr(self, "_is_replica", False):
            raise ValueError(
                "nn.DataParallel deals out the rows of a batch and not the clips that they share: start one process for "
                "each GPU (accelerate launch, torchrun)"
            )
        video = {name: media.get(name) for name in VIDEO_INPUTS}
        audio = {name: media.get(name) for name in AUDIO_INPUTS}
        outputs = {}
        if any(video[name] is not None for name in ("pixel_values_videos", "vision_features", "frame_tokens")):
            outputs["video"] = self.get_video_features(**video, return_dict=True)
        if audio["input_features"] is not None or audio["audio_features"] is not None:
            outputs["audio"] = self.get_audio_features(**audio, return_dict=True)
        return MediaEncodings(outputs, {name: media[name] for name in MEDIA_INPUTS & media.keys()}, self)

    def _fill_placeholders(self, input_ids, inputs_embeds, modality: str, features: list[torch.Tensor]):
        """Puts a modality's features where its placeholders stand, row by row.

        Raises:
            ValueError: if a row has another number of placeholders than of features; the message has both.
        """
        token_id = getattr(self.config, f"{modality}_token_id")
        if input_ids is not None:
            placeholders = input_ids == token_id
        else:
            embedding = self.get_input_embeddings()(torch.tensor(token_id, device=inputs_embeds.device))
            placeholders = (inputs_embeds == embedding).all(dim=-1)
        num_tokens, num_features = placeholders.sum(dim=1).tolist(), [len(row) for row in features]
        if sum(num_tokens) != sum(num_features) or (
            len(num_tokens) == len(num_features) and num_tokens != num_features
        ):
            switches = (
                ("num_video_query_tokens", "windows", "use_global_window")
                if modality == "video"
                else ("num_audio_query_tokens", "use_utterance_audio")
            )
            raise ValueError(
                f"{modality.capitalize()} features and {modality} tokens do not match, "
                f"tokens: {num_tokens}, features: {num_features}. The model has "
                + ", ".join(f"{name}={getattr(self.config, name)!r}" for name in switches)
                + "; the processor's fields must be the same"
            )
        if not features:
            return inputs_embeds
        flat = torch.cat(features).to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(placeholders[..., None].to(inputs_embeds.device), flat)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs,
    ) -> MicroEmoModelOutputWithPast:
        r"""
        Args:
            mm_encoder_outputs (`dict`, *optional*): What [`~MicroEmoModel.encode_media`] gave, in place of media.
            kwargs: The media inputs of `get_video_features` and `get_audio_features`, and what the language model
                takes.

        Raises:
            TypeError: for a keyword that nobody takes.
        """
        refuse_unknown(kwargs, self._keywords, "MicroEmo's forward", OTHER_NAMES)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        for name in ("token_type_ids", "mm_token_type_ids"):  # which no part reads
            kwargs.pop(name, None)
        media = {name: kwargs.pop(name) for name in MEDIA_INPUTS & kwargs.keys()}
        encoded = mm_encoder_outputs or self.encode_media(**media)
        features = {modality: output.pooler_output for modality, output in encoded.items()}
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            # A prompt with placeholders and no media would be read as if it were words.
            features = {"video": [], "audio": []} | features if input_ids is not None else features
        for modality, rows in features.items():
            inputs_embeds = self._fill_placeholders(input_ids, inputs_embeds, modality, rows)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return MicroEmoModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=features.get("video"),
            audio_hidden_states=features.get("audio"),
        )


def _move_to_front(real: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What belongs to the real steps of a mask `(B, T)`, `(real steps, ...)`, in front of padded rows `(B, T, ...)`."""
    return real.new_zeros(*mask.shape, *real.shape[1:]).index_put((real_first(mask),), real)


def _real_windows_first(windows: torch.Tensor) -> torch.Tensor:
    """Windows `(B, K, 2)` with the padded ones behind the real ones: citations count real windows."""
    padded = (windows[..., 1] <= windows[..., 0]).long()
    order = padded.argsort(dim=1, stable=True)
    return windows.gather(1, order[..., None].expand_as(windows))


def _project(projection: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The projection of tokens `(B, W, n, width)`. Kernels of 8-bit weights take at most three dimensions."""
    return projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])


class MicroEmoForConditionalGeneration(MicroEmoPreTrainedModel, GenerationMixin):
    """MicroEmo with its language modelling head: clip, subtitles and a question in, a description of emotions and
    their clues out."""

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

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def get_video_features(self, *args, **kwargs) -> BaseModelOutputWithPooling:
        """See [`MicroEmoModel.get_video_features`]."""
        return self.model.get_video_features(*args, **kwargs)

    def get_audio_features(self, *args, **kwargs) -> BaseModelOutputWithPooling:
        """See [`MicroEmoModel.get_audio_features`]."""
        return self.model.get_audio_features(*args, **kwargs)

    @can_return_tuple
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
        audio_windows: torch.Tensor | None = None,
        cited_utterances: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        frame_tokens: torch.Tensor | None = None,
        clip_index: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> MicroEmoCausalLMOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): Prompt with `<video>` and `<audio>` placeholders.
            labels (`torch.LongTensor` of shape `(B, S)`, *optional*): Targets; -100 where no loss is taken.
            logits_to_keep (`int` or `torch.Tensor`, *optional*): As in Transformers.

        The media inputs are those of [`MicroEmoModel.get_video_features`] and [`MicroEmoModel.get_audio_features`]:
        what [`MicroEmoProcessor`] returns.

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
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return MicroEmoCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
            audio_hidden_states=outputs.audio_hidden_states,
        )

    # `generate` encodes the media once, before beams are copied and whatever the cache; Transformers' own two steps
    # know images and videos only.
    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        media = {name: model_kwargs.pop(name) for name in MEDIA_INPUTS & model_kwargs.keys()}
        encodings = model_kwargs.get("mm_encoder_outputs")
        if encodings is None:
            model_kwargs["mm_encoder_outputs"] = self.model.encode_media(**media)
        elif isinstance(encodings, MediaEncodings):
            model_kwargs["mm_encoder_outputs"] = encodings.of(self.model)
        return model_kwargs

    def prepare_inputs_for_generation(
        self, input_ids: torch.LongTensor, past_key_values=None, mm_encoder_outputs=None, **kwargs
    ) -> dict:
        """As Transformers' own, and the media go with every forward pass that reads the prompt: an assistant's first one
        is no first iteration of `generate`, though its cache is empty."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, past_key_values=past_key_values, mm_encoder_outputs=mm_encoder_outputs, **kwargs
        )
        if mm_encoder_outputs and (past_key_values is None or past_key_values.get_seq_length() == 0):
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        return inputs

    def _expand_multimodal_outputs(self, input_ids, mm_encoder_output, expand_size=1, inputs_embeds=None) -> dict:
        if expand_size == 1:
            return mm_encoder_output
        return {
            modality: BaseModelOutputWithPooling(
                pooler_output=[row for row in output.pooler_output for _ in range(expand_size)]
            )
            for modality, output in mm_encoder_output.items()
        }


__all__ = ["MicroEmoForConditionalGeneration", "MicroEmoModel", "MicroEmoPreTrainedModel"]
