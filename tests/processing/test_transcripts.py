"""What recognisers return: every spelling of words and times is read, and what is not known is refused by name."""

import json
import warnings

import pytest

from microemo.processing.utterances import Utterance, read_utterances


@pytest.fixture(autouse=True)
def no_silent_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def word(text, start=None, end=None, **others):
    times = {key: value for key, value in (("start", start), ("end", end)) if value is not None}
    return {"word": text, **times, **others}


SAID = Utterance(0.5, 1.25, "Hello there")


@pytest.mark.parametrize(
    "entry",
    [
        {"start": 0.5, "end": 1.25, "text": " Hello there"},
        {"start": 0.5, "duration": 0.75, "text": "Hello there"},
        {"start": 0.5, "end": 1.25, "word": "Hello there"},
        {"start": 0.5, "end": 1.25, "sentence": "Hello there"},
        {"start": 0.5, "end": 1.25, "transcript": "Hello there", "words": [word("hello", 0.5, 0.8), word("there")]},
        {"start": 0.5, "end": 1.25, "text": None, "words": [word("Hello"), word("there")]},
        {"start": 0.5, "end": 1.25, "words": [word(" Hel"), word("lo"), word(" there")]},
        {"start": 0.5, "end": 1.25, "words": ["Hello", "there"]},
        {"text": "Hello there", "words": [word("hello", 0.5, 0.8), word("there", 0.9, 1.25)]},
        {"words": [word("Hello", 0.5, 0.8), word("there", 0.9, 1.25)]},
        {"timestamp": (0.5, 1.25), "text": "Hello there", "language": "en"},
        {"offsets": {"from": 500, "to": 1250}, "timestamps": {"from": "x", "to": "y"}, "text": " Hello there"},
        {"timestamps": {"from": "00:00:00,500", "to": "00:00:01,250"}, "text": " Hello there", "tokens": []},
        {
            **{"id": 0, "seek": 0, "start": 0.5, "end": 1.25, "text": " Hello there", "tokens": [1, 2], "score": 1},
            **{
                "temperature": 0.0,
                "avg_logprob": -0.3,
                "compression_ratio": 1.0,
                "no_speech_prob": 0.1,
                "words": None,
            },
        },
    ],
)
def test_spellings_of_an_utterance(entry):
    assert read_utterances([entry]) == [SAID]
    assert read_utterances(json.dumps({"segments": [entry]})) == [SAID]


def test_words_become_utterances():
    words = [
        word(" Hello", 0.5, 0.8, probability=0.9),
        word(" there", 0.8, 1.25),
        word(" 13"),  # WhisperX gives no times to numbers
        word(" times.", 1.3, 1.5),
        word(" Yes", 1.5, 1.8),
        word(" 3.5", 1.8, 2.0),
        word(" later", 4.0, 4.2),
        word(" Bob", 4.2, 4.5, speaker="B"),
    ]
    expected = [
        Utterance(0.5, 1.5, "Hello there 13 times."),
        Utterance(1.5, 2.0, "Yes 3.5"),
        Utterance(4.0, 4.2, "later"),
        Utterance(4.2, 4.5, "Bob", "B"),
    ]
    for content in (
        words,
        {"text": "...", "words": words},
        {"word_segments": words},
        {"segments": [], "words": words},
    ):
        assert read_utterances(content) == expected
    assert read_utterances([word("1985"), *words[:2]]) == [Utterance(0.5, 1.25, "1985 Hello there")]
    assert read_utterances([word("你", 0, 1), word("好。", 1, 2), word("再", 2, 3), word("见", 3, 4)]) == [
        Utterance(0, 2, "你好。"),
        Utterance(2, 4, "再见"),
    ]
    with pytest.raises(ValueError, match="words have no start and end"):
        read_utterances([word("Hello"), word("there")])


def test_segments_come_before_words():
    content = {"segments": [{"start": 0.5, "end": 1.25, "text": "Hello there"}], "words": [word("Hello", 0.5, 0.8)]}
    assert read_utterances(content) == [SAID]


def test_deepgram():
    words = [
        word("hello", 0.5, 0.8, punctuated_word="Hello", confidence=0.9, speaker=0, speaker_confidence=0.5),
        word("there", 0.8, 1.25, punctuated_word="there.", confidence=0.9, speaker=0),
        word("hi", 1.3, 1.5, punctuated_word="Hi.", speaker=1),
    ]
    results = {"channels": [{"alternatives": [{"transcript": "hello there hi", "confidence": 1, "words": words}]}]}
    expected = [Utterance(0.5, 1.25, "Hello there.", "speaker 0"), Utterance(1.3, 1.5, "Hi.", "speaker 1")]
    assert read_utterances({"metadata": {}, "results": results}) == expected
    said = {"start": 0.5, "end": 1.25, "confidence": 1, "channel": 0, "transcript": "Hello there", "words": words}
    results["utterances"] = [said | {"speaker": 0, "id": "x"}]
    assert read_utterances({"metadata": {}, "results": results}) == [Utterance(0.5, 1.25, "Hello there", "speaker 0")]


def test_assemblyai_counts_milliseconds():
    words = [{"text": "Hello", "start": 500, "end": 800, "confidence": 1, "speaker": "A"}]
    words.append({"text": "there", "start": 800, "end": 1250, "confidence": 1, "speaker": "A"})
    content = {
        "id": "x",
        "audio_url": "x",
        "status": "completed",
        "audio_duration": 2,
        "words": words,
        "utterances": None,
    }
    expected = [Utterance(0.5, 1.25, "Hello there", "A")]
    assert read_utterances(content) == expected
    said = {"text": "Hello there", "start": 500, "end": 1250, "confidence": 1, "speaker": "A", "words": words}
    assert read_utterances(content | {"utterances": [said]}) == expected


@pytest.mark.parametrize(
    "entry, error",
    [
        ({"start": 0, "stop": 1, "text": "a"}, "unknown key 'stop' .*'end'"),
        ({"begin": 0, "end": 1, "text": "a"}, "unknown key 'begin' .*'start'"),
        ({"start": 0, "end": 1, "txt": "a"}, "unknown key 'txt' .*'text'"),
        ({"start": 0, "end": 1, "content": "a"}, "unknown key 'content' .*'text'"),
        ({"start": 0, "end": 1, "text": "a", "spaeker": "A"}, "unknown key 'spaeker' .*'speaker'"),
        (
            {"start": 0, "end": 1, "text": "a", "emotion": "sad"},
            "unknown key 'emotion'; an utterance has start, end, text",
        ),
        ({"startTime": 0, "endTime": 1, "body": "a"}, "unknown key 'startTime' .*'start'"),
        ({"start": 0, "end": 1, "words": [{"wrod": "a"}]}, "word 1: unknown key 'wrod' .*'word'"),
        ({"start": 0, "end": 1, "words": [{"start": 0}]}, r"word 1: expected its text .*\['start'\]"),
        ({"start": 0, "end": 1, "words": 3}, "expected a list of words, got int"),
        ({"start": 0, "end": 1, "words": [3]}, "word 1: expected a word .*int"),
        ({"timestamp": [1], "text": "a"}, r"timestamp must be start and end in seconds, got \[1\]"),
        ({"timestamp": None, "text": "a"}, "timestamp must be .*None"),
        ({"timestamp": [None, 1], "text": "a"}, "start must be a number of seconds, got None"),
        ({"offsets": {"from": "1", "to": 2}, "text": "a"}, "from must be a number of milliseconds, got '1'"),
        ({"offsets": [1, 2], "text": "a"}, "offsets must be a dictionary with from and to"),
        ({"timestamps": {"from": "0", "to": "1"}, "text": "a"}, "from must be hours:minutes:seconds,000, got '0'"),
        ({"start": float("inf"), "end": 1}, "start must be .*inf"),
        ({"start": 10**400, "end": 1}, "start must be .*1000"),
        ({"start": True, "end": 1}, "start must be .*True"),
        ({"start": 0, "end": 1, "text": "a", "speaker": 1.5}, "speaker must be a string, got 1.5"),
    ],
)
def test_what_is_not_known_is_refused_by_name(entry, error):
    with pytest.raises(ValueError, match=f"entry 2.*{error}"):
        read_utterances([{"start": 0, "end": 1, "text": "a"}, entry])


@pytest.mark.parametrize(
    "content, error",
    [
        ({"text": "a transcript without times"}, "segments, chunks, utterances, .* words.*'text'"),
        ({"results": [{"alternatives": []}]}, r"\['results'\]"),
        ({"results": {"items": [], "transcripts": []}}, r"'results', got \['items', 'transcripts'\]"),
        ({"start": [0, 1], "end": [1, 2], "text": ["a", "b"]}, r"\['end', 'start', 'text'\]"),
        ({"segments": {"a": 1}}, "list of utterances, got dict"),
        ("[" * 100_000, "not valid JSON"),
        ("[" + "1" * 5000 + "]", "not valid JSON"),
        ('{"segments": []}\n{"segments": []}', "line 2: not valid JSON"),
    ],
)
def test_shapes_that_are_not_known(content, error):
    with pytest.raises(ValueError, match=f"utterances.*{error}"):
        read_utterances(content)


def test_arrows_and_half_letters_in_json():
    (said,) = read_utterances('[{"start": 0, "end": 1, "text": "a --> b \\ud800"}]')
    assert said.text == "a --> b \ufffd"
