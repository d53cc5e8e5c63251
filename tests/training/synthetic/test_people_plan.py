"""Plans of dialogues of people: what is independent, what is rare, and what never happens."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from microemo.training.synthetic.dialogue_plan import CLUES
from microemo.training.synthetic.face_acting import ACTIONS
from microemo.training.synthetic.people_plan import _HELD, CONDITIONS, UNSEEN_COMPANY, plan_people
from microemo.training.synthetic.photographs import Person
from microemo.training.synthetic.recordings import HEARD, Recording

PEOPLE = [
    Person(f"person-{number}", Path("a.png"), Path("b.png") if number % 2 else None, gender)
    for number, gender in enumerate(("female", "male", "female", "male", None))
]
RECORDINGS = [
    Recording(
        Path("x.wav"), f"voice-{number}", "train", heard, "made", gender, "Some words.", "en", 0.9, 0.9 + seconds
    )
    for number, gender in enumerate(("female", "male", "female", "male"))
    for heard in (HEARD if number < 2 else HEARD[:4])
    for seconds in (1.1, 1.9)
]
NAMES = list(ACTIONS)


@pytest.fixture(scope="module")
def plans():
    return [
        plan_people(0, split, index, PEOPLE, RECORDINGS) for split in ("train", "dev", "test") for index in range(250)
    ]


def said(plans):
    return [one for plan in plans for one in plan.utterances]


def is_held(one):
    return one.expression is not None and one.expression.onset < one.start


def test_the_same_arguments_give_the_same_clip(plans):
    assert plans[7] == plan_people(0, "train", 7, PEOPLE, RECORDINGS) != plan_people(1, "train", 7, PEOPLE, RECORDINGS)
    starts = Counter((*((one.start, one.end) for one in plan.utterances), plan.seconds) for plan in plans)
    assert max(starts.values()) == 1 and len({plan.name for plan in plans}) == len(plans)
    with pytest.raises(ValueError, match="split must be one of train, dev, test, got 'valid'"):
        plan_people(0, "valid", 0, PEOPLE, RECORDINGS)
    for people, recordings, missing in (([], RECORDINGS, "people"), (PEOPLE, [], "recordings")):
        with pytest.raises(ValueError, match=f"no {missing} to make dialogues of"):
            plan_people(0, "train", 0, people, recordings)


def test_time(plans):
    counts = Counter(len(plan.utterances) for plan in plans)
    assert set(counts) >= {1, 2, 3, 4, 5, 6} and max(counts) == 12
    seconds = [plan.seconds for plan in plans]
    assert min(seconds) == 1 and 30 < max(seconds) <= 60 and 4 < np.median(seconds) < 12
    for plan in plans:
        assert all(side % 2 == 0 and side >= 96 for side in plan.size) and 5 <= plan.fps <= 30
        assert all(before.end <= after.start for before, after in pairwise(plan.utterances))
        assert plan.utterances[0].start > 0 and plan.utterances[-1].end < plan.seconds
        for one in plan.utterances:
            assert one.parts[0][0] == one.start
            last, recording = one.parts[-1]
            assert one.end == pytest.approx(last + recording.end - recording.start, abs=2e-3)
            assert all(a + rec.end - rec.start <= b for (a, rec), (b, _) in pairwise(one.parts))
            if one.expression:
                assert one.expression.onset < one.expression.apex <= one.expression.decline < one.expression.end
                assert is_held(one) or (one.start <= one.expression.onset and one.expression.end <= one.end)


def test_some_expressions_are_held_over_the_utterance(plans):
    acted = [one for one in said(plans) if one.expression]
    assert np.mean([is_held(one) for one in acted]) == pytest.approx(_HELD, abs=0.05)
    for one in filter(is_held, acted):
        assert one.expression.apex < one.start < one.end < one.expression.decline


def test_no_two_expressions_of_a_person_are_there_at_once(plans):
    for plan in plans:
        for person, acting in enumerate(plan.acting):
            spoken = [one.expression for one in plan.utterances if one.person == person and one.expression]
            stretches = sorted((one.onset, one.end) for one in [*spoken, *(one for one, _ in acting.distractors)])
            assert all(end <= start for (_, end), (start, _) in pairwise(stretches))
    assert any(plan.acting[0].distractors and any(map(is_held, plan.utterances)) for plan in plans)


def test_a_held_expression_of_who_speaks_once_is_there_from_the_first_frame_to_the_last(plans):
    alone = [plan for plan in plans if len(plan.utterances) == 1 and is_held(plan.utterances[0])]
    assert any(plan.seconds == 1 for plan in alone) and len(alone) > 20
    for plan in alone:
        expression = plan.utterances[0].expression
        assert np.allclose(expression.amplitudes(np.array([0, plan.seconds])), expression.strength)


def test_the_clue_is_independent_of_the_voice(plans):
    """But for the pairs that are kept for the test, every clue is as common with each emotion as with all."""
    spoken = [one for one in said(plans) if (one.clue, one.heard) not in UNSEEN_COMPANY]
    table = np.zeros((len(CLUES), len(HEARD)))
    for one in spoken:
        table[list(CLUES).index(one.clue), HEARD.index(one.heard)] += 1
    allowed = np.array([[(clue, heard) not in UNSEEN_COMPANY for heard in HEARD] for clue in CLUES])
    assert (table[allowed] > 0).all() and not table[~allowed].any()
    expected = np.where(allowed, table.sum(0) / allowed.sum(0), 0)
    freedom = allowed.sum() - len(HEARD)
    # Some pairs stay for several utterances, which doubles the variance at most.
    assert ((table - expected)[allowed] ** 2 / expected[allowed]).sum() < 2 * (freedom + 4 * (2 * freedom) ** 0.5)


def test_unseen_pairs_are_in_the_marked_rows_of_the_test_only(plans):
    for plan in plans:
        has_unseen = any((one.clue, one.heard) in UNSEEN_COMPANY for one in plan.utterances)
        assert has_unseen == (plan.split == "test_unseen") and (not has_unseen or plan.index % 3 == 2)
    assert sum(plan.split == "test_unseen" for plan in plans) > 40


def test_an_utterance_has_one_voice_of_the_persons_gender(plans):
    gender = {person.id: person.gender for person in PEOPLE}
    for plan in plans:
        voices = {}
        for one in plan.utterances:
            assert len({(rec.speaker, rec.emotion) for _, rec in one.parts}) == 1
            person, recording = plan.people[one.person], one.parts[0][1]
            assert voices.setdefault(person, recording.speaker) == recording.speaker
            assert gender[person] in (None, recording.gender)
        assert len(set(voices.values())) == len(voices) == len(plan.people) <= 2
        assert plan.people[plan.utterances[0].person] == plan.people[0] and plan.bystander not in plan.people
    assert 0.25 < np.mean([len(plan.people) == 2 for plan in plans]) < 0.5
    assert {len(one.parts) for one in said(plans)} >= {1, 2}


def test_the_speaker_is_in_shot(plans):
    for plan in plans:
        in_shot = plan.in_shot
        for one in plan.utterances:
            here = (plan.times >= one.start) & (plan.times < one.end)
            assert (in_shot[here] == one.person).all()


def test_real_smiles_belong_to_those_who_have_one(plans):
    smiles = [
        (one.real_smile, plan.people[one.person]) for plan in plans for one in plan.utterances if one.clue == "smile"
    ]
    owners = {person.id for person in PEOPLE if person.smiling}
    assert not any(real for real, person in smiles if person not in owners)
    assert 0.35 < np.mean([real for real, person in smiles if person in owners]) < 0.65
    assert not any(one.real_smile for one in said(plans) if one.clue != "smile")


def test_conditions(plans):
    count = Counter(name for plan in plans for name in plan.conditions)
    assert count.keys() == {name for group in CONDITIONS.values() for name in group}
    for plan in plans:
        for group in CONDITIONS.values():
            assert len(set(group) & set(plan.conditions)) <= 1
        seen = [one.seen for one in plan.utterances]
        if "no_face" in plan.conditions:
            assert not any(seen) and plan.hidden.all()
        elif {"covered", "out_of_frame"} & set(plan.conditions):
            assert not all(seen) and plan.hidden.any() and not plan.hidden.all()
        else:
            assert all(seen) and not plan.hidden.any()
        if "no_speech" in plan.conditions:
            assert "no_subtitles" in plan.conditions
        assert (plan.bystander is not None) == ("second_face" in plan.conditions)


def test_amplitudes(plans):
    for plan in plans[:60]:
        opening = np.zeros(len(plan.times))
        for person in range(len(plan.people)):
            values, real = plan.amplitudes(person, opening)
            values = values - plan.acting[person].habit
            assert values.shape == (len(plan.times), len(ACTIONS)) and not values[:, NAMES.index("jaw")].any()
            for one in plan.utterances:
                here = (plan.times >= one.start) & (plan.times < one.end)
                mimic = values[here][:, [NAMES.index(clue) for clue in CLUES if clue != "neutral"]]
                if one.person != person:
                    continue
                if one.expression is None:
                    assert np.abs(mimic).max(initial=0) < 1e-9
                    continue
                full = (plan.times[here] >= one.expression.apex) & (plan.times[here] <= one.expression.decline)
                assert np.allclose(mimic[full].sum(1), one.expression.strength)
                assert np.allclose(real[here][full], one.expression.strength if one.real_smile else 0)
    pressed = next(plan for plan in plans if plan.utterances[0].clue == "lip_press" and plan.utterances[0].person == 0)
    values, _ = pressed.amplitudes(0, np.ones(len(pressed.times)))
    jaw = values[:, NAMES.index("jaw")]
    assert jaw.min() < 0.5 * jaw.max(), "lips that are pressed together open less"
