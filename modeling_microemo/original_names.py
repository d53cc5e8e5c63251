"""What the tensors of a model are called in the originals' files, and which tensors of these no model needs."""

import re
from collections.abc import Mapping

from ..configuration.configuration_microemo import MicroEmoConfig

# Parts of our names, in order, and what stands for them in the originals.
_EVA_CLIP = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "encoder.layers.": "blocks.",
    ".self_attn.qkv.": ".attn.qkv.",
    ".self_attn.projection.": ".attn.proj.",
    ".layer_norm": ".norm",
    "post_layernorm.": "ln_vision.",
}
_IMAGEBIND = {
    "class_embedding": "modality_preprocessors.audio.cls_token",
    "position_embedding": "modality_preprocessors.audio.pos_embedding_helper.pos_embed",
    "patch_embedding.": "modality_preprocessors.audio.rgbt_stem.proj.",
    "patch_layernorm.": "modality_preprocessors.audio.rgbt_stem.norm_layer.",
    "head.": "modality_heads.audio.2.",
    "post_layernorm.": "modality_heads.audio.0.",
    "layers.": "modality_trunks.audio.blocks.",
    ".attention.qkv.": ".attn.in_proj_",
    ".attention.projection.": ".attn.out_proj.",
    ".attention.bias_": ".attn.bias_",
    ".layernorm": ".norm_",
    ".fc": ".mlp.fc",
    "log_logit_scale": "modality_postprocessors.audio.1.log_logit_scale",
}
_QFORMER = {"attention.attention.": "attention.self.", "layernorm.": "LayerNorm."}

VISION = "model.visual_encoder.vision_model."
IMAGE_QFORMER = "model.visual_encoder.image_qformer."
AUDIO_TOWER = "model.audio_branch.audio_tower."
LANGUAGE_MODEL = "model.language_model."
FRAME_POSITIONS = "model.video_qformer.frame_positions.weight"
SEGMENT_POSITIONS = "model.audio_branch.segment_positions.weight"
FRAME_POSITIONS_KEY, SEGMENT_POSITIONS_KEY = "video_frame_position_embedding.weight", "audio_position_embedding.weight"

# What a tensor belongs to, and the option of `microemo convert` that brings it. The first match counts.
PARTS = {
    VISION + "post_layernorm": ("ln_vision", "qformer"),
    VISION: ("image encoder", "vision"),
    "model.visual_encoder.": ("image Q-Former", "qformer"),
    "model.video_": ("video branch", "video_branch"),
    AUDIO_TOWER: ("ImageBind audio tower", "imagebind"),
    "model.audio_": ("audio branch", "audio_branch"),
    "": ("language model", "llm"),
}

# Parameters without an original. They are initialised as in a model trained from scratch, the gate at 0.
NEW = (
    "model.visual_encoder.local_clue_attention.",
    "model.visual_encoder.fusion.",
)
NEW_WITHOUT_AUDIO = ("model.audio_branch.", "model.audio_projection.")

# With another encoder than the paper's: what stands in the place of the original's, what reads it at another width and is
# new, and the keys of the sources that nobody needs then.
OTHER_TOWERS = {
    "vision": (
        VISION,
        re.compile(re.escape(IMAGE_QFORMER) + r".+\.crossattention\..+\.(key|value)\..+"),
        r"(ln_vision|visual_encoder|vision_model|blocks|patch_embed)\..+|(cls_token|pos_embed)",
    ),
    "audio": (
        AUDIO_TOWER,
        re.compile(
            r"model\.audio_branch\.(segment_positions\..+|audio_qformer\..+\.crossattention\..+\.(key|value)\..+)"
        ),
        r"(audio_encoder\.)?modality_.+",
    ),
}

# The keys that an option needs of InstructBLIP's checkpoint in Transformers' format, which holds three of the parts.
INSTRUCTBLIP_LANGUAGE_MODEL = "language_model."
INSTRUCTBLIP_KEYS = {
    "vision": re.compile(r"vision_model\..+"),
    "qformer": re.compile(r"vision_model\.post_layernorm\..+|qformer\..+|query_tokens"),
    "llm": re.compile(re.escape(INSTRUCTBLIP_LANGUAGE_MODEL) + ".+"),
}

LORA = re.compile(r"llama_model\.base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight")


def _replace(name: str, parts: Mapping[str, str]) -> str:
    for ours, original in parts.items():
        name = name.replace(ours, original)
    return name


def original_names(name: str, llm_names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns the keys that fill a tensor of the model.

    Args:
        name (`str`): The name of the model's tensor.
        llm_names (`Mapping[str, str]`): The names in the language model's own checkpoint, by ours.

    Returns:
        `list[tuple[str, ...]]`: Alternatives, each of one key, or of two for the biases of the image encoder.
    """
    if name in llm_names:
        return [(llm_names[name],), (INSTRUCTBLIP_LANGUAGE_MODEL + llm_names[name],)]
    if name.startswith(NEW):
        return []
    if name.startswith(VISION):
        rest = name.removeprefix(VISION)
        original = _replace(rest, _EVA_CLIP)
        halves = (original.replace("qkv.bias", "q_bias"), original.replace("qkv.bias", "v_bias"))
        return [halves if original.endswith("qkv.bias") else (original,), (f"vision_model.{rest}",)]
    if name.startswith(IMAGE_QFORMER):
        rest = name.removeprefix(IMAGE_QFORMER)
        if rest.startswith("layernorm."):  # the text-free Q-Former keeps it outside the embeddings
            return [(_bert("Qformer", rest),), (f"qformer.{rest}",), (f"qformer.embeddings.{rest}",)]
        return [(_bert("Qformer", rest),), (f"qformer.{rest}",)]
    if name.startswith(AUDIO_TOWER):
        return [(_replace(name.removeprefix(AUDIO_TOWER), _IMAGEBIND),)]
    if match := re.fullmatch(r"model\.(video|audio)_\w+\.\w+_qformer\.(.+)", name):
        modality, rest = match.groups()
        if rest == "query_tokens":
            return [(f"{modality}_query_tokens",)]
        return [(_bert(f"{modality}_Qformer", rest.removeprefix("qformer.")),)]
    fixed = {
        "model.visual_encoder.query_tokens": "query_tokens",
        FRAME_POSITIONS: FRAME_POSITIONS_KEY,
        SEGMENT_POSITIONS: SEGMENT_POSITIONS_KEY,
    }
    projections = {"model.video_projection.": "llama_proj.", "model.audio_projection.": "audio_llama_proj."}
    return [(fixed.get(name) or _replace(name, projections),)]


def _bert(module: str, rest: str) -> str:
    original = _replace(rest, _QFORMER)
    return f"{module}.bert.embeddings.{original}" if original.startswith("LayerNorm.") else f"{module}.bert.{original}"


def ignored_tensors(config: MicroEmoConfig) -> list[tuple[str, str]]:
    """Returns the keys that no part of the model needs, and why.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.

    Returns:
        `list[tuple[str, str]]`: Patterns of keys, each with the reason.
    """
    depth = config.vision_config.num_hidden_layers
    ignored = [
        (r"(.+\.)?position_ids", "indices, no weights"),
        (r".+\.rotary_emb\.inv_freq", "computed from the configuration"),
        (rf"blocks\.(?!(?:{'|'.join(map(str, range(depth)))})\.)\d+\..+", "block after the last that runs"),
        (r"(norm|fc_norm|head)\.(weight|bias)", "head of EVA-CLIP, which does not run"),
        (r"(t5|opt|llm)_proj\.(weight|bias)|language_projection\.(weight|bias)", "projection to another model"),
        (r"language_model\..+", "language model of InstructBLIP"),
        (r"modality_\w+\.(vision|text|depth|thermal|imu)\..+", "other modality of ImageBind"),
        (r"audio_encoder\.modality_\w+\.\w+\.(.+\.)?(mask|log_logit_scale)", "stray copy of an ImageBind buffer"),
    ]
    if not config.use_frame_timestamps:
        text = r"embeddings\.(word|position)_embeddings\.weight|encoder\.layer\.\d+\.(intermediate|output)\..+"
        ignored.append((rf"(Qformer\.bert|qformer)\.({text})", "text half, not read without timestamps"))
    return ignored


def part_of(name: str) -> tuple[str, str]:
    """Returns which part of the model a tensor belongs to, and the option that brings it.

    Args:
        name (`str`): The name of the model's tensor.

    Returns:
        `tuple[str, str]`: The part's name, and the option.
    """
    return next(part for prefix, part in PARTS.items() if name.startswith(prefix))
