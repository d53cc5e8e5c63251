"""Photographs of the astronaut and recordings of a synthesiser, in place of people."""

import pytest

from microemo.tests.training.synthetic.spoken_files import say, write_wav
from microemo.training.synthetic.media_writer import astronaut


@pytest.fixture(scope="session")
def people_folder(tmp_path_factory):
    """`faces.csv`, `voices.csv` and a README with what they name: two people and two speakers of each split."""
    pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
    from PIL import Image

    folder = tmp_path_factory.mktemp("people")
    picture = Image.fromarray(astronaut()).crop((96, 0, 352, 256))
    faces, voices = ["file,person,split,kind,gender"], ["file,corpus,speaker,gender,split,emotion,text,language"]
    for number, split in enumerate(("train", "dev", "test")):
        for gender in ("female", "male"):
            person = f"{split}-{gender}"
            for kind in ("neutral", "smiling")[: 1 + (gender == "female")]:
                shown = picture.rotate(3 * number, fillcolor=(90, 90, 90))
                shown.save(folder / f"{person}-{kind}.png")
                faces.append(f"{person}-{kind}.png,{person},{split},{kind},{gender}")
            for place, emotion in enumerate(("happy", "sad", "angry")):
                name = f"voice-{person}-{emotion}.wav"
                seed = 100 * number + 10 * place + len(gender)
                write_wav(folder / name, say(0.8 + 0.2 * place, pitch=210 if gender == "female" else 120, seed=seed))
                voices.append(f"{name},made,voice-{person},{gender},{split},{emotion},Words {place}.,en")
    (folder / "faces.csv").write_text("\n".join(faces))
    (folder / "voices.csv").write_text("\n".join(voices))
    (folder / "README.md").write_text("Everybody may use these: CC BY 4.0.\n")
    return folder
