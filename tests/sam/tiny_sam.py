"""A SamModel of random weights, small enough for tests, and the official names of its weights."""

import numpy as np

SIDE, PATCH, WIDTH, LAYERS = 64, 16, 32, 2
ENCODER = dict(num_hidden_layers=LAYERS, num_attention_heads=2, global_attn_indexes=[1])


def tiny_model(seed=0):
  """As the official files have it but for the encoder: 32 wide, two layers, the second with
  global attention, 64 pixels.
  """
  import torch
  from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
  )

  vision = SamVisionConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=PATCH, **ENCODER)
  parts = {
    'prompt_encoder_config': SamPromptEncoderConfig(image_size=SIDE),
    'mask_decoder_config': SamMaskDecoderConfig(layer_norm_eps=1e-5),
  }
  with torch.random.fork_rng():
    torch.manual_seed(seed)
    model = SamModel(SamConfig(vision_config=vision, **parts))
  draw = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for weights in model.parameters():
      spread = 1.2 / np.sqrt(weights[0].numel()) if weights.ndim > 1 else 0.1
      weights.add_(torch.randn(weights.shape, generator=draw) * spread)
  return model.eval()


def official_names():
  """transformers' name of each module that has weights, by the name that segment_anything has
  for it; written out by hand.
  """
  names = {
    'image_encoder.patch_embed.proj': 'vision_encoder.patch_embed.projection',
    'image_encoder.neck.0': 'vision_encoder.neck.conv1',
    'image_encoder.neck.1': 'vision_encoder.neck.layer_norm1',
    'image_encoder.neck.2': 'vision_encoder.neck.conv2',
    'image_encoder.neck.3': 'vision_encoder.neck.layer_norm2',
    'prompt_encoder.not_a_point_embed': 'prompt_encoder.not_a_point_embed',
    'prompt_encoder.no_mask_embed': 'prompt_encoder.no_mask_embed',
    'prompt_encoder.mask_downscaling.0': 'prompt_encoder.mask_embed.conv1',
    'prompt_encoder.mask_downscaling.1': 'prompt_encoder.mask_embed.layer_norm1',
    'prompt_encoder.mask_downscaling.3': 'prompt_encoder.mask_embed.conv2',
    'prompt_encoder.mask_downscaling.4': 'prompt_encoder.mask_embed.layer_norm2',
    'prompt_encoder.mask_downscaling.6': 'prompt_encoder.mask_embed.conv3',
    'mask_decoder.iou_token': 'mask_decoder.iou_token',
    'mask_decoder.mask_tokens': 'mask_decoder.mask_tokens',
    'mask_decoder.output_upscaling.0': 'mask_decoder.upscale_conv1',
    'mask_decoder.output_upscaling.1': 'mask_decoder.upscale_layer_norm',
    'mask_decoder.output_upscaling.3': 'mask_decoder.upscale_conv2',
    'mask_decoder.transformer.norm_final_attn': 'mask_decoder.transformer.layer_norm_final_attn',
  }
  for i in range(4):
    names[f'prompt_encoder.point_embeddings.{i}'] = f'prompt_encoder.point_embed.{i}'
  return names | _encoder_names() | _decoder_names()


def _encoder_names():
  names = {}
  for i in range(LAYERS):
    block, layer = f'image_encoder.blocks.{i}', f'vision_encoder.layers.{i}'
    for theirs, ours in (
      ('norm1', 'layer_norm1'),
      ('norm2', 'layer_norm2'),
      ('mlp.lin1', 'mlp.lin1'),
      ('mlp.lin2', 'mlp.lin2'),
      ('attn.qkv', 'attn.qkv'),
      ('attn.proj', 'attn.proj'),
    ):
      names[f'{block}.{theirs}'] = f'{layer}.{ours}'
  return names


def _decoder_names():
  names = {}
  heads = ['iou_prediction_head', *(f'output_hypernetworks_mlps.{i}' for i in range(4))]
  for head in heads:
    for i, ours in enumerate(('proj_in', 'layers.0', 'proj_out')):
      names[f'mask_decoder.{head}.layers.{i}'] = f'mask_decoder.{head}.{ours}'
  for i in range(2):
    layer = f'mask_decoder.transformer.layers.{i}'
    for k in range(1, 5):
      names[f'{layer}.norm{k}'] = f'{layer}.layer_norm{k}'
    for same in (
      'mlp.lin1',
      'mlp.lin2',
      *_attention('self_attn', 'cross_attn_token_to_image', 'cross_attn_image_to_token'),
    ):
      names[f'{layer}.{same}'] = f'{layer}.{same}'
  for same in _attention('final_attn_token_to_image'):
    names[f'mask_decoder.transformer.{same}'] = f'mask_decoder.transformer.{same}'
  return names


def _attention(*names):
  return [f'{name}.{part}_proj' for name in names for part in ('q', 'k', 'v', 'out')]


def official_weights(model):
  """The model's weights as an official file has them, some of which also hold the pixels' mean
  and deviation.
  """
  import torch

  weights = model.state_dict()
  found = {}
  for theirs, ours in official_names().items():
    found |= {
      f'{theirs}.{part}': weights[f'{ours}.{part}']
      for part in ('weight', 'bias')
      if f'{ours}.{part}' in weights
    }
  for i in range(LAYERS):
    for axis in 'hw':
      found[f'image_encoder.blocks.{i}.attn.rel_pos_{axis}'] = weights[
        f'vision_encoder.layers.{i}.attn.rel_pos_{axis}'
      ]
  found['image_encoder.pos_embed'] = weights['vision_encoder.pos_embed']
  gaussian = 'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
  found[gaussian] = weights['prompt_encoder.shared_embedding.positional_embedding']
  return found | {'pixel_mean': torch.zeros(3, 1, 1), 'pixel_std': torch.ones(3, 1, 1)}
