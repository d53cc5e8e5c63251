"""The converted model computes the numbers of the originals' code (goldens of the shared folder).

Every weight goes through the converter; every size, key and clip is read from the folder.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.modeling_microemo.convert_original import WeightFile
from microemo.processing.utterances import sliding_windows
from microemo.publishing.convert_checkpoints import convert_checkpoints

SHARED = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[3] / "shared"))
GOLDENS = SHARED / "goldens"
pytestmark = pytest.mark.skipif(
    not (GOLDENS / "manifest_model.json").is_file(), reason="no shared folder: set MICROEMO_SHARED"
)
MODULE, TOKENS, MEL, PIXELS = 1e-5, 1e-4, 5e-4, 0.3  # tolerances of goldens/README.md


def io(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / "io" / f"{name}.safetensors")


def names_in(name: str) -> list[str]:
    """For parametrisation, which happens with and without the folder."""
    path = GOLDENS / "io" / f"{name}.safetensors"
    if not path.is_file():
        return []
    with safe_open(path, "pt") as handle:
        return sorted(handle.keys())


def facts_in(name: str):
    path = GOLDENS / "io" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


class Originals:
    """Converts the goldens' checkpoints, each combination once."""

    def __init__(self, folder, language_model, bert_tokenizer):
        self.folder, self.bert_tokenizer, self.done = folder, bert_tokenizer, {}
        self.sizes = json.loads((GOLDENS / "manifest_model.json").read_text())["config"]
        # Which file is which is found as a user's is: by its keys.
        self.files = {}
        for path in sorted((GOLDENS / "ckpt").iterdir()):
            keys = WeightFile.read(path, path.name, set()).shapes
            kinds = {
                "vision": "patch_embed.proj.weight" in keys,
                "imagebind": "modality_heads.audio.2.weight" in keys,
                "timechat": {"query_tokens", "video_query_tokens"} <= keys.keys(),
                "video": "video_query_tokens" in keys and "query_tokens" not in keys,
                "audio": "audio_query_tokens" in keys,
                "instructblip": "ln_vision.weight" in keys
                and "Qformer.bert.embeddings.word_embeddings.weight" in keys,
                "blip2": "ln_vision.weight" in keys and "Qformer.bert.embeddings.word_embeddings.weight" not in keys,
            }
            (kind,) = (kind for kind, fits in kinds.items() if fits)
            self.files[kind] = path
        # The LoRA weights say how deep their language model was.
        adapted = WeightFile.read(self.files["timechat"], "timechat", set()).shapes
        layers = {int(n) for key in adapted if ".lora_" in key for n in re.findall(r"\.layers\.(\d+)\.", key)}
        self.llm = language_model(
            folder / "llm", hidden_size=self.sizes["llm"], num_hidden_layers=1 + max(layers, default=1)
        )

    def base_config(self) -> MicroEmoConfig:
        """Sizes that no tensor tells (heads, depths); all others are given too and checked against the files."""
        vit, bert, audio = self.sizes["vit"], self.sizes["bert"], self.sizes["ib"]
        qformer = {
            "hidden_size": bert["hidden"],
            "num_attention_heads": bert["heads"],
            "intermediate_size": bert["inter"],
        }
        return MicroEmoConfig(
            vision_config={
                "hidden_size": vit["dim"],
                "intermediate_size": int(vit["dim"] * vit["mlp_ratio"]),
                "num_hidden_layers": vit["depth"],
                "num_attention_heads": vit["heads"],
                "image_size": vit["img"],
            },
            image_qformer_config={
                **qformer,
                "num_hidden_layers": bert["layers"],
                "vocab_size": bert["vocab"] + 1,
                "max_position_embeddings": bert["maxpos"],
            },
            video_qformer_config=qformer,
            audio_qformer_config=qformer,
            audio_config={
                "hidden_size": audio["audio_dim"],
                "intermediate_size": 4 * audio["audio_dim"],
                "num_hidden_layers": audio["audio_blocks"],
                "num_attention_heads": audio["audio_heads"],
                "projection_dim": audio["out"],
            },
            num_query_tokens=self.sizes["nq"],
            num_video_query_tokens=self.sizes["nvq"],
            num_audio_query_tokens=self.sizes["naq"],
            local_clue_num_attention_heads=vit["heads"],
        )

    def convert(self, qformer="instructblip", video="video", **options) -> Path:
        key = repr((qformer, video, sorted(options.items())))
        if key not in self.done:
            out = self.folder / f"converted-{len(self.done)}"
            convert_checkpoints(
                out,
                vision=self.files["vision"],
                qformer=self.files[qformer],
                video_branch=self.files[video] if isinstance(video, str) else video,
                audio_branch=self.files["audio"],
                imagebind=self.files["imagebind"],
                llm=self.llm,
                qformer_tokenizer=self.bert_tokenizer,
                base_config=self.base_config(),
                dtype="float32",
                **options,
            )
            self.done[key] = out
        return self.done[key]

    def model(self, *args, **options) -> MicroEmoForConditionalGeneration:
        return MicroEmoForConditionalGeneration.from_pretrained(self.convert(*args, **options)).eval()

    def processor(self, *args, **options) -> MicroEmoProcessor:
        return MicroEmoProcessor.from_pretrained(self.convert(*args, **options))


@pytest.fixture(scope="module")
def originals(tmp_path_factory, language_model, bert_tokenizer):
    return Originals(tmp_path_factory.mktemp("originals"), language_model, bert_tokenizer)


# --- a: image encoder ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("qformer, preset", [("blip2", "affectgpt"), ("instructblip", "microemo")])
def test_golden_image_encoder(originals, qformer, preset):
    golden = io("a_eva_vit")
    vision_model = originals.model(qformer, preset=preset).model.visual_encoder.vision_model
    embedded = vision_model.embeddings(golden["pixel_values"])
    patches = embedded[:, 1:] - vision_model.embeddings.position_embedding[:, 1:]
    assert difference(patches, golden["patch_embed"]) < MODULE

    output = vision_model(golden["pixel_values"], output_hidden_states=True)
    assert difference(output.hidden_states[1], golden["block0"]) < MODULE
    assert difference(output.hidden_states[-1], golden["vit_out"]) < MODULE
    assert difference(output.last_hidden_state, golden[f"ln_vision_{qformer}"]) < MODULE


# --- b: image Q-Former ---------------------------------------------------------------------------------------------


def query(model, image_embeds, text=None, mask=None, encoder_mask=None, **options):
    encoder = model.model.visual_encoder
    queries = encoder.query_tokens.expand(len(image_embeds), -1, -1)
    inputs = {"query_embeds": queries, "encoder_hidden_states": image_embeds, "encoder_attention_mask": encoder_mask}
    if text is not None:
        ones = mask.new_ones(queries.shape[:2])
        inputs |= {"input_ids": text, "attention_mask": torch.cat([ones, mask], dim=1)}
    return encoder.image_qformer(**inputs, **options)


def first_layer(model, *args, **kwargs) -> torch.Tensor:
    seen = []
    layer = model.model.visual_encoder.image_qformer.encoder.layer[0]
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    query(model, *args, **kwargs)
    handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@torch.no_grad()
def test_golden_image_qformer_without_text(originals):
    golden = io("b_image_qformer")
    blip2 = originals.model("blip2", preset="affectgpt")
    assert difference(query(blip2, golden["image_embeds"]).last_hidden_state, golden["blip2_notext"]) < MODULE
    assert difference(first_layer(blip2, golden["image_embeds"]), golden["blip2_notext_layer0"]) < MODULE
    instructblip = originals.model(use_frame_timestamps=False)
    assert (
        difference(query(instructblip, golden["image_embeds"]).last_hidden_state, golden["instructblip_notext"])
        < MODULE
    )


@torch.no_grad()
@pytest.mark.parametrize("padding", ["nopad", "pad"])
def test_golden_image_qformer_with_text(originals, padding):
    golden = io("b_image_qformer")
    model = originals.model()
    text = (golden[f"text_{padding}_input_ids"], golden[f"text_{padding}_attention_mask"])
    output = query(model, golden["image_embeds"], *text).last_hidden_state
    real = torch.cat([torch.ones(len(output), originals.sizes["nq"]), text[1]], dim=1).bool()
    assert real.any(dim=1).all()
    assert difference(output, golden[f"instructblip_text_{padding}"]) < MODULE
    assert (
        difference(first_layer(model, golden["image_embeds"], *text), golden[f"instructblip_text_{padding}_layer0"])
        < MODULE
    )


@torch.no_grad()
def test_golden_image_qformer_with_encoder_mask(originals):
    golden = io("b_image_qformer")
    text = (golden["text_pad_input_ids"], golden["text_pad_attention_mask"])
    output = query(originals.model(), golden["image_embeds"], *text, golden["encoder_attention_mask"])
    assert difference(output.last_hidden_state, golden["instructblip_text_pad_encmask"]) < MODULE


# --- c1, c2: the visual path ---------------------------------------------------------------------------------------


def video_tokens(model, **inputs) -> torch.Tensor:
    return torch.stack(model.get_video_features(**inputs).pooler_output)


@torch.no_grad()
def test_golden_affectgpt_visual_path(originals):
    golden = io("c1_affectgpt_visual")
    model = originals.model("blip2", preset="affectgpt")
    frames = golden["video"].transpose(1, 2)
    output = model.get_video_features(pixel_values_videos=frames)
    assert difference(output.last_hidden_state[:, 0], golden["video_hidden"]) < MODULE
    assert difference(torch.stack(output.pooler_output), golden["inputs_llama"]) < TOKENS
    tokens = model.model.visual_encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    positions = model.model.video_qformer.frame_positions.weight[: frames.shape[1]]
    assert difference((tokens + positions[:, None]).flatten(1, 2), golden["frame_hidden"]) < MODULE


def faceless_masks(config: MicroEmoConfig) -> tuple[int, int]:
    return config.num_regions, config.vision_config.num_patches


WINDOWED = {"composite": "video", "timechat": "timechat"}
WINDOWS = [
    (name, key)
    for name in WINDOWED
    for key in names_in(f"c2_{name}_visual_windows")
    if key.startswith("inputs_llama_")
]


@torch.no_grad()
@pytest.mark.parametrize("name, key", WINDOWS)
def test_golden_windows(originals, name, key):
    golden = io(f"c2_{name}_visual_windows")
    window, *stride = (int(part[1:]) for part in key.split("_") if part[1:].isdigit())
    switches = {"window_size": window, "window_stride": stride[0]} if window else {
        "windows": "none", "use_global_window": True,
    }  # fmt: skip
    if "notext" in key:
        switches |= {"use_frame_timestamps": False, "keep_timestamp_tokens": False}
    options = {"video": WINDOWED[name], "preset": "timechat", **switches}
    model, processor = originals.model(**options), originals.processor(**options)

    frames = golden["video"].transpose(1, 2)
    inputs = {"pixel_values_videos": frames}
    if "notext" not in key:
        inputs |= {
            "qformer_input_ids": golden["input_ids"][None],
            "qformer_attention_mask": golden["attention_mask"][None],
        }
    if processor.windows == "sliding":
        windows, _ = sliding_windows(
            np.arange(frames.shape[1]), processor.window_size, processor.window_stride, processor.window_unit
        )
        inputs["utterance_windows"] = torch.from_numpy(windows)[None]
    assert difference(video_tokens(model, **inputs), golden[key]) < TOKENS


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWED)
def test_golden_query_and_text_rows(originals, name):
    golden = io(f"c2_{name}_visual_windows")
    inputs = {
        "pixel_values": golden["video"][0].transpose(0, 1),
        "qformer_input_ids": golden["input_ids"],
        "qformer_attention_mask": golden["attention_mask"],
    }
    expected = golden["q_hidden_query_and_text"]
    kept = originals.model(video=WINDOWED[name], preset="timechat").model.visual_encoder(**inputs)
    assert difference(kept, expected) < MODULE
    sliced = originals.model(video=WINDOWED[name]).model.visual_encoder
    faceless = torch.zeros(len(expected), *faceless_masks(sliced.config), dtype=torch.bool)
    assert difference(sliced(**inputs, region_masks=faceless), expected[:, : originals.sizes["nq"]]) < MODULE


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWED)
def test_golden_sliced_windows(originals, name):
    """Without the timestamps' rows: the goldens' query rows through the converted video Q-Former, and all of our path
    with the gate at 0, global pass and windows."""
    golden = io(f"c2_{name}_visual_windows")
    model = originals.model(video=WINDOWED[name])
    frames = golden["video"].transpose(1, 2)
    num_frames = frames.shape[1]
    spans = torch.tensor([[[0, num_frames // 2], [num_frames // 2, num_frames]]])
    tokens = video_tokens(
        model,
        pixel_values_videos=frames,
        qformer_input_ids=golden["input_ids"][None],
        qformer_attention_mask=golden["attention_mask"][None],
        region_masks=torch.zeros(1, num_frames, *faceless_masks(model.config), dtype=torch.bool),
        utterance_windows=spans,
    )
    queries = golden["q_hidden_query_and_text"][None, :, : originals.sizes["nq"]]
    whole = model.model.video_qformer(queries, torch.ones(queries.shape[:3], dtype=torch.bool), spans)[0]
    assert difference(tokens, model.model.video_projection(whole).flatten(1, 2)) < TOKENS


# --- c3, c4: the video Q-Former ------------------------------------------------------------------------------------


@torch.no_grad()
def test_golden_segments(originals):
    golden = io("c3_video_qformer_segments")
    model = originals.model().model
    segments = [key for key in golden if key.startswith("seg_")]
    assert segments
    spans = torch.tensor([[int(number) for number in key.split("_")[1:]] for key in segments])
    queries = golden["q_hidden"]
    mask = torch.ones(queries.shape[:3], dtype=torch.bool)
    tokens, real = model.video_qformer(queries, mask, spans[None].expand(len(queries), -1, -1))
    assert real.all()
    tokens = model.video_projection(tokens)
    assert difference(tokens[:, 0], golden["all"]) < TOKENS
    for number, key in enumerate(segments, start=1):
        assert difference(tokens[:, number], golden[key]) < TOKENS


@pytest.mark.parametrize("key", [key for key in names_in("c4_frame_pos_interpolate") if key.startswith("out_")])
def test_golden_frame_positions_are_resized(originals, key, tmp_path):
    golden = io("c4_frame_pos_interpolate")
    (source,) = (golden[name] for name in golden if name.startswith("in_"))
    content = torch.load(originals.files["video"], weights_only=True)
    content["model"]["video_frame_position_embedding.weight"] = source
    torch.save(content, tmp_path / "branch.pth")
    rows = int(key.removeprefix("out_"))
    model = originals.model(video=tmp_path / "branch.pth", max_frames=rows)
    assert model.config.max_frames == rows
    assert torch.equal(model.model.video_qformer.frame_positions.weight, golden[key])


def test_golden_sources_keep_their_positions(originals):
    for video in WINDOWED.values():
        table = torch.load(originals.files[video], weights_only=True)["model"]["video_frame_position_embedding.weight"]
        model = originals.model(video=video, preset="timechat")
        assert model.config.max_frames == len(table)
        assert torch.equal(model.model.video_qformer.frame_positions.weight, table)


# --- d: the audio branch -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_golden_audio_branch(originals):
    golden = io("d_audio_branch")
    model = originals.model()
    assert difference(torch.stack(model.get_audio_features(input_features=golden["mel"]).pooler_output), golden["inputs_llama"]) < TOKENS  # fmt: skip

    tower = model.model.audio_branch.audio_tower
    seen = []
    tower.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = tower(golden["mel"].flatten(0, 1))
    assert difference(seen[0][:1], golden["tokens0"]) < MODULE
    assert difference(output.last_hidden_state[:, 0], golden["trunk_out_cls"]) < MODULE
    before_head = tower.post_layernorm(output.last_hidden_state[:, 0])
    features = golden["audio_feature_pre_head"]
    assert difference(before_head.view_as(features), features) < MODULE
    expected = golden["imagebind_finalout"]
    assert difference(output.pooler_output.view_as(expected), expected) < TOKENS
    assert abs(tower.log_logit_scale.exp().item() - originals.sizes["ib"]["logit"]) < 1e-4


# --- e: mel --------------------------------------------------------------------------------------------------------

MEL_PRESETS = {"e_mel_agpt": "affectgpt", "e_mel_vl": "timechat"}
SOUNDS = [
    (name, key.removesuffix(".mel_clips"))
    for name in MEL_PRESETS
    for key in names_in(name)
    if key.endswith(".mel_clips")
]


@pytest.mark.parametrize("name, sound", SOUNDS)
def test_golden_mel(originals, name, sound):
    golden, facts = io(name), facts_in(name)
    processor = originals.processor(
        "blip2" if MEL_PRESETS[name] == "affectgpt" else "instructblip", preset=MEL_PRESETS[name]
    )
    if f"{sound}.waveform_int16" in golden:
        fact = facts[sound]
        output = processor(
            audio=golden[f"{sound}.waveform_int16"].numpy(), sampling_rate=fact["sr"], return_tensors="pt"
        )
    else:
        fact = facts[f"{sound}.audio"]
        output = processor(audio=str(SHARED / "data" / "clips" / "free" / sound), return_tensors="pt")
    mel = output["input_features"][0]
    assert output["audio_segment_mask"].all()
    assert difference(mel[fact["clip_index_of_mel_clips"]], golden[f"{sound}.mel_clips"]) < MEL
    statistics = torch.stack([mel.mean((1, 2, 3)), mel.std((1, 2, 3))], dim=1)
    assert difference(statistics, golden[f"{sound}.clip_mean_std"]) < MEL


# --- f: frames and sampling ----------------------------------------------------------------------------------------

FREE_CLIPS = SHARED / "data" / "clips" / "free"
FRAME_KEYS = [key for key in names_in("f_frames_agpt") if ".frames_u8_" in key]


@pytest.mark.parametrize("key", FRAME_KEYS)
def test_golden_frames(originals, key):
    golden = io("f_frames_agpt")
    clip, _, numbers = key.rpartition(".frames_u8_")
    picked = [int(number) for number in numbers.split("_")]
    frames = golden[key]
    means = golden[f"{clip}.pixel_mean_per_frame_channel"]
    size = {"height": frames.shape[1], "width": frames.shape[2]}
    expected = facts_in("f_frames_agpt")[clip][f"n{len(means)}.agpt"]["indices"]
    processor = originals.processor("blip2", preset="affectgpt")

    def see(**options):
        output = processor(
            videos=str(FREE_CLIPS / clip), size=size, return_metadata=True, return_tensors="pt", **options
        )
        return output["pixel_values_videos"][0], output["video_metadata"][0]

    pixels, metadata = see(num_frames=len(means))
    assert metadata.frames_indices == expected
    # Seeking in a file without an index of its frames (MPEG program streams), the goldens' decoder came out a fixed
    # number of frames too late. The pictures are the same; where it was right the shift is 0.
    total = metadata.total_num_frames
    blank = np.full((total, 478, 2), np.nan, np.float32)
    all_pixels, _ = see(do_sample_frames=False, max_frames=total, landmarks=blank)
    assert torch.equal(all_pixels[expected], pixels)
    mean, std = (torch.tensor(getattr(processor.video_processor, f"image_{name}")) for name in ("mean", "std"))

    def wrong_by(shift: int) -> float:
        """Mean difference of the goldens' frames to ours, in grey levels."""
        ours = all_pixels[[min(expected[number] + shift, total - 1) for number in picked]]
        return ((ours.movedim(1, -1) * std + mean) * 255 - frames.float()).abs().mean().item()

    shift = 0 if has_frame_index(FREE_CLIPS / clip) else min(range(total), key=wrong_by)
    assert wrong_by(shift) < PIXELS
    as_read = all_pixels[[min(index + shift, total - 1) for index in expected]]
    normalised = PIXELS / 255 / std  # the same tolerance in normalised units
    assert ((as_read.mean((2, 3)) - means).abs() < normalised).all()
    for name in (name for name in golden if name.startswith(f"{clip}.pixel_values_frame")):
        frame, first, last = (
            int("".join(filter(str.isdigit, part))) for part in name.rpartition(".pixel_values_")[2].split("_")
        )
        assert ((as_read[frame, :, first:last] - golden[name]).abs().mean((1, 2)) < normalised).all()


def has_frame_index(path) -> bool:
    import av

    with av.open(str(path)) as container:
        return container.format.name != "mpeg"


def unseen_clip(processor, total: int, fps: float, num_frames: int):
    """The metadata of a blank clip of `total` frames in which no face is looked for."""
    side = processor.video_processor.size["height"]
    return processor.video_processor(
        np.zeros((total, side, side, 3), np.uint8),
        video_metadata={"fps": fps},
        landmarks=np.full((total, 478, 2), np.nan, np.float32),
        num_frames=num_frames,
    )["video_metadata"][0]


SAMPLING = [(name, n) for name in ("f_sampling_agpt", "f_sampling_vl") for n in range(len(facts_in(name)))]
SAMPLERS = {"agpt": "affectgpt", "vl": "microemo", "timechat": "timechat"}


@pytest.mark.parametrize("name, number", SAMPLING)
def test_golden_sampling(originals, name, number):
    case = facts_in(name)[number]
    most = max(other["n_frms"] for other in facts_in(name))
    samplers = SAMPLERS.keys() & case.keys()
    assert samplers
    for sampler in samplers:
        preset = SAMPLERS[sampler]
        qformer = "blip2" if preset == "affectgpt" else "instructblip"
        processor = originals.processor(qformer, preset=preset, max_frames=most)
        clip = unseen_clip(processor, case["vlen"], case["fps"], case["n_frms"])
        assert clip.frames_indices == case[sampler]["indices"], sampler
        if sampler == "timechat":
            said = [sentence.split()[-2] for sentence in processor.timestamp_sentences(clip)]
            assert f"contains {len(said)} frames sampled at {', '.join(said)} seconds" in case[sampler]["msg"]


@pytest.mark.parametrize("clip, case", [(clip, case) for clip, facts in facts_in("f_frames_agpt").items() for case in facts if case.startswith("n")])  # fmt: skip
def test_golden_sampling_of_files(originals, clip, case):
    facts = facts_in("f_frames_agpt")
    num_frames, sampler = case.removeprefix("n").split(".")
    most = max(int(case.removeprefix("n").split(".")[0]) for case in facts[clip] if case.startswith("n"))
    preset = SAMPLERS[sampler]
    processor = originals.processor(
        "blip2" if preset == "affectgpt" else "instructblip", preset=preset, max_frames=most
    )
    total, expected = facts[clip]["vlen"], facts[clip][case]
    (metadata,) = processor(
        videos=str(FREE_CLIPS / clip),
        landmarks=np.full((total, 478, 2), np.nan, np.float32),
        num_frames=int(num_frames),
        return_metadata=True,
    )["video_metadata"]
    assert (metadata.total_num_frames, metadata.fps) == (total, facts[clip]["fps"])
    assert metadata.frames_indices == expected["indices"]
    if sampler == "timechat":
        sentences = processor.timestamp_sentences(metadata)
        written = expected["timestamp_sentences"]  # the first ones and the last, or all
        assert written in (sentences, [*sentences[: len(written) - 1], sentences[-1]])
