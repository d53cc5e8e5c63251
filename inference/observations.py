"""Observations only: what an answer says about face, voice and times, without emotions.

A list of emotion words is never complete, so a clause is kept for what it is made of: every word of it must belong to the
words for what can be seen and heard below, and none to the vocabulary of emotions. A word that is on no list, a name, a
quotation, and any other language than English are left out. What is lost so is an observation, never the other way round.
"""

import re
import unicodedata
from itertools import pairwise

from ..evaluation.emotion_wheel import EmotionWheels
from ..evaluation.raw_output import final_answer


def _words(words: str) -> set[str]:
    return set(words.split())


def _verbs(words: str) -> set[str]:
    """The regular forms of verbs: "raise", "raises", "raised", "raising"."""
    stems = [(word, word.removesuffix("e")) for word in words.split()]
    return {form for word, stem in stems for form in (word, f"{word}s", f"{word}es", f"{stem}ed", f"{stem}ing")}


def _nouns(words: str) -> set[str]:
    return {form for word in words.split() for form in (word, f"{word}s")}


# What is observed.
_CLUE_NOUNS = _words(
    """face head forehead brow eyebrow eyelid eyelash lid eye pupil gaze glance glabella nose nostril cheek mouth lip jaw
    chin tooth tongue dimple ear hair neck shoulder chest arm elbow hand finger fist palm thumb back body posture gesture
    movement motion crease wrinkle tear smile frown grin laugh nod blink sigh gasp cough breath voice pitch loudness volume
    tone intonation rhythm tempo pace speed sound silence noise music pause speech word subtitle"""
)
_CLUE_VERBS = _verbs(
    "smile frown grin laugh nod blink wink squint stare glance gaze sigh gasp cough sniff yawn speak talk"
)
_CLUES = (
    {form for noun in _CLUE_NOUNS for form in (noun, f"{noun}s")}
    | _CLUE_VERBS
    | _words("teeth eyelashes laughter breathing spoke spoken nodded nodding grinned grinning")
)
# Where it is observed: enough for a whole sentence ("The clip has 14 utterances.").
_PLACES = _nouns("utterance clip video frame window segment scene camera picture image second minute audio track")
_VERBS = _verbs(
    """open close widen narrow raise lower lift drop press part purse pucker bite chew lick swallow tighten stretch
        pull push draw turn tilt lean look shake tremble quiver twitch wrinkle crease furrow curl arch flare clench move
        breathe inhale exhale whisper mumble murmur shout pause start end stay remain keep continue increase decrease
        rise fall follow repeat sound hear see show appear disappear cover point wave clasp fold stand walk change shift
        return rub wipe tap sway droop shrug gesture listen make form face"""
) | _words(
    """is are was were has have had does did can cannot could isn't aren't wasn't doesn't don't shut heard seen went
        goes go comes come came rose risen fell fallen hung kept stood sat sit sits sitting rests resting stop stops stopped
        stopping dropped dropping begins begin began bit biting shook shaking drew drawn shrugged shrugging tapped tapping
        wears wearing spoke nodded nodding grinned grinning"""
)
_OTHERS = _nouns(
    """corner part side line level top bottom middle center centre time moment beginning end start expression man woman
        person individual speaker listener boy girl child audience hat microphone phone table chair screen room background
        number"""
) | _words(
    """a an the this that these those one ones each both all any some no none not never nothing only other another same
        he she they him her hers his their them its it who which there here someone something
        be been being having do and or but while when as then than so also too before after until during since again once twice
        in on at to from of off by with without up down upward upwards downward downwards inward inwards outward outwards
        into onto over under above below between behind beside near away toward towards across around along through
        forward backward backwards left right sideways out back together apart next upturned downturned upright
        very quite rather slightly slight little bit somewhat almost nearly hardly barely more most less least much many
        few several enough about approximately roughly briefly shortly quickly rapidly slowly suddenly gradually repeatedly
        slow quick rapid fast faster fastest slower slowest sudden gradual brief short shorter shortest long longer longest
        often frequently occasionally constantly continuously partially initially directly noticeable noticeably obvious
        first second third fourth last two three four five six seven eight nine ten hundred
        wide wider widest widely narrow narrower big bigger large larger small smaller deep deeper deeply half
        high higher highest low lower lowest loud louder loudest loudly quiet quieter quietest quietly soft softly
        steady steadily even evenly flat flatter hoarse monotone monotonous breathy clear clearly audible constant still
        motionless closed visible hidden upper inner outer straight tight tightly wet moist red reddened crossed crosses
        crossing curved pitched paced understood said gone going beginning facial vocal front throughout everywhere elsewhere
        children people glasses minutes
        approx s sec ms hz khz db dbfs au"""
)
_OBSERVATION_WORDS = _CLUES | _PLACES | _VERBS | _OTHERS
# What is more than a subject ("The tone of her voice"): a verb, or the utterance that has a clue ("In utterance 1 a smile").
_PREDICATES = ((_CLUE_VERBS | _VERBS) - _CLUE_NOUNS) | {"utterance"}
# What an observation does not end with: its sense comes after it ("He sounds, frankly, angry.").
_UNFINISHED = _words(
    "a an the and or but as while which who of with is are was were be been sounds sounded looks looked looking appears"
)

# What speaks of emotions beside the words of the vocabulary.
_FEELING = re.compile(
    r"(?:feel|emoti|mood|sentiment|affect|label|neutral|impassiv|expressionless|unemotion|polite|impolite|empath|psych)\w*"
    r"|felt|heartfelt"
)
# Of a person these are no sizes and directions ("he is down").
_IDIOM = re.compile(
    r"\b(?:he|she|they|who|people|children|man|woman|men|women|person|individual|speaker|listener|boy|girl|child)\s+"
    r"(?:is|are|was|were|sounds?|appears?|has been|have been)\s+(?:\w+\s+)?(?:down|low|up|high|flat|small|short|out|off)\b",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# What an observation may be written in: no quotation marks, which are for what a speaker says, and no emoticons.
_PLAIN = re.compile(r"(?:[A-Za-z0-9\s.,!?%+'’…–—-]|[:;](?=\s|\d|$)|\((?=\w)|(?<=[\w.%])\))*")
_MARKUP = re.compile(r"[*#`_]+|^(?:[-•]|\d+[.)])\s")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s(?=[A-Z])")
_CLAUSE_END = re.compile(r"[,;:.!?…]\s|\s[–—-]+\s|\s(?=(?:and|or|but|while|as|which|who)\b)")


def without_emotions(text: str) -> str:
    """Keeps of an answer what is seen and heard, and leaves out all that names an emotion or may do so.

    A sentence is kept up to its first clause that is more than an observation, if what is kept says something of a clue.
    A clause is an observation if all its words are: words for face, body, voice, movements, places and times, which no
    emotion word is among. So nothing is kept of text in another language, of quotations, names and conclusions, nor of
    denied emotions ("not angry").

    Args:
        text (`str`): An answer in English, of which the final answer counts (see [`final_answer`]).

    Returns:
        `str`: The observations, with the lines of the answer; empty if there are none.

    Example:

    ```python
    >>> from microemo.inference.observations import without_emotions

    >>> without_emotions("In utterance 1 the eyes open wide (eyes), and the voice sounds calm. Both are mixed: joy.")
    'In utterance 1 the eyes open wide (eyes).'
    ```"""
    lines = []
    for line in final_answer(text).splitlines():
        plain = " ".join(_MARKUP.sub("", " ".join(line.split())).split())
        lines.append(" ".join(filter(None, map(_observation, _SENTENCE_END.split(plain)))))
    return "\n".join(filter(None, lines))


def has_emotion_words(text: str) -> bool:
    """Tells whether an English text holds an emotion word, denied or not, or speaks of feelings or labels.

    Args:
        text (`str`): The text.

    Returns:
        `bool`: Whether a word form of the vocabulary of [`EmotionWheels`] occurs, or a word such as "feels", "mood",
        "emotion", "neutral" or "label". Emotion words that are on neither list, as those of other languages, are not
        recognised; [`without_emotions`] leaves them out all the same.

    Example:

    ```python
    >>> from microemo.inference.observations import has_emotion_words

    >>> has_emotion_words("She isn't sad."), has_emotion_words("The brows go up at 1.5 s.")
    (True, False)
    ```"""
    wheels = EmotionWheels.default()
    text = unicodedata.normalize("NFKC", text.lower())
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")  # which cannot be seen
    words: set[str] = set()
    for chunk in re.split(r"[^\w\s'’-]", text):
        parts = _LETTERS.findall(chunk)
        words |= {*parts, *(one + joint + other for one, other in pairwise(parts) for joint in (" ", "-", ""))}
    return any(wheels.knows(word) or _FEELING.fullmatch(word) for word in words)


def _observation(sentence: str) -> str:
    """Returns a sentence up to its first clause that is more than an observation, or "" if that names no clue."""
    ends = [end.span() for end in _CLAUSE_END.finditer(sentence) if _is_outside_brackets(sentence, end.start())]
    kept = 0
    for start, stop in zip(
        [0, *(end for _, end in ends)], [*(start for start, _ in ends), len(sentence)], strict=True
    ):
        if not _is_observation(sentence[start:stop]):
            break
        kept = stop
    is_whole = kept == len(sentence)
    words = set(_WORD.findall(sentence[:kept].lower()))
    is_statement = bool(words & (_CLUES | _PLACES)) if is_whole else bool(words & _CLUES and words & _PREDICATES)
    if not is_statement or has_emotion_words(sentence[:kept]):
        return ""
    return sentence if is_whole else sentence[:kept].rstrip(" ,;:–—-") + "."


def _is_outside_brackets(sentence: str, place: int) -> bool:
    return sentence.count("(", 0, place) <= sentence.count(")", 0, place)


def _is_observation(clause: str) -> bool:
    words = [word.replace("’", "'").removesuffix("'s") for word in _WORD.findall(clause.lower())]
    is_plain = _PLAIN.fullmatch(clause) is not None and _OBSERVATION_WORDS.issuperset(words)
    is_finished = bool(words) and words[-1] not in _UNFINISHED
    return is_plain and is_finished and not _IDIOM.search(clause) and not has_emotion_words(clause)
