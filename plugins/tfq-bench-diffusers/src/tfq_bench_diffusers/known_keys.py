"""Every key of the configurations of networks and autoencoders that are understood.

A test holds the tables against diffusers' signatures. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DECODERS", "NETWORKS"]


def _keys(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_TRANSFORMER = (
    "activation_fn attention_bias attention_head_dim dropout in_channels norm_elementwise_affine "
    "norm_eps norm_num_groups norm_type num_attention_heads num_embeds_ada_norm num_layers "
    "out_channels patch_size sample_size upcast_attention"
)
NETWORKS: Mapping[str, frozenset[str]] = {
    "UNet2DModel": _keys(
        "sample_size in_channels out_channels center_input_sample time_embedding_type "
        "time_embedding_dim freq_shift flip_sin_to_cos down_block_types mid_block_type "
        "up_block_types block_out_channels layers_per_block mid_block_scale_factor "
        "downsample_padding downsample_type upsample_type dropout act_fn attention_head_dim "
        "norm_num_groups attn_norm_num_groups norm_eps resnet_time_scale_shift add_attention "
        "class_embed_type num_class_embeds num_train_timesteps"
    ),
    "UNet2DConditionModel": _keys(
        "sample_size in_channels out_channels center_input_sample flip_sin_to_cos freq_shift "
        "down_block_types mid_block_type up_block_types only_cross_attention "
        "block_out_channels layers_per_block downsample_padding mid_block_scale_factor dropout "
        "act_fn norm_num_groups norm_eps cross_attention_dim transformer_layers_per_block "
        "reverse_transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type "
        "attention_head_dim num_attention_heads dual_cross_attention use_linear_projection "
        "class_embed_type addition_embed_type addition_time_embed_dim num_class_embeds "
        "upcast_attention resnet_time_scale_shift resnet_skip_time_act resnet_out_scale_factor "
        "time_embedding_type time_embedding_dim time_embedding_act_fn timestep_post_act "
        "time_cond_proj_dim conv_in_kernel conv_out_kernel "
        "projection_class_embeddings_input_dim attention_type class_embeddings_concat "
        "mid_block_only_cross_attention cross_attention_norm addition_embed_type_num_heads"
    ),
    "DiTTransformer2DModel": _keys(_TRANSFORMER),
    "PixArtTransformer2DModel": _keys(
        _TRANSFORMER,
        "attention_type caption_channels cross_attention_dim "
        "interpolation_scale use_additional_conditions",
    ),
}
"""Classes of networks that are known to be callable, see `networks`, with all their keys."""

DECODERS: Mapping[str, frozenset[str]] = {
    "AutoencoderKL": _keys(
        "in_channels out_channels down_block_types up_block_types block_out_channels "
        "layers_per_block act_fn latent_channels norm_num_groups sample_size scaling_factor "
        "shift_factor latents_mean latents_std force_upcast use_quant_conv use_post_quant_conv "
        "mid_block_add_attention"
    ),
    "VQModel": _keys(
        "in_channels out_channels down_block_types up_block_types block_out_channels "
        "layers_per_block act_fn latent_channels sample_size num_vq_embeddings norm_num_groups "
        "vq_embed_dim scaling_factor norm_type mid_block_add_attention lookup_from_codebook "
        "force_upcast"
    ),
}
"""Classes of autoencoders, with all their keys; they compute in float32, as `force_upcast` asks."""
