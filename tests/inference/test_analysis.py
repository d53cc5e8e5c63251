"""`EmotionPipeline.analyze` over clips that lack something, and over clips that lack nothing."""

import io
import json

import jsonschema
import numpy as np
import pytest

from microemo.inference.emotion_analysis import SCHEMA, EmotionAnalysis
from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.inference.observations import has_emotion_words

WORDS = ["joy", "anger", "interest", "interested"]
LINES = [
    {"start": 0.0, "end": 0.9, "text": 'Ünï "quoted", 你好 😀', "speaker": "Zoë"},
    {"start": 0.9, "end": 1.8, "text": "[red] a, b; c"},
]


@pytest.fixture(scope="module")
def analyze(tiny):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    def run(clip, utterances=LINES, vocabulary=WORDS, **arguments) -> EmotionAnalysis:
        arguments = {"max_new_tokens": 4} | arguments
        analysis = tiny.analyze(clip, utterances, vocabulary=vocabulary, **arguments)
        assert analysis.is_complete
        jsonschema.validate(json.loads(analysis.to_json()), schema, cls=jsonschema.Draft202012Validator)
        assert EmotionAnalysis.from_json(analysis.to_json()) == analysis
        return analysis

    return run


def warns(analysis: EmotionAnalysis, *words: str) -> bool:
    return all(any(word in warning for warning in analysis.warnings) for word in words)


def test_a_clip_with_everything(analyze, tiny, demo_clip):
    subtitles = str(demo_clip.with_suffix(".srt"))
    analysis = analyze(str(demo_clip), subtitles, evidence=True)
    assert (analysis.clip, analysis.size, analysis.vocabulary) == (str(demo_clip), [640, 480], WORDS)
    assert analysis.duration == pytest.approx(6, abs=0.1) and analysis.has_audio and not analysis.calibrated
    expected = tiny.by_utterance(str(demo_clip), subtitles, do_sample=False, max_new_tokens=4)
    assert [one.description for one in analysis.utterances] == [one["description"] for one in expected]
    for number, one in enumerate(analysis.utterances, 1):
        assert one.number == number and one.faces == one.frames > 0 and one.evidence
        assert sum(label.score for label in one.labels) == pytest.approx(1, abs=1e-5)
        assert {"loudness", "pitch", "words_per_second"} <= one.voice.keys()
    assert analysis.description and analysis.warnings == []


def test_a_silent_clip(analyze, silent_clip):
    analysis = analyze(str(silent_clip), evidence=True)
    assert not analysis.has_audio and warns(analysis, "no sound", "No face")
    assert [one.voice for one in analysis.utterances] == [{}, {}]
    assert {part.name for part in analysis.utterances[0].evidence if part.kind == "modality"} == {"words"}


def test_sound_alone(analyze, sound_clip):
    analysis = analyze(str(sound_clip), evidence=True)
    assert not analysis.has_video and analysis.size is None and analysis.fps is None and analysis.frames == []
    assert warns(analysis, "no pictures") and not warns(analysis, "No face")
    assert [one.text for one in analysis.utterances] == [line["text"] for line in LINES]


def test_no_face_and_odd_words(analyze, faceless_clip):
    analysis = analyze(str(faceless_clip))
    assert warns(analysis, "No face is found in the frames")
    assert (analysis.utterances[0].speaker, analysis.utterances[0].text) == ("Zoë", LINES[0]["text"])


def test_no_utterance_and_a_question_of_ones_own(analyze, faceless_clip):
    for arguments in ({"utterances": []}, {"utterances": None, "asr": False}, {"utterances": None}):
        analysis = analyze(str(faceless_clip), question="Is she glad?", evidence=True, **arguments)
        assert analysis.utterances == [] and analysis.description and analysis.labels
        assert warns(analysis, "No utterance") and analysis.utterances_found == 0


def test_one_utterance_without_words(analyze, faceless_clip):
    analysis = analyze(str(faceless_clip), [{"start": 0.0, "end": 1.8, "text": ""}], evidence=True)
    assert len(analysis.utterances) == 1 and warns(analysis, "words are not known")
    assert {part.kind for part in analysis.utterances[0].evidence} == {"modality"}


def test_the_stream_grows_and_ends_complete(tiny, faceless_clip):
    lines = [{"start": 0.2 * n, "end": 0.2 * n + 0.2, "text": f"line {n}"} for n in range(9)]
    counts, ends = [], []
    for analysis in tiny.stream_analysis(str(faceless_clip), lines, vocabulary=WORDS[:2], max_new_tokens=2):
        counts.append(len(analysis.utterances))
        ends.append(bool(analysis.description))
        assert analysis.utterances_found == 9
    assert counts == [*range(1, 10), 9]  # the last one has the description of the clip
    assert analysis.is_complete and ends == [False] * (len(ends) - 1) + [True]


def test_observations_only_have_no_emotion_word(analyze, demo_clip):
    analysis = analyze(
        str(demo_clip), str(demo_clip.with_suffix(".srt")), observations_only=True, evidence=True, max_new_tokens=40
    )
    assert analysis.labels == analysis.vocabulary == [] and not analysis.calibrated
    for one in analysis.utterances:
        assert one.labels == [] and one.description == one.observation
        one.text = ""  # what is said is the speaker's own
    analysis.clip = analysis.model = ""
    names = {"labels", "vocabulary", "calibrated"}
    texts = [text for text in _texts(analysis.to_dict()) if text not in names]
    assert not [text for text in texts if has_emotion_words(text)]


def _texts(value) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def test_arguments_that_cannot_be_are_refused(tiny, faceless_clip):
    for vocabulary in ([], [""], ["joy", " "]):
        with pytest.raises(ValueError, match="vocabulary: expected emotion words"):
            tiny.analyze(str(faceless_clip), LINES, vocabulary=vocabulary)
    with pytest.raises(ValueError, match="a question of your own"):
        tiny.analyze(str(faceless_clip), LINES, question="Is she sad?", observations_only=True)


def test_a_vocabulary_of_ones_own_has_each_word_once(analyze, faceless_clip):
    analysis = analyze(str(faceless_clip), LINES[:1], [" joy", "joy", "naïveté"])
    assert analysis.vocabulary == ["joy", "naïveté"]
    assert sum(label.score for label in analysis.utterances[0].labels) == pytest.approx(1, abs=1e-5)


def test_bytes_and_file_objects_give_the_same(analyze, faceless_clip):
    content = faceless_clip.read_bytes()
    expected = analyze(str(faceless_clip))
    for clip in (content, io.BytesIO(content), faceless_clip):
        analysis = analyze(clip)
        assert [one.description for one in analysis.utterances] == [one.description for one in expected.utterances]
        assert [one.voice for one in analysis.utterances] == [one.voice for one in expected.utterances]


def test_a_model_that_was_not_loaded_has_no_calibration(tiny, faceless_clip, monkeypatch):
    monkeypatch.setattr(tiny.model, "name_or_path", "")
    made = EmotionPipeline(tiny.model, tiny.processor)
    assert not made.analyze(str(faceless_clip), [], vocabulary=WORDS, max_new_tokens=2).calibrated


def test_other_sound(analyze, silent_clip, sound_clip):
    analysis = analyze(str(silent_clip), audio=str(sound_clip))
    assert analysis.has_audio and analysis.utterances[0].voice


def test_turned_and_stretched_pictures_have_the_size_that_is_shown(analyze, make_clip):
    grey = np.full((96, 64, 3), 99, np.uint8)
    turned = make_clip("turned.mp4", times=np.arange(5) / 5, size=(64, 96), sound=None, turned=True, picture=grey)
    assert analyze(str(turned), []).size == [64, 96]


@pytest.mark.slow
def test_shared_clips(analyze, shared):
    for clip in sorted((shared / "data" / "clips" / "derived").rglob("*.mp4"))[:6]:
        assert analyze(str(clip), []).description
