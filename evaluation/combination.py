"""The "A + B" rows of the paper's Table 1: the answers of an audio-only and of a video-only system, combined."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .chat import Chat
from .label_extraction import labels_of
from .language_model_judge import merge_descriptions
from .prediction_files import Answers, match
from .raw_output import final_answer


def combine(audio: Answers, video: Answers, chat: Chat | None = None) -> tuple[Answers, dict[str, Any]]:
    """Combines the answers of two systems, clip by clip.

    Args:
        audio ([`Answers`]): The answers of the audio-only system.
        video ([`Answers`]): The answers of the video-only system, for the same clips.
        chat ([`Chat`], *optional*):
            A language model that merges the two texts, as in the published table. `None` takes the union of the labels,
            which needs no model.

    Returns:
        `tuple[Answers, dict[str, Any]]`: The combined answers, and notes. The note `combination` says how they were
        combined, for tables; `unreadable` holds the names of clips for which the model gave no readable text, whose
        answer is empty.

    Raises:
        NameMismatchError: if the two files hold different clips.
        ValueError: if a `chat` is given and one of the files holds label lists.
        ChatError: if the model cannot be reached or does not answer.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.combination import combine
    >>> from microemo.evaluation.prediction_files import Answers

    >>> audio = Answers(Path("salmonn.jsonl"), "labels", {"clip_1": ["sad"]})
    >>> video = Answers(Path("chat-univi.jsonl"), "labels", {"clip_1": ["sad", "tired"]})
    >>> combined, notes = combine(audio, video)
    >>> combined.items
    {'clip_1': ['sad', 'tired']}
    ```"""
    names, audio_answers, video_answers = match(audio, video)
    source = Path(f"{audio.source.stem}+{video.source.stem}")
    if chat is None:
        (audio_labels, audio_notes), (video_labels, video_notes) = labels_of(audio), labels_of(video)
        union = {name: list(dict.fromkeys(audio_labels[name] + video_labels[name])) for name in names}
        extraction = " and ".join(sorted({str(notes["extraction"]) for notes in (audio_notes, video_notes)}))
        return Answers(source, "labels", union), {"combination": f"union of labels {extraction}", "unreadable": ()}
    for answers in (audio, video):
        if answers.kind != "text":
            raise ValueError(f"{answers.source}: a model merges descriptions, and this file holds label lists")
    audio_texts, video_texts = (
        ["" if text is None else final_answer(str(text)) for text in side] for side in (audio_answers, video_answers)
    )
    merged: Sequence[str | None] = merge_descriptions(chat, audio_texts, video_texts)
    unreadable = tuple(name for name, text in zip(names, merged, strict=True) if text is None)
    items = {name: text or "" for name, text in zip(names, merged, strict=True)}
    return Answers(source, "text", items), {"combination": f"merged by {chat.model}", "unreadable": unreadable}
