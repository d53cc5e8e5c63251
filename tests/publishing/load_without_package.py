"""Loads a checkpoint with Transformers alone; run by test_code_bundle.py in a process of its own.

python load_without_package.py FOLDER OUTPUT CLIP TOWERS torchvision|plain

FOLDER is a checkpoint, TOWERS one with other encoders, and the cache of the Hub holds a copy of it as `lab/micro.emo-1`. The package and optional libraries
are blocked.
"""

import filecmp
import json
import pickle
import sys
from pathlib import Path

BLOCKED = {"microemo", "av", "mediapipe", "pysubs2"}
REPO = "lab/micro.emo-1"
TRUST = {"trust_remote_code": True}


class Without:
    """A finder of modules for which blocked libraries are not there: nothing is found, as where they are not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def error_of(call, *args, **kwargs) -> str:
    try:
        call(*args, **kwargs)
    except (ImportError, ValueError) as error:
        return str(error)
    raise AssertionError(f"{call} succeeded")


def main(folder: Path, output: Path, clip: Path, towers: Path, installed: str) -> None:
    sys.meta_path[:] = map(Without, sys.meta_path)
    import torch
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoProcessor,
        AutoTokenizer,
        pipeline,
    )
    from transformers.utils import is_torchvision_available

    has_torchvision = installed == "torchvision"
    assert is_torchvision_available() == has_torchvision
    assert "microemo" not in sys.modules

    # Whatever is optional may be missing: all loads, and an error says what to install.
    question = {"text": "Sad?", "return_tensors": "pt"}
    bare = AutoProcessor.from_pretrained(folder, **TRUST)
    assert "pip install av" in error_of(bare, videos=str(clip), **question)
    BLOCKED.remove("av")
    processor = AutoProcessor.from_pretrained(REPO, **TRUST)
    assert "pip install mediapipe" in error_of(processor, videos=str(clip), **question)
    styled = clip.with_suffix(".ass")
    styled.write_text("[Script Info]\n\n[Events]\nDialogue: 0,0:00:00.00,0:00:00.50,Default,,0,0,0,,I know.\n")
    assert "pip install pysubs2" in error_of(processor, videos=str(clip), utterances=str(styled), **question)
    BLOCKED.difference_update(("mediapipe", "pysubs2"))

    # Every Auto class gives the class that lies in the repository.
    config = AutoConfig.from_pretrained(REPO, **TRUST)
    assert type(config).__name__ == "MicroEmoConfig"
    assert type(config.audio_config).__name__ == "MicroEmoAudioConfig"
    assert config.max_audio_clips == config.max_audio_segments == 32  # an old name, by `attribute_map`
    model = AutoModelForMultimodalLM.from_pretrained(REPO, **TRUST).eval()
    assert type(model) is type(AutoModelForImageTextToText.from_pretrained(REPO, **TRUST))
    assert type(model.config) is type(config)
    base = AutoModel.from_pretrained(REPO, **TRUST)
    assert type(base).__name__ == "MicroEmoModel" and type(model.model) is type(base)
    assert type(pickle.loads(pickle.dumps(processor))) is type(processor)  # for the workers that a DataLoader starts
    assert type(AutoFeatureExtractor.from_pretrained(REPO, **TRUST)).__name__ == "MicroEmoFeatureExtractor"
    assert AutoTokenizer.from_pretrained(REPO, **TRUST).convert_tokens_to_ids("<video>") == config.video_token_id
    if has_torchvision:
        from transformers import AutoVideoProcessor

        assert type(AutoVideoProcessor.from_pretrained(REPO, **TRUST)).__name__ == "MicroEmoVideoProcessor"

    # It answers, as the pipeline does with and without the name of its task.
    inputs = processor(videos=str(clip), **question)
    answer = model.generate(**inputs, max_new_tokens=4)
    ask = pipeline(model=REPO, max_new_tokens=4, device="cpu", **TRUST)
    assert type(ask).__name__ == "EmotionPipeline" and ask.task == "video-emotion-recognition"
    (described,) = ask([{"video": str(clip), "question": "Sad?"}])
    new = answer[0, inputs["input_ids"].shape[1] :]
    assert described["description"] == processor.decode(new, skip_special_tokens=True).strip()

    # So does one whose towers are encoders of Transformers, beside one with the paper's.
    other = AutoModelForMultimodalLM.from_pretrained(towers, **TRUST).eval()
    assert type(other.get_encoder("audio")).__name__ == "WhisperEncoder"
    assert type(other.config.vision_config).__name__ == "SiglipVisionConfig"
    hearing = AutoProcessor.from_pretrained(towers, **TRUST)(videos=str(clip), **question)
    assert hearing["audio_step_mask"].any() and other.generate(**hearing, max_new_tokens=4).shape[0] == 1

    # Saved again, each part carries its code, and loads from there.
    model.save_pretrained(output / "parts")
    processor.save_pretrained(output / "parts")
    ask.save_pretrained(output / "pipeline")
    base.save_pretrained(output / "base")
    names = {path.name for path in folder.glob("*.py")}
    for saved in ("parts", "pipeline"):
        assert {path.name for path in (output / saved).glob("*.py")} == names, saved
        assert not filecmp.cmpfiles(folder, output / saved, names, shallow=False)[1]
        for file in ("config.json", "processor_config.json"):
            first, second = (json.loads((place / file).read_text()) for place in (folder, output / saved))
            assert first["auto_map"].items() <= second["auto_map"].items(), second["auto_map"]
            assert first.get("custom_pipelines") == second.get("custom_pipelines")
        for part in ("video_processor", "feature_extractor"):
            assert first[part]["auto_map"].items() <= second[part]["auto_map"].items(), second[part]["auto_map"]
    again = pipeline("video-emotion-recognition", model=str(output / "parts"), max_new_tokens=4, device="cpu", **TRUST)
    assert type(again).__module__.startswith("transformers_modules.parts.")
    repeated = again({"video": str(clip), "question": "Sad?"})
    assert repeated["description"] == described["description"]
    assert type(AutoModel.from_pretrained(output / "base", **TRUST)).__name__ == "MicroEmoModel"

    # With the package the same folder gives the package's classes, and both save what is theirs.
    BLOCKED.clear()
    import microemo

    own = AutoModelForMultimodalLM.from_pretrained(output / "parts", **TRUST)
    assert type(own) is microemo.MicroEmoForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(output / "parts")) is microemo.MicroEmoProcessor
    assert type(pipeline("video-emotion-recognition", model=str(output / "parts"))) is microemo.EmotionPipeline
    torch.testing.assert_close(own(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0)
    own.save_pretrained(output / "own")
    microemo.MicroEmoProcessor.from_pretrained(output / "parts").save_pretrained(output / "own")
    assert not list((output / "own").glob("*.py"))
    for file in ("config.json", "processor_config.json"):
        content = (output / "own" / file).read_text()
        assert "emotion_pipeline" not in content and "auto_map" not in content
    model.save_pretrained(output / "later")
    assert {path.name for path in (output / "later").glob("*.py")} == names


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), sys.argv[5])
