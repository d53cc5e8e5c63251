"""MicroEmoProcessor as a processor of Transformers: keywords, layouts of batches, placeholders, chat templates."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import processing_utils

from microemo import MicroEmoConfig, MicroEmoProcessor
from microemo.processing.batch_layout import lay_out
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

QUESTION = "What does the speaker feel, and why?"
FRAMES = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
SOUND = np.random.default_rng(0).normal(size=16_000).astype("f4")
RATE = {"sampling_rate": 16_000}
SAID = [{"start": 0.0, "end": 0.1, "text": "Hi."}, {"start": 0.1, "end": 0.2, "text": "A <video>?"}]
CLIP = {"videos": FRAMES, "audio": SOUND, "utterances": SAID, **RATE}


@functools.cache
def processor(**overrides) -> MicroEmoProcessor:
    config = MicroEmoConfig.from_preset("microemo-tiny", local_view="frame")
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer(), **overrides)


def same(one, other) -> bool:
    return set(one) == set(other) and all(np.array_equal(np.asarray(one[n]), np.asarray(other[n])) for n in one)


def conversation(*rest, **item) -> list[dict]:
    content = [{"type": "video", "video": FRAMES, **item}, {"type": "text", "text": QUESTION}, *rest]
    return [{"role": "user", "content": content}]


# --- keywords ------------------------------------------------------------------------------------------------------


def test_it_stands_on_transformers_class_for_video_and_sound():
    base = getattr(processing_utils, "OmniModalProcessorMixin", processing_utils.ProcessorMixin)
    assert issubclass(MicroEmoProcessor, base)
    assert processor().image_token_id == processor().video_token_id


def test_keywords_may_stand_in_the_dictionaries_of_their_parts():
    flat = processor()(text=QUESTION, **CLIP, num_frames=2, padding="max_length", max_length=300, return_tensors="pt")
    clip = {name: value for name, value in CLIP.items() if name != "sampling_rate"}
    nested = processor()(
        text=QUESTION,
        **clip,
        videos_kwargs={"num_frames": 2},
        audio_kwargs=RATE,
        text_kwargs={"padding": "max_length", "max_length": 300},
        common_kwargs={"return_tensors": "pt"},
    )
    assert flat["input_ids"].shape == (1, 300) and same(flat, nested)
    templated = {"tokenize": True, "return_dict": True, "processor_kwargs": {"videos_kwargs": {"num_frames": 2}}}
    assert processor().apply_chat_template(conversation(), **templated)["frame_mask"].shape[1] == 2


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"num_frames": 2, "videos_kwargs": {"num_frames": 2}}, ValueError, "num_frames was passed two times"),
        ({"padding": True, "text_kwargs": {"padding": False}}, ValueError, "padding was passed two times"),
        ({**RATE, "audio_kwargs": RATE}, ValueError, "sampling_rate was passed two times"),
        ({"videos_kwargs": {"num_frame": 2}}, TypeError, "videos_kwargs of MicroEmoProcessor takes no 'num_frame'"),
        ({"text_kwargs": {"num_frames": 2}}, TypeError, "text_kwargs of MicroEmoProcessor takes no 'num_frames'"),
        ({"images_kwargs": {"do_resize": True}}, TypeError, "takes no 'images_kwargs'"),
        ({"images": [FRAMES[0]]}, TypeError, "takes no 'images'"),
        ({"videos_kwargs": 3}, ValueError, "videos_kwargs must be a dictionary"),
        ({"num_frames": "two"}, ValueError, "num_frames"),
        ({"return_mm_token_type_ids": 1}, ValueError, "return_mm_token_type_ids must be True or False"),
        ({"load_audio_backend": "librosa"}, ValueError, "sound is decoded by PyAV"),
        ({"truncation": True, "max_length": 12}, ValueError, "perhaps because truncation has cut it"),
    ],
)
def test_keywords_that_do_not_fit_are_refused_by_name(keywords, error, message):
    with pytest.raises(error, match=message):
        processor()(text=QUESTION, videos=FRAMES, **keywords)


def test_what_transformers_hands_on_is_taken():
    # Its pipelines pass `images=None`; what a template has made is tokenized without special tokens.
    alone = processor()(images=None, text=QUESTION, num_frames=None, padding_side=None)
    assert same(alone, processor()(text=QUESTION))
    text = processor().apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    assert processor().tokenizer(text, add_special_tokens=False)["input_ids"] == alone["input_ids"][0]


def test_the_token_that_begins_a_text_is_put_there_once_or_not_at_all():
    begun = processor()(text="<video> Why?", videos=FRAMES)["input_ids"][0]
    as_it_is = processor()(text="<video> Why?", videos=FRAMES, add_special_tokens=False)["input_ids"][0]
    assert begun == [processor().tokenizer.bos_token_id, *as_it_is]


def test_a_tokenizer_s_own_defaults_count_but_for_its_side():
    config = MicroEmoConfig.from_preset("microemo-tiny", local_view="frame")
    tokenizer = tiny_tokenizer()
    tokenizer.init_kwargs |= {"padding": "max_length", "max_length": 200, "padding_side": "right"}
    own = MicroEmoProcessor.from_config(config, tokenizer, tiny_qformer_tokenizer())
    output = own(text=QUESTION, return_tensors="pt")
    assert output["input_ids"].shape == (1, 200)
    assert not output["attention_mask"][0, 0] and output["attention_mask"][0, -1]


def test_media_are_put_on_the_device_that_is_asked_for():
    output = processor()(text=QUESTION, **CLIP, device="meta", return_tensors="pt")
    kinds = {name: value.device.type for name, value in output.items()}
    assert {kinds["pixel_values_videos"], kinds["utterance_windows"], kinds["input_features"]} == {"meta"}
    assert kinds["input_ids"] == "cpu"


# --- which clip belongs to which text --------------------------------------------------------------------------------


def test_a_video_s_own_sound_is_read_unless_told_otherwise(make_clip):
    clip = make_clip("heard.mp4", times=np.arange(6) / 10, sound=0.6)
    assert "input_features" in processor()(videos=clip, num_frames=2)
    assert "input_features" not in processor()(videos=clip, num_frames=2, load_audio_from_video=False)
    item = [{"role": "user", "content": [{"type": "video", "path": str(clip)}]}]
    options = {"tokenize": True, "return_dict": True, "num_frames": 2}
    assert "input_features" in processor().apply_chat_template(item, **options)
    assert "input_features" not in processor().apply_chat_template(item, load_audio_from_video=False, **options)


def rows(**arguments) -> list[tuple]:
    belongings = {"utterances": arguments.pop("utterances", None), "landmarks": None, "video_metadata": None}
    clips = lay_out(
        arguments.pop("texts", None), **{"videos": None, "audio": None, **arguments}, belongings=belongings
    )
    return [(clip.video, clip.audio, *([clip.utterances] if clip.utterances else ())) for clip in clips]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Nested, a list for each text.
        ({"videos": [["a"], [], ["b"]]}, [("a", None), (None, None), ("b", None)]),
        ({"videos": [["a"], ["b"]], "audio": [["x"], [None]]}, [("a", "x"), ("b", None)]),
        ({"videos": "a", "audio": ["x"]}, [("a", "x")]),
        ({"videos": ["a"], "audio": "x"}, [("a", "x")]),
        # In the order of the placeholders.
        (
            {"texts": ["<video>", "<audio>", "?"], "videos": ["a"], "audio": ["x"]},
            [("a", None), (None, "x"), (None, None)],
        ),
        ({"texts": ["<audio><video>", "<video>"], "videos": ["a", "b"], "audio": ["x"]}, [("a", "x"), ("b", None)]),
        ({"texts": ["?", "<video>"], "videos": "a", "utterances": ["u"]}, [(None, None), ("a", None, "u")]),
        # Where a sound comes from.
        ({"videos": ["a", "b"], "audio_from_video_indices": [1]}, [("b", None), ("a", False)]),
        ({"videos": ["a"], "audio": ["x"], "audio_from_video_indices": [0]}, [("a", "x")]),
        ({"videos": ["a"], "audio": ["x"], "audio_from_video_indices": [None, 0]}, [(None, "x"), ("a", None)]),
        (
            {
                "texts": ["<video>", "<audio>"],
                "videos": ["a"],
                "audio": ["x"],
                "audio_from_video_indices": [0, None],
                "load_audio_from_video": False,
            },
            [("a", False), (None, "x")],
        ),
        ({"videos": ["a", "b"], "audio": ["x", None], "load_audio_from_video": False}, [("a", "x"), ("b", False)]),
    ],
)
def test_layouts_of_a_batch(arguments, expected):
    assert rows(**arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"texts": ["<video>", "<video>"], "videos": ["a"]},
            "<video> tokens in the prompts should be the same as the number of videos passed: 2 of 2 texts",
        ),
        ({"texts": ["<audio>", "?"], "audio": ["x", "y", "z"]}, "1 of 2 texts have <audio>, but there are 3 sounds"),
        ({"videos": ["a"], "audio_from_video_indices": [1]}, "names video 1, but there are 1 videos"),
        (
            {"videos": ["a"], "audio": ["x", "y"], "audio_from_video_indices": [0]},
            "1 entries, .* 2 sounds were passed",
        ),
        ({"videos": [[{"path": "a"}, {"path": "b"}]]}, "a text has one clip, but 2 were given"),
    ],
)
def test_layouts_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        rows(**arguments)


# --- placeholders ----------------------------------------------------------------------------------------------------

TEXTS = [QUESTION, "Look: <video> and <audio>?", "Look: <video>?", "<audio> with <video>"]


@pytest.mark.parametrize("layout", ["concatenated", "interleaved"])
@pytest.mark.parametrize("text", TEXTS)
def test_replacements_are_found_in_the_prompt(text, layout):
    own = processor(prompt_layout=layout, use_utterance_audio=layout == "interleaved")
    options = {"return_text_replacement_offsets": True, "return_mm_token_type_ids": True, "return_metadata": True}
    output = own(text=text, **CLIP, **options)
    assert output["prompts"] == own(text=text, **CLIP, return_metadata=True)["prompts"]
    (prompt,), (replacements,) = output["prompts"], output["text_replacement_offsets"]
    assert replacements and all(prompt[slice(*r["new_span"])] == r["replacement"] for r in replacements)
    rest = prompt
    for replacement in replacements:
        rest = rest.replace(replacement["replacement"], "")
    assert "<video>" not in rest and "<audio>" not in rest
    if text != QUESTION:
        assert [text[slice(*r["span"])] for r in replacements] == [r["text"] for r in replacements]
    ids, kinds = np.array(output["input_ids"][0]), np.array(output["mm_token_type_ids"][0])
    assert (ids[kinds == 2] == own.video_token_id).all() and (ids[kinds == 3] == own.audio_token_id).all()
    assert not np.isin(ids[kinds == 0], [own.video_token_id, own.audio_token_id]).any()


def test_replacements_of_conversations():
    options = {"tokenize": True, "return_dict": True, "return_text_replacement_offsets": True}
    said = {"utterances": SAID}
    output = processor().apply_chat_template(conversation(), **said, **options, return_metadata=True)
    (replacement,), (prompt,) = output["text_replacement_offsets"][0], output["prompts"]
    assert prompt[slice(*replacement["new_span"])] == replacement["replacement"]
    with pytest.raises(ValueError, match="prompt 0 cites utterances"):
        processor().apply_chat_template(conversation({"type": "utterance", "index": 1}), **said, **options)


@pytest.mark.parametrize("windows", ["none", "sliding"])
def test_servers_learn_the_number_of_placeholders_beforehand(windows):
    own = processor(windows=windows, window_size=2, window_stride=2)
    counts = own._get_num_multimodal_tokens(video_sizes=[FRAMES.shape[:3], (1, 32, 32)], audio_lengths=[16_000])
    prompts = own(text=["a", "b"], videos=[FRAMES, FRAMES[:1]], return_metadata=True)["prompts"]
    assert [prompt.count("<video>") for prompt in prompts] == counts["num_video_tokens"]
    heard = own(text="a", audio=SOUND, **RATE, return_metadata=True)["prompts"][0]
    assert [heard.count("<audio>")] == counts["num_audio_tokens"]
    with pytest.raises(ValueError, match="pictures are not read"):
        own._get_num_multimodal_tokens(image_sizes=[(32, 32)])


# --- chat templates --------------------------------------------------------------------------------------------------


def test_utterances_are_an_argument_of_the_template_too():
    # Servers rebuild the messages and drop what they do not know from them.
    options = {"tokenize": True, "return_dict": True}
    expected = processor().apply_chat_template(conversation(utterances=SAID), **options)
    for given in ({"utterances": SAID}, {"chat_template_kwargs": {"utterances": SAID}}):
        assert same(processor().apply_chat_template(conversation(), **given, **options), expected)
    both = processor().apply_chat_template([conversation(), conversation()], utterances=[None, SAID])
    assert "Hi." not in both[0] and "Hi." in both[1]


@pytest.mark.parametrize(
    ("messages", "keywords", "message"),
    [
        (conversation(utterances=SAID), {"utterances": SAID}, "utterances were given two times"),
        ([{"role": "user", "content": QUESTION}], {"utterances": SAID}, "utterances belong to a clip"),
        ([conversation(), conversation()], {"utterances": SAID}, "must be a list with those of each"),
        ([conversation(), conversation()], {"utterances": [SAID]}, "must be a list with those of each"),
        (conversation(), {"utterances": SAID, "chat_template_kwargs": {"utterances": SAID}}, "passed two times"),
        ([], {}, "an empty conversation"),
    ],
)
def test_arguments_of_the_template_that_do_not_fit(messages, keywords, message):
    with pytest.raises(ValueError, match=message):
        processor().apply_chat_template(messages, **keywords)


def test_tools_and_documents_are_for_templates_that_read_them():
    template = (
        "{% for tool in tools %}[{{ tool.function.name }}]{% endfor %}"
        "{% for document in documents %}({{ document.text }}){% endfor %}{{ messages[0].content[0].text }}"
    )
    given = {
        "tools": [{"type": "function", "function": {"name": "look<video>"}}],
        "documents": [{"title": "a", "text": "<audio> text"}],
    }
    asked = [{"role": "user", "content": QUESTION}]
    text = processor().apply_chat_template(asked, chat_template=template, **given)
    assert text == f"[look< video>](< audio> text){QUESTION}"
    # Servers pass them whatever the template is.
    assert processor().apply_chat_template(asked, **given) == processor().apply_chat_template(asked)


def test_templates_are_found_by_name():
    own = processor(max_utterances=31)
    own.chat_template = {"default": own.chat_template, "short": "{{ messages[0].content[0].text }}"}
    asked = [{"role": "user", "content": QUESTION}]
    assert own.apply_chat_template(asked, chat_template="short") == QUESTION
    assert own.apply_chat_template(asked) == processor().apply_chat_template(asked)
    own.chat_template.pop("default")
    with pytest.raises(ValueError, match="must name one of the processor's: short"):
        own.apply_chat_template(asked)


def test_the_tensors_of_one_conversation_can_be_joined_with_others():
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    one = processor().apply_chat_template(conversation(), **options)
    assert torch.equal(one["utterance_windows"], torch.tensor([[[-1, -1]]]))
    two = processor().apply_chat_template([conversation(), conversation(utterances=SAID)], **options)
    assert two["utterance_windows"].shape == (2, 2, 2)


def test_rows_of_data_sets_are_clips(make_clip):
    path = str(make_clip("row.mp4", times=np.arange(6) / 10, sound=0.6))
    rows_of_table = [{"path": path, "bytes": None}, {"path": "gone.mp4", "bytes": Path(path).read_bytes()}]
    expected = processor()(text=QUESTION, videos=path, num_frames=2)
    for row in rows_of_table:
        assert same(processor()(text=QUESTION, videos=row, audio=row, num_frames=2), expected)
        content = [
            {"type": "video", "video": row},
            {"type": "audio", "audio": row},
            {"type": "text", "text": QUESTION},
        ]
        messages = [{"role": "user", "content": content}]
        options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "num_frames": 2}
        assert same(processor().apply_chat_template(messages, **options), expected)
