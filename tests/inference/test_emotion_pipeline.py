import json

import pytest

from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.inference.run_dataset import run_dataset
from microemo.publishing.initialize import initialize
from microemo.training.from_scratch.dialogue_scores import labels_of_answer
from microemo.training.synthetic.dialogue_plan import EMOTIONS
from microemo.training.synthetic.media_writer import DEMO_LINES
from microemo.training.synthetic.synthetic_dialogues import write_demo


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = initialize("microemo-tiny", tmp_path_factory.mktemp("pipeline") / "tiny")
    return EmotionPipeline.from_pretrained(folder, name="tiny", max_new_tokens=4)


def test_answer_is_plain_json(pipeline, demo_clip):
    answer = pipeline(str(demo_clip), utterances=str(demo_clip.with_suffix(".srt")))
    assert json.loads(json.dumps(answer)) == answer
    assert answer["utterances"][0]["text"] == "This picture is an old photograph."
    assert answer["faces_found"] == len(answer["frames"]) >= 24
    assert answer["new_tokens"] <= 4


def test_the_shipped_model_is_right_about_each_utterance(tmp_path):
    clip, felt = write_demo(tmp_path)
    pipeline = EmotionPipeline.from_pretrained()
    answers = pipeline.by_utterance(str(clip), str(clip.with_suffix(".srt")))
    assert [labels_of_answer(one["description"]) for one in answers] == [[emotion] for emotion in felt]
    whole = pipeline(str(clip), utterances=str(clip.with_suffix(".srt")))["description"]
    assert labels_of_answer(whole) and set(labels_of_answer(whole)) <= set(EMOTIONS.values())


def test_one_answer_for_each_utterance(pipeline, demo_clip):
    answers = pipeline.by_utterance(str(demo_clip), str(demo_clip.with_suffix(".srt")))
    assert [one["text"] for one in answers] == [line.text for line in DEMO_LINES]
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
