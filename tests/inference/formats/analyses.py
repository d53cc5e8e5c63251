"""Analyses that the tests of the formats write: a usual one, one that is full of traps, and any at all."""

from hypothesis import strategies as st

from microemo.inference.emotion_analysis import (
    Claim,
    EmotionAnalysis,
    Evidence,
    FrameFacts,
    LabelScore,
    UtteranceAnalysis,
)


def usual() -> EmotionAnalysis:
    """Two speakers, three utterances, with evidence."""
    return EmotionAnalysis(
        clip="clips/two people.mp4",
        model="checkpoints/microemo-tiny",
        version="0.1.0",
        duration=8.0,
        has_video=True,
        has_audio=True,
        size=[320, 240],
        fps=25.0,
        question="What does the speaker feel?",
        description="Ann is glad, and Bob is sad.",
        labels=[LabelScore("joy", 0.6, said=True), LabelScore("sadness", 0.3)],
        utterances=[
            UtteranceAnalysis(
                number=1,
                start=0.5,
                end=2.0,
                text="I am glad, really.",
                speaker="Ann",
                description="She smiles.",
                observation="The corners of the mouth are raised.",
                labels=[LabelScore("joy", 0.7, said=True), LabelScore("mixed feelings", 0.2, said=True)],
                frames=4,
                faces=3,
                voice={"loudness": -21.5, "pitch": 201.0, "words_per_second": 2.7},
                evidence=[
                    Evidence("modality", "picture", 1.25),
                    Evidence("region", "mouth_left", 0.5),
                    Evidence("window", "2", -0.1),
                ],
                claims=[
                    Claim("the corners of the mouth are raised", "mouth_left", True, 0.4),
                    Claim("the voice is loud", "sound", False, -0.02),
                ],
            ),
            UtteranceAnalysis(
                number=2,
                start=2.0,
                end=4.25,
                text="I am not.",
                speaker="Bob",
                labels=[LabelScore("sadness", 0.9)],
                frames=2,
            ),
            UtteranceAnalysis(
                number=3, start=5.0, end=6.0, text="Oh.", speaker="Ann", labels=[LabelScore("joy", 0.4)]
            ),
        ],
        frames=[FrameFacts(0.5, 1), FrameFacts(1.5, 0)],
        warnings=["In 1 of 2 frames no face is seen."],
        vocabulary=["joy", "sadness", "mixed feelings"],
        utterances_found=3,
    )


def odd() -> EmotionAnalysis:
    """Words that break files, overlaps within and between speakers, and times that cannot be."""
    texts = (
        ('He said "no" --> & <b>so</b>;\n\nnew, line', 'Bob: "the" <one>'),
        ("=cmd|' /C calc'!A0", "Ann"),
        ("مرحبا، كيف حالك؟ 😀", "Ann"),
        ("\x00\x0b\ud800 control\r\nend", None),
        ("42", "A --> B\nC"),
        ("{\\an8}{smile} NA", "NA"),
        ("", None),
    )
    times = ((0.2, 2.0), (0.5, 3.0), (1.0, 1.5), (2.9999996, 3.0), (4.0, 4.0), (5.0, 4.0), (99.0, 7200.0005))
    utterances = [
        UtteranceAnalysis(
            number=number,
            start=start,
            end=end,
            text=text,
            speaker=speaker,
            description=f"{text}!",
            labels=[
                LabelScore("mixed feelings", 0.5, said=True),
                LabelScore("mixed-feelings", 0.25),
                LabelScore("🙂", 1e-9),
            ],
        )
        for number, ((text, speaker), (start, end)) in enumerate(zip(texts, times, strict=True), 1)
    ]
    return EmotionAnalysis(
        clip='odd "name" & 100% #1?.mp4',
        model="<model>",
        version="0.1.0",
        duration=6.0,
        has_video=True,
        utterances=utterances,
        warnings=["<script>alert(1)</script>"],
        utterances_found=9,
    )


def observations() -> EmotionAnalysis:
    """Two utterances about which only is told what is seen."""
    analysis = EmotionAnalysis("clip.mp4", "checkpoints/microemo-tiny", "0.1.0", duration=3.0, observations_only=True)
    for number, text in enumerate(("Hello.", ""), 1):
        utterance = UtteranceAnalysis(number, number - 1.0, float(number), text, observation="The brows are raised.")
        analysis.utterances.append(utterance)
    return analysis


def empty() -> EmotionAnalysis:
    """Nothing is known, as of a sound file without speech."""
    return EmotionAnalysis("sound.wav", "checkpoints/microemo-tiny", "0.1.0", has_audio=True)


ANALYSES = {"usual": usual, "odd": odd, "observations": observations, "empty": empty}

_WORDS = st.text(max_size=20) | st.text("\"'<>&;:=-\n\r\t\x00\x85\u2028 a1[]{}", max_size=12)
_UTTERANCES = st.builds(
    UtteranceAnalysis,
    number=st.just(0),
    start=st.floats(0, 20),
    end=st.floats(0, 25),
    text=_WORDS,
    speaker=st.none() | st.sampled_from(["Ann", "Ann (2)", "B"]) | _WORDS,
    observation=_WORDS,
    labels=st.lists(st.builds(LabelScore, _WORDS.filter(str.strip), st.floats(0, 1), st.booleans()), max_size=3),
)


@st.composite
def any_analysis(draw: st.DrawFn) -> EmotionAnalysis:
    """An analysis with any words, speakers and times."""
    utterances = draw(st.lists(_UTTERANCES, max_size=6))
    for number, utterance in enumerate(utterances, 1):
        utterance.number = number
    duration = draw(st.none() | st.floats(0, 20))
    return EmotionAnalysis(draw(_WORDS), draw(_WORDS), "0.1.0", duration, True, True, utterances=utterances)
