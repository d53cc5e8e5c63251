"""The "A + B" rows of Table 1: an audio-only and a video-only system's answers made into one."""

from collections.abc import Sequence
from pathlib import Path

from .chat import Chat
from .label_extraction import labels_of
from .language_model_judge import merge_descriptions
from .prediction_files import Answers, match
from .raw_output import final_answer


def combine(audio: Answers, video: Answers, chat: Chat | None = None) -> tuple[Answers, dict[str, object]]:
    """Merge the answers of two systems, name by name.

    Args:
        audio, video: the two files, which must hold the same names; with `chat` both must be free text.
        chat: merges the two texts (the published way); None takes the union of their labels, offline.
    Returns:
        The combined answers, and notes: "combination" (how, for tables), "unreadable" (names whose merged text the
        model left unreadable; their answer is empty).
    """
    names, heard, watched = match(audio, video)
    source = Path(f"{audio.source.stem}+{video.source.stem}")
    if chat is None:
        (a, a_notes), (b, b_notes) = labels_of(audio), labels_of(video)
        union = {name: list(dict.fromkeys(a[name] + b[name])) for name in names}
        read = " and ".join(sorted({str(notes["extraction"]) for notes in (a_notes, b_notes)}))
        return Answers(source, "labels", union), {"combination": f"union of labels {read}", "unreadable": ()}
    for answers in (audio, video):
        if answers.kind != "text":
            raise ValueError(f"{answers.source}: a model merges descriptions, and this file holds label lists")
    texts = [["" if text is None else final_answer(text) for text in side] for side in (heard, watched)]
    merged: Sequence = merge_descriptions(chat, *texts)
    unreadable = tuple(name for name, text in zip(names, merged, strict=True) if text is None)
    items = {name: text or "" for name, text in zip(names, merged, strict=True)}
    return Answers(source, "text", items), {"combination": f"merged by {chat.model}", "unreadable": unreadable}
