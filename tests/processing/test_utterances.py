"""Subtitles of every kind, good and bad, and the windows made of them."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microemo.processing.media import AudioTrack
from microemo.processing.utterances import (
    Utterance,
    frame_windows,
    merge_utterances,
    read_utterances,
    segment_windows,
    sliding_windows,
    transcribe,
)

CLIPS = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data" / "clips"

SRT = """1
00:00:00,500 --> 00:00:01,250
Hello <i>there</i>

2
00:00:02,000 --> 00:00:03,500
How are
you?
"""
EXPECTED = [Utterance(0.5, 1.25, "Hello there"), Utterance(2.0, 3.5, "How are you?")]


@pytest.fixture(autouse=True)
def no_silent_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_bom(text):
    return "\ufeff" + text


@pytest.mark.parametrize(
    "text",
    [
        SRT,
        with_bom(SRT),
        SRT.replace("\n", "\r\n"),
        with_bom(SRT.replace("\n", "\r\n")),
        SRT.replace("1\n00", "00").replace("2\n00", "00"),  # no indices
        SRT.replace(",", "."),
        SRT.replace("\n\n2\n", "\n2\n"),  # no blank line
        SRT.replace("How are\nyou?", "How are\n\nyou?"),  # a blank line too many
        SRT.replace("Hello", r"{\an8}<font color='#fff'>Hello</font>"),
        "WEBVTT\n\n" + SRT.replace(",", "."),
        "WEBVTT - title\nKind: captions\n\nNOTE\na comment\n\nSTYLE\n::cue {}\n\n"
        + SRT.replace(",", ".").replace("1.250", "1.250 align:start position:0%").replace("00:00:0", "00:0"),
    ],
)
def test_subtitles_that_say_the_same(text, tmp_path):
    assert read_utterances(text) == EXPECTED
    path = tmp_path / "clip.txt"  # the name does not matter
    path.write_bytes(text.encode())
    assert read_utterances(path) == EXPECTED
    assert read_utterances(str(path), duration=10.0) == EXPECTED


def test_utf16_file(tmp_path):
    (tmp_path / "clip.srt").write_bytes(SRT.encode("utf-16"))
    assert read_utterances(tmp_path / "clip.srt") == EXPECTED


def test_last_words_and_numbers_are_kept():
    text = SRT + "\n3\n00:00:04,000 --> 00:00:05,000\n42\n\n4\n00:00:06,000 --> 00:00:07,000\n7\n"
    assert [u.text for u in read_utterances(text)] == ["Hello there", "How are you?", "42", "7"]


def test_webvtt_voices():
    text = (
        "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna B.>Hi &amp; bye</v>\n\nintro\n00:03.000 --> 00:04.000\n"
        "<v.loud Bob>Hi <00:03.500><c.red>you</c>\n\n00:05.000 --> 00:06.000\n<v Anna>Yes?</v> <v Bob>No.</v>\n\n"
        "00:07.000 --> 00:08.000\nANNA: who?\n"
    )
    assert read_utterances(text) == [
        Utterance(1, 2, "Hi & bye", "Anna B."),
        Utterance(3, 4, "Hi you", "Bob"),
        Utterance(5, 6, "Anna: Yes? Bob: No."),
        Utterance(7, 8, "ANNA: who?"),  # a name in the text is not guessed
    ]


def test_tokens_in_subtitles_are_words():
    text = SRT.replace("How are", "<video> </s> <s> are")
    assert read_utterances(text)[1].text == "<video> </s> <s> are you?"


WHISPER = {
    "text": " Hello there How are you?",
    "segments": [
        {"id": 0, "start": 0.5, "end": 1.25, "text": " Hello there"},
        {"id": 1, "start": 2.0, "end": 3.5, "text": " How are you?"},
    ],
}
PIPELINE = {
    "text": " Hello there How are you?",
    "chunks": [
        {"timestamp": (0.5, 1.25), "text": " Hello there"},
        {"timestamp": (2.0, None), "text": " How are you?"},
    ],
}


@pytest.mark.parametrize("content", [WHISPER, PIPELINE, WHISPER["segments"], EXPECTED, {"utterances": EXPECTED}])
def test_json_and_lists(content, tmp_path):
    assert read_utterances(content, duration=3.5) == EXPECTED
    if content not in (EXPECTED, {"utterances": EXPECTED}):
        path = tmp_path / "clip.json"
        path.write_text(json.dumps(content))
        assert read_utterances(path, duration=3.5) == EXPECTED
        assert read_utterances(path.read_text(), duration=3.5) == EXPECTED


def test_whisperx_speakers():
    content = {"segments": [{"start": 0, "end": 1, "text": "Hi", "speaker": "SPEAKER_00", "words": []}]}
    assert read_utterances(content) == [Utterance(0, 1, "Hi", "SPEAKER_00")]


@pytest.mark.parametrize(
    "entries, duration, expected, told",
    [
        ([(2, 3, "b"), (0, 1, "a")], 9, [(0, 1, "a"), (2, 3, "b")], "out of order"),
        ([(0, 2, "a"), (1, 3, "b")], 9, [(0, 2, "a"), (1, 3, "b")], "1 overlap"),
        ([(-1, 1, "a"), (2, 3, "b")], 9, [(0, 1, "a"), (2, 3, "b")], "1 reached over the clip"),
        ([(0, 1, "a"), (8, 12, "b")], 9, [(0, 1, "a"), (8, 9, "b")], "1 reached over the clip"),
        ([(0, 1, "a"), (10, 12, "b")], 9, [(0, 1, "a")], "1 had nothing left"),
        ([(-3, -1, "a"), (2, 2, "b"), (4, 3, "c")], 9, [], "3 had nothing left"),
        ([(-3, -1, "a"), (8, 10, "b")], 9, [(8, 9, "b")], "1 reached .* 1 had nothing left"),
        ([(36000, 36001, "a")], None, [(36000, 36001, "a")], None),
    ],
)
def test_one_warning_for_all_that_is_mended(entries, duration, expected, told, tmp_path):
    lines = [f"{_stamp(start)} --> {_stamp(end)}\n{text}\n" for start, end, text in entries]
    path = tmp_path / "clip.srt"
    path.write_text("\n".join(lines))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_utterances(path, duration) == [Utterance(*entry) for entry in expected]
    if told is None:
        assert not caught
    else:
        (warning,) = caught
        assert str(path) in str(warning.message)
        with pytest.raises(UserWarning, match=told):
            raise warning.message


def _stamp(seconds):
    hours, rest = divmod(abs(seconds), 3600)
    return f"{'-' if seconds < 0 else ''}{hours:02d}:{rest // 60:02d}:{rest % 60:02d},000"


def test_ten_hour_timestamp():
    with pytest.warns(UserWarning, match="nothing left in the clip"):
        assert read_utterances("10:00:00,000 --> 10:00:01,000\nlate\n", duration=9.0) == []


@pytest.mark.parametrize("content", ["", "\n \n", "WEBVTT\n\n", "[]", '{"segments": []}', '{"words": []}'])
def test_empty_file(content, tmp_path):
    path = tmp_path / "empty.srt"
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"empty\.srt: no utterances"):
        assert read_utterances(path) == []


def test_empty_list_is_a_clip_without_speech():
    assert read_utterances([]) == []


@pytest.mark.parametrize(
    "content, line",
    [
        (SRT.replace("00:00:02,000", "00:0x:02,000"), "line 6.*'00:0x:02,000 --> 00:00:03,500'"),
        (SRT.replace("00:00:02,000 -->", "-->"), "line 6"),
        (SRT.replace("00:00:02,000", "soon"), "line 6"),
        ("Hello there,\nthis is a letter.", "line 1.*neither SRT, WebVTT nor JSON"),
        ('{"segments": [}', "line 1.*JSON"),
        ('{"text": "Hi"}', r"segments, chunks, utterances.*words.*\['text'\]"),
        ('{"segments": 3}', "list.*int"),
        ('[{"start": 0, "end": 1, "text": "a"}, {"start": "1:02", "end": 2, "text": "b"}]', "entry 2.*start.*'1:02'"),
        ('[{"start": 0, "text": "a"}]', "entry 1.*end.*None"),
        ('[{"start": NaN, "end": 1, "text": "a"}]', "entry 1.*start.*nan"),
        ('[{"start": 0, "end": 1, "text": 7}]', "entry 1.*text.*7"),
        ("[3]", "entry 1.*int"),
    ],
)
def test_malformed(content, line, tmp_path):
    path = tmp_path / "bad.srt"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"bad\.srt.*{line}"):
        read_utterances(path, duration=9.0)


def test_not_text(tmp_path):
    (tmp_path / "clip.srt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"clip\.srt.*UTF-8"):
        read_utterances(tmp_path / "clip.srt")


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.srt"):
        read_utterances(tmp_path / "nothing.srt")
    with pytest.raises(IsADirectoryError, match="directory"):
        read_utterances(str(tmp_path))


def test_open_end_needs_a_duration():
    with pytest.raises(ValueError, match="has no end"):
        read_utterances(PIPELINE)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no shared folder: set MICROEMO_SHARED to the folder with data/clips")
@pytest.mark.parametrize("path", sorted(CLIPS.glob("*/*.srt")), ids=lambda path: path.name)
def test_shared_subtitles(path):
    found = read_utterances(path)
    assert len(found) == path.read_text().count("-->")
    assert all(u.start < u.end and u.text for u in found)


def test_merging_joins_the_shortest_neighbours():
    said = [
        Utterance(0, 3, "a", "Anna"),
        Utterance(3, 4, "b", "Bob"),
        Utterance(4, 4.5, "c", "Bob"),
        Utterance(6, 9, "d"),
    ]
    three = merge_utterances(said, 3)
    assert three == [said[0], Utterance(3, 4.5, "b c", "Bob"), said[3]]
    assert merge_utterances(said, 2) == [Utterance(0, 4.5, "Anna: a Bob: b c"), said[3]]
    assert merge_utterances(said, 4) == said


@given(
    times=st.lists(st.floats(0, 20), min_size=1, max_size=12),
    spans=st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 5)), max_size=6),
)
def test_frame_windows_do_what_they_say(times, spans):
    times, spans = sorted(times), [(start, start + length) for start, length in spans]
    windows = frame_windows(times, spans)
    assert windows.shape == (len(spans), 2) and windows.dtype == np.int64
    for (start, end), (first, last) in zip(spans, windows, strict=True):
        inside = [index for index, time in enumerate(times) if start <= time < end]
        if inside:
            assert list(range(first, last)) == inside
        else:
            before = [index for index, time in enumerate(times) if time <= (start + end) / 2]
            assert (first, last) == ((before or [0])[-1], (before or [0])[-1] + 1)


def test_sliding_windows_of_frames_keep_the_rest():
    times = np.arange(10) * 0.5
    windows, spans = sliding_windows(times, size=4, stride=4, unit="frames", duration=5.0)
    assert windows.tolist() == [[0, 4], [4, 8], [8, 10]]
    assert spans.tolist() == [[0.0, 2.0], [2.0, 4.0], [4.0, 5.0]]
    windows, _ = sliding_windows(times, size=4, stride=3, unit="frames")
    assert windows.tolist() == [[0, 4], [3, 7], [6, 10], [9, 10]]


def test_sliding_windows_of_seconds():
    windows, spans = sliding_windows([0.0, 0.9, 2.1, 6.5], size=2.0, stride=2.0, unit="seconds", duration=7.0)
    assert spans.tolist() == [[0, 2], [2, 4], [4, 6], [6, 7]]
    assert windows.tolist() == [[0, 2], [2, 3], [2, 3], [3, 4]]  # 4 to 6 s shows the frame of 2.1 s
    windows, spans = sliding_windows([0.0], size=2.0, stride=2.0, unit="seconds")
    assert windows.tolist() == [[0, 1]]


def test_clip_windows():
    clips = [(0, 2), (1, 3), (4, 6)]
    spans = [(0.5, 0.9), (2.0, 3.0), (3.2, 3.4), (3.5, 3.9), (0, 9), (8, 9)]
    assert segment_windows(clips, spans).tolist() == [[0, 1], [1, 2], [1, 2], [2, 3], [0, 3], [2, 3]]
    assert segment_windows(clips, np.zeros((0, 2))).shape == (0, 2)


def whisper_pipeline():
    """A Whisper of two layers with random weights, behind the real pipeline."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        AutomaticSpeechRecognitionPipeline,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    model = Tokenizer(models.BPE(alphabet, []))
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    tokenizer = WhisperTokenizerFast(tokenizer_object=model, vocab=alphabet, merges=[])
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(1501)], special_tokens=True)
    start, end = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|endoftext|>"])
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=32,
        decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, bos_token_id=end, suppress_tokens=[],
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    for weights in model.parameters():
        weights.data.normal_(std=0.3)  # random enough to say something
    model.generation_config.no_timestamps_token_id = tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    model.generation_config.max_length = 24
    return AutomaticSpeechRecognitionPipeline(
        model=model, tokenizer=tokenizer, feature_extractor=WhisperFeatureExtractor()
    )


def test_transcribing_with_a_real_pipeline():
    asr = whisper_pipeline()
    sound = np.sin(np.arange(16000 * 29) / 6).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random model says odd things at odd times
        said = transcribe(asr, AudioTrack(np.stack([sound, sound]), 16000))
        chunks = asr({"raw": sound, "sampling_rate": 16000}, return_timestamps=True)
        assert said == read_utterances(chunks, duration=29.0)
    assert said and all(0 <= u.start < u.end <= 29.0 for u in said)


def test_transcription_reaches_the_pipeline_as_mono_sound():
    class Pipeline:
        class feature_extractor:
            sampling_rate = 8000

        def __call__(self, inputs, return_timestamps):
            assert return_timestamps
            self.heard = inputs
            return PIPELINE

    asr = Pipeline()
    samples = np.stack([np.full(48000, 0.5), np.full(48000, 0.1)]).astype(np.float32)
    said = transcribe(asr, AudioTrack(samples, 16000), duration=3.0)
    assert said == [EXPECTED[0], Utterance(2.0, 3.0, "How are you?")]
    assert asr.heard["sampling_rate"] == 8000
    assert asr.heard["raw"].shape == (24000,)
    np.testing.assert_allclose(asr.heard["raw"][100:-100], 0.3, atol=1e-2)
