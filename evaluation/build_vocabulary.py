"""Writes vocabulary/format.csv: every inflection of the word families in vocabulary/families.csv.

python -m microemo.evaluation.build_vocabulary

The families (derivations and polarity) are written by hand; the inflections come from lemminflect (in the `dev` extra),
so the package itself needs neither a dictionary nor a download.
"""

import csv
import io

from ..utils.atomic_files import write_text
from ..utils.files import read_table
from .emotion_labels import parse_labels
from .emotion_wheel import DEFAULT_FOLDER, NEUTRAL


def format_table() -> str:
    """Returns the text of format.csv, which needs the package lemminflect.

    Returns:
        `str`: A CSV table with the columns `name` and `format` (word forms, separated by commas).

    Raises:
        ImportError: if lemminflect is not installed.
    """
    from lemminflect import getAllInflections

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "format"])
    for row in read_table(DEFAULT_FOLDER / "families.csv"):
        if row["name"] == NEUTRAL:  # outside the wheels; a label of its own by rule
            continue
        forms = set(parse_labels(row["family"]))
        for word in list(forms):
            forms.update(form.lower() for inflections in getAllInflections(word).values() for form in inflections)
        writer.writerow([row["name"], ",".join(sorted(forms))])
    return text.getvalue()


if __name__ == "__main__":
    print(write_text(DEFAULT_FOLDER / "format.csv", format_table()))
