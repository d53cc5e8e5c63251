"""Dialogues of people as files: what is seen and heard where the truth says so, and what is not there."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest

from microemo.processing.faces.face_mesh import FaceMesh
from microemo.processing.media import load_audio, probe
from microemo.processing.utterances import read_utterances
from microemo.training.data import load_table
from microemo.training.data_checks import check_table
from microemo.training.synthetic import people_dialogues as module
from microemo.training.synthetic.corpus_files import TABLE, TRUTH, read_list
from microemo.training.synthetic.people_dialogues import LICENSES, list_people, write_people, write_people_dialogue
from microemo.training.synthetic.people_plan import plan_people
from microemo.training.synthetic.people_scenes import load_sitter
from microemo.training.synthetic.people_sounds import people_sound, people_voices
from microemo.training.synthetic.photographs import read_photographs
from microemo.training.synthetic.recordings import read_recordings

CLIPS = 3


@pytest.fixture(scope="module")
def material(people_folder):
    """The people of the test split by name, and their recordings."""
    return {one.id: one for one in read_photographs(people_folder, "test")}, read_recordings(people_folder, "test")


@pytest.fixture(scope="module")
def sitters(material):
    return {name: load_sitter(person) for name, person in material[0].items()}


@pytest.fixture(scope="module")
def plan(material):
    """A short dialogue of two people, as small as it gets, in which nothing is peculiar."""
    people, recordings = material
    plans = (plan_people(0, "test", index, list(people.values()), recordings) for index in range(200))
    found = next(plan for plan in plans if len(plan.people) == 2 and len(plan.utterances) == 2 and plan.seconds < 5)
    utterances = tuple(replace(one, seen=True) for one in found.utterances)
    return replace(found, size=(128, 96), fps=8, conditions=(), bystander=None, utterances=utterances)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, people_folder):
    folder = tmp_path_factory.mktemp("dialogues")
    path = write_people(folder, CLIPS, people_folder, people_folder, seed=3, split="dev", progress=False)
    assert path == folder / TABLE
    return folder


def make(tmp_path, plan, sitters, *conditions, hidden=()):
    """The clip and the truth of a plan that has been made peculiar."""
    utterances = tuple(replace(one, seen=index not in hidden) for index, one in enumerate(plan.utterances))
    plan = replace(plan, conditions=conditions, utterances=utterances)
    return tmp_path / f"{plan.name}.mp4", write_people_dialogue(tmp_path, plan, sitters)


def frames_of(clip):
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def has_face(frames):
    mesh = FaceMesh()
    return np.array([len(mesh.landmarks(np.kron(frame, np.ones((2, 2, 1), np.uint8)))) > 0 for frame in frames])


# --- one clip ------------------------------------------------------------------------------------------------------


def test_faces_voices_and_words_are_where_the_truth_says(tmp_path, plan, sitters):
    clip, truth = make(tmp_path, plan, sitters)
    np.testing.assert_allclose(probe(clip).frame_times, truth["times"], atol=1e-3)
    assert (truth["has_face"], truth["has_sound"], truth["has_words"]) == (True, True, True)
    assert has_face(frames_of(clip)).mean() > 0.9
    assert [(one.start, one.end, one.text) for one in read_utterances(clip.with_suffix(".srt"))] == [
        (one["start"], one["end"], one["text"]) for one in truth["utterances"]
    ]
    track = load_audio(clip)
    power = np.square(track.samples.mean(0))
    spoken = np.zeros(len(power), bool)
    for one in truth["utterances"]:
        spoken[round(one["start"] * track.rate) : round(one["end"] * track.rate)] = True
    assert power[spoken].mean() > 100 * power[: round(0.7 * truth["utterances"][0]["start"] * track.rate)].mean()
    for said, one in zip(truth["utterances"], plan.utterances, strict=True):
        assert said["person"] == plan.people[one.person] and said["speaker"].split("-")[-1] in said["person"]
        assert said["files"] == [recording.path.name for _, recording in one.parts]
        shown = {truth["shown"][frame] for frame, time in enumerate(truth["times"]) if one.start <= time < one.end}
        assert shown == {one.person}


def test_the_mouth_follows_the_voice(plan, sitters, tmp_path):
    _, truth = make(tmp_path, plan, sitters)
    voices = np.abs(people_voices(plan)).sum(0)
    jaw = np.array(truth["amplitudes"]["jaw"])
    loud = np.array(
        [voices[max(0, round((t - 0.05) * 16000)) : round((t + 0.05) * 16000)].mean() for t in truth["times"]]
    )
    assert np.corrcoef(jaw, loud)[0, 1] > 0.6 and jaw[loud < 1e-4].max() < 0.1


def test_a_hidden_face(tmp_path, plan, sitters):
    for condition in ("covered", "out_of_frame"):
        clip, truth = make(tmp_path, plan, sitters, condition, hidden=[1])
        assert [one["seen"] for one in truth["utterances"]] == [True, False] and truth["has_face"]
        seen, shown = has_face(frames_of(clip)), np.array([person is not None for person in truth["shown"]])
        assert seen[~shown].mean() < 0.1, condition
        first = plan.utterances[0]
        spoken = (plan.times >= first.start) & (plan.times < first.end - 0.25)
        assert seen[spoken].mean() > 0.8 and shown[spoken].all()


def test_no_face_at_all(tmp_path, plan):
    clip, truth = make(tmp_path, plan, {}, "no_face", hidden=[0, 1])
    assert (truth["has_face"], truth["people"]) == (False, []) and set(truth["shown"]) == {None}
    frames = frames_of(clip)
    assert not has_face(frames).any() and len(frames) == len(truth["times"])


def test_a_second_face_is_smaller(tmp_path, material, sitters, plan):
    alone = replace(
        plan, people=plan.people[:1], bystander=plan.people[1], shots=((0.0, 0),),
        utterances=tuple(replace(one, person=0) for one in plan.utterances), size=(256, 192),
    )  # fmt: skip
    clip, truth = make(tmp_path, alone, sitters, "second_face", "background")
    assert truth["people"] == list(plan.people) and set(truth["shown"]) == {0}
    mesh = FaceMesh()
    widths = [sorted(np.ptp(face[:, 0]) for face in mesh.landmarks(frame)) for frame in frames_of(clip)[::6]]
    assert all(width[-1] > 0.15 for width in widths) and max(map(len, widths)) == 2
    assert all(width[0] < 0.7 * width[-1] for width in widths if len(width) > 1)


def test_no_voice(tmp_path, plan, sitters):
    clip, truth = make(tmp_path, plan, sitters, "no_sound")
    assert load_audio(clip) is None and not truth["has_sound"] and max(truth["amplitudes"]["jaw"]) > 0.2
    clip, truth = make(tmp_path, plan, sitters, "silent")
    assert np.abs(load_audio(clip).samples).max() < 1e-3 and not truth["has_sound"]
    clip, truth = make(tmp_path, plan, sitters, "no_speech", "music", "no_subtitles")
    assert np.abs(load_audio(clip).samples).max() > 1e-3 and not truth["has_sound"]
    assert max(truth["amplitudes"]["jaw"]) == 0, "the mouth stays shut"
    assert not clip.with_suffix(".srt").exists(), "that of the clip before is gone"


def test_noise_and_music_lie_below_the_voice(tmp_path, plan, sitters):
    plain = load_audio(make(tmp_path, plan, sitters)[0]).samples[0]
    before = slice(0, round(0.8 * plan.utterances[0].start * 16000))
    for condition in ("noise", "music"):
        loud = load_audio(make(tmp_path, plan, sitters, condition)[0]).samples[0]
        assert np.square(plain).mean() > np.square(loud[before]).mean() > 10 * np.square(plain[before]).mean()


def test_the_softest_utterance_is_heard(plan):
    """A whisper after a shout stays above the floor and the noise."""
    first, last = (
        slice(round(one.start * 16000), round(one.end * 16000)) for one in (plan.utterances[0], plan.utterances[1])
    )
    voices = people_voices(plan) * 1.0
    voices[:, last] *= 0.003
    for conditions in ((), ("noise",), ("music",)):
        noisy = replace(plan, conditions=conditions)
        for seed in range(4):
            sound = people_sound(noisy, voices, np.random.default_rng(seed))
            start = round(plan.utterances[0].start * 16000)
            least = 20 if not conditions else 1.2
            assert np.square(sound[last]).mean() > least * np.square(sound[: round(0.8 * start)]).mean()
            assert np.square(sound[first]).mean() > np.square(sound[last]).mean() and np.abs(sound).max() > 0.09


def test_poor_pictures(tmp_path, plan, sitters):
    good = np.stack(frames_of(make(tmp_path, plan, sitters)[0])).astype(float)
    looks = {}
    for condition in ("grey", "dark", "blur", "grain", "compressed"):
        clip, truth = make(tmp_path, plan, sitters, condition)
        assert truth["conditions"] == [condition]
        looks[condition] = np.stack(frames_of(clip)).astype(float)
    assert np.ptp(looks["grey"], axis=-1).mean() < 3 < np.ptp(good, axis=-1).mean()
    assert looks["dark"].mean() < 0.7 * good.mean()
    sharp = {name: np.abs(np.diff(look, axis=2)).mean() for name, look in looks.items()}
    assert sharp["blur"] < 0.9 * np.abs(np.diff(good, axis=2)).mean() < sharp["grain"]
    assert sharp["compressed"] < np.abs(np.diff(good, axis=2)).mean()


# --- a corpus ------------------------------------------------------------------------------------------------------


def test_lists_and_files(folder):
    truth, rows = read_list(folder / TRUTH), read_list(folder / TABLE)
    assert list(truth) == list(rows) == [f"people-dev-3-{index:05d}" for index in range(CLIPS)]
    for name, row in rows.items():
        assert (folder / row["video"]).is_file() and ("subtitles" in row) == truth[name]["has_words"]
        assert (folder / f"{name}.srt").is_file() == truth[name]["has_words"]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * len(truth[name]["turns"])
        assert len({len(values) for values in truth[name]["amplitudes"].values()} | {len(truth[name]["times"])}) == 1
    table = load_table(folder / TABLE, split="dev")
    assert len(check_table(table)) == CLIPS


def test_licenses_name_everybody_and_keep_the_terms(folder):
    text, truths = (folder / LICENSES).read_text(), read_list(folder / TRUTH).values()
    assert "CC BY 4.0" in text and "README.md" in text
    for truth in truths:
        assert all(name in text for name in truth["people"])
        assert not truth["has_sound"] or all(one["speaker"] in text for one in truth["utterances"])
    assert "train-female" not in text and "test-male" not in text


def test_what_is_finished_is_kept(folder, people_folder):
    def again(num_workers=1):
        write_people(folder, CLIPS, people_folder, people_folder, 3, "dev", num_workers, progress=False)
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}

    lists = {name: (folder / name).read_text() for name in (TABLE, TRUTH, LICENSES)}
    before, (missing, damaged, kept) = again(), sorted(folder.glob("*.mp4"))
    whole = missing.read_bytes(), damaged.read_bytes()
    missing.unlink()
    damaged.write_bytes(b"cut off")
    rows = [json.loads(line) for line in (folder / TRUTH).read_text().splitlines()]
    (folder / TRUTH).write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))  # a run that was interrupted
    after = again()
    assert (missing.read_bytes(), damaged.read_bytes()) == whole and after[kept.name] == before[kept.name]
    assert {name: (folder / name).read_text() for name in lists} == lists and not list(folder.glob("*.part*"))


def test_other_questions_need_no_other_clips(folder, monkeypatch):
    before, table = {path: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}, (folder / TABLE).read_text()
    turn = (
        {"kind": "whole", "emotions": ["joy"]},
        {"role": "user", "content": []},
        {"role": "assistant", "content": []},
    )
    monkeypatch.setattr(module, "people_turns", lambda truth, rng, given=None: [turn])
    list_people(folder)
    assert all(row["emotions"] == ["joy"] and len(row["messages"]) == 2 for row in read_list(folder / TABLE).values())
    assert all(truth["turns"] == [turn[0]] for truth in read_list(folder / TRUTH).values())
    monkeypatch.undo()
    list_people(folder)
    assert (folder / TABLE).read_text() == table
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.mp4")} == before


def test_bad_options(tmp_path, people_folder):
    for options, message in (
        ({"clips": 0}, "clips must be at least 1, got 0"),
        ({"clips": 1, "num_workers": 0}, "num_workers must be at least 1, got 0"),
        ({"clips": 1, "seed": -1}, "seed must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            write_people(tmp_path / "out", photographs=people_folder, recordings=people_folder, **options)
    with pytest.raises(ValueError, match="valid"):
        write_people(tmp_path / "out", 1, people_folder, people_folder, split="valid")
    assert not (tmp_path / "out").exists()
