"""An analysis as tiers of annotations: a TextGrid of Praat, and the annotation format (EAF) of ELAN.

Both programs allow no overlap within a tier. Each speaker has tiers of their own, named as ELAN's users name them
(`utterance@Ann`), and what overlaps with another utterance of the same speaker stands on further ones (`utterance@Ann (2)`).
"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..emotion_analysis import EmotionAnalysis, UtteranceAnalysis
from .clip_place import clip_links, media_type, milliseconds

# The kinds of tiers, and what stands on them. The first is always there, the others where one utterance has such a text.
_KINDS: dict[str, Callable[[UtteranceAnalysis], str]] = {
    "utterance": lambda of: of.text,
    "emotion": lambda of: "; ".join(of.emotions),
    "score": lambda of: "; ".join(f"{label.label} {label.score:.2f}" for label in of.labels),
    "observation": lambda of: of.observation,
    "description": lambda of: of.description,
}


def format_textgrid(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as a TextGrid, whose intervals cover the whole clip.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, which is not stated in it.

    Returns:
        `str`: The TextGrid, in the long text format. It ends with the clip or the last utterance, whichever is later.

    Raises:
        ImportError: if pympi-ling is not installed.
    """
    _, praat = _pympi()
    ends = [round(1000 * (analysis.duration or 0)), *(milliseconds(of)[1] for of in analysis.utterances), 1]
    grid = praat.TextGrid(xmax=max(ends) / 1000)
    for speaker, utterances in _lanes(analysis).items():
        for kind in _kinds(analysis):
            # pympi doubles the quotation marks of texts, not those of names.
            tier = grid.add_tier(f"{kind}{speaker}".replace('"', '""'))
            for of in utterances:
                start, end = milliseconds(of)
                tier.add_interval(start / 1000, end / 1000, _KINDS[kind](of))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "analysis.TextGrid")
        grid.to_file(path)
        return path.read_text("utf-8")


def format_eaf(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis in the format of ELAN, EAF 3.0.

    The utterances stand on tiers with times; emotions, scores, observations and descriptions refer to them (symbolic
    association), so that an utterance whose times are corrected in ELAN keeps them.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, from which the relative path to the clip starts.

    Returns:
        `str`: The XML.

    Raises:
        ImportError: if pympi-ling is not installed.
    """
    elan, _ = _pympi()
    eaf = elan.Eaf(author=f"MicroEmo {analysis.version}")
    # pympi's time zone has seconds in place of minutes, and its format is an earlier one.
    eaf.adocument |= {"DATE": datetime.now(UTC).isoformat(timespec="seconds"), "FORMAT": "3.0", "VERSION": "3.0"}
    eaf.adocument["xsi:noNamespaceSchemaLocation"] = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
    eaf.header |= {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    eaf.add_linked_file(*clip_links(analysis.clip, folder), media_type(analysis))
    kinds = _kinds(analysis)
    for kind in kinds:
        eaf.add_linguistic_type(kind, *(() if kind == "utterance" else ("Symbolic_Association", False)))
    eaf.remove_tier("default")
    eaf.remove_linguistic_type("default-lt")
    for lane, utterances in _lanes(analysis).items():
        speaker = (utterances[0].speaker if utterances else None) or None
        for kind in kinds:
            parent = None if kind == "utterance" else f"utterance{lane}"
            eaf.add_tier(f"{kind}{lane}", kind, parent, part=speaker, ann=analysis.model)
        for of in utterances:
            start, end = milliseconds(of)
            eaf.add_annotation(f"utterance{lane}", start, end, of.text)
            for kind in kinds[1:]:
                if text := _KINDS[kind](of):
                    # The first annotation that is going on then: the one before may end where this one begins.
                    eaf.add_ref_annotation(f"{kind}{lane}", f"utterance{lane}", start + 1, text)
    # ELAN counts on from the last number that pympi has given.
    eaf.properties = [("lastUsedAnnotationId", eaf.maxaid), ("model", analysis.model)]
    document = elan.to_adocument(eaf, pretty=False)
    ElementTree.indent(document)
    slots = document.find("TIME_ORDER")
    slots[:] = sorted(slots, key=lambda slot: int(slot.get("TIME_VALUE")))
    return ElementTree.tostring(document, encoding="UTF-8", xml_declaration=True).decode() + "\n"


def _pympi() -> tuple[Any, Any]:
    """Imports the modules that write EAF and TextGrid."""
    try:
        from pympi import Elan, Praat
    except ImportError as error:
        raise ImportError(
            "EAF and TextGrid are written with pympi-ling: pip install pympi-ling", name="pympi"
        ) from error
    return Elan, Praat


def _kinds(analysis: EmotionAnalysis) -> list[str]:
    """Returns the kinds of tiers that this analysis has."""
    return [kind for kind, text in _KINDS.items() if kind == "utterance" or any(map(text, analysis.utterances))]


def _lanes(analysis: EmotionAnalysis) -> dict[str, list[UtteranceAnalysis]]:
    """Returns utterances that do not overlap, by the end of the names of their tiers; at least one of these."""
    lanes: dict[str, list[UtteranceAnalysis]] = {}
    for of in sorted(analysis.utterances, key=milliseconds):
        speaker = " ".join((of.speaker or "").split())
        lane = name = f"@{speaker}" if speaker else ""
        number = 1
        while name in lanes and milliseconds(lanes[name][-1])[1] > milliseconds(of)[0]:
            number += 1
            name = f"{lane} ({number})"
        lanes.setdefault(name, []).append(of)
    return lanes or {"": []}
