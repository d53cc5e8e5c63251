"""How often evidence is right where the truth is known: on dialogues of people that act, and that no training has seen.

python benchmarks/evidence.py CORPUS --split dev
python benchmarks/evidence.py CORPUS --output answers.jsonl

CORPUS is a folder of `microemo synthesize --photographs --recordings`. Of each utterance of its clips that shows a face and has
sound and words, the model's own answer is checked, and once more with a claim that is made false: another facial clue, or
another voice. The same questions are asked without picture, sound or words, which tells what each sense gives. Figures come with 95 % intervals over clips.
"""

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from microemo.inference.emotion_pipeline import SHIPPED, UTTERANCE_QUESTION, EmotionPipeline
from microemo.inference.evidence import AnswerEvidence, find_evidence
from microemo.inference.held_clip import HeldClip
from microemo.inference.label_scores import labels_said
from microemo.processing.clip_reader import ClipInput
from microemo.training.synthetic.dialogue_plan import CLUES
from microemo.training.synthetic.people_answers import VOICES, felt
from microemo.training.synthetic.synthetic_dialogues import TABLE, read_truth
from microemo.utils.files import read_json_lines

REGION = {"mouth": "mouth", "brows": "brows", "glabella": "brows", "eyes": "eyes"}
MOVING = {name: words for name, (_, words) in CLUES.items() if name != "neutral"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("corpus", type=Path)
    arguments.add_argument("--model", default=str(SHIPPED))
    arguments.add_argument("--split", nargs="+", default=["test", "test_unseen"])
    arguments.add_argument("--clips", type=int, help="The number of clips; by default all.")
    arguments.add_argument("--output", type=Path, help="The file for all records, as JSON lines.")
    options = arguments.parse_args()
    pipeline = EmotionPipeline.from_pretrained(options.model)
    truth = read_truth(options.corpus)
    rows = [row for row in read_json_lines(options.corpus / TABLE) if truth[row["name"]]["split"] in options.split]
    records = []
    for row in tqdm(rows[: options.clips], desc="Clips"):
        facts = truth[row["name"]]
        if facts["has_sound"] and facts["has_words"]:
            records += look_at(pipeline, options.corpus, row, facts)
    if options.output:
        options.output.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    seconds = {name: sum(record["seconds"][name] for record in records) for name in ("answer", "evidence")}
    print(
        f"CPU time of the evidence: {seconds['evidence'] / seconds['answer']:.2f} times that of one answer at a time"
    )
    for name, (value, low, high, count) in score(records).items():
        print(f"{name:<60} {value:5.1f} % ({low:.1f} to {high:.1f}) of {count}")


def look_at(pipeline: EmotionPipeline, corpus: Path, row: dict, facts: dict) -> list[dict]:
    clip = ClipInput(str(corpus / row["video"]), utterances=str(corpus / row["subtitles"]))
    held = HeldClip(pipeline.model, pipeline.processor, clip)
    if len(held.utterances) != len(facts["utterances"]):
        return []
    questions = [
        [{"type": "text", "text": f"{UTTERANCE_QUESTION}\n"}, {"type": "utterance", "index": number + 1}]
        for number in range(len(held.utterances))
    ]
    answers, costs = [], []
    for question in questions:
        started = time.process_time()
        prompt = held.prompts([(held.given(), question)])
        answers += pipeline.generate_texts(prompt, do_sample=False, max_new_tokens=128)
        costs.append({"answer": time.process_time() - started})
    without = {}
    for name in ("picture", "sound", "words"):
        prompts = held.prompts([(replace(held.given(), **{name: False}), question) for question in questions])
        without[name] = pipeline.generate_texts(prompts, do_sample=False, max_new_tokens=128)
    records = []
    for number, (utterance, question, answer) in enumerate(zip(facts["utterances"], questions, answers, strict=True)):
        started = time.process_time()
        found = evidence(pipeline, held, question, answer, number + 1)
        costs[number]["evidence"] = time.process_time() - started
        record = {"clip": row["name"], "number": number + 1, "utterances": len(questions), "answer": answer}
        record |= {
            "seconds": costs[number],
            "clue": utterance["clue"],
            "heard": utterance["heard"],
            "seen": utterance["seen"],
        }
        record["label"] = felt(utterance["clue"] if utterance["seen"] else None, utterance["heard"])[1][0]
        record["without"] = {name: texts[number] for name, texts in without.items()}
        record |= {"person": utterance["person"], "evidence": [vars(one) for one in found.evidence]}
        record["claims"] = [vars(one) for one in found.claims]
        record["false"] = []
        for text, about in made_false(answer, f"{row['name']}-{number}"):
            claims = evidence(pipeline, held, question, text, number + 1).claims
            record["false"] += [vars(one) for one in claims if one.about == about]
        records.append(record)
    return records


def evidence(
    pipeline: EmotionPipeline, held: HeldClip, question: list[dict], answer: str, number: int
) -> AnswerEvidence:
    return find_evidence(pipeline.model, pipeline.processor, held, question, answer, number, labels_said(answer))


def made_false(answer: str, seed: str) -> list[tuple[str, str]]:
    """The answer with another facial clue, of another part of the face, and with another voice."""
    rng, changed = random.Random(seed), []
    for clue, words in MOVING.items():
        part = REGION[CLUES[clue][0]]
        said = f"{words} ({CLUES[clue][0]})"
        if said in answer:
            other = rng.choice([name for name in MOVING if REGION[CLUES[name][0]] != part])
            false = f"{MOVING[other]} ({CLUES[other][0]})"
            changed.append((answer.replace(said, false), REGION[CLUES[other][0]]))
    for words in VOICES.values():
        said = f"the voice sounds {words}"
        if said in answer:
            other = rng.choice([name for name in VOICES.values() if name != words])
            changed.append((answer.replace(said, f"the voice sounds {other}"), "sound"))
    return changed


def score(records: list[dict]) -> dict[str, tuple[float, float, float, int]]:
    """Percentages with intervals over clips, and how many cases each is of."""
    cases: dict[str, dict[str, list[bool]]] = {}

    def add(name: str, clip: str, is_right: bool) -> None:
        cases.setdefault(name, {}).setdefault(clip, []).append(bool(is_right))

    for record in records:
        clip = record["clip"]
        for name, answer in {"": record["answer"], **record["without"]}.items():
            is_right = labels_said(answer)[:1] == [record["label"]]
            add(f"first label right without the {name}" if name else "first label right", clip, is_right)
        weight = {(one["kind"], one["name"]): one["weight"] for one in record["evidence"]}
        regions = {name: value for (kind, name), value in weight.items() if kind == "region"}
        windows = {name: value for (kind, name), value in weight.items() if kind == "window"}
        if regions and record["clue"] in MOVING and record["seen"]:
            part = REGION[CLUES[record["clue"]][0]]
            is_first = max(regions, key=lambda name: regions[name]) == part
            add("the region of the acted clue ranks first", clip, is_first)
            if MOVING[record["clue"]] in record["answer"]:
                add("the same, of answers that name the clue", clip, is_first)
        if windows:
            first = max(windows, key=lambda name: windows[name])
            add("the asked utterance's window ranks first", clip, first == str(record["number"]))
        if {("modality", "sound"), ("modality", "words")} <= weight.keys():
            add(
                "the sound counts more than the words", clip, weight["modality", "sound"] > weight["modality", "words"]
            )
        for claim in record["false"]:
            kind = "voice" if claim["about"] == "sound" else "facial clue"
            add("a false claim is marked as not supported", clip, not claim["supported"])
            add(f"the same, {kind}", clip, not claim["supported"])
        for claim in record["claims"]:
            is_voice = claim["about"] == "sound"
            said = f"the voice sounds {VOICES[record['heard']]}" if is_voice else MOVING.get(record["clue"], "-")
            if said in claim["text"]:
                add("a right claim is marked as supported", clip, claim["supported"])
            elif claim["about"] in ("sound", *REGION.values()):
                add("a wrong claim of the model itself is marked as not supported", clip, not claim["supported"])
    rng = np.random.default_rng(0)
    scores = {}
    for name, of_clips in cases.items():
        groups = [np.array(values) for values in of_clips.values()]
        drawn = [
            np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))]).mean()
            for _ in range(1000)
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        count = sum(map(len, groups))
        scores[name] = (100 * float(np.concatenate(groups).mean()), 100 * float(low), 100 * float(high), count)
    return scores


if __name__ == "__main__":
    main()
