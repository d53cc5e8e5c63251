"""`--asr` of the commands that read tables."""

import json

from microemo.publishing.initialize import initialize
from microemo.training.recognised_speech import UTTERANCES, VOICE_ACTIVITY


def test_precompute_and_training_share_what_was_recognised(microemo, demo_clip, tmp_path):
    checkpoint, cache = initialize("microemo-tiny", tmp_path / "tiny"), tmp_path / "features"
    table = tmp_path / "rows.jsonl"
    rows = [{"video": str(demo_clip), "instruction": "Sad?", "response": "No."}]
    rows.append(rows[0] | {"subtitles": str(demo_clip.with_suffix(".srt"))})
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--num-workers", 0)
    done = microemo("precompute", table, "--model", checkpoint, "--cache", cache, "--asr", VOICE_ACTIVITY, *options)
    assert done.returncode == 0, done.stderr
    content = (cache / UTTERANCES).read_text()
    done = microemo(
        *("train", "stage2", "--model_name_or_path", checkpoint, "--train_data", table, "--asr", VOICE_ACTIVITY),
        *("--feature_cache", cache, "--output_dir", tmp_path / "run", "--max_steps", 1, "--use_cpu", "true"),
        *("--bf16", "false", "--dtype", "float32", "--per_device_train_batch_size", 1),
    )
    assert done.returncode == 0, done.stderr
    assert (cache / UTTERANCES).read_text() == content
