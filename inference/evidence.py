"""What moved an answer: parts of the input are taken away, and the words of the answer become less probable.

All variants of a question go through the model in one batch, over the features of the towers, which are computed once. What is
taken away:

- a *region* of the face: in every frame of the utterance its patches are as they mostly are in the rest of the clip, so that
  nothing moves there; in a model without face crops they leave the clue regions (paper 3.2);
- the *window* of the utterance or of one beside it: its tokens of frames and of sound hold nothing (paper 3.3);
- a *modality*: the prompt has no frames, no sound, or no words.

The same numbers check what the answer claims ([`find_claims`]).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.faces.face_regions import find_regions
from ..processing.processing_microemo import MicroEmoProcessor
from .emotion_analysis import Claim, Evidence
from .held_clip import Given, HeldClip

# Parts of the face as people name them, and the clue regions that belong to them. The muscle that raises the brows is that of
# the forehead, and those of the lips move the chin; patches of the image encoder often lie in both.
PARTS = {
    "brows": ("brow_right", "brow_left", "glabella", "forehead"),
    "eyes": ("eye_right", "eye_left"),
    "nose": ("nose",),
    "cheeks": ("cheek_right", "cheek_left"),
    "mouth": ("mouth", "chin"),
    "face": ("face",),
}
# What a claim is about, by its words.
_ABOUT = {
    "brows": r"(?:eye)?brows?|frowns?|frowning|foreheads?",
    "eyes": r"eyes?|eyelids?|gaze|stares?|staring|blinks?",
    "nose": r"nose|nostrils?",
    "cheeks": r"cheeks?",
    "mouth": r"mouth|lips?|smil(?:e|es|ing)|grins?|jaws?|chin|teeth",
    "sound": r"voices?|tone|pitch|loud(?:ly|er)?|hear|heard|sounds?|speaks?|speech|laugh(?:s|ing|ter)?|sobs?|sighs?",
    "words": r"words?|says?|said|text|subtitles?|transcript",
    "picture": r"faces?|facial|expressions?|looks?|seen|sees?",
}
_IS_ABOUT = {name: re.compile(rf"\b(?:{pattern})\b", re.I) for name, pattern in _ABOUT.items()}
_END_OF_CLAUSE = re.compile(r"(?<=[.!?;])\s+|,?\s+(?:and|but|while)\s+(?=(?:the|nothing|no|he|she|they)\b)|\n", re.I)
_PLACE = re.compile(r"\s*(?:in|during|at) (?:utterance \d+|the clip|this utterance)\b,?\s*", re.I)
# Of a claim that the model itself would make each word is at least so probable.
LEAST_PROBABLE = 0.1
_FEWEST_AT_REST = 3  # frames outside the utterance that show the face at rest; with fewer all frames do


@dataclass
class AnswerEvidence:
    """What moved one answer.

    Attributes:
        evidence (`list[Evidence]`): The parts of the input, of each kind the weightiest first.
        claims (`list[Claim]`): The statements of the answer, in its order.
    """

    evidence: list[Evidence]
    claims: list[Claim]


@torch.inference_mode()
def find_evidence(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    clip: HeldClip,
    question: list[dict],
    answer: str,
    number: int | None = None,
    emotions: Sequence[str] = (),
) -> AnswerEvidence:
    """Takes parts of a clip away, and measures by how much the words of an answer become less probable.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor.
        clip ([`HeldClip`]): The clip.
        question (`list[dict]`): The items of the question.
        answer (`str`): The answer.
        number (`int`, *optional*): The utterance that the question is about, from 1. By default all of the clip is.
        emotions (`Sequence[str]`, *optional*): The emotion words; with the claims they are the words that count.

    Returns:
        [`AnswerEvidence`]: The weights in nats, and the claims.
    """
    variants = _modalities(clip)
    inputs = clip.prompts([(given, question) for given in variants.values()], [answer] * len(variants))
    is_answer = inputs.pop("assistant_masks").bool()
    # Prompts are padded on the left, so that all answers end at one place; the template writes a new line behind it.
    end = int(is_answer[0].nonzero()[-1]) + 1
    length = int(is_answer[0].sum())
    text = {name: inputs.pop(name)[:, :end] for name in ("input_ids", "attention_mask")}
    names: list[tuple[str, str]] = [("modality", name) for name in variants]
    media, added = _without_parts(dict(inputs), _parts(processor, clip), number)
    names += [("region", name) for name in added]
    encodings = model.model.encode_media(**_moved(media, model))
    rows = {name: list(output.pooler_output) for name, output in encodings.items()}
    count = len(clip.utterances)
    windows = _windows(model, count, number)
    for window in windows:
        for modality in rows:
            rows[modality].append(_without_window(model, modality, rows[modality][0], window, count, number))
    names += [("window", str(window + 1)) for window in windows]

    extra = len(names) - len(variants)
    text = {name: torch.cat([value, value[:1].expand(extra, -1)]) for name, value in text.items()}
    rows = {name: of_rows for name, of_rows in rows.items() if sum(map(len, of_rows))}
    outputs = model(
        **{name: value.to(model.device) for name, value in text.items()},
        mm_encoder_outputs={name: BaseModelOutputWithPooling(pooler_output=value) for name, value in rows.items()},
        logits_to_keep=length + 1,
        use_cache=False,
    )
    targets = text["input_ids"][:, -length:]
    scores = outputs.logits[:, :-1].float().log_softmax(dim=-1).cpu().gather(-1, targets[..., None])[..., 0]
    places = _places(processor, targets[0], answer)
    claims = find_claims(answer)
    counts = np.zeros(length, bool)
    for start, end in [*(claim[:2] for claim in claims), *_occurrences(answer, emotions)]:
        counts |= _inside(places, start, end)
    falls = (scores[:1] - scores).numpy()  # (rows, tokens)
    # Parts of the face are compared by the words about the face: what is said of the voice has another cause.
    of_face = np.zeros(length, bool)
    for start, end, about in claims:
        if about in PARTS or about == "picture":
            of_face |= _inside(places, start, end)
    counted = {"region": of_face if of_face.any() else counts}
    evidence = [
        Evidence(cast(Any, kind), name, float(falls[row, counted.get(kind, counts)].sum()))
        for row, (kind, name) in enumerate(names)
        if row
    ]
    evidence.sort(key=lambda one: (("modality", "region", "window").index(one.kind), -one.weight))
    checked = []
    row_of = {name: row for row, (_, name) in enumerate(names) if row}
    for start, end, about in claims:
        if about not in row_of:
            continue
        inside = _inside(places, start, end)
        weight, least = float(falls[row_of[about], inside].sum()), float(scores[0, inside].min())
        supported = weight > 0 and least > np.log(LEAST_PROBABLE)
        checked.append(Claim(answer[start:end], about, bool(supported), weight))
    return AnswerEvidence(evidence, checked)


def find_claims(answer: str) -> list[tuple[int, int, str]]:
    """Finds the clauses of an answer that are about one part of the input.

    Args:
        answer (`str`): The answer.

    Returns:
        `list[tuple[int, int, str]]`: Of each claim its place in the answer and what it is about: a name of `PARTS`,
        `"picture"`, `"sound"` or `"words"`. A clause about the face and the voice together is none.

    Example:

    ```python
    >>> from microemo.inference.evidence import find_claims

    >>> find_claims("The brows go up, and the voice is lively.")
    [(0, 15, 'brows'), (21, 41, 'sound')]
    ```"""
    claims, start = [], 0
    for match in [*_END_OF_CLAUSE.finditer(answer), None]:
        end = len(answer) if match is None else match.start()
        place = _PLACE.match(answer, start, end)
        begin = place.end() if place else start
        about = [name for name, pattern in _IS_ABOUT.items() if pattern.search(answer, begin, end)]
        regions = [name for name in about if name in PARTS]
        # A clue's region is part of the picture: "the eyes look away" is about the eyes.
        if regions and set(about) <= {*regions, "picture"}:
            about = regions[:1]
        if len(about) == 1 and end > begin:
            claims.append((begin, end, about[0]))
        start = end if match is None else match.end()
    return claims


def _modalities(clip: HeldClip) -> dict[str, Given]:
    """The prompt as it is, and without each modality that can be taken away; something must be left."""
    has = clip.given()
    variants = {"": has}
    if has.picture and has.sound:
        variants |= {"picture": replace(has, picture=False), "sound": replace(has, sound=False)}
    if has.words:
        variants["words"] = replace(has, words=False)
    return variants


def _parts(processor: MicroEmoProcessor, clip: HeldClip) -> dict[str, list[int]]:
    """The rows of the masks of each part of the face, where the model has clue regions."""
    order = list(find_regions(processor.video_processor.clue_regions))
    if not clip.content.has_video:
        return {}
    parts = {name: [order.index(region) for region in regions if region in order] for name, regions in PARTS.items()}
    return {name: rows for name, rows in parts.items() if rows}


def _without_parts(
    media: dict[str, torch.Tensor], parts: dict[str, list[int]], number: int | None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Adds rows to the media in which one part of the face does nothing in the frames of the utterance.

    In face crops, which all show the face at one place, its patches are as they mostly are in the other frames of the clip.
    In whole frames its clue regions cover no patches.
    """
    masks = media.get("region_masks")
    if masks is None:
        return media, []
    inside = torch.ones(masks.shape[1], dtype=torch.bool)
    if number is not None and media["utterance_windows"].shape[1]:
        start, end = media["utterance_windows"][0, number - 1].tolist()
        frame = torch.arange(masks.shape[1])
        inside = (frame >= start) & (frame < end)
    patches = {
        name: masks[0, :, regions].any(dim=1) & inside[:, None] for name, regions in parts.items()
    }  # (T, P) each
    patches = {name: of_part for name, of_part in patches.items() if of_part.any()}
    count = len(patches)
    added = {name: torch.cat([value, value[:1].expand(count, *value.shape[1:])]) for name, value in media.items()}
    if not count:
        return media, []
    if "face_features" not in media:
        added["region_masks"][-count:] &= ~torch.stack(list(patches.values()))[:, :, None]
        return added, list(patches)
    has_face = masks[0].flatten(1).any(dim=1)
    others = has_face & ~inside
    resting = media["face_features"][0, others if int(others.sum()) >= _FEWEST_AT_REST else has_face]
    at_rest = resting.median(dim=0).values[-masks.shape[3] :]
    for row, of_part in enumerate(patches.values()):
        features = added["face_features"][len(media["region_masks"]) + row, :, -masks.shape[3] :]
        features[of_part] = at_rest.expand_as(features)[of_part]
    return added, list(patches)


def _windows(model: MicroEmoForConditionalGeneration, count: int, number: int | None) -> list[int]:
    """The windows to take away: those of the utterance and of its neighbours. One alone is the clip."""
    if model.config.windows != "utterance" or count < 2:
        return []
    near = range(count) if number is None else range(max(0, number - 2), min(count, number + 1))
    return list(near)


def _without_window(
    model: MicroEmoForConditionalGeneration,
    modality: str,
    tokens: torch.Tensor,
    window: int,
    count: int,
    cited: int | None,
) -> torch.Tensor:
    """The tokens of a clip in the order of the prompt, with those of one window as the Q-Former leaves them where it has
    nothing to read."""
    config = model.config
    size = getattr(config, f"num_{modality}_query_tokens")
    before = int(config.use_global_window) if modality == "video" else 1
    if len(tokens) < size * (before + count):  # the sound has no windows of its own
        return tokens
    projection = getattr(model.model, f"{modality}_projection")
    nothing = projection(tokens.new_zeros(1, projection.in_features, dtype=projection.weight.dtype)).to(tokens.dtype)
    tokens = tokens.clone()
    tokens[size * (before + window) : size * (before + window + 1)] = nothing
    if cited is not None and cited - 1 == window:
        tokens[size * (before + count) :] = nothing
    return tokens


def _moved(media: dict[str, torch.Tensor], model: MicroEmoForConditionalGeneration) -> dict[str, torch.Tensor]:
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in media.items()
    }


def _places(processor: MicroEmoProcessor, tokens: torch.Tensor, answer: str) -> np.ndarray:
    """Where each token of the answer begins and ends in its text, of shape `(tokens, 2)`."""
    texts = [processor.tokenizer.decode(tokens[:end], skip_special_tokens=True) for end in range(len(tokens) + 1)]
    lead = len(texts[-1]) - len(texts[-1].lstrip()) if not answer[:1].isspace() else 0
    ends = np.array([max(0, len(text) - lead) for text in texts])
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _inside(places: np.ndarray, start: int, end: int) -> np.ndarray:
    return (places[:, 0] < end) & (places[:, 1] > start)


def _occurrences(answer: str, words: Sequence[str]) -> list[tuple[int, int]]:
    return [match.span() for word in words for match in re.finditer(rf"\b{re.escape(word)}\b", answer, re.I)]
