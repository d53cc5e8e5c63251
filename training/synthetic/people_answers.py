"""Questions and answers about dialogues of people who act a facial action while a recording of emotional speech is heard.

What is seen is the acted clue, what is heard the emotion of the recording, and what is felt follows from both by
[`FELT`]. The answers are regular and short, so that a small language model learns them from scratch. They name what
cannot be seen, heard or understood, and no utterance that the prompt does not list.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .dialogue_plan import CLUES

# The emotions of the recordings, as the answers name them.
VOICES = {
    "calm": "calm",
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fearful": "fearful",
    "disgust": "disgusted",
    "surprised": "surprised",
    "bored": "bored",
}
# The clues by a name, where there is no room for a sentence.
CLUE_NAMES = {
    "smile": "a smile",
    "frown": "a frown",
    "lip_press": "pressed lips",
    "brow_raise": "raised brows",
    "brow_furrow": "drawn brows",
    "eye_widening": "wide eyes",
    "neutral": "a still face",
}
STILL = "the face is still"
NO_FACE, NO_SOUND, NO_WORDS = "no face is seen", "nothing is heard", "The words are not understood."
UNCLEAR = "unclear"
# How face and voice stand to each other.
RELATIONS = {
    "agreement": "Face and voice agree",
    "masking": "The face masks the voice",
    "mixed": "Face and voice are mixed",
    "restrained": "The face holds it back",
    "face": "The face tells more",
    "voice": "The voice tells more",
    "face_only": "Only the face tells",
    "voice_only": "Only the voice tells",
    "none": "Neither tells",
}
# What a clue and a voice mean together: how they stand to each other, and the labels, the strongest first.
#
# The voice carries arousal and valence (Scherer 2003; Banse and Scherer 1996: happy, angry, fearful and surprised voices
# are aroused; sad, calm, neutral and bored ones are not), the clue appraises (Smith and Scott 1997). Where the clue is a
# part of the prototype of the emotion heard (Ekman, Friesen and Hager 2002: AU 12 in joy, 15 and 17 in sadness and
# disgust, 4 in anger, sadness, fear and disgust, 1 + 2 and 5 in surprise and fear, 5 and 24 in anger), both agree and the
# emotion has its full strength.
# - Smile: with an unpleasant voice it masks (Ekman and Friesen 1982: the masking and the miserable smile; with fear the
#   smile of embarrassment, Keltner 1995; with anger and disgust that of contempt), with a voice without emotion it is
#   social.
# - Lips pressed together: the sign of an emotion under control (Ekman 1985; "restrained" in the table), and with a voice
#   at rest that of resolve.
# - Raised brows: a question (Ekman 1979) where the voice is neither surprised nor afraid: interest when it is pleasant,
#   doubt when it is not.
# - Drawn brows: an obstacle (Scherer 1992): effort with a pleasant voice, confusion with a surprised one (Rozin and
#   Cohen 2003), worry with a neutral one.
# - Wide eyes: more attention (Susskind et al. 2008), which adds shock to a weak voice.
# - Corners of the mouth down: loss or disappointment (Lazarus 1991) with any other voice.
# - A face at rest leaves the emotion to the voice, and a neutral voice leaves it to the face.
FELT: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("smile", "calm"): ("agreement", ("contentment", "calm")),
    ("smile", "neutral"): ("face", ("politeness", "friendliness")),
    ("smile", "happy"): ("agreement", ("joy", "amusement")),
    ("smile", "sad"): ("masking", ("sadness", "politeness")),
    ("smile", "angry"): ("masking", ("anger", "contempt")),
    ("smile", "fearful"): ("masking", ("anxiety", "embarrassment")),
    ("smile", "disgust"): ("masking", ("disgust", "contempt")),
    ("smile", "surprised"): ("agreement", ("surprise", "joy")),
    ("smile", "bored"): ("masking", ("boredom", "politeness")),
    ("frown", "calm"): ("mixed", ("resignation", "sadness")),
    ("frown", "neutral"): ("face", ("sadness", "disappointment")),
    ("frown", "happy"): ("mixed", ("joy", "sadness")),
    ("frown", "sad"): ("agreement", ("sadness", "grief")),
    ("frown", "angry"): ("mixed", ("anger", "disappointment")),
    ("frown", "fearful"): ("mixed", ("fear", "distress")),
    ("frown", "disgust"): ("agreement", ("disgust", "aversion")),
    ("frown", "surprised"): ("mixed", ("surprise", "disappointment")),
    ("frown", "bored"): ("agreement", ("boredom", "disappointment")),
    ("lip_press", "calm"): ("restrained", ("determination", "calm")),
    ("lip_press", "neutral"): ("face", ("determination", "tension")),
    ("lip_press", "happy"): ("restrained", ("amusement", "joy")),
    ("lip_press", "sad"): ("restrained", ("sadness", "distress")),
    ("lip_press", "angry"): ("restrained", ("anger", "frustration")),
    ("lip_press", "fearful"): ("restrained", ("anxiety", "tension")),
    ("lip_press", "disgust"): ("restrained", ("disgust", "disapproval")),
    ("lip_press", "surprised"): ("restrained", ("surprise", "tension")),
    ("lip_press", "bored"): ("restrained", ("boredom", "impatience")),
    ("brow_raise", "calm"): ("agreement", ("interest", "calm")),
    ("brow_raise", "neutral"): ("face", ("doubt", "interest")),
    ("brow_raise", "happy"): ("agreement", ("joy", "interest")),
    ("brow_raise", "sad"): ("mixed", ("sadness", "worry")),
    ("brow_raise", "angry"): ("mixed", ("anger", "indignation")),
    ("brow_raise", "fearful"): ("agreement", ("fear", "surprise")),
    ("brow_raise", "disgust"): ("mixed", ("disgust", "doubt")),
    ("brow_raise", "surprised"): ("agreement", ("surprise", "astonishment")),
    ("brow_raise", "bored"): ("mixed", ("boredom", "doubt")),
    ("brow_furrow", "calm"): ("mixed", ("concentration", "calm")),
    ("brow_furrow", "neutral"): ("face", ("worry", "concentration")),
    ("brow_furrow", "happy"): ("mixed", ("joy", "concentration")),
    ("brow_furrow", "sad"): ("agreement", ("grief", "worry")),
    ("brow_furrow", "angry"): ("agreement", ("anger", "irritation")),
    ("brow_furrow", "fearful"): ("agreement", ("fear", "worry")),
    ("brow_furrow", "disgust"): ("agreement", ("disgust", "anger")),
    ("brow_furrow", "surprised"): ("mixed", ("surprise", "confusion")),
    ("brow_furrow", "bored"): ("mixed", ("boredom", "irritation")),
    ("eye_widening", "calm"): ("mixed", ("interest", "alertness")),
    ("eye_widening", "neutral"): ("face", ("shock", "interest")),
    ("eye_widening", "happy"): ("agreement", ("joy", "excitement")),
    ("eye_widening", "sad"): ("mixed", ("sadness", "shock")),
    ("eye_widening", "angry"): ("agreement", ("anger", "rage")),
    ("eye_widening", "fearful"): ("agreement", ("fear", "shock")),
    ("eye_widening", "disgust"): ("mixed", ("disgust", "shock")),
    ("eye_widening", "surprised"): ("agreement", ("surprise", "shock")),
    ("eye_widening", "bored"): ("mixed", ("boredom", "alertness")),
    ("neutral", "calm"): ("agreement", ("calm",)),
    ("neutral", "neutral"): ("agreement", ("neutral",)),
    ("neutral", "happy"): ("voice", ("joy",)),
    ("neutral", "sad"): ("voice", ("sadness",)),
    ("neutral", "angry"): ("voice", ("anger",)),
    ("neutral", "fearful"): ("voice", ("fear",)),
    ("neutral", "disgust"): ("voice", ("disgust",)),
    ("neutral", "surprised"): ("voice", ("surprise",)),
    ("neutral", "bored"): ("voice", ("boredom",)),
}
# Without the voice a clue is ambiguous, and has the labels that it has with a neutral one.
FELT_FROM_FACE = {clue: FELT[clue, "neutral"][1] for clue in CLUES}
FELT_FROM_VOICE = {heard: FELT["neutral", heard][1] for heard in VOICES}

MOST_UTTERANCES = 12  # listed in an answer about the whole clip
_MOST_SENTENCES = 3  # utterances that have a sentence each in it; more of them have a name for the clue

# The first of each is the question that the pipeline asks, which half of the rows ask.
ASK_WHOLE = (
    "What does the speaker feel, and why?",
    "Which emotions does the speaker show in this clip, and how can you tell?",
    "Describe the speaker's emotions from utterance to utterance.",
    "What emotions are in this clip?",
)
ASK_UTTERANCE = (
    "What does the speaker feel in this utterance, and why?",
    "Which emotion is shown here, and which clues tell so?",
    "Look and listen closely: what is felt here?",
)
# Questions that name an utterance in their own words, whether it exists or not.
ASK_NUMBER = (
    "What does the speaker feel in utterance {}, and why?",
    "Which emotion is shown in utterance {}?",
    "Look and listen closely: what is felt here?\nutterance {}",
)
ASK_CHANGE = ("When does the emotion change?", "Does the speaker's emotion change, and when?")
ASK_CLUE = ("What moves in the face?", "What is seen in the face?", "Describe the face.")
ASK_VOICE = ("How does the voice sound?", "What is heard in the voice?", "Describe the voice.")
KINDS = ("utterance", "whole", "change", "general", "clue", "voice", "missing")

Turn = tuple[dict, dict, dict]


def felt(clue: str | None, heard: str | None) -> tuple[str, tuple[str, ...]]:
    """Looks up what is felt.

    Args:
        clue (`str` or `None`): The facial clue, a name of [`CLUES`]; `None` where no face is seen.
        heard (`str` or `None`): The emotion of the voice, a name of [`VOICES`]; `None` where nothing is heard.

    Returns:
        `tuple[str, tuple[str, ...]]`: How face and voice stand to each other, a name of [`RELATIONS`], and the labels.
    """
    if clue is not None and heard is not None:
        return FELT[clue, heard]
    if clue is not None:
        return "face_only", FELT_FROM_FACE[clue]
    if heard is not None:
        return "voice_only", FELT_FROM_VOICE[heard]
    return "none", (UNCLEAR,)


def senses(truth: dict) -> list[tuple[str | None, str | None]]:
    """Collects what can be seen and heard of each utterance.

    Args:
        truth (`dict`): The truth of a clip, with `has_face`, `has_sound` and `utterances`.

    Returns:
        `list[tuple[str | None, str | None]]`: The clue and the emotion heard in each utterance; `None` for what is not there.
    """
    return [
        (
            utterance["clue"] if truth["has_face"] and utterance["seen"] else None,
            utterance["heard"] if truth["has_sound"] else None,
        )
        for utterance in truth["utterances"]
    ]


def people_turns(truth: dict, rng: np.random.Generator, given: str | None = None) -> list[Turn]:
    """Makes the conversation about a clip.

    Args:
        truth (`dict`): The truth of the clip: `split`, `has_face`, `has_sound`, `has_words`, and `utterances` with start,
            end, clue, heard and seen.
        rng (`np.random.Generator`): The generator that draws and orders the questions.
        given (`str`, *optional*):
            What the prompt holds of the utterances: `"words"` (subtitles), `"times"` (windows without words, as voice
            activity gives them) or `"none"`. By default the words where the clip has them, and none where not.

    Returns:
        `list[tuple[dict, dict, dict]]`: For each turn its truth (`kind`, one of [`KINDS`]; `utterance`, from 1, where it is
        about one; `emotions`, the labels that the answer must name; `clue` and `heard` where it is about one utterance),
        the user's message and the assistant's.

    Raises:
        ValueError: if `given` has another value.
    """
    given = given or ("words" if truth["has_words"] else "none")
    if given not in ("words", "times", "none"):
        raise ValueError(f"given must be 'words', 'times' or 'none', got {given!r}")
    clip = _Clip(truth, given)
    whole = _turn({"kind": "whole", "emotions": clip.labels()}, [_text(_ask(ASK_WHOLE, rng))], clip.about_all())
    each, others = [], [whole]
    for index in rng.permutation(clip.count).tolist():
        each.append(clip.question(index, "utterance", ASK_UTTERANCE, clip.about(index), rng))
    if clip.count:
        others.append(_turn({"kind": "change", "emotions": []}, [_text(_ask(ASK_CHANGE, rng))], clip.changes()))
    alone: list[tuple[str, Sequence[str], Callable]] = [
        ("clue", ASK_CLUE, clip.sight),
        ("voice", ASK_VOICE, clip.hearing),
    ]
    for kind, questions, answer in alone:
        index = int(rng.integers(clip.count)) if clip.count else None
        others.append(clip.question(index, kind, questions, answer(index), rng))
    others += clip.by_number(rng)
    others = [others[index] for index in rng.permutation(len(others))]
    turns = [*others, *each] if rng.random() < 0.5 else [*each, *others]
    if truth["split"] == "train" and rng.random() < 0.5:
        turns.append(_in_general(rng))
    return turns


class _Clip:
    """What can be said about a clip, of which the prompt lists `count` utterances."""

    def __init__(self, truth: dict, given: str):
        self.truth = truth
        self.senses = senses(truth)
        self.count = 0 if given == "none" else len(self.senses)
        self.prefix = f"{NO_WORDS} " if self.senses and truth["has_sound"] and given != "words" else ""

    def question(
        self, index: int | None, kind: str, questions: Sequence[str], answer: str, rng: np.random.Generator
    ) -> Turn:
        """Makes a question that cites an utterance, or one about the clip where it has none."""
        if index is None:
            return _turn({"kind": kind, "emotions": []}, [_text(_ask(questions, rng))], answer)
        clue, heard = self.senses[index]
        about = {"kind": kind, "utterance": index + 1, "clue": clue, "heard": heard}
        about["emotions"] = list(felt(clue, heard)[1]) if kind == "utterance" else []
        cited = [_text(_ask(questions, rng) + "\n"), {"type": "utterance", "index": index + 1}]
        return _turn(about, cited, answer)

    def labels(self) -> list[str]:
        """The labels of the clip: all of a single utterance, the first of each of several."""
        if not self.senses:
            return list(felt("neutral" if self.truth["has_face"] else None, None)[1])
        each = [felt(*sense)[1] for sense in self.senses[:MOST_UTTERANCES]]
        if len(each) == 1:
            return list(each[0])
        return [label for label in dict.fromkeys(labels[0] for labels in each) if label != UNCLEAR] or [UNCLEAR]

    def about(self, index: int) -> str:
        return f"{self.prefix}{_sentences(index, self.senses[index])}\n{_labels(felt(*self.senses[index])[1])}"

    def about_all(self) -> str:
        if not self.count:
            text = f"{self.sight(None)[:-1]}, and {_uncapitalised(self.hearing(None))}"
            if len(self.senses) == 1:
                text += f" {RELATIONS[felt(*self.senses[0])[0]]}: {', '.join(self.labels())}."
            return f"{self.prefix}{text}\n{_labels(self.labels())}"
        form = _sentences if self.count <= _MOST_SENTENCES else _line
        lines = [form(index, sense) for index, sense in enumerate(self.senses[:MOST_UTTERANCES])]
        if self.count > MOST_UTTERANCES:
            lines.append(f"The clip has {self.count} utterances.")
        return f"{self.prefix}{' '.join(lines)}\n{_labels(self.labels())}"

    def sight(self, index: int | None) -> str:
        """What is seen in an utterance, or in the clip."""
        if index is not None:
            return f"In utterance {index + 1} {_seen(self.senses[index][0])}."
        clues = list(dict.fromkeys(clue for clue, _ in self.senses if clue is not None))
        if not self.truth["has_face"] or (self.senses and not clues):
            return f"In the clip {NO_FACE}."
        return f"In the clip one sees {_join([CLUE_NAMES[clue] for clue in clues or ['neutral']])}."

    def hearing(self, index: int | None) -> str:
        """What is heard in an utterance, or in the clip."""
        if index is not None:
            return f"In utterance {index + 1} {_heard(self.senses[index][1])}."
        if not self.truth["has_sound"]:
            return f"In the clip {NO_SOUND}."
        voices = list(dict.fromkeys(_voice_name(heard) for _, heard in self.senses))
        return f"In the clip one hears {_join(voices or ['no voice'])}."

    def changes(self) -> str:
        emotions = [felt(*sense)[1][0] for sense in self.senses]
        utterances = self.truth["utterances"]
        changes = [
            f"at utterance {index + 1} ({utterances[index]['start']:.1f}s) from {emotions[index - 1]} to {emotions[index]}"
            for index in range(1, self.count)
            if emotions[index - 1] != emotions[index]
        ][:MOST_UTTERANCES]
        return f"It changes {', '.join(changes)}." if changes else f"It does not change: {emotions[0]} throughout."

    def by_number(self, rng: np.random.Generator) -> list[Turn]:
        """Asks about an utterance by its number, and about one that the prompt does not list."""
        turns = []
        if self.count and rng.random() < 0.4:
            index = int(rng.integers(self.count))
            about = {"kind": "utterance", "utterance": index + 1, "emotions": list(felt(*self.senses[index])[1])}
            about |= dict(zip(("clue", "heard"), self.senses[index], strict=True))
            turns.append(_turn(about, [_text(_ask(ASK_NUMBER, rng).format(index + 1))], self.about(index)))
        if rng.random() < 0.4:
            number = self.count + int(rng.integers(1, 9 if rng.random() < 0.8 else 99))
            count = f"{self.count or 'no'} utterance{'s' * (self.count != 1)}"
            answer = f"There is no utterance {number}: the clip has {count}."
            about = {"kind": "missing", "emotions": []}
            turns.append(_turn(about, [_text(_ask(ASK_NUMBER, rng).format(number))], answer))
        return turns


def _in_general(rng: np.random.Generator) -> Turn:
    clue, heard = list(FELT)[rng.integers(len(FELT))]
    relation, labels = FELT[clue, heard]
    question = f"In general, when {_seen(clue)} and {_heard(heard)}, what does it suggest?"
    answer = f"{RELATIONS[relation]}: {', '.join(labels)}.\n{_labels(labels)}"
    return _turn({"kind": "general", "emotions": list(labels)}, [_text(question)], answer)


def clue_words(clue: str | None) -> str:
    """Returns the words for what is seen, which the tokens of a window of frames stand for.

    Args:
        clue (`str` or `None`): The facial clue, a name of [`CLUES`]; `None` where no face is seen.

    Returns:
        `str`: The words.
    """
    if clue is None:
        return "no face"
    return STILL if clue == "neutral" else CLUES[clue][1]


def voice_words(heard: str | None) -> str:
    """Returns the words for what is heard, which the tokens of a window of sound stand for.

    Args:
        heard (`str` or `None`): The emotion of the voice, a name of [`VOICES`]; `None` where nothing is heard.

    Returns:
        `str`: The words.
    """
    return "nothing" if heard is None else VOICES[heard]


def _seen(clue: str | None) -> str:
    if clue is None:
        return NO_FACE
    return STILL if clue == "neutral" else f"{CLUES[clue][1]} ({CLUES[clue][0]})"


def _heard(heard: str | None) -> str:
    return NO_SOUND if heard is None else f"the voice sounds {VOICES[heard]}"


def _voice_name(heard: str | None) -> str:
    if heard is None:
        return "no voice"
    return f"{'an' if VOICES[heard][0] in 'aeiou' else 'a'} {VOICES[heard]} voice"


def _sentences(index: int, sense: tuple[str | None, str | None]) -> str:
    relation, labels = felt(*sense)
    return f"In utterance {index + 1} {_seen(sense[0])}, and {_heard(sense[1])}. {RELATIONS[relation]}: {', '.join(labels)}."


def _line(index: int, sense: tuple[str | None, str | None]) -> str:
    clue, heard = sense
    seen = "no face" if clue is None else CLUE_NAMES[clue]
    return f"In utterance {index + 1} {seen} and {_voice_name(heard)}: {felt(*sense)[1][0]}."


def _labels(labels: Sequence[str]) -> str:
    return f"Labels: {', '.join(labels)}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _uncapitalised(text: str) -> str:
    return text.removeprefix("In the clip ")


def _ask(questions: Sequence[str], rng: np.random.Generator) -> str:
    return questions[0] if rng.random() < 0.5 else questions[rng.integers(len(questions))]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _turn(about: dict, question: list[dict], answer: str) -> Turn:
    return (
        about,
        {"role": "user", "content": question},
        {"role": "assistant", "content": [_text(answer)]},
    )
