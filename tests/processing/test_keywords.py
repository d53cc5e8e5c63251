"""Names that nobody reads are refused, wherever they are written; those that are known are honoured."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microemo import MicroEmoConfig, MicroEmoFeatureExtractor, MicroEmoProcessor, MicroEmoVideoProcessor
from microemo.processing.prompt_microemo import ITEM_KEYS, SYSTEM_TEXT
from microemo.publishing.initialize import SHIPPED, tiny_qformer_tokenizer, tiny_tokenizer
from microemo.utils.keywords import refuse_unknown

QUESTION = "What does the speaker feel, and why?"
FRAMES = np.zeros((4, 32, 32, 3), np.uint8)


@functools.cache
def processor() -> MicroEmoProcessor:
    config = MicroEmoConfig.from_preset("microemo-tiny", local_view="frame")
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())


def ask(**keys) -> list[dict]:
    return [{"role": "user", "content": [{"type": "video", **keys}, {"type": "text", "text": QUESTION}]}]


def test_a_word_is_named_with_its_owner_and_the_nearest():
    refuse_unknown(["videos"], ["videos", "audio"], "It")
    with pytest.raises(TypeError, match=r"^It takes no 'video' \(did you mean 'videos'\?\)$"):
        refuse_unknown(["video", "videos"], ["videos", "audio"], "It")
    with pytest.raises(TypeError, match=r"^It takes no 'xyzzy'; it takes audio, videos$"):
        refuse_unknown(["xyzzy"], ["videos", "audio"], "It")
    with pytest.raises(TypeError, match=r"'fps' \(an argument of the call\)"):
        refuse_unknown(["fps"], ["videos"], "It", {"fps": "an argument of the call"})


CALLS = [
    ("video", "videos"),
    ("images", "videos"),
    ("audios", "audio"),
    ("subtitles", "utterances"),
    ("nframes", "num_frames"),
    ("max_frame", "max_frames"),
    ("do_sample_frame", "do_sample_frames"),
]


@pytest.mark.parametrize(("word", "nearest"), CALLS)
@pytest.mark.parametrize("videos", [None, FRAMES], ids=["text alone", "with a clip"])
def test_a_call_refuses_what_it_does_not_know(word, nearest, videos):
    with pytest.raises(TypeError, match=f"MicroEmoProcessor takes no '{word}'.*'{nearest}'"):
        processor()(text=QUESTION, videos=videos, **{word: 4})
    source = {} if videos is None else {"video": videos}
    with pytest.raises(TypeError, match=f"takes no '{word}'.*'{nearest}'"):
        processor().apply_chat_template(ask(**source), **{word: 4})


def test_keywords_that_are_known_are_honoured():
    output = processor()(text=QUESTION, videos=FRAMES, num_frames=2, padding="max_length", max_length=200)
    assert output["frame_mask"].shape == (1, 2)
    assert len(output["input_ids"][0]) == 200
    prompt = processor().apply_chat_template(ask(), system_text="Be brief.")
    assert prompt.startswith("<s>Be brief.\n\nUser:")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"subtitles": "a.srt"}, "'subtitles'.*'utterances'"),
        ({"utterance": []}, "'utterance'.*'utterances'"),
        ({"fps": 2.0}, "'fps'.*an argument of the call"),
        ({"max_frames": 4}, "'max_frames'.*an argument of the call"),
        ({"start": 1.0}, "'start'"),
    ],
)
def test_a_content_item_refuses_keys_that_it_does_not_have(keys, message):
    with pytest.raises(TypeError, match=f"'video' content of a message takes no {message}"):
        processor().apply_chat_template(ask(video=FRAMES, **keys), tokenize=True)


def test_messages_refuse_keys_that_they_do_not_have():
    with pytest.raises(TypeError, match="a message takes no 'contents'.*'content'"):
        processor().apply_chat_template([{"role": "user", "contents": "Hi"}])
    with pytest.raises(ValueError, match="one source, got video and path"):
        processor().apply_chat_template(ask(video=FRAMES, path="a.mp4"))
    # Rows of a table share their keys: those of other rows are None here.
    assert processor().apply_chat_template([{"role": "user", "content": "Hi", "name": None}]).endswith("Hi\n")


@pytest.mark.parametrize(
    ("given_value", "error"),
    [({"do_center_crop": True}, ValueError), ({"resample": 3}, ValueError), ({"nframes": 4}, TypeError)],
)
def test_a_video_processor_refuses_what_would_have_no_effect(given_value, error, tmp_path):
    (name,) = given_value
    with pytest.raises(error, match=name):
        MicroEmoVideoProcessor(**given_value)
    with pytest.raises(error, match=name):
        MicroEmoVideoProcessor.from_pretrained(SHIPPED, **given_value)
    with pytest.raises(error, match=name):
        MicroEmoProcessor.from_pretrained(SHIPPED, **given_value)
    with pytest.raises(error, match=name):
        MicroEmoVideoProcessor()(FRAMES, **given_value)


def test_what_holds_anyway_may_be_said():
    loaded = MicroEmoVideoProcessor.from_pretrained(SHIPPED, do_center_crop=False, num_frames=5)
    assert loaded.num_frames == 5
    assert loaded(FRAMES, do_convert_rgb=True, resample=2)["frame_mask"].shape == (1, 4)


def test_loading_hands_each_part_its_own_keywords():
    loaded = MicroEmoProcessor.from_pretrained(
        SHIPPED, num_frames=5, num_segments=4, max_utterances=3, padding_side="right"
    )
    assert loaded.video_processor.num_frames == 5
    assert loaded.feature_extractor.num_segments == 4
    assert loaded.max_utterances == 3
    assert loaded.tokenizer.padding_side == "right"


def test_a_feature_extractor_refuses_what_it_does_not_have():
    with pytest.raises(TypeError, match="MicroEmoFeatureExtractor takes no 'n_segments'.*'num_segments'"):
        MicroEmoFeatureExtractor(n_segments=4)
    with pytest.raises(TypeError, match="'n_segments'.*'num_segments'"):
        MicroEmoFeatureExtractor.from_pretrained(SHIPPED, n_segments=4)
    with pytest.raises(ValueError, match="16000; got 8000"):
        MicroEmoFeatureExtractor(sampling_rate=8000)
    assert MicroEmoFeatureExtractor.from_pretrained(SHIPPED, num_segments=4).num_segments == 4


# --- the template alone --------------------------------------------------------------------------------------------

CONVERSATIONS = [
    [{"role": "user", "content": "How does she feel?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How does she feel?"}],
    [
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "Sad."},
        {"role": "user", "content": "Why?"},
    ],
    [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "How?"}, {"type": "audio"}, {"type": "video"}]}],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("open_answer", [True, False])
@pytest.mark.parametrize("saved", [False, True], ids=["made", "loaded"])
def test_the_tokenizer_alone_renders_what_the_processor_renders(conversation, open_answer, saved, tmp_path):
    whole = processor()
    if saved:
        whole.save_pretrained(tmp_path)
        whole = MicroEmoProcessor.from_pretrained(tmp_path)
    rendered = whole.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=open_answer)
    assert rendered == whole.apply_chat_template(conversation, add_generation_prompt=open_answer)
    for message in conversation:
        content = message["content"]
        words = content if isinstance(content, str) else next(item["text"] for item in content if "text" in item)
        assert words in rendered
    assert (SYSTEM_TEXT in rendered) == (conversation[0]["role"] != "system")
    items = [] if isinstance(conversation[0]["content"], str) else conversation[0]["content"]
    for kind in ("video", "audio"):
        assert rendered.count(f"<{kind}>") == sum(item["type"] == kind for item in items)


def test_the_template_alone_refuses_what_it_cannot_show():
    tokenizer = processor().tokenizer
    with pytest.raises(Exception, match="got image"):
        tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    with pytest.raises(Exception, match="cited"):
        tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": "utterance", "index": 1}]}], tokenize=False
        )


def test_the_shipped_template_is_the_code_s():
    from microemo.processing.prompt_microemo import CHAT_TEMPLATE

    assert (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE


# --- any item ------------------------------------------------------------------------------------------------------

VALUES = (
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text(max_size=12) | st.just([]) | st.just({})
)
KNOWN = sorted({key for keys in ITEM_KEYS.values() for key in keys})
KEYS = st.sampled_from([*KNOWN, "subtitles", "fps", "image", "Text", "indices"]) | st.text(max_size=8)
ITEMS = st.dictionaries(KEYS, VALUES, max_size=4).flatmap(
    lambda item: st.sampled_from([*ITEM_KEYS, "image", None]).map(lambda kind: item | {"type": kind})
)
CONTENTS = st.text(max_size=30) | st.lists(ITEMS | st.text(max_size=10) | VALUES, max_size=4)


def check_items(content):
    """A prompt, or an error that says what is wrong: never another error, and never a key that is passed over."""
    try:
        prompt = processor().apply_chat_template([{"role": "user", "content": content}])
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    for item in content if isinstance(content, list) else []:
        if isinstance(item, dict):
            present = {key for key, value in item.items() if value is not None}
            assert present <= set(ITEM_KEYS[item["type"]])
    assert prompt.startswith("<s>")


@settings(max_examples=60, deadline=None)
@given(CONTENTS)
def test_any_content_is_read_or_refused(content):
    check_items(content)


@pytest.mark.slow
@settings(max_examples=2500, deadline=None)
@given(CONTENTS)
def test_any_content_is_read_or_refused_many(content):
    check_items(content)
