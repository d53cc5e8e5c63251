import json

import pytest

from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.inference.initialize import initialize
from microemo.inference.run_dataset import run_dataset
from microemo.training.dialogue_plan import EMOTIONS
from microemo.training.dialogue_scores import labels_of_answer
from microemo.training.synthetic_dialogues import write_demo


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


def test_the_shipped_model_answers_as_it_has_learned(tmp_path):
    clip, felt = write_demo(tmp_path)
    answer = EmotionPipeline.from_pretrained()(str(clip), utterances=str(clip.with_suffix(".srt")))
    labels = labels_of_answer(answer["description"])
    assert labels and set(labels) <= set(EMOTIONS.values()), answer["description"]
    assert len(felt) == len(answer["utterances"])


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
