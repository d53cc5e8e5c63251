"""Calibration finds the temperature with which label scores are as sure as they are right."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from microemo.evaluation.label_extraction import LABELS
from microemo.inference import calibration
from microemo.inference.calibration import calibrate, labelled_questions, write_calibration
from microemo.inference.label_scores import CALIBRATION, Calibration
from microemo.publishing.initialize import initialize

WORDS = ["joy", "anger", "sadness", "fear"]


def row(clip: str, *labels: str, cites: bool = True, **others) -> dict:
    """A row of a table whose conversation has a question about each utterance."""
    messages = []
    for number, of_answer in enumerate(labels, 1):
        question = [{"type": "text", "text": "Why?\n"}]
        question += [{"type": "utterance", "index": number}] if cites else []
        answer = [{"type": "text", "text": f"The brows go up\n{LABELS} {of_answer}" if of_answer else "I see nobody."}]
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages[0]["content"].insert(0, {"type": "video", "text": None})
    return {"video": clip, "messages": messages, **others}


@pytest.fixture
def made_scores(monkeypatch):
    """Scores of 4000 questions that are `by` times as sure as they are right, in place of those of a model."""

    def make(by: float) -> list[dict]:
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(0, 2, (4000, len(WORDS)))).log_softmax(dim=1)
        targets = [rng.choice(len(WORDS), p=shares) for shares in logits.exp().numpy()]
        scores = iter(by * logits)
        monkeypatch.setattr(calibration, "label_log_probabilities", lambda *_, **__: next(scores))
        held = SimpleNamespace(given=lambda: None, prompts=lambda questions: None)
        monkeypatch.setattr(calibration, "HeldClip", lambda *_, **__: held)
        return [row("clip.mp4", *(WORDS[target] for target in targets))]

    return make


PIPELINE = SimpleNamespace(model=None, processor=None, max_new_tokens=4)


@pytest.mark.parametrize("by", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_much_too_sure_the_scores_are(made_scores, by):
    found = calibrate(PIPELINE, made_scores(by), WORDS)
    assert found["temperature"] == pytest.approx(by, rel=0.1)
    assert (found["vocabulary"], found["questions"]) == (WORDS, 4000)
    before, after = found["negative_log_likelihood"]
    assert after <= before
    before, after = found["expected_calibration_error"]
    assert after < 0.03 and (by == 1 or after < before)


def test_the_best_label_stays_the_same(made_scores):
    accuracies = {calibrate(PIPELINE, made_scores(by), WORDS)["accuracy"] for by in (0.5, 1.0, 3.0)}
    assert len(accuracies) == 1 and 0.3 < accuracies.pop() < 1


def test_questions_about_the_whole_clip_and_answers_without_labels_are_passed_over():
    found = list(labelled_questions(row("clip.mp4", "joy, hope", "", "anger")))
    assert [labels for _, labels in found] == [["joy", "hope"], ["anger"]]
    assert found[0][0] == [{"type": "text", "text": "Why?\n"}, {"type": "utterance", "index": 1}]
    assert not list(labelled_questions(row("clip.mp4", "joy", cites=False)))


def test_nothing_to_fit_is_an_error():
    for rows in ([], [row("clip.mp4", "")], [row("clip.mp4", "serenity")]):
        with pytest.raises(ValueError, match="no question about an utterance"):
            calibrate(PIPELINE, rows, WORDS)


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    content = {"vocabulary": ["naïveté"], "temperature": 1.5}
    path = write_calibration(tmp_path, content)
    assert path == tmp_path / CALIBRATION and Calibration.of(tmp_path) == Calibration(("naïveté",), 1.5)
    with pytest.raises(TypeError):
        write_calibration(tmp_path, content | {"temperature": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_writes_the_calibration_that_an_analysis_uses(make_clip, tmp_path):
    from typer.testing import CliRunner

    from microemo.commands.main import app

    checkpoint = initialize("microemo-tiny", tmp_path / "tiny")
    grey = np.full((120, 160, 3), 128, np.uint8)
    clips = [make_clip(f"{n}.mp4", times=np.arange(4) / 4, sound=1.0, picture=grey) for n in range(3)]
    lines = [{"start": 0.0, "end": 0.7, "text": "Oh."}]
    rows = [row(str(clips[0]), "joy", utterances=lines, split="dev")]
    rows.append(row(str(clips[1]), "anger", utterances=lines, split="dev"))
    rows.append(row(str(clips[2]), "sadness", utterances=lines, split="train"))
    table = tmp_path / "train.jsonl"
    table.write_text("".join(json.dumps(one) + "\n" for one in rows))
    done = CliRunner().invoke(app, ["calibrate", str(checkpoint), str(table)])
    assert done.exit_code == 0, done.output
    assert "2 questions" in done.stdout and done.stdout.splitlines()[-1] == str(checkpoint / CALIBRATION)
    found = Calibration.of(checkpoint)
    assert found.vocabulary == ("anger", "joy", "sadness") and 0.2 <= found.temperature <= 10
    done = CliRunner().invoke(app, ["calibrate", str(checkpoint), str(table), "--split", "test"])
    assert done.exit_code != 0 and "no row of the split 'test'" in str(done.exception)
