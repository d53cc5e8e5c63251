"""The label sets of corpora in words: what stands in their files, and the word that an answer says.

A label that stands for no emotion (`xxx` of IEMOCAP, on which the raters did not agree) is mapped to `None`: its rows are
left out and counted. A label that no table has is an error.
"""

from collections.abc import Mapping
from types import MappingProxyType

Words = Mapping[str, str | None]

_ANGRY = {"anger": "angry", "angry": "angry"}
_DISGUSTED = {"disgust": "disgusted", "disgusted": "disgusted"}
_FEARFUL = {"fear": "fearful", "fearful": "fearful"}
_HAPPY = {"happiness": "happy", "happy": "happy"}
_SAD = {"sadness": "sad", "sad": "sad"}
_SURPRISED = {"surprise": "surprised", "surprised": "surprised"}
_NEUTRAL = {"neutral": "neutral"}
_BASIC = {**_ANGRY, **_DISGUSTED, **_FEARFUL, **_HAPPY, **_SAD, **_SURPRISED, **_NEUTRAL}

# Livingstone and Russo 2018, the third part of a file's name; the words are those of the copies on the Hub.
RAVDESS: Words = MappingProxyType(
    {
        **{"01": "neutral", "02": "calm", "03": "happy", "04": "sad"},
        **{"05": "angry", "06": "fearful", "07": "disgusted", "08": "surprised"},
        **_BASIC,
        "calm": "calm",
    }
)
# The README of CheyneyComputerScience/CREMA-D, the third part of a file's name.
CREMA_D: Words = MappingProxyType(
    {"ang": "angry", "dis": "disgusted", "fea": "fearful", "hap": "happy", "neu": "neutral", "sad": "sad"}
)
# The README of declare-lab/MELD.
MELD: Words = MappingProxyType({**_BASIC, "joy": "joyful"})
# Busso et al. 2008; `oth` is another emotion than the list has, `xxx` no agreement of the raters.
IEMOCAP: Words = MappingProxyType(
    {
        **{"neu": "neutral", "hap": "happy", "sad": "sad", "ang": "angry", "sur": "surprised", "fea": "fearful"},
        **{"dis": "disgusted", "fru": "frustrated", "exc": "excited", "oth": None, "xxx": None},
    }
)
# The README of DFEW; 0 is a clip without one emotion that most raters chose.
DFEW: Words = MappingProxyType(
    {
        **{"0": None, "1": "happy", "2": "sad", "3": "neutral", "4": "angry", "5": "surprised", "6": "disgusted"},
        "7": "fearful",
    }
)
# Liu et al. 2022 (MAFW), in the order of the columns of annotation.xlsx; split files have the words.
_MAFW_WORDS = {
    **{"anger": "angry", "disgust": "disgusted", "fear": "fearful", "happiness": "happy", "neutral": "neutral"},
    **{"sadness": "sad", "surprise": "surprised", "contempt": "contemptuous", "anxiety": "anxious"},
    **{"helplessness": "helpless", "disappointment": "disappointed"},
}
MAFW: Words = MappingProxyType(
    {**_MAFW_WORDS, **{str(number): word for number, word in enumerate(_MAFW_WORDS.values(), start=1)}}
)
# The baselines of MER2023, MER2024 and MER2025 (zeroQiaoba/MERTools), the column `discrete`.
MER: Words = MappingProxyType({**_BASIC, "worried": "worried"})
# Zadeh et al. 2018: the columns of CMU_MOSEI_Labels.csd after the sentiment.
MOSEI_EMOTIONS = ("happy", "sad", "angry", "surprised", "disgusted", "fearful")
# The seven classes of CMU-MOSEI's sentiment, of which the mean of three raters is rounded.
SENTIMENTS = (
    *("highly negative", "negative", "weakly negative", "neutral"),
    *("weakly positive", "positive", "highly positive"),
)


def sentiment_word(value: float) -> str:
    """Names the sentiment of CMU-MOSEI.

    Args:
        value (`float`): The sentiment from -3 to 3.

    Returns:
        `str`: One of `SENTIMENTS`.

    Raises:
        ValueError: if the value is outside the range.

    Example:

    ```python
    >>> from microemo.training.corpora.corpus_words import sentiment_word

    >>> sentiment_word(-0.67), sentiment_word(2.33)
    ('weakly negative', 'positive')
    ```"""
    if not -3 <= value <= 3:
        raise ValueError(f"a sentiment is from -3 to 3, got {value}")
    return SENTIMENTS[round(value) + 3]
