"""Utterances of clips without subtitles: recognised, with times alone, and kept for the next time."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from microemo import MicroEmoConfig, MicroEmoProcessor, SpeechReader
from microemo.processing.kept_utterances import UtterancesBesideClips, UtteranceTable, utterance_file
from microemo.processing.speech import as_speech_reader, recognise, to_mono
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer


class Recogniser:
    """What a speech-recognition pipeline is to the code that divides the sound: each piece has a text and words."""

    type = "ctc"
    feature_extractor = SimpleNamespace(sampling_rate=16_000)

    def __init__(self, outputs):
        self.outputs, self.heard = outputs, []

    def __call__(self, pieces, **options):
        for output, piece in zip(self.outputs, pieces, strict=True):
            self.heard.append(len(piece["raw"]) / piece["sampling_rate"])
            yield output


def words(*entries):
    return {
        "text": " ".join(entry[0] for entry in entries),
        "chunks": [{"text": text, "timestamp": (start, end)} for text, start, end in entries],
    }


def test_each_utterance_is_heard_by_itself_with_words_that_stay_inside():
    sound = np.zeros(16_000 * 6, np.float32)
    outputs = [words(("Well,", 0.1, 0.5), ("no.", 0.4, None)), words(("Then", -0.2, 0.3), ("go.", 0.2, 9.0))]
    asr = Recogniser(outputs)
    first, second = recognise(asr, sound, [(1.0, 2.0), (3.0, 3.5)])
    assert asr.heard == [pytest.approx(1.24), 1.0]  # a short piece is padded
    assert (first.text, second.text) == ("Well, no.", "Then go.")
    for utterance in (first, second):
        times = [time for word in utterance.words for time in (word["start"], word["end"])]
        assert utterance.start <= min(times) and max(times) <= utterance.end
        assert all(word["start"] <= word["end"] for word in utterance.words)
        starts = [word["start"] for word in utterance.words]
        assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[BLANK_AUDIO]", ""),
        ("♪ ♪", ""),
        ("(laughs) Come in.", "Come in."),
        ("Thank you. " * 40, "Thank you."),
        (" ... ", ""),
    ],
)
def test_what_recognisers_make_up_is_no_text(text, expected):
    (utterance,) = recognise(Recogniser([{"text": text}]), np.zeros(32_000, np.float32), [(0.2, 1.2)])
    assert utterance.text == expected and utterance.words == []


def test_channels_that_cancel_each_other_out_are_still_heard():
    left = np.sin(np.arange(1000) / 5).astype(np.float32)
    np.testing.assert_array_equal(to_mono(np.stack([left, -left])), left)
    np.testing.assert_allclose(to_mono(np.stack([left, left])), left, rtol=1e-6)


def test_a_model_that_is_none_for_speech_is_one_error(tmp_path):
    for name in (str(tmp_path), "no/such-model"):
        with pytest.raises(ValueError, match="cannot be loaded as a model for speech recognition"):
            SpeechReader.from_pretrained(name)
    with pytest.raises(TypeError, match="got int"):
        as_speech_reader(3)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """A tiny wav2vec 2.0 with CTC and random weights, saved as a checkpoint."""
    folder = tmp_path_factory.mktemp("recogniser")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefg"]
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def processor():
    config = MicroEmoConfig.from_preset("microemo-tiny")
    processor = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    processor.video_processor.num_frames = 2
    return processor


def test_a_model_of_transformers_recognises_between_the_pauses(recogniser, demo_clip):
    reader = SpeechReader.from_pretrained(recogniser)
    found = reader.read_file(demo_clip)
    times = [(utterance.start, utterance.end) for utterance in SpeechReader().read_file(demo_clip)]
    assert [(utterance.start, utterance.end) for utterance in found] == times and len(times) >= 2


def test_without_a_recogniser_utterances_have_times_and_no_words(processor, demo_clip):
    inputs = processor(text="Sad?", videos=[demo_clip], asr=SpeechReader(), return_metadata=True, return_tensors="pt")
    (utterances,) = inputs["utterances"]
    assert len(utterances) == inputs["utterance_windows"].shape[1] >= 2
    assert all(utterance.text == "" for utterance in utterances)
    without = processor(text="Sad?", videos=[demo_clip], return_tensors="pt")
    assert without["utterance_windows"].shape[1] == 0, "the processor itself makes none"


def test_a_clip_without_sound_has_no_utterances(processor, make_clip):
    mute = make_clip("mute-speech.mp4", sound=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = processor(text="Sad?", videos=[mute], asr=SpeechReader(), return_tensors="pt")
    assert inputs["utterance_windows"].shape[1] == 0
    with pytest.warns(UserWarning, match="has no sound, so that no speech can be recognised"):
        SpeechReader(Recogniser([])).read_file(mute)


def test_utterances_are_kept_beside_the_clip_and_never_over_what_is_not_ours(demo_clip, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(demo_clip.read_bytes())
    heard = []

    def asr(sound, return_timestamps):
        heard.append(sound)
        return {"text": "Hello.", "chunks": [{"text": "Hello.", "timestamp": (0.5, 1.5)}]}

    asr.feature_extractor = Recogniser.feature_extractor
    reader = SpeechReader(asr, name="ear", store=UtterancesBesideClips())
    first, again = reader.read_file(clip), reader.read_file(clip)
    assert len(heard) == 1 and first == again and first[0].text == "Hello."
    # Another recogniser does not take these; without any they count.
    assert SpeechReader(asr, name="other", store=UtterancesBesideClips(False)).read_file(clip) and len(heard) == 2
    with pytest.warns(UserWarning, match="its words are those of clip.mp4.utterances.json"):
        assert SpeechReader(store=UtterancesBesideClips(False)).read_file(clip) == first
    # Another content of the same name is heard anew.
    path = utterance_file(clip)
    content = json.loads(path.read_text())
    content["utterances"][0]["text"] = "Edited by hand."
    path.write_text(json.dumps(content))
    with clip.open("ab") as file:
        file.write(b"\0")
    with pytest.warns(UserWarning, match="has been edited: it stays as it is"):
        reader.read_file(clip)
    assert "Edited by hand." in path.read_text()
    path.write_text("[1]")
    with pytest.warns(UserWarning, match="is no file of utterances that was written here"):
        reader.read_file(clip)
    assert path.read_text() == "[1]"


def test_a_table_keeps_the_utterances_of_many_clips(demo_clip, tmp_path):
    path = tmp_path / "utterances.jsonl"
    with UtteranceTable(path) as table:
        found = SpeechReader(store=table).read_file(demo_clip)
    assert len(path.read_text().splitlines()) == 1
    with path.open("a") as file:
        file.write('{"clip": "half a li')
    with UtteranceTable(path) as table:
        assert table.find(demo_clip, None, None) == found and table.find(demo_clip, 1, None) is None
    (tmp_path / "foreign.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(ValueError):
        UtteranceTable(tmp_path / "foreign.jsonl")


def test_real_speech_is_recognised(shared):
    reader = SpeechReader.from_pretrained(shared / "models/whisper-tiny.en")
    clip = shared / "data/clips/free/nasa_13013.mp4"
    found = reader.read_file(clip)
    text = " ".join(utterance.text for utterance in found).lower()
    assert "space telescope" in text and "goddard space flight center" in text
    assert len(found) == 3 and all(utterance.words for utterance in found)
    assert reader.read_file(shared / "data/clips/derived/digital_silence_audio.mp4") == []
