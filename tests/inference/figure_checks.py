"""What the tests of pictures look for in a figure, and analyses to draw."""

import itertools

from matplotlib.text import Text

from microemo.inference.emotion_analysis import EmotionAnalysis, Evidence, LabelScore, UtteranceAnalysis


def utterance(
    number: int, start: float, end: float, *emotions: str, evidence: bool = True, **fields
) -> UtteranceAnalysis:
    """An utterance with evidence, whose answer names emotions."""
    parts = []
    if evidence:
        parts += [
            Evidence("modality", "picture", 0.6),
            Evidence("modality", "sound", -0.1),
            Evidence("modality", "words", 0.2),
        ]
        parts += [
            Evidence("region", "mouth", 0.5),
            Evidence("region", "brow_left", 0.1),
            Evidence("region", "nose", -0.1),
        ]
        parts += [Evidence("window", str(number), 0.4), Evidence("window", str(number + 1), 0.0)]
    labels = [LabelScore(emotion, 0.6 / (rank + 1), said=True) for rank, emotion in enumerate(emotions)]
    return UtteranceAnalysis(number, start, end, labels=labels, evidence=parts, **fields)


def analysis(clip, *utterances: UtteranceAnalysis, **fields) -> EmotionAnalysis:
    """An analysis of a clip with pictures and sound, one second long."""
    fields = {"duration": 1.0, "has_video": True, "has_audio": True, "size": [320, 240], "fps": 25.0, **fields}
    found = fields.pop("utterances_found", len(utterances))
    return EmotionAnalysis(
        str(clip), "microemo-small", "0.1.0", utterances=list(utterances), utterances_found=found, **fields
    )


def texts(figure) -> list[str]:
    """Every text of a figure, with its lines in one."""
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_text().strip()]


def collisions(figure) -> list[tuple[str, str]]:
    """The pairs of texts that touch each other, and the texts that leave the figure."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.findobj(Text) if text.get_text().strip()]
    pairs = []
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > 1.5 and tall > 3:  # pixels: accents and descenders may reach into the space between lines
            pairs.append((first, second))
    whole = figure.bbox
    pairs += [
        (text, "the edge of the figure")
        for text, box in boxes
        if box.x0 < whole.x0 or box.x1 > whole.x1 or box.y0 < whole.y0 or box.y1 > whole.y1
    ]
    return pairs
