"""The prompt: what stands where, what is counted, and what no subtitle can do to it."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from microemo import MicroEmoConfig, MicroEmoProcessor
from microemo.processing.prompt_microemo import SYSTEM_TEXT
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

QUESTION = "What does the speaker feel, and why?"
SAID = [
    {"start": 0.25, "end": 0.75, "text": "Hi there.", "speaker": "Anna"},
    {"start": 1.0, "end": 1.5, "text": "What do you mean?"},
]
RATE = 16_000


@functools.cache
def parts():
    config = MicroEmoConfig.from_preset("microemo-tiny", local_view="frame")
    whole = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer(), max_utterances=6)
    return config, whole


def make(tokenizer=None, **switches) -> MicroEmoProcessor:
    """A processor with few video tokens (2) and audio tokens (1) in a window, so that prompts can be read."""
    config, whole = parts()
    switches = {"num_video_query_tokens": 2, "num_audio_query_tokens": 1, "max_utterances": 6} | switches
    return MicroEmoProcessor.from_config(
        config,
        tokenizer or tiny_tokenizer(),
        whole.qformer_tokenizer,
        video_processor=whole.video_processor,
        feature_extractor=whole.feature_extractor,
        **switches,
    )


@functools.cache
def noise(seconds=2.0):
    return np.random.default_rng(0).normal(size=round(RATE * seconds)).astype(np.float32)


@functools.cache
def frames(count=4):
    """A clip of decoded frames without a face."""
    return np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)


def llama_like_tokenizer():
    """Words with their space as in LLaMA's: "▁" put before every piece of text between special tokens."""
    model = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence(pieces)
    special = ["<unk>", "<s>", "</s>", "<video>", "<audio>"]
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    model.train_from_iterator([SYSTEM_TEXT.replace(" ", "▁"), QUESTION.replace(" ", "▁")] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


both_tokenizers = pytest.mark.parametrize("tokenizer", [tiny_tokenizer, llama_like_tokenizer])


def prompt_of(processor, text=QUESTION, videos=True, audio=True, **kwargs):
    output = processor(
        text=text,
        videos=frames() if videos else None,
        audio=noise() if audio else None,
        sampling_rate=RATE if audio else None,
        return_metadata=True,
        **kwargs,
    )
    return output["prompts"][0]


def counts(processor, ids):
    return ids.count(processor.video_token_id), ids.count(processor.audio_token_id)


# --- the text ------------------------------------------------------------------------------------------------------

V, A = "<video>" * 2, "<audio>"


def test_concatenated():
    processor = make(use_utterance_audio=False, system_text="Watch closely.")
    assert prompt_of(processor, utterances=SAID) == (
        f"<s>Watch closely.\n\nUser:\nVideo: {V}\nutterance 1 (0.2-0.8s): {V}\nutterance 2 (1.0-1.5s): {V}\n"
        f"Audio: {A}\nTranscript:\nutterance 1 (0.2-0.8s) Anna: Hi there.\nutterance 2 (1.0-1.5s): What do you mean?\n"
        f"{QUESTION}\nAssistant:\n"
    )


def test_interleaved():
    processor = make(use_utterance_audio=True, system_text="", prompt_layout="interleaved")
    assert prompt_of(processor, utterances=SAID) == (
        f"<s>User:\nVideo: {V}\nAudio: {A}\nutterance 1 {V}{A} (0.2-0.8s) Anna: Hi there.\n"
        f"utterance 2 {V}{A} (1.0-1.5s): What do you mean?\n{QUESTION}\nAssistant:\n"
    )


def test_interleaved_without_pictures():
    processor = make(use_utterance_audio=False, system_text="", prompt_layout="interleaved")
    said = [{"start": 0.0, "end": 0.2, "text": ""}, SAID[1]]
    assert prompt_of(processor, videos=False, utterances=said) == (
        f"<s>User:\nAudio: {A}\nutterance 2 (1.0-1.5s): What do you mean?\n{QUESTION}\nAssistant:\n"
    )


@pytest.mark.parametrize("layout", ["concatenated", "interleaved"])
def test_without_speech_there_is_no_line_for_it(layout):
    processor = make(system_text="", prompt_layout=layout)
    expected = f"<s>User:\nVideo: {V}\nAudio: {A}\n{QUESTION}\nAssistant:\n"
    assert prompt_of(processor) == prompt_of(processor, utterances=[]) == expected
    assert prompt_of(processor, audio=False) == expected.replace(f"Audio: {A}\n", "")
    assert prompt_of(processor, videos=False) == expected.replace(f"Video: {V}\n", "")


def test_wordless_utterances_have_a_window_and_no_line():
    processor = make(system_text="", use_utterance_audio=False)
    said = [{"start": 0, "end": 1, "text": ""}, {"start": 1, "end": 2, "text": "Yes."}]
    prompt = prompt_of(processor, utterances=said)
    assert prompt.count("utterance 1 (0.0-1.0s)") == 1 and prompt.count("utterance 2 (1.0-2.0s)") == 2
    assert "Transcript" not in prompt_of(processor, utterances=said[:1])


@pytest.mark.parametrize("layout", ["concatenated", "interleaved"])
@pytest.mark.parametrize("videos", [True, False])
def test_the_speaker_of_a_wordless_utterance_is_named(layout, videos):
    """Times and speakers without words are what a diarisation gives."""
    processor = make(system_text="", use_utterance_audio=False, prompt_layout=layout)
    said = [{"start": 0.2, "end": 0.8, "text": "", "speaker": "Anna"}, {"start": 1.0, "end": 1.5, "text": ""}]
    lines = prompt_of(processor, videos=videos, utterances=said).splitlines()
    window = f"{V} " if videos and layout == "interleaved" else ""
    assert lines.count(f"utterance 1 {window}(0.2-0.8s) Anna:") == 1
    expected = [f"utterance 2 {V} (1.0-1.5s):" if layout == "interleaved" else f"utterance 2 (1.0-1.5s): {V}"]
    assert [line for line in lines if line.startswith("utterance 2")] == (expected if videos else [])


def test_windows_none_keeps_the_words():
    processor = make(system_text="", windows="none", use_utterance_audio=False)
    assert prompt_of(processor, utterances=SAID[:1]) == (
        f"<s>User:\nVideo: {V}\nAudio: {A}\nTranscript:\nutterance 1 (0.2-0.8s) Anna: Hi there.\n{QUESTION}\nAssistant:\n"
    )


def test_sliding_windows_without_a_global_one():
    processor = make(
        system_text="",
        windows="sliding",
        window_size=3,
        window_stride=3,
        use_global_window=False,
        use_utterance_audio=0,
    )
    lines = prompt_of(processor, audio=False, utterances=SAID[:1]).splitlines()
    assert lines[1] == "Video:" and lines[2].startswith("window 1 (0.0-") and lines[2].endswith(f"s): {V}")
    assert lines[3].startswith("window 2 (")
    assert lines[4:7] == ["Transcript:", "utterance 1 (0.2-0.8s) Anna: Hi there.", QUESTION]


SOUND_WINDOWS = {
    "concatenated": f"Audio: {A}\nutterance 1 (0.2-0.8s): {A}\nutterance 2 (1.0-1.5s): {A}\n"
    "Transcript:\nutterance 1 (0.2-0.8s) Anna: Hi there.\nutterance 2 (1.0-1.5s): What do you mean?\n",
    "interleaved": f"Audio: {A}\n"
    f"utterance 1 {A} (0.2-0.8s) Anna: Hi there.\nutterance 2 {A} (1.0-1.5s): What do you mean?\n",
}


@pytest.mark.parametrize("layout", SOUND_WINDOWS)
def test_windows_over_the_sound_alone(layout):
    processor = make(system_text="", windows="none", use_utterance_audio=True, prompt_layout=layout)
    expected = f"<s>User:\nVideo: {V}\n{SOUND_WINDOWS[layout]}{QUESTION}\nAssistant:\n"
    assert prompt_of(processor, utterances=SAID) == expected
    assert prompt_of(processor, videos=False, utterances=SAID) == expected.replace(f"Video: {V}\n", "")
    assert "Audio" not in prompt_of(processor, audio=False, utterances=SAID)
    assert prompt_of(processor) == f"<s>User:\nVideo: {V}\nAudio: {A}\n{QUESTION}\nAssistant:\n"
    single = prompt_of(processor, text=f"<video>\n<audio>\n{QUESTION}", utterances=SAID)
    assert single == f"<s>Video: {V}\n{SOUND_WINDOWS[layout]}{QUESTION}"


@pytest.mark.parametrize("layout", SOUND_WINDOWS)
def test_sliding_windows_over_the_frames_and_utterances_over_the_sound(layout):
    processor = make(
        system_text="", windows="sliding", window_size=2.0, window_stride=2.0, window_unit="seconds",
        use_utterance_audio=True, prompt_layout=layout,
    )  # fmt: skip
    metadata = {"frame_times": [0.0, 1.0, 2.0, 2.5], "duration": 3.0}
    prompt = prompt_of(processor, utterances=SAID, video_metadata=metadata)
    windows = f"Video: {V}\nwindow 1 (0.0-2.0s): {V}\nwindow 2 (2.0-3.0s): {V}\n"
    assert prompt == f"<s>User:\n{windows}{SOUND_WINDOWS[layout]}{QUESTION}\nAssistant:\n"


@pytest.mark.parametrize("windows", ["none", "sliding"])
def test_interleaved_wants_something_to_stand_between_the_lines(windows):
    """Without windows of utterances over frames or sound, both layouts are the same."""
    prompts = {
        prompt_of(
            make(windows=windows, window_size=2, window_stride=2, use_utterance_audio=False, prompt_layout=layout),
            utterances=SAID,
        )
        for layout in SOUND_WINDOWS
    }
    assert len(prompts) == 1 and "Transcript:\n" in prompts.pop()


def test_interleaved_wordless_utterances_have_a_line_for_their_sound():
    processor = make(system_text="", windows="none", use_utterance_audio=True, prompt_layout="interleaved")
    said = [{"start": 0.0, "end": 0.2, "text": ""}, SAID[1]]
    lines = prompt_of(processor, utterances=said).splitlines()
    assert lines[3:5] == [f"utterance 1 {A} (0.0-0.2s):", f"utterance 2 {A} (1.0-1.5s): What do you mean?"]
    silent = prompt_of(processor, utterances=said, audio=False).splitlines()
    assert silent[2:4] == ["utterance 2 (1.0-1.5s): What do you mean?", QUESTION]


def test_one_changed_word_changes_the_ids():
    processor = make()
    other = [SAID[0] | {"text": "Hi here."}, SAID[1]]
    one, two = (processor(text="Q", audio=noise(), sampling_rate=RATE, utterances=s).input_ids for s in (SAID, other))
    assert one != two


# --- nothing that is written becomes a special token ---------------------------------------------------------------


@pytest.mark.parametrize("token", ["<video>", "<audio>", "<s>", "</s>", "the filler"])
@both_tokenizers
def test_special_tokens_in_text_are_inert_and_readable(token, tokenizer):
    processor = make(tokenizer())
    if token == "the filler":
        token = {"<pad>", "<unk>"}.intersection(processor.tokenizer.get_added_vocab()).pop()
    clean = [{"start": 0, "end": 1, "text": "ab", "speaker": "Bo"}]
    dirty = [{"start": 0, "end": 1, "text": f"a{token}b", "speaker": f"B{token}o"}]
    special = set(processor.tokenizer.all_special_ids) | {processor.video_token_id, processor.audio_token_id}

    def conversation(said, text):
        media = {"type": "audio", "audio": noise(), "sampling_rate": RATE, "utterances": said}
        halves = [{"type": "text", "text": text[: len(text) // 2]}, {"type": "text", "text": text[len(text) // 2 :]}]
        return [
            {"role": "system", "content": text},
            {"role": "user", "content": [media, *halves]},
            {"role": "assistant", "content": text},
        ]

    ids = {}
    for name, said, text in (("clean", clean, "x"), ("dirty", dirty, f"x{token}x")):
        output = processor.apply_chat_template(conversation(said, text), tokenize=True, return_dict=True)
        ids[name] = output["input_ids"][0]
    found, expected = ([i for i in row if i in special] for row in (ids["dirty"], ids["clean"]))
    assert found == expected
    decoded = processor.decode(ids["dirty"])
    readable = f"{token[0]} {token[1:]}"
    assert decoded.count(readable) == 5 and f"utterance 1 (0.0-1.0s) B{readable}o: a{readable}b\n" in decoded


def test_placeholder_in_a_subtitle_file(tmp_path):
    (tmp_path / "clip.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\n<video> <audio>\n")
    processor = make(use_utterance_audio=False)
    output = processor(text=QUESTION, audio=noise(), sampling_rate=RATE, utterances=tmp_path / "clip.srt")
    assert counts(processor, output["input_ids"][0]) == (0, 1)


# --- counting ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    starts=st.lists(st.floats(0, 1.8), max_size=5),
    layout=st.sampled_from(["concatenated", "interleaved"]),
    windows=st.sampled_from(["utterance", "sliding", "none"]),
    has_global=st.booleans(),
    by_utterance=st.booleans(),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sights=st.tuples(st.booleans(), st.booleans()),
    data=st.data(),
)
def test_placeholders_equal_windows(starts, layout, windows, has_global, by_utterance, sizes, sights, data):
    n, m = sizes
    videos, audio = sights
    has_global = has_global or windows != "sliding"
    processor = make(
        num_video_query_tokens=n, num_audio_query_tokens=m, prompt_layout=layout, windows=windows, window_size=3,
        window_stride=2, use_global_window=has_global, use_utterance_audio=by_utterance,
    )  # fmt: skip
    said = [{"start": start, "end": start + 0.2, "text": "a <video> b"} for start in starts]
    cited = data.draw(st.lists(st.integers(1, len(said)), max_size=3)) if said and windows == "utterance" else []
    content = [{"type": "utterance", "index": index} for index in cited] + [{"type": "text", "text": QUESTION}]
    if audio:
        content.append({"type": "audio", "audio": noise(), "sampling_rate": RATE, "utterances": said})
    if videos:
        content.append({"type": "video", "video": frames(), "utterances": said})
    if not videos and not audio:
        content, cited = content[-1:], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # utterances overlap as they like
        output = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="np"
        )
    k = int((output["utterance_windows"][0, :, 0] >= 0).sum())
    if videos:
        assert k == {"utterance": len(said), "sliding": 2, "none": 0}[windows]
    sounding = len(said) if by_utterance else 0
    if audio and by_utterance:
        assert int((output["audio_windows"][0, :, 0] >= 0).sum()) == sounding
    expected = n * videos * (has_global + k + len(cited)), m * audio * (1 + sounding + by_utterance * len(cited))
    assert counts(processor, output["input_ids"][0].tolist()) == expected
    if cited:
        assert output["cited_utterances"].tolist() == [[index - 1 for index in cited]]
    else:
        assert "cited_utterances" not in output


# --- citations -----------------------------------------------------------------------------------------------------


def chat(*content, answer=None):
    audio = {"type": "audio", "audio": noise(), "sampling_rate": RATE, "utterances": SAID}
    messages = [{"role": "user", "content": [audio, *content]}]
    return messages + ([{"role": "assistant", "content": answer}] if answer else [])


def test_citations_stand_where_they_are_put():
    processor = make(use_utterance_audio=True, system_text="")
    messages = chat(
        {"type": "text", "text": "How about "},
        {"type": "utterance", "index": 2},
        {"type": "text", "text": " and "},
        {"type": "utterance", "index": 1},
        {"type": "text", "text": "?"},
        answer="Calm.",
    )
    messages.append(
        {"role": "user", "content": [{"type": "utterance", "index": 2}, {"type": "text", "text": " Why?"}]}
    )
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt.endswith(
        f"How about utterance 2 (1.0-1.5s): {A} and utterance 1 (0.2-0.8s): {A}?\nAssistant:\nCalm.</s>\n"
        f"User:\nutterance 2 (1.0-1.5s): {A} Why?\nAssistant:\n"
    )
    plain = chat({"type": "text", "text": "And?"})
    output = processor.apply_chat_template([messages, plain], tokenize=True, return_dict=True, return_tensors="np")
    assert output["cited_utterances"].tolist() == [[1, 0, 1], [-1, -1, -1]]


@pytest.mark.parametrize("index", [0, 3, -1, "1", None])
def test_citing_what_is_not_there(index):
    with pytest.raises(ValueError, match=f"utterance {index} is cited, but the clip has 2 windows"):
        make().apply_chat_template(chat({"type": "utterance", "index": index}))


def test_citing_without_utterance_windows():
    with pytest.raises(ValueError, match="utterance 1 is cited, but the clip has 0 windows"):
        make(windows="none", use_utterance_audio=False).apply_chat_template(chat({"type": "utterance", "index": 1}))


# --- prompts of the user's own -------------------------------------------------------------------------------------


def test_single_placeholders_are_expanded():
    processor = make(use_utterance_audio=False, system_text="")
    wrapped = prompt_of(processor, utterances=SAID)
    media = wrapped[wrapped.index("Video: ") : wrapped.index(f"\n{QUESTION}")]
    prompt = prompt_of(processor, text=f"Look: <video>\n<audio>\nNow: {QUESTION}", utterances=SAID)
    assert prompt == f"<s>Look: {media}\nNow: {QUESTION}"
    assert prompt_of(processor, text=f"<s>Look: <video>\nNow: {QUESTION}", utterances=SAID) == prompt


def test_template_without_media_and_call_with_media():
    processor = make()
    content = [{"type": "video"}, {"type": "audio"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert counts(processor, processor.tokenizer(text).input_ids) == (1, 1)
    assert prompt_of(processor, text=text, utterances=SAID) == prompt_of(processor, utterances=SAID)


def test_finished_prompts_are_taken_as_they_are():
    processor = make()
    prompt = prompt_of(processor, utterances=SAID)
    assert prompt_of(processor, text=prompt, utterances=SAID) == prompt
    assert prompt_of(processor, text=prompt.removeprefix("<s>"), utterances=SAID) == prompt


@pytest.mark.parametrize(
    "text, found",
    [("<video><audio><audio>", "1 <video> and 2 <audio>"), ("<video>" * 5, "5 <video> and 0 <audio>")],
)
def test_wrong_number_of_placeholders(text, found):
    processor = make(use_utterance_audio=False)
    with pytest.raises(ValueError, match=f"text 0 holds {found}, but its clip needs 6 and 1"):
        prompt_of(processor, text=text, utterances=SAID)


def test_placeholders_without_media():
    with pytest.raises(ValueError, match="text 0 holds 1 <video> and 0 <audio>, but its clip needs 0 and 0"):
        make()(text="<video> what is it?")


# --- conversations -------------------------------------------------------------------------------------------------


def test_media_come_first_in_their_message():
    processor = make(system_text="", use_utterance_audio=False)
    content = [
        {"type": "text", "text": QUESTION},
        {"type": "audio", "audio": noise(), "sampling_rate": RATE},
        {"type": "video", "video": frames(), "utterances": SAID},
    ]
    messages = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == prompt_of(processor, utterances=SAID)
    split = [{"role": "user", "content": content[2:]}, {"role": "user", "content": content[:2]}]
    media, _ = prompt.split(QUESTION)
    assert processor.apply_chat_template(split) == f"{media}\nUser:\n{QUESTION}\n"


def test_a_system_message_takes_the_place_of_the_default():
    processor = make()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert processor.apply_chat_template(messages) == "<s>Be brief.\n\nUser:\nHi\n"


@both_tokenizers
@pytest.mark.parametrize("side", ["left", "right"])
def test_assistant_masks_hold_the_answers(side, tokenizer):
    processor = make(tokenizer())
    conversations = [
        [*chat({"type": "text", "text": "Q1"}, answer="She is sad."), {"role": "user", "content": "Why?"},
         {"role": "assistant", "content": [{"type": "text", "text": "The chin trembles."}]}],
        chat({"type": "text", "text": "Q"}, answer="Calm."),
    ]  # fmt: skip
    output = processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        padding_side=side,
    )
    ids, mask = output["input_ids"], output["assistant_masks"].bool()
    assert mask.shape == ids.shape and not (mask & ~output["attention_mask"].bool()).any()
    learned = [processor.decode(row[picked]) for row, picked in zip(ids, mask, strict=True)]
    assert learned == ["She is sad.</s>The chin trembles.</s>", "Calm.</s>"]


@both_tokenizers
def test_the_answer_continues_the_generation_prompt(tokenizer):
    """What the model generates behind its prompt are the very tokens that it learns."""
    processor = make(tokenizer())
    messages = chat({"type": "text", "text": "Q"}, answer="She is sad.")
    prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True)[0]
    whole = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert whole["input_ids"][0][: len(prompt)] == prompt and whole["assistant_masks"][0].index(1) == len(prompt)


def test_continuing_an_answer():
    processor = make()
    messages = chat({"type": "text", "text": "Q"}, answer="She is")
    assert processor.apply_chat_template(messages, continue_final_message=True).endswith("Assistant:\nShe is")


def test_batches_are_padded_on_the_left_unless_told_otherwise():
    processor = make()
    texts = ["Q", QUESTION]
    left = processor(text=texts, return_tensors="np")
    right = processor(text=texts, padding_side="right", return_tensors="np")
    assert left["attention_mask"][0, 0] == 0 and left["attention_mask"][0, -1] == 1
    assert right["attention_mask"][0, 0] == 1 and right["attention_mask"][0, -1] == 0
    alone = processor(text="Q")["input_ids"][0]
    assert left["input_ids"][0, -len(alone) :].tolist() == right["input_ids"][0, : len(alone)].tolist() == alone


def test_a_prompt_longer_than_the_context():
    processor = make()
    length = len(processor(text=QUESTION)["input_ids"][0])
    processor.tokenizer.model_max_length = length
    assert len(processor(text=QUESTION)["input_ids"][0]) == length
    with pytest.raises(ValueError, match=rf"prompt 1 is {length + 1} tokens long.*context holds {length}"):
        processor(text=[QUESTION, QUESTION + "?"])


@pytest.mark.parametrize(
    "content, message",
    [
        ([{"type": "image", "path": "a.png"}], "got 'image'"),
        ([{"type": "video", "path": "a.mp4"}, {"type": "video", "path": "b.mp4"}], "a second video"),
        ([{"type": "video"}], "no source"),
    ],
)
def test_wrong_content(content, message):
    with pytest.raises(ValueError, match=message):
        make().apply_chat_template([{"role": "user", "content": content}], tokenize=True)


def test_callers_messages_are_left_alone():
    messages = chat({"type": "text", "text": "a"}, {"type": "text", "text": "<video>"})
    before = [[dict(item) for item in message["content"]] for message in messages]
    make().apply_chat_template(messages)
    assert [list(message["content"]) for message in messages] == before


def test_own_template():
    processor = make()
    template = "{{ messages[0].role }}/{{ clip.utterances | length }}"
    assert processor.apply_chat_template(chat(), chat_template=template) == "user/2"
