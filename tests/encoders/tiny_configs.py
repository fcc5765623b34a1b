"""Tiny configurations of any model type of Transformers, made of its default configuration by rules on names."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

WIDTH, HEADS, HEAD_DIM, IMAGE, PATCH, VOCABULARY = 64, 4, 16, 64, 16, 300

# The greatest value of a whole number whose field's name ends like this; of several endings the first one counts.
# The last number says up to which tier of three the row counts; later tiers keep more of the defaults.
SIZES: tuple[tuple[str, int, int], ...] = (
    (
        r"vocab(ulary)?_size(_per_layer_input)?|entity_vocab_size|num_hash_buckets|unit_hifi_gan_vocab_size",
        VOCABULARY,
        3,
    ),
    (r"position_embeddings|n_positions|n_ctx|max_seq_len|position_embedding_size|max_length", 512, 3),
    (r"max_source_positions", 50, 3),
    (r"(key_value|kv|linear_num_key|swa_num_key_value)_heads", 2, 2),
    (r"head_out_channels|num_(qa|object|attr)_labels|spectrogram_bins", VOCABULARY, 3),
    (
        r"(^|_)(attention_heads|num_heads|n_heads?|index_n_heads|value_heads|mamba_heads|key_value_attention_heads)",
        HEADS,
        2,
    ),
    (r"(hidden|encoder|decoder|num|spatial|temporal|conv|adapter|postnet|predictor|wavenet)_layers", 2, 3),
    (r"n_layers?|[lrx]_layers|^depth", 2, 3),
    (r"encoder_hidden_dim|encoder_linear_units|decoder_linear_units", WIDTH, 1),
    (r"(qk_(rope|nope)|v|swa|linear|linear_key|linear_value|index|mamba|attention)?_?head_(dim|size)", HEAD_DIM, 1),
    (r"d_kv|d_head|kv_channels", HEAD_DIM, 1),
    (r"dim_head|rotary_dim", HEAD_DIM, 1),
    (r"lora_rank|_rank|state_size|d_state", HEAD_DIM, 1),
    (r"experts_per_tok|moe_(top)?k|zero_expert_num|expert_capacity", 2, 3),
    (r"experts", 4, 3),
    (r"n_groups?|first_k_dense_replace", 2, 3),
    (r"topk_group", 1, 3),
    (r"index_topk|query_tokens|num_queries|num_landmarks|segment_means_seq_len|prompt_length", 16, 3),
    (r"num_denoising|num_prompts", 4, 3),
    (r"(image|input|crop|img)_size", IMAGE, 1),
    (r"patch_size", PATCH, 1),
    (r"(intermediate|ffn|inner|ffn_hidden|feed_forward)_(dim|size|dim_size)", WIDTH, 1),
    (r"intermediate_size_mlp|d_ff|dff|d_inner|dim_ff", WIDTH, 1),
    (r"dim_feedforward|encoder_feedforward_dim|n_inner|moe_hidden_size|intermediate_multiple_size", WIDTH, 1),
    (
        r"(hidden|embedding|embed|feature|projector_hidden|out_hidden|projection|emb)_(size|dim)|d_model|n_embd|^dim",
        WIDTH,
        1,
    ),
    (r"(text|image_text|decoder|encoder|visual|pred)_hidden_size|dim_model|hidden_size_per_layer_input", WIDTH, 1),
    (r"num_conv_pos_embeddings", 16, 3),
)
# Fields of these names hold a number per stage; widths are divided by one number, so that they fit each other.
STAGE_RATIO = 8
STAGE_WIDTHS = re.compile(r"(hidden_sizes|embed_dims?|conv_dim|in_channels|out_channels|channels|_dims|tdnn_dim)$")
STAGE_COUNTS = re.compile(r"(depths?|num_block_repeats|block_sizes)$")
STAGE_HEADS = re.compile(r"(num_heads|num_attention_heads)$")
SPECIAL = re.compile(r"(token_id|token_index|token_ids|_id|token_index_list|suppress_tokens|_tokens)$")
KEEP = object()

MOST_PARAMETERS = 3e7

# Windows are cut to the size of the images, though tables of positions in them are not.
SWIN = {"window_size": 2}
# The modeling code's sections are meant for wider heads.
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
# Widths and counts are multiplied by these, and the first width is the stem's.
NETWORK = {
    "in_channels": KEEP,
    "out_channels": KEEP,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
}
# What no rule tells, by the type of a configuration or of a configuration inside it: KEEP leaves the default.
HINTS: dict[str, dict[str, Any]] = {
    "cvt": {"depth": [1, 2, 3]},
    "swin": SWIN,
    "swinv2": SWIN,
    "donut-swin": SWIN,
    "maskformer-swin": SWIN,
    "qwen2_vl_text": SECTIONS,
    "qwen2_5_vl_text": SECTIONS,
    "qwen2_5_omni_text": SECTIONS,
    "paddleocr_vl_text": SECTIONS,
    "hunyuan_vl_text": {"rope_parameters": {**SECTIONS["rope_parameters"], "mrope_section": [2, 2, 2, 2]}},
    "glm4v_text": SECTIONS,
    "glm4v_moe_text": SECTIONS,
    "glm_image_text": SECTIONS,
    "glm_ocr_text": SECTIONS,
    "sapiens2": {"num_key_value_attention_heads": 2, "num_key_value_heads_per_layer": [4, 2]},
    # Sums and products of widths.
    "layoutlmv3": {"coordinate_size": 8, "shape_size": 16},
    "lilt": {"hidden_size": 96},
    "mamba2": {"num_heads": 8},
    "mimi": {"upsample_groups": 64},
    "mimi_encoder": {"upsample_groups": 64},
    "fun_asr_nano": {
        "adaptor_config": {
            "hidden_size": 64,
            "intermediate_size": 16,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "projector_hidden_size": 64,
        }
    },
    "janus_vqgan": {"base_channels": 32, "latent_channels": 32},
    "mask2former": {"num_attention_heads": 8},
    "gemma4_audio": {"subsampling_conv_channels": KEEP},
    # By default some layers have other heads.
    "dots3_note_text": {"per_layer_config": {0: {}}, "head_dim": 32},
    "sam_vision_model": {"output_channels": 64, "num_pos_feats": 32},
    "sam_hq_vision_model": {"output_channels": 64, "num_pos_feats": 32},
    "sam2_hiera_det_model": {
        "hidden_size": 32,
        "embed_dim_per_stage": [32, 64, 128, 256],
        "blocks_per_stage": [1, 1, 1, 1],
        "global_attention_blocks": [],
    },
    "sam2_vision_model": {"backbone_channel_list": [256, 128, 64, 32]},
    # The first stage reads the image or the stem's channels.
    "hgnet_v2": {"stem_channels": [3, 8, 8]},
    "pp_lcnet_v4": {"stem_channels": KEEP},
    "efficientnet": NETWORK,
    "align_vision_model": NETWORK,
    "textnet": {"stem_out_channels": 8},
    # Kinds of layers that are not named one by one.
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    # What has no default.
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 200},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 200},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 2},
    "idefics": {"freeze_vision_layers": False, "freeze_text_layers": False},
    "xmod": {"default_language": "en_XX"},
    "clvp_encoder": {"use_rotary_embedding": False},
    # In training a text is as long as the product of the axes and a multiple of a chunk.
    "reformer": {"axial_pos_embds": False, "local_attn_chunk_length": 1, "lsh_attn_chunk_length": 1, "num_buckets": 2},
    # Prompts must leave room in the frame.
    "tvp": {"visual_prompt_size": 8, "num_frames": 2},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return a configuration of this type of which a model is built at once.

    Raises:
        ValueError: No tier of the rules makes a configuration of which a model can be built.
    """
    reasons = []
    for tier, fills in ((1, False), (1, True), (2, False), (3, False)):
        try:
            config = _shrink(CONFIG_MAPPING[model_type](), tier, fills, {})
            if isinstance(MODEL_MAPPING_NAMES.get(model_type), tuple | list):
                # AutoModel looks among these for a class; None is not looked through.
                config.architectures = []
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
            if size < MOST_PARAMETERS:
                return config
            reasons.append(f"{size / 1e6:.0f} M parameters")
        # Any class of Transformers raises what it likes of a configuration that it cannot read.
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}")
    raise ValueError(" | ".join(reason[:300] for reason in reasons))


def _shrink(default: PreTrainedConfig, tier: int, fills: bool, ids: dict[int, int]) -> PreTrainedConfig:
    """A configuration made small.

    Args:
        default: The configuration.
        tier: How much keeps its default, see SIZES.
        fills: Whether sizes without a value get one.
        ids: The words that take the place of special ones, for all parts alike; it is written to.
    """
    hints, usual = HINTS.get(default.model_type, {}), type(default)()
    given: dict[str, Any] = {}
    for field in dataclasses.fields(default):
        value = vars(default).get(field.name)
        if isinstance(value, PreTrainedConfig):
            given[field.name] = _shrink(value, tier, fills, ids)
            continue
        small = _small(field.name, value, tier, ids)
        # What has no default of its own follows from the other fields.
        if value != vars(usual).get(field.name) or (
            small != value and (field.default is not None or SPECIAL.search(field.name))
        ):
            given[field.name] = small
        elif fills and value is None and (most := _most(field.name, tier)):
            given[field.name] = most
    given |= _layers(default) | _rope(default)
    heads = [vars(default).get(name) for name in ("num_attention_heads", "num_key_value_heads")]
    if "num_key_value_heads" in given and heads[0] == heads[1]:
        given["num_key_value_heads"] = given["num_attention_heads"]
    if (stages := given.pop("_out_features", None)) is not None:
        # The field is written by the setting without the first letter; the indices follow from the names.
        given["out_features"] = stages
        given.pop("_out_indices", None)
    given |= {name: value for name, value in hints.items() if value is not KEEP}
    return type(default)(**{name: value for name, value in given.items() if hints.get(name) is not KEEP})


def _most(name: str, tier: int) -> int | None:
    """The greatest value of a field, if a row of SIZES says one."""
    rows = ((most, last) for ending, most, last in SIZES if re.search(f"({ending})$", name))
    most, last = next(rows, (None, 0))
    return most if tier <= last else None


def _small(name: str, value: Any, tier: int, ids: dict[int, int]) -> Any:
    """A field's value made small, or as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if SPECIAL.search(name):
            return ids.setdefault(value, VOCABULARY - 1 - len(ids)) if value >= VOCABULARY else value
        return min(value, _most(name, tier) or value)
    if isinstance(value, tuple | list) and value and all(type(item) is int for item in value):
        return type(value)(_small_items(name, value, tier, ids))
    return value


def _small_items(name: str, items: Sequence[int], tier: int, ids: dict[int, int]) -> list[int]:
    """The small numbers of a field that holds several."""
    if SPECIAL.search(name) or re.search(r"(image|input|patch)_size$", name):
        return [_small(name, item, tier, ids) for item in items]
    if STAGE_COUNTS.search(name):
        return [1] * len(items)
    if tier == 1 and STAGE_HEADS.search(name):
        return [min(item, 2) for item in items]
    if tier == 1 and STAGE_WIDTHS.search(name):
        return [max(8, -(-item // STAGE_RATIO // 8) * 8) for item in items]
    return list(items)


def _layers(default: PreTrainedConfig) -> dict[str, Any]:
    """The fields that speak of each layer, with one layer of each kind that the default has, and two at least."""
    total = vars(default).get("num_hidden_layers")
    if not isinstance(total, int):
        return {}
    rows = {
        name: vars(default)[name]
        for name in (field.name for field in dataclasses.fields(default))
        if isinstance(vars(default).get(name), tuple | list) and len(vars(default)[name]) == total
    }
    kinds = list(zip(*rows.values()))
    places = sorted({kinds.index(kind) for kind in kinds}) or [0]
    places = places if len(places) > 1 else list(range(min(2, total)))
    return {"num_hidden_layers": len(places)} | {
        name: [value[place] for place in places] for name, value in rows.items()
    }


def _rope(default: PreTrainedConfig) -> dict[str, Any]:
    """The parameters of rotary positions, whose lists are as long as, or sum up to, half a head's width."""
    parameters = vars(default).get("rope_parameters")
    ratio = HEAD_DIM / (vars(default).get("head_dim") or 2 * WIDTH)

    def scale(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: scale(key, item) for key, item in value.items()}
        if name == "mrope_section":
            rest = [int(item * ratio) for item in value[1:]]
            return [int(sum(value) * ratio) - sum(rest), *rest]
        if name in ("long_factor", "short_factor"):
            return value[: HEAD_DIM // 2]
        return value

    return {"rope_parameters": scale("", parameters)} if isinstance(parameters, Mapping) else {}
