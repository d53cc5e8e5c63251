"""Speed of the metrics: every prediction file with bootstrap intervals, from the raw files.

python benchmarks/evaluation.py --shared ../shared
"""

import argparse
import time
from pathlib import Path

from microemo.evaluation.emotion_wheel import EmotionWheels, wheel_scores
from microemo.evaluation.prediction_files import match, read_answers
from microemo.evaluation.resampling import bootstrap, paired_p_values
from microemo.evaluation.set_level import WheelGrouper, set_level_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[1] / ".." / "shared")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    text = arguments.shared / "data" / "emer_text"
    jobs = [(text / "ov_mer2024/predict-openset.csv", text / "ov_mer2024/check-openset.csv")]
    for folder, truth in (("ovmerd_predictions", "ov_mer2024"), ("ovmerd_plus", "ovmerd_plus")):
        found = sorted((text / folder).glob("*/*-openset.npz"))
        jobs += [(path, text / truth / "check-openset.csv") for path in found]

    start = time.perf_counter()
    wheels = EmotionWheels.from_folder(arguments.shared / "data" / "emotion_wheel")
    sheets, scoring, drawing = [], 0.0, 0.0
    for predictions, references in jobs:
        begin = time.perf_counter()
        names, truth, predicted = match(read_answers(references), read_answers(predictions))
        sheet = set_level_scores(names, truth, predicted, WheelGrouper(wheels)).join(
            wheel_scores(names, truth, predicted, wheels)
        )
        sheets.append(sheet)
        scored = time.perf_counter()
        bootstrap(sheet, arguments.draws)
        scoring, drawing = scoring + scored - begin, drawing + time.perf_counter() - scored
    begin = time.perf_counter()
    for sheet in sheets[1:31]:
        paired_p_values(sheet, sheets[0], arguments.draws)
    paired = time.perf_counter() - begin
    total = time.perf_counter() - start
    print(f"{len(jobs)} files, {sum(len(sheet.names) for sheet in sheets)} answers, {arguments.draws} draws")
    print(f"scores {scoring:.2f} s, intervals {drawing:.2f} s, 30 paired tests {paired:.2f} s, in all {total:.2f} s")


if __name__ == "__main__":
    main()
