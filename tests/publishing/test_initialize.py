"""Checkpoint folders with random weights."""

import json
import resource
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    pipeline,
)

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.modeling_microemo.convert_original import ConversionError
from microemo.publishing.initialize import initialize, tiny_qformer_tokenizer, tiny_tokenizer
from microemo.tests.modeling_microemo.conftest import make_language_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return initialize("microemo-tiny", tmp_path_factory.mktemp("checkpoints") / "tiny")


def test_everything_loads(folder):
    model, report = MicroEmoForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert type(AutoModelForMultimodalLM.from_pretrained(folder)) is MicroEmoForConditionalGeneration
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is MicroEmoProcessor and processor.video_processor.num_frames == 24
    assert (processor.feature_extractor.num_segments, processor.feature_extractor.segment_duration) == (32, 0.5)
    processor.check_config(model.config)
    assert processor.tokenizer.model_max_length == model.config.text_config.max_position_embeddings
    inputs = processor(text="What does the speaker feel?", return_tensors="pt")
    with torch.no_grad():
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[0] == 1


def test_transformers_own_pipeline(folder):
    chat = pipeline("image-text-to-text", model=str(folder))
    sound = {"type": "audio", "audio": np.sin(np.arange(16_000) / 9), "sampling_rate": 16_000}
    messages = [{"role": "user", "content": [sound, {"type": "text", "text": "What does the speaker feel?"}]}]
    (answer,) = chat(messages, max_new_tokens=3, return_full_text=False)
    assert isinstance(answer["generated_text"], str)


def test_tokens_are_where_the_preset_says(folder):
    preset, config = MicroEmoConfig.from_preset("microemo-tiny"), MicroEmoConfig.from_pretrained(folder)
    tokenizer = MicroEmoProcessor.from_pretrained(folder).tokenizer
    assert tokenizer.convert_tokens_to_ids(["<video>", "<audio>"]) == [preset.video_token_id, preset.audio_token_id]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (
        preset.text_config.pad_token_id,
        preset.text_config.bos_token_id,
        preset.text_config.eos_token_id,
    )
    assert len(tokenizer) == config.text_config.vocab_size <= preset.text_config.vocab_size
    assert config.architectures == ["MicroEmoForConditionalGeneration"] and config.dtype == torch.float32


def test_weights_follow_the_models_own_rule(folder):
    """Each tensor has the statistics that the model's own constructor gives it."""
    made = MicroEmoForConditionalGeneration.from_pretrained(folder)
    torch.manual_seed(1)
    reference = MicroEmoForConditionalGeneration(made.config)
    for (name, one), (_, other) in zip(made.state_dict().items(), reference.state_dict().items(), strict=True):
        if other.numel() < 2 or other.std() == 0:
            torch.testing.assert_close(one, other, msg=name)
        else:
            assert 0.7 < one.std() / other.std() < 1.4 and abs(one.mean() - other.mean()) < other.std(), name


def test_seeds(tmp_path):
    weights = [
        load_file(initialize("microemo-tiny", tmp_path / str(index), seed=seed) / "model.safetensors")
        for index, seed in enumerate([0, 0, 1])
    ]
    name = "model.video_projection.weight"
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialize("microemo-tiny", tmp_path / "tiny")
    assert torch.equal(torch.rand(3), expected)


def test_shards(folder, tmp_path):
    limit = 2_000_000
    sharded = initialize("microemo-tiny", tmp_path / "tiny", max_shard_size=limit)
    whole = load_file(folder / "model.safetensors")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
    files = sorted(sharded.glob("*.safetensors"))
    assert len(files) > 4 and {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(w.numel() * w.element_size() for w in whole.values())
    for file in files:
        part = load_file(file)
        assert sum(w.numel() * w.element_size() for w in part.values()) <= limit or len(part) == 1
        assert all(torch.equal(whole[name], weight) for name, weight in part.items())
    _, report = MicroEmoForConditionalGeneration.from_pretrained(sharded, output_loading_info=True)
    assert not any(report.values())


def test_tokenizers_of_the_user(tmp_path):
    """A language model's tokenizer without our tokens and without padding, as LLaMA's is."""
    tokenizer = tiny_tokenizer()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [t for t in backend["added_tokens"] if t["content"] in ("<s>", "</s>")]
    backend["padding"] = None
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path / "llm")
    tiny_qformer_tokenizer().save_pretrained(tmp_path / "qformer")
    folder = initialize("microemo-tiny", tmp_path / "out", tmp_path / "llm", tmp_path / "qformer")
    processor = MicroEmoProcessor.from_pretrained(folder)
    model = MicroEmoForConditionalGeneration.from_pretrained(folder)
    assert (
        model.config.video_token_id == processor.tokenizer.convert_tokens_to_ids("<video>") == processor.video_token_id
    )
    assert (
        model.config.audio_token_id == processor.tokenizer.convert_tokens_to_ids("<audio>") == processor.audio_token_id
    )
    assert processor.tokenizer.pad_token == "</s>" and model.config.text_config.pad_token_id == 2
    assert model.get_input_embeddings().weight.shape[0] == len(processor.tokenizer)


def test_tiny_tokenizers():
    config = MicroEmoConfig.from_preset("microemo-tiny")
    text = "Anna féels 😀 happy, <video> </s>\n\tbecause…"
    tokenizer, qformer = tiny_tokenizer(), tiny_qformer_tokenizer()
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True).input_ids) == text
    assert len(qformer) <= config.image_qformer_config.vocab_size
    for time in [f"{index / 10:.1f}" for index in range(0, 36000, 7)]:
        for sentence in (f"This frame is sampled at {time}s.", f"This frame is sampled at {time} second."):
            ids = qformer(sentence).input_ids
            assert qformer.unk_token_id not in ids and len(ids) <= config.image_qformer_config.max_position_embeddings


def test_folder_in_use(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        initialize("microemo-tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "tiny").mkdir()
    assert (initialize("microemo-tiny", tmp_path / "tiny") / "config.json").exists()


def initialize_on_a_full_disk(folder, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    initialize("microemo-tiny", folder)


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_nothing_is_left_when_the_disk_is_full(in_fork, tmp_path, limit):
    """A limit on the size of files stands for the full disk: tokenizers, or safetensors, fail part-way."""
    code, error = in_fork(initialize_on_a_full_disk, tmp_path / "new" / "tiny", limit)
    assert code == 1 and error.startswith("NoSpaceError: ") and "Nothing was kept" in error
    assert not list((tmp_path / "new").iterdir())


def test_missing_tokenizers(tmp_path):
    with pytest.raises(ValueError, match="microemo-7b needs two tokenizers.*--llm-tokenizer.*--qformer-tokenizer"):
        initialize("microemo-7b", tmp_path / "big")
    with pytest.raises(ValueError, match="'microemo-8b'.*microemo-7b, microemo-modern, microemo-small, microemo-tiny"):
        initialize("microemo-8b", tmp_path / "big")


# --- pretrained parts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A speech recogniser in float16, of which the encoder is wanted."""
    folder = tmp_path_factory.mktemp("whisper")
    sizes = {"encoder_layers": 4, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(
        d_model=32,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=20,
        max_source_positions=100,
        vocab_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **sizes,
    )
    WhisperForConditionalGeneration(config).half().save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2, dither=0.25).save_pretrained(folder)
    return folder


def test_a_pretrained_audio_encoder(whisper, tmp_path):
    folder = initialize("microemo-small", tmp_path / "small", audio=whisper)
    model, report = MicroEmoForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    config = model.config
    # The preset's layers of a Whisper as deep as its own.
    assert (config.audio_feature_layer, config.audio_width, config.audio_steps_per_segment) == ([2, 3, 4], 96, 20)
    theirs = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32).get_encoder()
    assert all(torch.equal(model.get_encoder("audio").state_dict()[n], w) for n, w in theirs.state_dict().items())
    processor = MicroEmoProcessor.from_pretrained(folder)
    processor.check_config(config)
    assert processor.feature_extractor.tower_extractor["dither"] == 0.25  # of the checkpoint's own extractor
    told = json.loads((folder / "conversion_report.json").read_text())
    (source,) = told["sources"]
    assert (source["file"], source["holds"]) == (whisper.name, ["audio tower"])
    assert {f"model.audio_branch.audio_tower.{name}" for name in theirs.state_dict()} == set(source["used"])
    (ignored,) = source["ignored"].values()
    assert ignored and all(name.startswith("model.decoder.") for name in ignored)
    assert "model.audio_projection.weight" in told["new"] and not set(told["new"]) & set(source["used"])


def test_an_encoder_of_another_kind_than_the_presets(whisper, tmp_path):
    folder = initialize("microemo-tiny", tmp_path / "tiny", audio=whisper)
    config = MicroEmoConfig.from_pretrained(folder)
    assert (config.audio_feature_layer, config.audio_pool_size, config.max_audio_segments) == (-1, 5, 30)


def test_a_pretrained_language_model(tmp_path):
    llm = make_language_model(tmp_path / "llm")
    folder = initialize("microemo-tiny", tmp_path / "tiny", llm=llm)
    model = MicroEmoForConditionalGeneration.from_pretrained(folder)
    theirs = LlamaForCausalLM.from_pretrained(llm)
    rows = theirs.config.vocab_size
    table = model.get_input_embeddings().weight
    assert torch.equal(table[:rows], theirs.get_input_embeddings().weight) and len(table) == rows + 2
    torch.testing.assert_close(table[rows:], table[:rows].mean(0, keepdim=True).expand(2, -1))
    assert torch.equal(model.lm_head.weight[:rows], theirs.lm_head.weight)
    processor = MicroEmoProcessor.from_pretrained(folder)
    processor.check_config(model.config)
    assert processor.tokenizer("what").input_ids == AutoTokenizer.from_pretrained(llm)("what").input_ids


def test_a_part_that_is_none(whisper, tmp_path):
    with pytest.raises(ValueError, match="--audio.*'llama'.*no audio tower.*whisper"):
        initialize("microemo-tiny", tmp_path / "one", audio=make_language_model(tmp_path / "llm"))
    weights = load_file(whisper / "model.safetensors")
    weights.pop("model.encoder.conv1.bias")
    shutil.copytree(whisper, tmp_path / "part")
    save_file(weights, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="audio tower whole.*conv1.bias"):
        initialize("microemo-small", tmp_path / "two", audio=tmp_path / "part")
    assert not (tmp_path / "two").exists()
