"""Language models as judges: they group synonyms, extract labels, judge sentiment, and merge two descriptions.

Each question is a prompt of this module, and each answer is checked as JSON; [`ask_json`] asks and
retries.
"""

import json
from collections.abc import Sequence
from functools import partial

from .chat import Chat, ask_json
from .emotion_labels import parse_groups, parse_labels

SENTIMENTS = ("positive", "negative", "neutral")
"""The sentiments that a language model chooses from."""

GROUPING_PROMPT = (
    "Below is a list of emotion labels. Put the labels that name the same or nearly the same emotion into one group. "
    "Use every label exactly once and change no spelling. Reply with a JSON list of lists of strings and nothing else, "
    'for example [["happy", "joyful"], ["angry"]].\n\nLabels: {labels}'
)
EXTRACTION_PROMPT = (
    "Below is a description of a person. List the emotions that it says this person feels, as short lower-case English "
    "labels. Leave out emotions that it denies, or that other people feel. Reply with a JSON list of strings and nothing "
    'else, [] when it names none, for example ["worried", "sad"].\n\nDescription: {text}'
)
SENTIMENT_PROMPT = (
    "A person feels these emotions: {labels}. Is the person's sentiment positive, negative or neutral overall? Reply "
    'with a JSON object and nothing else: {{"sentiment": "positive"}}.'
)
MERGING_PROMPT = (
    "Two observers describe the emotional state of the same person; one only heard the person, the other only watched. "
    "Write one description that keeps the clues and emotions of both, and says so where they contradict each other. "
    'Reply with a JSON object and nothing else: {{"description": "..."}}.\n\nHeard: {audio}\n\nWatched: {video}'
)


class ChatGrouper:
    """Groups synonyms with a language model; a [`Grouper`].

    A sample of fewer than two labels needs no question.

    Args:
        chat ([`Chat`]): The model to ask.
        attempts (`int`, *optional*, defaults to 3): The largest number of times that each question is asked.

    Attributes:
        name (`str`): How tables name this grouping.
    """

    def __init__(self, chat: Chat, attempts: int = 3):
        self.chat, self.attempts = chat, attempts
        self.name = f"model {chat.model}"

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        """Groups the labels of each sample.

        Args:
            names (`Sequence[str]`): N sample names.
            labels (`Sequence[Sequence[str]]`): N lists of distinct lower-case labels.

        Returns:
            `list[list[list[str]] | None]`: N lists of groups; `None` where no answer could be read, which the score sheet
            counts and names under `ungrouped`.

        Raises:
            ChatError: if the model cannot be reached or does not answer.
        """
        # sorted, so that the same labels in another order are the same question
        distinct = sorted({tuple(sorted(sample)) for sample in labels if len(sample) > 1})
        questions = [
            (
                GROUPING_PROMPT.format(labels=json.dumps(sample, ensure_ascii=False)),
                partial(parse_groups, labels=sample),
            )
            for sample in distinct
        ]
        answers = dict(zip(distinct, ask_json(self.chat, questions, self.attempts), strict=True))
        return [answers[tuple(sorted(sample))] if len(sample) > 1 else [list(sample)] for sample in labels]


def extract_labels(chat: Chat, texts: Sequence[str], attempts: int = 3) -> list[list[str] | None]:
    """Extracts the emotion labels of descriptions with a language model.

    Args:
        chat ([`Chat`]): The model to ask.
        texts (`Sequence[str]`): N descriptions.
        attempts (`int`, *optional*, defaults to 3): The largest number of times that each question is asked.

    Returns:
        `list[list[str] | None]`: N lists of labels; `None` where no answer could be read.

    Raises:
        ChatError: if the model cannot be reached or does not answer.
    """
    return ask_json(chat, [(EXTRACTION_PROMPT.format(text=text.strip()), _list_of_words) for text in texts], attempts)


def judge_sentiment(chat: Chat, answers: Sequence[Sequence[str]], attempts: int = 3) -> list[str | None]:
    """Judges the sentiment of label lists with a language model.

    Args:
        chat ([`Chat`]): The model to ask.
        answers (`Sequence[Sequence[str]]`): N lists of labels.
        attempts (`int`, *optional*, defaults to 3): The largest number of times that each question is asked.

    Returns:
        `list[str | None]`: N of `"positive"`, `"negative"` and `"neutral"`; `None` where no answer could be read.

    Raises:
        ChatError: if the model cannot be reached or does not answer.
    """
    listed = [", ".join(labels) or "none named" for labels in answers]
    return ask_json(chat, [(SENTIMENT_PROMPT.format(labels=labels), _sentiment) for labels in listed], attempts)


def merge_descriptions(chat: Chat, audio: Sequence[str], video: Sequence[str], attempts: int = 3) -> list[str | None]:
    """Merges an audio-only and a video-only description of each clip into one with a language model.

    Args:
        chat ([`Chat`]): The model to ask.
        audio (`Sequence[str]`): N descriptions by an audio-only system.
        video (`Sequence[str]`): N descriptions by a video-only system.
        attempts (`int`, *optional*, defaults to 3): The largest number of times that each question is asked.

    Returns:
        `list[str | None]`: N merged descriptions; `None` where no answer could be read.

    Raises:
        ValueError: if the lengths differ.
        ChatError: if the model cannot be reached or does not answer.
    """
    pairs = zip(audio, video, strict=True)
    prompts = [MERGING_PROMPT.format(audio=a.strip(), video=v.strip()) for a, v in pairs]
    return ask_json(chat, [(prompt, _description) for prompt in prompts], attempts)


def _list_of_words(answer: str) -> list[str]:
    start, end = answer.find("["), answer.rfind("]")
    try:
        words = json.loads(answer[start : end + 1])
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError('expected a JSON list of strings such as ["worried", "sad"]')
    return parse_labels(words)


def _object(answer: str, key: str) -> str:
    start, end = answer.find("{"), answer.rfind("}")
    try:
        content = json.loads(answer[start : end + 1])
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get(key), str) or not content[key].strip():
        raise ValueError(f'expected a JSON object {{"{key}": "..."}}')
    return str(content[key]).strip()


def _sentiment(answer: str) -> str:
    sentiment = _object(answer, "sentiment").lower()
    if sentiment not in SENTIMENTS:
        raise ValueError(f"expected one of {', '.join(SENTIMENTS)}, found {sentiment!r}")
    return sentiment


def _description(answer: str) -> str:
    return _object(answer, "description")
