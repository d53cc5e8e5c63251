"""The schema of an analysis has what the data classes have, and accepts what they write."""

import dataclasses
import json

import jsonschema
import pytest

from microemo.inference.emotion_analysis import (
    SCHEMA,
    Claim,
    EmotionAnalysis,
    Evidence,
    FrameFacts,
    LabelScore,
    UtteranceAnalysis,
)
from microemo.tests.inference.formats.analyses import ANALYSES, usual

CLASSES = {
    None: EmotionAnalysis,
    "label": LabelScore,
    "utterance": UtteranceAnalysis,
    "evidence": Evidence,
    "claim": Claim,
    "frame": FrameFacts,
}


@pytest.fixture(scope="module")
def schema() -> dict:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_described_and_required_and_no_other_is_allowed(name, schema):
    part = schema if name is None else schema["$defs"][name]
    fields = [field.name for field in dataclasses.fields(CLASSES[name])]
    assert list(part["properties"]) == part["required"] == fields
    assert part["additionalProperties"] is False
    assert all(entry["description"].endswith(".") for entry in part["properties"].values())
    assert schema["$defs"].keys() == CLASSES.keys() - {None}


@pytest.mark.parametrize("which", ANALYSES)
def test_what_is_written_is_valid(which, schema):
    if which == "odd":  # half a surrogate pair, which JSON cannot hold
        return
    jsonschema.validate(json.loads(ANALYSES[which]().to_json()), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("mood",), "fine"),
        (("duration",), -1),
        (("size",), [320]),
        (("utterances", 0, "number"), 0),
        (("utterances", 0, "speaker"), 3),
        (("utterances", 0, "labels", 0, "score"), 1.5),
        (("utterances", 0, "evidence", 0, "kind"), "smell"),
        (("utterances", 0, "voice", "pitch"), None),
        (("utterances", 0, "claims", 0, "supported"), "yes"),
        (("frames", 0, "faces"), -1),
    ],
)
def test_what_cannot_be_is_refused(place, value, schema):
    entry = written = usual().to_dict()
    for step in place[:-1]:
        entry = entry[step]
    entry[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, schema, cls=jsonschema.Draft202012Validator)
