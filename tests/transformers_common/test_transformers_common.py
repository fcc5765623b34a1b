"""Every common test of Transformers that applies to an encoder passes with the model around it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_mtl.modeling.systems import SYSTEMS
from tests.transformers_common.fetch_transformers_tests import FetchError, fetch

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
CASES = ["default", *SYSTEMS, "llama", "t5", "vit", "wav2vec2"]
# What Transformers adds to the name of a test that runs in several cases.
CASE = re.compile(r"(?<!flash_attn)_\d+(_(fp16|fp32|bf16|linear|dynamic|yarn)\w*)?$")

CHECKED = """
    test_all_tensors_are_parameter_or_buffer test_attention_outputs test_attn_implementation_composite_models
    test_base_model_prefix_loads_base_weights test_batching_equivalence test_bc_torch_dtype
    test_can_be_initialized_on_meta test_can_capture_specific_layers_hidden_states test_can_init_all_missing_weights
    test_can_load_ignoring_mismatched_shapes test_can_set_attention_dynamically
    test_can_set_attention_dynamically_composite_model test_can_use_safetensors
    test_cannot_load_with_meta_device_context_manager test_capture_outputs_decorator test_config
    test_config_attn_implementation_setter test_correct_missing_keys test_determinism
    test_eager_matches_sdpa_inference test_enable_input_require_grads
    test_enable_input_require_grads_with_gradient_checkpointing test_feed_forward_chunking
    test_format_of_can_record_outputs test_from_pretrained_no_checkpoint test_generation_tester_mixin_inheritance
    test_gradient_checkpointing_backward_compatibility test_gradient_checkpointing_enable_disable
    test_hidden_states_output test_init_weights_can_init_buffers test_inputs_embeds
    test_inputs_embeds_matches_input_ids test_internal_model_config_and_subconfig_are_same
    test_load_contiguous_weights test_load_save_without_tied_weights test_model_base_model_prefix
    test_model_forward_default_config_values test_model_get_set_embeddings test_model_is_small
    test_model_main_input_name test_model_outputs_equivalence test_model_weights_reload_no_missing_tied_weights
    test_num_layers_is_small test_peft_gradient_checkpointing_enable_disable
    test_resize_embeddings_untied_no_reinit_on_post_init test_resize_tokens_embeddings
    test_retain_grad_hidden_states_attentions test_save_load test_save_load_keys_to_ignore_on_save
    test_tied_weights_keys test_torch_save_load test_training test_training_gradient_checkpointing
    test_training_gradient_checkpointing_use_reentrant_false test_training_gradient_checkpointing_use_reentrant_true"""

# They pass without a look at the model: why, and which.
NOTHING_TO_CHECK = {
    "only models of images, sound, video or of texts beside these have the method": """
        test_get_audio_features_attentions test_get_audio_features_hidden_states test_get_audio_features_output
        test_get_image_features_attentions test_get_image_features_hidden_states test_get_image_features_output
        test_get_image_features_pooler_output test_get_text_features_attentions test_get_text_features_hidden_states
        test_get_text_features_output test_get_video_features_attentions test_get_video_features_hidden_states
        test_get_video_features_output test_get_video_features_pooler_output""",
    "only classes in Transformers' own list of sequence classifiers": """
        test_load_with_mismatched_shapes test_problem_types""",
    "an encoder has no output embeddings": "test_resize_embeddings_untied",
}

# Skipped everywhere: why, and which. Transformers' tester of BERT skips them too, but for the one of composites.
NOT_APPLICABLE = {
    "no weights are renamed as they are loaded": """
        test_can_load_from_already_mapped_keys test_reverse_loading_mapping""",
    "no language model's head": """
        test_causal_lm_loss_honors_shift_labels test_encoder_decoder_loss_no_double_shift""",
    "no experts of Transformers' in a BERT": """
        test_eager_matches_batched_and_grouped_inference test_moe_models_record_router_logits
        test_output_router_logits_from_config""",
    "no module is kept in float32": "test_keep_in_fp32_modules test_keep_in_fp32_modules_exist",
    "a BERT has no rotary positions": """
        test_model_rope_scaling_frequencies test_model_rope_scaling_from_config test_model_rope_with_partial_rotation
        test_vision_axial_rope""",
    "a BERT's table of positions cannot be resized": "test_resize_position_vector_embeddings",
    "one tower; `test_can_set_attention_dynamically_composite_model` checks that it follows": """
        test_sdpa_can_dispatch_composite_models test_sdpa_can_dispatch_non_composite_models""",
    "a BERT has no sliding window": "test_sliding_window_mask",
    "a BERT has no plan for tensor parallelism": "test_tied_head_has_a_tp_plan_entry test_tp_plan_matches_params",
}

# By kind of encoder: tests that pass though they say nothing of a BERT, and those that say nothing of this one.
APPLICABLE = {
    "llama": {"a plan for tensor parallelism": "test_tied_head_has_a_tp_plan_entry test_tp_plan_matches_params"},
    "t5": {"modules that stay in float32": "test_keep_in_fp32_modules test_keep_in_fp32_modules_exist"},
    "vit": {
        "weights that are renamed as they are loaded": """
            test_can_load_from_already_mapped_keys test_reverse_loading_mapping"""
    },
}
NOT_APPLICABLE_TO = {
    "vit": {"no table of embeddings": "test_enable_input_require_grads_with_gradient_checkpointing"},
    "wav2vec2": {
        "no table of embeddings": "test_enable_input_require_grads_with_gradient_checkpointing",
        "hidden states are of two kinds of modules": "test_can_capture_specific_layers_hidden_states",
    },
}

# Skipped where what they need is missing, else they pass.
NEEDS = {
    "an accelerator": """
        test_can_load_with_device_context_manager test_can_load_with_global_device_set test_cpu_offload
        test_disk_offload_bin test_disk_offload_safetensors test_flex_attention_with_grads
        test_sdpa_can_compile_dynamic test_sdpa_can_dispatch_on_flash test_torch_compile_for_training""",
    "several accelerators": "test_model_parallelism",
    "DeepSpeed": """
        test_resize_embeddings_untied_with_deepspeed test_resize_embeddings_untied_with_deepspeed_multi_gpu
        test_resize_tokens_embeddings_with_deepspeed test_resize_tokens_embeddings_with_deepspeed_multi_gpu""",
    "FlashAttention or the package kernels": """
        test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break
        test_flash_attn_2_can_dispatch_composite_models test_flash_attn_2_fp32_ln test_flash_attn_2_from_config
        test_flash_attn_2_inference_equivalence test_flash_attn_2_inference_equivalence_right_padding
        test_flash_attn_3_can_dispatch_composite_models test_flash_attn_3_from_config
        test_flash_attn_3_inference_equivalence test_flash_attn_3_inference_equivalence_right_padding
        test_flash_attn_4_can_dispatch_composite_models test_flash_attn_4_from_config
        test_flash_attn_4_inference_equivalence test_flash_attn_4_inference_equivalence_right_padding
        test_flash_attn_kernels_inference_equivalence test_flash_attn_kernels_mps_inference_equivalence
        test_kernels_can_load_without_crashing""",
}

# By system: tests that cannot pass, and why.
REFUSED = {
    "individual": {
        "each task has word embeddings of its own, which cannot be replaced or resized": """
            test_model_get_set_embeddings test_resize_tokens_embeddings""",
        "each encoder reads its rows; their states are put together for the output": """
            test_retain_grad_hidden_states_attentions""",
    },
    "private_encoders_adversarial": {
        "each task has word embeddings of its own, which cannot be replaced or resized": """
            test_model_get_set_embeddings test_resize_tokens_embeddings""",
        "each encoder reads its rows; their states are put together for the output": """
            test_retain_grad_hidden_states_attentions""",
    },
    "task_tokens": {
        "the tasks' tokens are read beside the text's; attentions keep them, hidden states are cut": """
            test_attention_outputs test_retain_grad_hidden_states_attentions""",
    },
    "modulated": {
        "the tests' stand-in for the checkpoint function looks re-entrant, which modulation refuses": """
            test_training_gradient_checkpointing test_training_gradient_checkpointing_use_reentrant_false""",
        "activation checkpointing that is re-entrant is refused": """
            test_training_gradient_checkpointing_use_reentrant_true""",
    },
}


def names(*lines: str) -> set[str]:
    return {name for line in lines for name in line.split()}


def outcomes(case: str, folder: Path) -> dict[str, list[str]]:
    """By test what went wrong or why it was skipped; in a process of its own, which reads RUN_SLOW."""
    try:
        fetched = fetch()
    except FetchError as error:
        pytest.skip(str(error))
    path = folder / "outcomes.json"
    search_path = os.pathsep.join([str(REPOSITORY), str(fetched)])
    environment = {**os.environ, "PYTHONPATH": search_path, "RUN_SLOW": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(HERE / "run_case.py"), str(path), case]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_common_test_that_applies_passes(tmp_path, case):
    lines = outcomes(case, tmp_path)
    refused = names(*REFUSED.get(case, {}).values())
    failures = {name: text for name, texts in lines.items() for text in texts if text.startswith("failed")}
    surprises = {name: text for name, text in failures.items() if name not in refused}
    assert not surprises, "\n\n".join(f"{name}: {text}" for name, text in surprises.items())
    assert refused == set(failures)
    skipped = {CASE.sub("", name) for name, texts in lines.items() if texts} - refused
    passed = {CASE.sub("", name) for name, texts in lines.items() if not texts}
    hardware = names(*NEEDS.values())
    assert not skipped & passed
    more, fewer = names(*APPLICABLE.get(case, {}).values()), names(*NOT_APPLICABLE_TO.get(case, {}).values())
    assert skipped - hardware == (names(*NOT_APPLICABLE.values()) | fewer) - more
    assert passed - hardware == (names(CHECKED, *NOTHING_TO_CHECK.values()) | more) - refused - fewer
    assert hardware <= skipped | passed
