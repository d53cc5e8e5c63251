"""From media inputs to tokens of the language model: the half of the model that runs once for each prompt."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.keywords import refuse_unknown
from .audio_branch import AudioBranch
from .media_inputs import AUDIO_INPUTS, MEDIA_INPUTS, OTHER_NAMES, TEXT_INPUTS, VIDEO_INPUTS, MediaEncodings
from .video_qformer import UtteranceAwareVideoQFormer, real_first, take_steps
from .visual_encoder import GlobalLocalVisualEncoder

# The documentation of the media inputs, for each method that takes them.
VIDEO_ARGS = r"""
    pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
        The frames of B clips.
    frame_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*):
        The real frames, wherever they stand in the padded row. By default all are real.
    region_masks (`torch.BoolTensor` of shape `(B, T, R, P)`, *optional*):
        The patches of each clue region, all False for a frame without a face. They are needed with
        `use_local_clue_attention`.
    pixel_values_faces (`torch.Tensor` of shape `(B, T, 3, H, W)`, *optional*):
        The face crops, which are needed with `local_view="face_crop"`.
    qformer_input_ids (`torch.LongTensor` of shape `(B, T, L)`, *optional*):
        The tokens of the timestamps, which are needed with `use_frame_timestamps`.
    qformer_attention_mask (`torch.LongTensor` of shape `(B, T, L)`, *optional*):
        The mask of `qformer_input_ids`. By default all tokens are real.
    utterance_windows (`torch.LongTensor` of shape `(B, K, 2)`, *optional*):
        The frames [start, end) of each window, -1 where padded.
    vision_features (`torch.Tensor` of shape `(B, T, class tokens + P, vision_width)`, *optional*):
        The output of the frozen image encoder, in place of `pixel_values_videos`.
    face_features (`torch.Tensor` of shape `(B, T, class tokens + P, vision_width)`, *optional*):
        The output of the frozen image encoder, in place of `pixel_values_faces`.
    frame_tokens (`torch.Tensor` of shape `(B, T, num_query_tokens, hidden_size)`, *optional*):
        The output of a visual encoder that is frozen as a whole, in place of all that it reads.
"""
AUDIO_ARGS = r"""
    input_features (`torch.Tensor` of shape `(B, C, ...)`, *optional*):
        The segments of sound of B clips, as the audio tower takes them: for ImageBind
        `(B, C, 1, num_mel_bins, num_mel_frames)`, for Whisper `(B, C, num_mel_bins, 3000)`.
    audio_segment_mask (`torch.BoolTensor` of shape `(B, C)`, *optional*):
        The real segments, wherever they stand in the padded row. By default all are real.
    audio_step_mask (`torch.BoolTensor` of shape `(B, S)`, *optional*):
        The real steps of all segments, for an audio tower that gives a segment more than one feature vector. By default
        all steps of real segments are real.
    audio_windows (`torch.LongTensor` of shape `(B, K, 2)`, *optional*):
        The steps [start, end) of each utterance, -1 where padded; ImageBind's segments are of one step each. They are read
        with `use_utterance_audio`.
    audio_features (`torch.Tensor` of shape `(B, S, audio_width)`, *optional*):
        The output of the frozen audio tower, in place of `input_features`.
"""
MEDIA_ARGS = r"""
    cited_utterances (`torch.LongTensor` of shape `(B, N)`, *optional*):
        The windows (from 0) whose tokens stand in the prompt once more, in the order of the prompt, -1 where padded.
    clip_index (`torch.LongTensor` of shape `(rows,)`, *optional*):
        The clip of each prompt, from 0, where several prompts are about one clip. `cited_utterances` then has a row
        for each prompt, all else for each clip.
"""


class MediaEncoderMixin:
    """The methods of [`MicroEmoModel`] that encode media."""

    config: MicroEmoConfig
    dtype: torch.dtype
    visual_encoder: GlobalLocalVisualEncoder
    video_qformer: UtteranceAwareVideoQFormer
    video_projection: nn.Linear
    audio_branch: AudioBranch
    audio_projection: nn.Linear

    @can_return_tuple
    @auto_docstring(
        custom_intro="""
        Makes tokens of the language model from frames (paper 3.2, 3.3).

        `pooler_output` holds for each prompt a tensor `(tokens, width of the language model)` in the order
        [global; window 1; ...; window K; cited windows], and `last_hidden_state` the output of the video Q-Former
        `(B, W, num_video_query_tokens, hidden_size)`. With `output_hidden_states` and `output_attentions` those of the
        image encoder come with them, for the real frames of all clips. A `ValueError` names inputs that the
        configuration calls for and that are missing, and the length of a clip that is too long.
        """,
        custom_args=VIDEO_ARGS + MEDIA_ARGS,
    )
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        refuse_unknown(kwargs, TransformersKwargs.__annotations__, "get_video_features", OTHER_NAMES)
        alternatives = (frame_tokens, vision_features, pixel_values_videos)
        frames = next((value for value in alternatives if value is not None), None)
        to_encode = frame_tokens is None
        has_local = to_encode and self.config.use_local_clue_attention
        _refuse_missing(
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
        tower = BaseModelOutputWithPooling()
        if to_encode:
            tower = self._encode_frames(
                frame_mask,
                {
                    "pixel_values": pixel_values_videos,
                    "region_masks": region_masks,
                    "pixel_values_faces": pixel_values_faces,
                    "qformer_input_ids": qformer_input_ids,
                    "qformer_attention_mask": qformer_attention_mask,
                    "vision_features": vision_features,
                    "face_features": face_features,
                },
                **kwargs,
            )
            frame_tokens = tower.last_hidden_state
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
            pooler_output=_in_prompt_order(features, real, cited_utterances, self.config.use_global_window),
            hidden_states=tower.hidden_states,
            attentions=tower.attentions,
        )

    def _encode_frames(
        self, frame_mask: torch.Tensor, inputs: dict[str, torch.Tensor | None], **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """Frame tokens `(B, T, tokens, hidden_size)` of the real frames `(B, T)` in front, 0 behind them, with what the
        image encoder gives beside them."""
        if not frame_mask.any():  # attention kernels take no empty batch
            shape = (*frame_mask.shape, self.config.num_query_tokens, self.config.image_qformer_config.hidden_size)
            tokens = torch.zeros(shape, dtype=self.dtype, device=frame_mask.device)
            return BaseModelOutputWithPooling(last_hidden_state=tokens)
        inputs = {name: None if value is None else value[frame_mask] for name, value in inputs.items()}
        encoded = self.visual_encoder(**inputs, **kwargs, return_dict=True)
        return BaseModelOutputWithPooling(
            last_hidden_state=_move_to_front(encoded.last_hidden_state, frame_mask),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @can_return_tuple
    @auto_docstring(
        custom_intro="""
        Makes tokens of the language model from segments of sound (paper 3.4).

        `pooler_output` holds for each prompt a tensor `(tokens, width of the language model)`, without rows for a clip
        without sound, and `last_hidden_state` the output of the audio Q-Former
        `(B, W, num_audio_query_tokens, hidden_size)`. With `output_hidden_states` and `output_attentions` those of the
        audio tower come with them, for the real segments of all clips. A `ValueError` tells that the segments are
        missing, or that there are too many of them.
        """,
        custom_args=AUDIO_ARGS + MEDIA_ARGS,
    )
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        audio_segment_mask: torch.Tensor | None = None,
        audio_step_mask: torch.Tensor | None = None,
        audio_windows: torch.Tensor | None = None,
        cited_utterances: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        refuse_unknown(kwargs, TransformersKwargs.__annotations__, "get_audio_features", OTHER_NAMES)
        sound = audio_features if audio_features is not None else input_features
        _refuse_missing({"input_features": (True, sound)})
        if audio_segment_mask is None:
            audio_segment_mask = torch.ones(sound.shape[:2], dtype=torch.bool, device=sound.device)
        if audio_windows is None:
            audio_windows = torch.full((sound.shape[0], 0, 2), -1, device=sound.device)
        audio_windows = _real_windows_first(audio_windows)
        branch, real = self.audio_branch(
            input_features, audio_segment_mask, audio_windows, audio_features, audio_step_mask, **kwargs
        )
        features = _project(self.audio_projection, branch.last_hidden_state)
        has_sound = audio_segment_mask.any(dim=1)
        if clip_index is not None:
            features, real, has_sound = features[clip_index], real[clip_index], has_sound[clip_index]
        if cited_utterances is not None:
            # Only where utterances have sound of their own, and in clips that have sound.
            has_own = has_sound[:, None] & self.config.use_utterance_audio
            cited_utterances = cited_utterances.masked_fill(~has_own, -1)
        branch.pooler_output = _in_prompt_order(features, real, cited_utterances, True)
        return branch

    def encode_media(self, **media: torch.Tensor | None) -> MediaEncodings:
        """Returns the features of all media inputs given, by modality.

        `forward` and `generate` take them as `mm_encoder_outputs`, so that several calls share one encoding.

        Args:
            media (`torch.Tensor`, *optional*):
                What [`~MicroEmoModel.get_video_features`] and [`~MicroEmoModel.get_audio_features`] take, as the
                processor returns it. `input_ids` and what else belongs to the text is passed over.

        Returns:
            `MediaEncodings`: The outputs of the two methods, as `"video"` and `"audio"`.

        Raises:
            TypeError: If MicroEmo has no such input.
        """
        refuse_unknown(media, (*MEDIA_INPUTS, *TEXT_INPUTS), "MicroEmoModel.encode_media", OTHER_NAMES)
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
        return MediaEncodings(outputs, {name: media[name] for name in MEDIA_INPUTS if name in media}, self)


def _refuse_missing(inputs: dict[str, tuple[bool, torch.Tensor | None]]) -> None:
    missing = [name for name, (needed, value) in inputs.items() if needed and value is None]
    if missing:
        raise ValueError(
            f"missing inputs: {', '.join(missing)}. This model's configuration calls for them; "
            "a processor made from the same configuration returns them"
        )


def _in_prompt_order(
    features: torch.Tensor, real: torch.Tensor, cited: torch.Tensor | None, has_global: bool
) -> list[torch.Tensor]:
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
