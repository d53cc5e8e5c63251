"""The texts of the page: what visitors must know before they start, and the notice for the people who are shown."""

from ...publishing.model_card_file import TEMPLATE

TITLE = "MicroEmo"

ABOUT = (
    "MicroEmo watches a clip of people who talk, and says for each utterance what their faces, their voices and their words "
    "show."
)

CONSENT = (
    "**Analyse only clips whose people know about it and agree.** An expression is not a feeling: the answers describe what is "
    "shown and said, and they are often wrong. Make no decisions about people with them. At work and in schools the "
    "European Union prohibits emotion recognition (AI Act, Article 5)."
)

STAYS_HERE = "Clips stay on this computer. All files are deleted when you close the page."
GOES_TO_SERVER = (
    "Clips are sent to the server that runs this page, and to nobody else. All files are deleted there when you close the "
    "page."
)

LIMITS = """\
- **Faces.** One face is followed in each frame, the largest. Faces that are turned away, covered, dark or small are missed; how \
many frames have a face stands beside each utterance.
- **Voices.** Speech over music, or of several people at once, is not taken apart.
- **Words.** Without subtitles, and without a speech recogniser, the words are not known.
- **Scores** are the model's own probabilities of emotion words. They say how sure the model is, not how often it is right.
- **People.** The faces and voices of a few cultures taught the model. Expect worse answers about others, and about people with \
faces that move in other ways: children, older people, people with a paralysis of the face, autistic people.
- **Evidence** says which part of the clip moved the model's answer. It is no proof that the answer is right.
"""

NOTICE_LABEL = (
    "The EU AI Act (Article 50) wants them to be told before. Fill in the notice, copy it, and give it to them."
)
OBSERVATIONS_ONLY = "What is seen and heard, without emotions."
ALWAYS_OBSERVATIONS = "This page says what is seen and heard, and names no emotions."
NO_QUESTIONS = "With observations only there are no free questions, because their answers could name emotions."

START = "What the utterances of a clip show appears here:"
STEPS = (
    "Drop a clip, record one, or take the example.",
    "Choose “Describe all utterances”. They come one by one.",
    "Choose an utterance: the video goes there, and below stands what moved the answer.",
)
READY = "The clip is here. Choose “Describe all utterances”, or ask a question."
READING = "Reading the clip: its faces, its voices and its pauses ..."
WRITING = "All utterances are described. Drawing the time line, and writing the files ..."
STOPPED = "Stopped. What is done stays in the list."
ANSWERED = "The question is answered."
NO_CLIP = "There is no clip yet: drop one, record one, or take the example."
NOBODY_SPEAKS = (
    "Nobody speaks in this clip, so that there is no utterance to choose. The answer is about the whole clip."
)
GONE = "The page was left alone for too long, and its files are deleted. Please drop the clip again."


def notice() -> str:
    """Reads the notice for the people who are shown out of the template of model cards.

    Returns:
        `str`: The notice, with places to fill in.
    """
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
