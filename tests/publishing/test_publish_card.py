"""Model cards: filled from what conversion, training and evaluation leave, and never written over what somebody wrote."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers.pipelines import SUPPORTED_TASKS

from microemo.evaluation.emotion_wheel import EmotionWheels
from microemo.evaluation.prediction_files import Answers
from microemo.evaluation.resampling import bootstrap
from microemo.evaluation.set_level import WheelGrouper
from microemo.evaluation.systems import score_answers
from microemo.publishing.completeness import read_folder
from microemo.publishing.model_card_file import PIPELINE_TAG, card_problems, make_card, read_metadata
from microemo.tests.hub_card_rules import card_errors

LICENSE = "apache-2.0"
BASE = "lab/microemo-tiny"
SECTIONS = (
    "How to use it",
    "Intended use",
    "Limits",
    "Training",
    "Evaluation",
    "Licences and attributions",
    "Citation",
)
# What `microemo evaluate score --json` prints, shortened.
SCORES = {
    "file": "answers.jsonl",
    "references": "check-openset.csv",
    "n": 332,
    "scores": {"S/precision": [0.5, 0.45, 0.5512], "EW/f": [0.4321, 0.4, 0.46], "labels": [3.0, 2.5, 3.25]},
    "notes": {"differs": ["The wheels are others than the published ones."]},
}


def make(folder, **options) -> str:
    return make_card(read_folder(folder), "ada/tiny", **{"license": LICENSE, **options})


def write_scores(path, **changes):
    path.write_text(json.dumps(SCORES | changes) + "\n")
    return path


def part(card: str, name: str) -> str:
    return card.partition(f"<!-- microemo:begin {name} ")[2].partition(f"<!-- microemo:end {name} -->")[0]


@pytest.mark.parametrize("kind", ["published_model", "published_adapter"])
def test_a_card_has_every_section_and_metadata_that_the_hub_takes(request, kind, tmp_path):
    is_adapter = kind == "published_adapter"
    scores = write_scores(tmp_path / "scores.jsonl")
    card = make(request.getfixturevalue(kind), base_model=BASE, evaluations=[scores])
    assert card_problems(card, is_adapter) == [] and card_errors(card) == []
    assert all(f"\n## {section}\n" in card for section in SECTIONS)
    for words in (
        "Article 5(1)(f)",
        "Article 50(3)",
        "2 August\n2026",
        "| provider |",
        "| deployer |",
        "| researcher |",
    ):
        assert words in card
    metadata = ModelCard(card).data
    assert metadata.library_name == ("peft" if is_adapter else "transformers")
    assert metadata.base_model == BASE and metadata.pipeline_tag == PIPELINE_TAG
    assert "{{" not in card and "{%" not in card and "None" not in card
    assert str(request.getfixturevalue(kind)) not in card


def test_the_pipeline_tag_is_a_task_of_transformers():
    assert PIPELINE_TAG in SUPPORTED_TASKS


def test_scores_stand_in_the_table_with_their_intervals_and_in_the_metadata(published_model, tmp_path):
    card = make(published_model, evaluations=[write_scores(tmp_path / "scores.jsonl")])
    table = part(card, "evaluation")
    assert "| check-openset | 332 | Accuracy_S | 50.00 | 45.00 to 55.12 |" in table
    assert "| check-openset | 332 | labels per answer | 3.00 | 2.50 to 3.25 |" in table
    assert "- The wheels are others than the published ones." in table
    results = {result.metric_name: result for result in ModelCard(card).data.eval_results}
    assert set(results) == {"Accuracy_S", "EW"}
    assert results["EW"].metric_value == 43.21 and results["EW"].dataset_name == "check-openset"
    assert results["EW"].metric_args == {"confidence_interval_95": [40.0, 46.0]}


def test_the_scores_of_the_evaluation_room_are_read(published_model, tmp_path):
    truth = Answers("truth", "labels", {"a": ["happy"], "b": ["sad"]})
    answers = Answers("answers", "labels", {"a": ["happy"], "b": ["angry"]})
    wheels = EmotionWheels.default()
    sheet = score_answers(truth, answers, WheelGrouper(wheels), wheels=wheels)
    scores = {name: [e.value, e.low, e.high] for name, e in bootstrap(sheet, 20).items()}
    card = make(published_model, evaluations=[write_scores(tmp_path / "scores.json", scores=scores, n=2, notes={})])
    assert "| check-openset | 2 | Accuracy_S | 50.00 |" in card
    assert {r.metric_name for r in ModelCard(card).data.eval_results} == {
        "Accuracy_S",
        "Recall_S",
        "Avg",
        "F_S",
        "M-avg",
        "EW",
    }


def test_what_is_unknown_is_said_to_be_unknown(published_model):
    card = make(published_model, license=None)
    assert "model-index" not in card and "base_model" not in card and "datasets" not in card
    assert "The weights: not stated." in card
    assert "| base model | not stated |" in part(card, "summary")
    for label in ("training data", "licence and consent of the data", "duration", "hardware", "seed"):
        assert f"| {label} | not stated |" in part(card, "training")
    assert "Not stated: this model has not been evaluated" in part(card, "evaluation")
    assert card_problems(card, False) == [
        "the licence is not stated; pass --license, such as apache-2.0, or write it to README.md"
    ]


def test_a_run_and_a_conversion_fill_the_card(checkpoint):
    run = {
        "base model": BASE,
        "training data": "a|b.jsonl,\n4 rows",
        "training data set": "lab/clips",
        "hardware": "1 x H100",
    }
    (checkpoint / "training_run.json").write_text(json.dumps(run))
    report = {
        "sources": [
            {"file": "imagebind_huge.pth", "holds": ["ImageBind audio tower"]},
            {"file": "new.pth", "holds": []},
        ]
    }
    (checkpoint / "conversion_report.json").write_text(json.dumps(report))
    card = make(checkpoint)
    assert r"| training data | a\|b.jsonl, 4 rows |" in card and "| hardware | 1 x H100 |" in card
    assert "| seed | not stated |" in card
    assert read_metadata(card)["base_model"] == BASE and read_metadata(card)["datasets"] == ["lab/clips"]
    assert (
        "| imagebind_huge.pth: ImageBind (Girdhar et al., arXiv 2305.05665) | ImageBind audio tower | CC-BY-NC 4.0 |"
        in card
    )
    assert "| new.pth | not stated | not stated |" in card


def test_a_base_that_only_this_machine_has_is_not_named(checkpoint, published_model):
    (checkpoint / "training_run.json").write_text(json.dumps({"base model": str(published_model)}))
    assert "base_model" not in make(checkpoint)


# --- cards that are there ------------------------------------------------------------------------------------------


def test_the_cards_of_peft_and_of_the_trainer_are_replaced(adapter):
    peft = (adapter / "README.md").read_text()
    assert "[More Information Needed]" in peft
    card = make(adapter, base_model=BASE)
    assert "[More Information Needed]" not in card and "base_model:adapter:" not in card
    (adapter / "README.md").write_text(
        "<!-- This model card has been generated automatically according to the information the Trainer had access to. -->\n# x"
    )
    assert make(adapter, base_model=BASE) == card


def test_a_card_of_peft_that_somebody_completed_stays(adapter):
    path = adapter / "README.md"
    text = path.read_text().replace("[More Information Needed]", "Ada, in a rainy spring.", 1)
    path.write_text(text)
    assert "Ada, in a rainy spring." in make(adapter, base_model=BASE)


def test_a_card_that_somebody_wrote_keeps_every_byte(checkpoint):
    text = "---\nlicense: mit  # agreed with the lab\ntags: [ours]\n\n# a comment\nlanguage: en\n---\n\n# Ours\r\n\nText.  \n"
    (checkpoint / "README.md").write_bytes(text.encode())
    card = make(checkpoint, license=None)
    added = "library_name: transformers\npipeline_tag: image-text-to-text\n"
    assert card == text.replace("language: en\n", "language: en\n" + added)
    (checkpoint / "README.md").write_bytes(card.encode())
    assert make(checkpoint, license=None) == card
    (checkpoint / "README.md").write_text("Ours, without metadata.\n")
    card = make(checkpoint)
    assert card.endswith("---\n\nOurs, without metadata.\n") and card_problems(card, False) == []


def test_only_marked_parts_of_an_edited_card_change(checkpoint, tmp_path):
    path = checkpoint / "README.md"
    path.write_text(make(checkpoint))
    begin = next(line for line in path.read_text().splitlines() if line.startswith("<!-- microemo:begin limits "))
    edited = (
        path.read_text()
        .replace("# tiny\n", "# Our model\n\nWritten by hand.\n")
        .replace(begin, "Our own limits:")
        .replace("<!-- microemo:end limits -->", "")
        .replace("tags:\n", "tags:\n- ours\n")
        .replace("| seed | not stated |", "| seed | 7, by hand |")
    )
    path.write_text(edited)
    (checkpoint / "training_run.json").write_text(json.dumps({"steps": 12}))
    card = make(checkpoint, evaluations=[write_scores(tmp_path / "scores.jsonl")])
    assert "# Our model\n\nWritten by hand.\n" in card and "Our own limits:" in card
    assert read_metadata(card)["tags"][0] == "ours"
    assert "| steps | 12 |" in card and "7, by hand" not in card  # within a marked part
    assert "| check-openset | 332 | EW |" in card and len(ModelCard(card).data.eval_results) == 2
    assert card_problems(card, False) == []
    path.write_text(card)
    assert make(checkpoint, evaluations=[tmp_path / "scores.jsonl"]) == card


def test_new_results_take_the_place_of_old_ones_and_others_stay(checkpoint, tmp_path):
    path = checkpoint / "README.md"
    path.write_text(make(checkpoint, evaluations=[write_scores(tmp_path / "scores.jsonl")]))
    metadata = read_metadata(path.read_text())
    theirs = {
        "task": {"type": "other"},
        "dataset": {"type": "x", "name": "X"},
        "metrics": [{"type": "f1", "value": 1}],
    }
    metadata["model-index"][0]["results"].append(theirs)
    path.write_text(f"---\n{yaml.safe_dump(metadata)}---\n\n# Ours\n")
    scores = {"EW/f": [0.5, 0.4, 0.6]}
    card = make(checkpoint, evaluations=[write_scores(tmp_path / "scores.jsonl", scores=scores)])
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in ModelCard(card).data.eval_results}
    assert results == {("check-openset", "accuracy-s"): 50.0, ("check-openset", "ew"): 50.0, ("X", "f1"): 1}
    assert card.count("model-index:") == 1 and card.endswith("---\n\n# Ours\n")


# --- what is wrong with a card -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: Apache 2.0", "'Apache 2.0' is no name that the Hub knows"),
        ("license: other", "needs license_name and license_link"),
        ("license: mit\nbase_model: /home/ada/base", "'/home/ada/base' is not the id of a model"),
        ("license: mit\nbase_model: [lab/x, ./y]", "'./y' is not the id of a model"),
        ("license: mit\ndatasets: [/var/data/clips/]", "'/var/data/clips/' is not the id of a data set"),
        ("license: mit\ndatasets:\n- null", "None is not the id of a data set"),
        ("license: [mit", "the metadata cannot be read"),
        ("- license", "the metadata cannot be read"),
        ("license: mit\nmodel-index: [{name: x}]", "the metadata cannot be read"),
        ("license: mit", "pipeline_tag is missing"),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_named(metadata, message):
    problems = card_problems(f"---\n{metadata}\n---\n# x\n", is_adapter=False)
    assert any(message in problem for problem in problems), problems


def test_the_card_of_an_adapter_names_its_base():
    card = f"---\nlicense: mit\nlibrary_name: peft\npipeline_tag: {PIPELINE_TAG}\n---\n"
    assert card_problems(card, is_adapter=True) == ["README.md: base_model is missing"]


def test_a_mark_without_its_end_is_named():
    card = (
        "---\nlicense: mit\nlibrary_name: peft\npipeline_tag: image-text-to-text\n---\n<!-- microemo:begin use x -->\n"
    )
    assert "does not end" in card_problems(card, False)[0]


@pytest.mark.parametrize("content", ["{}", '{"scores": [1], "n": 2}', "no json"])
def test_a_file_that_is_no_evaluation_is_refused(published_model, tmp_path, content):
    (tmp_path / "scores.jsonl").write_text(content + "\n")
    with pytest.raises(ValueError, match=r"scores\.jsonl"):
        make(published_model, evaluations=[tmp_path / "scores.jsonl"])
