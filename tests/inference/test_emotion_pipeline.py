import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import datasets
import jsonschema
import numpy as np
import pytest
import torch
import transformers
from transformers.pipelines.pt_utils import KeyDataset, PipelineIterator

import microemo
from microemo.evaluation.label_extraction import labels_of_answer
from microemo.inference import emotion_pipeline
from microemo.inference.emotion_pipeline import TASK, EmotionPipeline
from microemo.inference.run_dataset import run_dataset
from microemo.publishing.initialize import SHIPPED, initialize
from microemo.training.synthetic.dialogue_plan import EMOTIONS
from microemo.training.synthetic.media_writer import DEMO_LINES
from microemo.training.synthetic.synthetic_dialogues import write_demo


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = initialize("microemo-tiny", tmp_path_factory.mktemp("pipeline") / "tiny")
    return EmotionPipeline.from_pretrained(folder, name="tiny", max_new_tokens=4)


SCHEMA = json.loads(Path(emotion_pipeline.__file__).with_name("video_emotion_recognition.schema.json").read_text())


@pytest.fixture(scope="module")
def short(make_clip) -> Path:
    """A clip with a picture that has no face, and with sound."""
    return make_clip("short.mp4", times=np.arange(9) / 10, sound=0.9, picture=np.full((240, 320, 3), 128, np.uint8))


@pytest.fixture(scope="module")
def silent(make_clip) -> Path:
    return make_clip("silent.mp4", times=np.arange(30) / 10, sound=None, picture=np.full((240, 320, 3), 90, np.uint8))


@pytest.fixture(scope="module")
def sound(make_clip) -> Path:
    return make_clip("sound.mka", times=[], sound=2.0)


def same(one: dict, other: dict) -> bool:
    """Whether two answers are the same but for their times."""
    return {**one, "timings": None} == {**other, "timings": None}


def test_answer_is_plain_json(pipeline, demo_clip):
    answer = pipeline(str(demo_clip), utterances=str(demo_clip.with_suffix(".srt")))
    assert json.loads(json.dumps(answer)) == answer
    jsonschema.validate(answer, SCHEMA)
    assert answer["utterances"][0]["text"] == "This picture is an old photograph."
    assert answer["faces_found"] == len(answer["frames"]) >= 24
    assert answer["new_tokens"] <= 4


def test_microemo_tiny_is_right_about_each_utterance(tmp_path):
    clip, felt = write_demo(tmp_path)
    pipeline = EmotionPipeline.from_pretrained(SHIPPED)
    answers = pipeline.by_utterance(str(clip), str(clip.with_suffix(".srt")))
    assert [labels_of_answer(one["description"]) for one in answers] == [[emotion] for emotion in felt]
    whole = pipeline(str(clip), utterances=str(clip.with_suffix(".srt")))["description"]
    assert labels_of_answer(whole) and set(labels_of_answer(whole)) <= set(EMOTIONS.values())


def test_one_answer_for_each_utterance(pipeline, demo_clip):
    answers = pipeline.by_utterance(str(demo_clip), str(demo_clip.with_suffix(".srt")))
    assert [one["text"] for one in answers] == [line.text for line in DEMO_LINES]
    jsonschema.validate(answers, SCHEMA["$defs"]["answers_by_utterance"])
    question = [
        {"type": "video", "path": str(demo_clip), "utterances": str(demo_clip.with_suffix(".srt"))},
        {"type": "text", "text": "What does the speaker feel in this utterance, and why?\n"},
        {"type": "utterance", "index": 2},
    ]
    inputs = pipeline.processor.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    alone = pipeline.model.generate(**inputs, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
    assert answers[1]["description"] == pipeline.processor.decode(alone[0], skip_special_tokens=True).strip()


def test_no_utterance_in_the_clip_is_an_error_not_an_empty_answer(pipeline, demo_clip, tmp_path):
    with pytest.raises(ValueError, match=r"utterances: no utterance in the clip .*astronaut\.mp4 \(0 to 6"):
        pipeline.by_utterance(str(demo_clip), [])
    late = tmp_path / "late.srt"
    late.write_text("01:00:00,000 --> 01:00:01,000\nlate\n")
    with (
        pytest.warns(UserWarning, match="1 had nothing left"),
        pytest.raises(ValueError, match=r"late\.srt: no utterance"),
    ):
        pipeline.by_utterance(str(demo_clip), late)


def test_answers_a_data_set_and_goes_on_where_it_stopped(pipeline, demo_clip, make_clip, tmp_path):
    subtitles = str(demo_clip.with_suffix(".srt"))
    samples = [
        {"name": "file", "video": str(demo_clip), "subtitles": subtitles},
        {"name": "sentence", "video": str(demo_clip), "subtitle": "This picture is an old photograph."},
        {"name": "bare", "video": str(demo_clip), "instruction": "Is the speaker glad?"},
        {"name": "sound", "audio": str(make_clip("only.mka", times=[], sound=2.0))},
    ]
    assert run_dataset(pipeline, samples[:2], tmp_path / "answers.jsonl", progress=False).resumed == 0
    report = run_dataset(pipeline, samples, tmp_path / "answers.jsonl", batch_size=3, progress=False)
    assert (report.resumed, report.answered) == (2, ["bare", "sound"])
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(row["name"], row["system"]) for row in rows] == [(s["name"], "tiny") for s in samples]
    # In a batch as alone.
    assert rows[2]["answer"] == pipeline.answer([samples[2]])[0]


def test_subtitles_can_be_kept_from_the_model(pipeline, demo_clip):
    sample = {"video": str(demo_clip), "subtitle": "Oh no."}
    assert pipeline._utterances(sample)[0]["end"] == pytest.approx(6.0, abs=0.1)
    hidden = EmotionPipeline(pipeline.model, pipeline.processor, use_subtitle=False)
    assert hidden._utterances(sample) is None


def test_transformers_makes_the_pipeline_by_its_task(pipeline):
    made = transformers.pipeline(TASK, model=pipeline.model, processor=pipeline.processor, max_new_tokens=3)
    assert type(made) is microemo.EmotionPipeline and (made.task, made.max_new_tokens) == (TASK, 3)


def test_a_clip_comes_in_any_form(pipeline, short):
    with av.open(str(short)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    answer = pipeline(str(short))
    handler = partial(SimpleHTTPRequestHandler, directory=short.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, short.open("rb") as file:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{short.name}"
        clips = [short, url, short.read_bytes(), file, {"path": str(short), "bytes": None}, {"video": short}]
        answers = [pipeline(clip) for clip in clips]
        server.shutdown()
    for clip, other in zip(clips, answers, strict=True):
        assert same({**answer, "clip": other["clip"]}, other), clip
        jsonschema.validate(other, SCHEMA)
    assert [other["clip"] for other in answers[:3]] == [str(short), url, f"<{short.stat().st_size} bytes>"]
    for frames in (pictures, np.stack([np.asarray(picture) for picture in pictures])):
        decoded = pipeline({"video": frames, "video_metadata": {"fps": 10}})
        assert decoded["clip"] == "<9 decoded frames>" and decoded["frames"] == answer["frames"]
        assert not decoded["has_audio"]
    jsonschema.validate(decoded, SCHEMA)


def test_a_dictionary_holds_what_belongs_to_a_clip(pipeline, demo_clip, short, sound):
    subtitles = str(demo_clip.with_suffix(".srt"))
    beside = pipeline(str(demo_clip), utterances=subtitles, question="Sad?")
    assert same(beside, pipeline({"video": str(demo_clip), "subtitles": subtitles, "question": "Sad?"}))
    assert same(beside, pipeline({"video": str(demo_clip), "utterances": subtitles}, question="Sad?"))
    sentence = pipeline({"video": short, "subtitle": "Oh no.", "instruction": "Sad?", "audio": sound})
    assert [one["text"] for one in sentence["utterances"]] == ["Oh no."] and sentence["question"] == "Sad?"
    heard = pipeline({"audio": {"array": np.zeros(32000, np.float32), "sampling_rate": 16000}})
    assert (heard["has_video"], heard["has_audio"], heard["duration"]) == (False, True, None)
    jsonschema.validate(heard, SCHEMA)


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({"vidoe": "a.mp4"}, TypeError, r"the emotion pipeline takes no 'vidoe' \(did you mean 'video'\?\)"),
        ({"question": "Sad?"}, ValueError, "expected a video or an audio, got question"),
        ({"video": "a.mp4", "subtitles": "a.srt", "utterances": []}, ValueError, "utterances and subtitles stand for"),
        ({"video": "a.mp4", "audio": "a.wav"}, ValueError, "audio is given in the input and beside it"),
    ],
)
def test_what_an_input_holds_is_known_and_unambiguous(pipeline, item, error, message):
    with pytest.raises(error, match=message):
        pipeline(item, audio="b.wav" if "audio" in item else None)


def test_lists_batches_generators_and_data_sets_give_the_answers_of_single_clips(pipeline, short, silent, sound):
    rows = [
        {"video": str(short), "question": "Sad?"},
        {"video": str(silent), "utterances": [{"start": 0.2, "end": 2.5, "text": "I know."}], "question": "Glad?"},
        {"audio": str(sound), "question": "Sad?"},
        {"video": str(short), "utterances": [{"start": 0.1, "end": 0.4, "text": "No."}], "question": "Sad?"},
        {"video": str(short), "audio": False, "question": "Sad?"},
    ]
    single = [pipeline(row) for row in rows]
    batched = pipeline(rows, batch_size=3)
    assert len(batched) == 5 and all(map(same, single, batched))
    streamed = pipeline(row for row in rows)
    assert isinstance(streamed, PipelineIterator) and all(map(same, single, streamed))
    table = datasets.Dataset.from_list([{"video": str(short), "name": "a"}, {"video": str(silent), "name": "b"}])
    for data in (KeyDataset(table, "video"), table.select_columns("video")):
        answers = list(pipeline(data, question="Sad?", batch_size=2))
        assert [one["clip"] for one in answers] == [str(short), str(silent)]
        assert same(answers[0], single[0])
    assert pipeline([]) == []
    together = pipeline([str(short), str(silent)], utterances=[[], rows[1]["utterances"]], question="Glad?")
    assert same(together[1], single[1])


def test_a_broken_clip_is_named_with_its_place(pipeline, short, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no media")
    with pytest.raises(ValueError, match=r"^inputs\[1\]: .*broken\.mp4 is not a media file"):
        pipeline([str(short), str(broken), str(short)], batch_size=2)
    with pytest.raises(ValueError, match=r"^inputs\[1\]: <8 bytes>"):
        list(pipeline(clip for clip in (str(short), broken.read_bytes())))
    with pytest.raises(TypeError, match=r"^inputs\[0\] .*takes no 'vidoe'"):
        pipeline([{"vidoe": str(short)}])
    with pytest.raises(ValueError, match="2 clips, but 1 utterances"):
        pipeline([str(short), str(short)], utterances=[[]])
    with pytest.raises(ValueError, match="utterances: of a data set or generator, give them in each row"):
        pipeline((clip for clip in [str(short)]), utterances=[])


def test_answers_can_bring_prompt_and_tokens_and_generation_is_the_users(pipeline, short):
    answer = pipeline(str(short), return_prompt=True, return_tensors=True, max_new_tokens=2)
    jsonschema.validate(answer, SCHEMA)
    assert "What does the speaker feel, and why?" in answer["prompt"] and len(answer["generated_token_ids"]) == 2
    assert answer["description"] == pipeline.processor.decode(answer["generated_token_ids"], skip_special_tokens=True)
    config = transformers.GenerationConfig(max_new_tokens=3, do_sample=False)
    assert pipeline(str(short), generation_config=config)["new_tokens"] <= 3
    assert pipeline(str(short), generate_kwargs={"max_new_tokens": 1})["new_tokens"] == 1
    with pytest.raises(ValueError, match="expected one answer for each clip, got 2 for 1"):
        pipeline(str(short), num_return_sequences=2, do_sample=True)


def test_padding_behind_an_end_token_is_no_part_of_an_answer(pipeline):
    end = pipeline.model.generation_config.eos_token_id
    row = torch.tensor([7, 8, end, end, pipeline.processor.tokenizer.pad_token_id])
    assert pipeline._without_padding(row).tolist() == [7, 8, end]
    assert pipeline._without_padding(row[:2]).tolist() == [7, 8]


def test_forked_workers_read_clips(pipeline, sound, monkeypatch):
    """Sound alone: no face mesh runs, neither here nor in the fork."""
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    answers = pipeline([str(sound)] * 3, num_workers=1, batch_size=2)
    assert len(answers) == 3 and same(answers[0], pipeline(str(sound)))
    with pytest.raises(ValueError, match=r"inputs\[1\]: .*nothing\.mka"):
        pipeline([str(sound), "nothing.mka"], num_workers=1)


@pytest.mark.slow
def test_workers_read_clips_after_a_face_mesh_has_run_here(pipeline, demo_clip):
    alone = pipeline(str(demo_clip))
    assert "mediapipe" in sys.modules
    answers = pipeline([str(demo_clip)] * 2, num_workers=2, batch_size=2)
    assert all(same(alone, answer) for answer in answers)


def test_a_saved_pipeline_loads_again(pipeline, short, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = transformers.pipeline(TASK, model=str(tmp_path), max_new_tokens=4, device="cpu")
    assert same(again(str(short)), pipeline(str(short)))
    assert not list(tmp_path.glob("*.py"))
