"""An analysis as EmotionML 1.0, the Emotion Markup Language of the W3C (https://www.w3.org/TR/emotionml/)."""

import re
from pathlib import Path
from urllib.parse import quote, urldefrag
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ..emotion_analysis import EmotionAnalysis, LabelScore, UtteranceAnalysis
from .clip_place import clip_links, media_type, milliseconds

# What EmotionML has no element for stands in its `info` elements, with the names of the JSON.
_OWN = "urn:microemo:emotion-analysis"
# What stands in no name of XML 1.0 (NameChar), and what not all its readers know: colons and what lies beyond U+FFFF.
_NO_NAME = re.compile(
    r"[^-.0-9A-Z_a-z\u00b7\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u1fff\u200c\u200d\u203f\u2040\u2070-\u218f"
    r"\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd]+"
)


def format_emotionml(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as EmotionML.

    The vocabulary is the one whose words the model compared. A score is a `confidence`, since it tells how sure the model is of
    a word; `value` would tell how strong the emotion is. `start` and `end` are times of day in this language, so an
    utterance is anchored to the clip (`time-ref-uri`, `offset-to-start`, `duration`, in milliseconds), and its reference
    names the stretch (`clip.mp4#t=1.5,2.75`, in seconds).

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, from which the relative path to the clip starts.

    Returns:
        `str`: The XML. The language has no emotion without a category: utterances without labels stand in the `info` of
        the document.
    """
    url, way = clip_links(analysis.clip, folder)
    clip = quote(way) if way else quote(urldefrag(url).url, safe="/:?&=%@+,;~")
    names = _names(analysis)
    root = Element(
        "emotionml", {"version": "1.0", "xmlns": "http://www.w3.org/2009/10/emotionml", "xmlns:microemo": _OWN}
    )
    info = SubElement(root, "info")
    about = {"model": analysis.model, "version": analysis.version, "question": analysis.question}
    SubElement(info, "microemo:analysis", about | {"calibrated": str(analysis.calibrated).lower()})
    for name, texts in (("description", [analysis.description]), ("warning", analysis.warnings)):
        for text in filter(None, texts):
            SubElement(info, f"microemo:{name}").text = text
    if names:
        root.set("category-set", "#labels")
        vocabulary = SubElement(root, "vocabulary", {"type": "category", "id": "labels"})
        for word, name in names.items():
            item = SubElement(vocabulary, "item", {"name": name})
            if name != word:
                SubElement(item, "info").text = word
    if analysis.labels:
        whole = SubElement(root, "emotion", {"id": "clip"})
        _add_categories(whole, analysis.labels, names)
        _add_reference(whole, clip, analysis)
    for of in analysis.utterances:
        if not of.labels:
            _add_utterance(info, of)
            continue
        start, end = milliseconds(of)
        times = {"time-ref-uri": clip, "offset-to-start": str(start), "duration": str(end - start)}
        emotion = SubElement(root, "emotion", {"id": f"utterance-{of.number}"} | times)
        _add_utterance(SubElement(emotion, "info"), of)
        _add_categories(emotion, of.labels, names)
        _add_reference(emotion, f"{clip}#t={start / 1000},{end / 1000}", analysis)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True).decode() + "\n"


def _names(analysis: EmotionAnalysis) -> dict[str, str]:
    """Returns each emotion word and its name in the vocabulary, which may have no blanks (NMTOKEN)."""
    found = [*analysis.labels, *(label for of in analysis.utterances for label in of.labels)]
    names: dict[str, str] = {}
    for word in dict.fromkeys([*analysis.vocabulary, *(label.label for label in found)]):
        name = base = _NO_NAME.sub("-", word) or "-"
        number = 1
        while name in names.values():
            number += 1
            name = f"{base}-{number}"
        names[word] = name
    return names


def _add_utterance(info: Element, of: UtteranceAnalysis) -> None:
    start, end = milliseconds(of)
    about = {"number": str(of.number), "start": str(start / 1000), "end": str(end / 1000)}
    about |= {"speaker": of.speaker} if of.speaker else {}
    about |= {"emotions": "; ".join(of.emotions)} if of.labels else {}
    utterance = SubElement(info, "microemo:utterance", about)
    for name in ("text", "observation", "description"):
        if text := getattr(of, name):
            SubElement(utterance, f"microemo:{name}").text = text


def _add_categories(emotion: Element, labels: list[LabelScore], names: dict[str, str]) -> None:
    for label in {label.label: label for label in labels}.values():  # the language allows each once
        confidence = min(max(label.score, 0.0), 1.0)
        SubElement(emotion, "category", {"name": names[label.label], "confidence": f"{confidence:.6g}"})


def _add_reference(emotion: Element, uri: str, analysis: EmotionAnalysis) -> None:
    SubElement(emotion, "reference", {"uri": uri, "role": "expressedBy", "media-type": media_type(analysis)})
