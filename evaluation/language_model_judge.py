"""What a language model is asked here: group synonyms, name the labels of a description, its sentiment, merge two answers.

Each question is a prompt of ours with an answer checked as JSON; `chat.ask_json` asks, retries and caches.
"""

import json
from collections.abc import Sequence
from functools import partial

from .chat import Chat, ask_json
from .emotion_labels import parse_groups, parse_labels

SENTIMENTS = ("positive", "negative", "neutral")

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
    """Synonym groups from a language model (a `set_level.Grouper`).

    A sample of fewer than two labels needs no question. An answer that cannot be read after `attempts` becomes None:
    the score sheet counts and names it under "ungrouped".
    """

    def __init__(self, chat: Chat, attempts: int = 3):
        self.chat, self.attempts = chat, attempts
        self.name = f"model {chat.model}"

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        # sorted, so that the same labels in another order are the same question
        asked = sorted({tuple(sorted(sample)) for sample in labels if len(sample) > 1})
        questions = [
            (
                GROUPING_PROMPT.format(labels=json.dumps(sample, ensure_ascii=False)),
                partial(parse_groups, labels=sample),
            )
            for sample in asked
        ]
        answers = dict(zip(asked, ask_json(self.chat, questions, self.attempts), strict=True))
        return [answers[tuple(sorted(sample))] if len(sample) > 1 else [list(sample)] for sample in labels]


def extract_labels(chat: Chat, texts: Sequence[str], attempts: int = 3) -> list[list[str] | None]:
    """Emotion labels of N descriptions, by a language model; None where no answer could be read."""
    return ask_json(chat, [(EXTRACTION_PROMPT.format(text=text.strip()), _list_of_words) for text in texts], attempts)


def judge_sentiment(chat: Chat, answers: Sequence[Sequence[str]], attempts: int = 3) -> list[str | None]:
    """ "positive", "negative" or "neutral" for N label lists, by a language model; None where no answer could be read."""
    named = [", ".join(labels) or "none named" for labels in answers]
    return ask_json(chat, [(SENTIMENT_PROMPT.format(labels=labels), _sentiment) for labels in named], attempts)


def merge_descriptions(chat: Chat, audio: Sequence[str], video: Sequence[str], attempts: int = 3) -> list[str | None]:
    """N pairs of an audio-only and a video-only description made into one each; None where no answer could be read."""
    pairs = zip(audio, video, strict=True)
    prompts = [MERGING_PROMPT.format(audio=heard.strip(), video=watched.strip()) for heard, watched in pairs]
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
        found = json.loads(answer[start : end + 1])
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get(key), str) or not found[key].strip():
        raise ValueError(f'expected a JSON object {{"{key}": "..."}}')
    return found[key].strip()


def _sentiment(answer: str) -> str:
    sentiment = _object(answer, "sentiment").lower()
    if sentiment not in SENTIMENTS:
        raise ValueError(f"expected one of {', '.join(SENTIMENTS)}, found {sentiment!r}")
    return sentiment


def _description(answer: str) -> str:
    return _object(answer, "description")
