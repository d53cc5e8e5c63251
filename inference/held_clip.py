"""A clip that is decoded and goes through the towers once, for all questions about it, whatever is taken away from it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import BatchFeature

from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..modeling_microemo.tower_features import tower_features
from ..processing.clip_reader import ClipContent, ClipInput, ClipReader
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.utterances import Utterance

_NAME = "the clip"  # what conversations call it; nothing is read under this name


@dataclass(frozen=True)
class Given:
    """Which parts of a clip a prompt holds.

    Attributes:
        picture (`bool`, *optional*, defaults to `True`): Whether the frames are there.
        sound (`bool`, *optional*, defaults to `True`): Whether the sound is there.
        words (`bool`, *optional*, defaults to `True`): Whether the words of the utterances are there.
    """

    picture: bool = True
    sound: bool = True
    words: bool = True


class HeldClip(ClipReader):
    """Reads a clip once and then stands for its file in every prompt.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model whose towers encode the clip.
        processor ([`MicroEmoProcessor`]): Its processor.
        clip ([`ClipInput`]): The clip with its utterances.

    Attributes:
        content ([`ClipContent`]): What the clip holds besides its features.

    Raises:
        ValueError: if the clip cannot be used (see [`MicroEmoProcessor`]).
    """

    def __init__(
        self,
        model: MicroEmoForConditionalGeneration,
        processor: MicroEmoProcessor,
        clip: ClipInput,
    ) -> None:
        super().__init__(processor)
        arrays, (self.content,) = ClipReader(processor).read([clip], asr=False)
        tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
        self._features = tower_features(model.model, tensors)
        self._asking = copy.copy(processor)  # its clip reader becomes this one
        self._asking.clip_reader = self

    @property
    def utterances(self) -> list[Utterance]:
        """The utterances of the clip."""
        return self.content.utterances

    def given(self) -> Given:
        """Tells which parts the clip has.

        Returns:
            [`Given`]: The parts.
        """
        words = any(utterance.text for utterance in self.utterances)
        return Given(self.content.has_video, self.content.has_audio, words)

    def read(
        self, clips: Sequence[ClipInput], asr: Any = None, video_kwargs: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[ClipContent]]:
        """Returns the features of the clip for each row, without what the row leaves out.

        Args:
            clips (`Sequence[ClipInput]`): The rows: without `video` there are no frames, with `audio=False` no sound.
            asr (`Any`, *optional*): Not used: the utterances are those of the rows.
            video_kwargs (`dict`, *optional*): Not used: the frames are chosen.

        Returns:
            `tuple[dict, list[ClipContent]]`: As [`ClipReader.read`] returns them.
        """
        contents = []
        for clip in clips:
            sees, hears = clip.video is not None, clip.audio is not False
            contents.append(
                ClipContent(
                    has_video=self.content.has_video and sees,
                    has_audio=self.content.has_audio and hears,
                    utterances=clip.utterances,
                    video_metadata=self.content.video_metadata if sees else None,
                    segment_times=self.content.segment_times if hears else None,
                )
            )
        has = {
            "frame_mask": torch.tensor([content.has_video for content in contents]),
            "audio_segment_mask": torch.tensor([content.has_audio for content in contents]),
        }
        has["audio_step_mask"] = has["audio_segment_mask"]
        features = {}
        for name, value in self._features.items():
            is_sound = name.startswith("audio_")
            if not has["audio_segment_mask" if is_sound else "frame_mask"].any():
                continue
            features[name] = value.expand(len(clips), *value.shape[1:])
            if name in has:
                features[name] = features[name] & has[name][:, None]
        return features, contents

    def prompts(
        self,
        questions: Sequence[tuple[Given, list[dict]]],
        answers: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Makes the inputs of the model for questions about the clip.

        Args:
            questions (`Sequence[tuple[Given, list[dict]]]`):
                For each prompt what it holds of the clip, and the items of the question (text, cited utterances).
            answers (`Sequence[str]`, *optional*): The answer to each; without them the prompts end where an answer begins.

        Returns:
            `BatchFeature`: The tensors of [`MicroEmoProcessor`], with the towers' features in place of pixels and
            segments. With answers, `assistant_masks` (B, S) marks their tokens.
        """
        conversations = []
        for row, (given, question) in enumerate(questions):
            messages = [{"role": "user", "content": [*self._media(given), *question]}]
            if answers is not None:
                content = [{"type": "text", "text": answers[row]}]
                messages.append({"role": "assistant", "content": content})
            conversations.append(messages)
        return self._asking.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=answers is None,
            return_assistant_tokens_mask=answers is not None,
        )

    def _media(self, given: Given) -> list[dict]:
        """The items that stand for the clip, or for what is left of it."""
        utterances = self.utterances
        if not given.words:
            utterances = [replace(utterance, text="", words=[]) for utterance in utterances]
        has = self.given()
        if given.picture and has.picture:
            media = [{"type": "video", "path": _NAME, "utterances": utterances}]
            return media if given.sound or not has.sound else [*media, {"type": "audio", "audio": False}]
        if given.sound and has.sound:
            return [{"type": "audio", "path": _NAME, "utterances": utterances}]
        raise ValueError("a prompt needs the picture or the sound of its clip")
