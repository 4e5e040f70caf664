"""Segment Anything (Kirillov et al., 2023) and MedSAM (Ma et al., 2024) by transformers, from local
files.

They are one network, and their files look alike, but they see an image differently. Segment
Anything: the longer side resized to 1024 pixels, padded, with ImageNet's mean and deviation; logits
are resized to the image and cut at 0. MedSAM: squashed to 1024 x 1024, its own lowest level 0 and
its highest 1; probabilities are resized and cut at 0.5 (its MedSAM_Inference.py).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.data.resize import squashed
from ahm_jax.errors import UserError, cannot_read, is_of_system
from ahm_jax.sam import claims

TITLES = {'sam': 'Segment Anything', 'medsam': 'MedSAM'}  # By the name of the comparator.
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json')
# The vision encoders of the official files, by their width: ViT-B, ViT-L and ViT-H.
_ENCODERS: dict[int, dict[str, Any]] = {
  768: dict(num_hidden_layers=12, num_attention_heads=12, global_attn_indexes=[2, 5, 8, 11]),
  1024: dict(num_hidden_layers=24, num_attention_heads=16, global_attn_indexes=[5, 11, 17, 23]),
  1280: dict(num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31]),
}
# From the official names (segment_anything) to those of transformers.
_MLP = {'0': 'proj_in', '1': 'layers.0', '2': 'proj_out'}
_NECK = {'0': 'conv1', '1': 'layer_norm1', '2': 'conv2', '3': 'layer_norm2'}
_MASK_EMBED = {'0': 'conv1', '1': 'layer_norm1', '3': 'conv2', '4': 'layer_norm2', '6': 'conv3'}
_UPSCALING = {'0': 'conv1', '1': 'layer_norm', '3': 'conv2'}
_RENAMES = (
  (r'^image_encoder\.', 'vision_encoder.'),
  (r'\.patch_embed\.proj\.', '.patch_embed.projection.'),
  (r'\.blocks\.', '.layers.'),
  (r'\.norm(?=\d|_)', '.layer_norm'),
  (r'\.neck\.(\d)\.', lambda found: f'.neck.{_NECK[found[1]]}.'),
  (r'\.pe_layer\.positional_encoding_gaussian_matrix$', '.shared_embedding.positional_embedding'),
  (r'\.point_embeddings\.', '.point_embed.'),
  (r'\.mask_downscaling\.(\d)\.', lambda found: f'.mask_embed.{_MASK_EMBED[found[1]]}.'),
  (r'\.output_upscaling\.(\d)\.', lambda found: f'.upscale_{_UPSCALING[found[1]]}.'),
  (
    r'(\.iou_prediction_head|\.output_hypernetworks_mlps\.\d)\.layers\.(\d)\.',
    lambda found: f'{found[1]}.{_MLP[found[2]]}.',
  ),
)
_SHARED = 'prompt_encoder.shared_embedding.positional_embedding'
_SHARED_COPY = 'shared_image_embedding.positional_embedding'
_NO_WEIGHTS = ('pixel_mean', 'pixel_std')  # In some official files; the processor has them.


@dataclass(frozen=True, eq=False)
class Sam:
  """A model with its own pre- and postprocessing."""

  model: Any  # transformers.SamModel.
  processor: Any  # transformers.SamProcessor.

  def masks(
    self, comparator: str, image: np.ndarray, kind: str, prompts: Sequence[tuple[int, ...]]
  ) -> np.ndarray:
    """What each prompt finds, as Segment Anything is used ('sam') or as MedSAM is ('medsam', which
    takes boxes only).

    Args: image, kind, prompts: as of `logits`.

    Returns:
      bool [K, h, w].
    """
    if comparator == 'medsam':
      return self.medsam_probabilities(image, prompts) > 0.5
    return self.logits(image, kind, prompts) > 0

  def medsam_probabilities(self, image: np.ndarray, boxes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Of each box's mask, by MedSAM's own pre- and postprocessing.

    Args: image, boxes: as of `logits`.

    Returns:
      float32 [K, h, w].
    """
    import torch

    height, width = image.shape[:2]
    side = self.model.config.vision_config.image_size
    seen = squashed(image, side).astype(np.float32)
    seen = (seen - seen.min()) / max(seen.max() - seen.min(), 1e-8)
    scale = np.array([side / width, side / height] * 2, np.float32)
    scaled = np.array([boxes], np.float32) * scale
    with torch.inference_mode():
      out = self.model(
        pixel_values=torch.from_numpy(seen.transpose(2, 0, 1)[None]).to(self.model.device),
        input_boxes=torch.from_numpy(scaled).to(self.model.device),
        multimask_output=False,
      )
      probabilities = out.pred_masks[0].sigmoid()
      shown = torch.nn.functional.interpolate(
        probabilities, (height, width), mode='bilinear', align_corners=False
      )
    return shown[:, 0].float().cpu().numpy()

  def logits(self, image: np.ndarray, kind: str, prompts: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Of each prompt's mask, above 0 inside, by the pre- and postprocessing of Segment Anything.

    Of the three masks that it has for a point, it is the one that the model itself scores highest;
    for a box it has one.

    Args:
      image: uint8 [h, w, 3].
      kind: 'box' or 'point'.
      prompts: K, at least one, as `prompts.box` and `prompts.point` have them.

    Returns:
      float32 [K, h, w].
    """
    import torch

    inputs = self.processor(images=image, return_tensors='pt', **_as_inputs(kind, prompts)).to(
      self.model.device, torch.float32
    )
    original, reshaped = (inputs.pop(name) for name in ('original_sizes', 'reshaped_input_sizes'))
    if kind == 'point':
      inputs['input_labels'] = inputs['input_labels'].long()
    with torch.inference_mode():
      out = self.model(**inputs, multimask_output=kind == 'point')
      best = out.iou_scores[0].argmax(-1)
      masks = out.pred_masks[0][torch.arange(len(prompts)), best][:, None]
      sizes = [[int(length) for length in size[0]] for size in (original, reshaped)]
      shown = self.processor.post_process_masks(
        [masks], *([size] for size in sizes), binarize=False
      )
    return shown[0][:, 0].float().cpu().numpy()


def _as_inputs(kind: str, prompts: Sequence[tuple[int, ...]]) -> dict[str, list]:
  if kind == 'box':
    return {'input_boxes': [[list(map(float, prompt)) for prompt in prompts]]}
  return {
    'input_points': [[[list(map(float, prompt))] for prompt in prompts]],
    'input_labels': [[[1] for _ in prompts]],
  }


def load(path: str) -> Sam:
  """Reads a checkpoint from local files; nothing is fetched from anywhere.

  Args:
    path: a folder with config.json and model.safetensors of a SAM or MedSAM model, as transformers
      writes it; or an official file .pth of segment_anything or MedSAM.

  Raises:
    UserError: it is not there or is no such checkpoint, or a package is not installed.
  """
  place = Path(path).expanduser()
  if not place.exists():
    raise UserError(f'--sam_checkpoint={path}: there is no such file or folder')
  os.environ['HF_HUB_OFFLINE'] = '1'
  try:
    import torch
    import transformers
  except ImportError as error:
    raise UserError(
      f'--comparator=sam needs {error.name}: EXTRAS=sam launch/with_env ... installs it, or '
      'pip install -e .[sam]'
    ) from error
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  try:
    model, processor = _from_folder(place) if place.is_dir() else _from_file(place)
  except UserError:
    raise
  except MemoryError as error:
    raise UserError(f'--sam_checkpoint={path} does not fit into memory; free some') from error
  except OSError as error:
    if not is_of_system(error):
      raise _unreadable(path, error) from error
    raise UserError(cannot_read(f'--sam_checkpoint={path}', error)) from error
  except Exception as error:  # What a foreign file can set off has no end.
    raise _unreadable(path, error) from error
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  return Sam(model.eval().to(device), processor)


def _unreadable(path: Path | str, error: Exception) -> UserError:
  first = (str(error).strip() or type(error).__name__).splitlines()[0]
  return _refusal(path, f'it cannot be read: {first[:200]}')


def _refusal(path: Path | str, why: str) -> UserError:
  return UserError(
    f'--sam_checkpoint={path} is no SAM or MedSAM checkpoint: {why}; name a folder with '
    'config.json and model.safetensors of one, or an official .pth'
  )


def _from_folder(path: Path):
  from transformers import SamConfig, SamModel, SamProcessor

  if not (path / 'config.json').is_file():
    raise _refusal(path, 'it has no config.json')
  config = claims.config(path / 'config.json')
  kind = config.get('model_type') if isinstance(config, dict) else None
  if kind != 'sam':
    raise _refusal(path, f'its config.json is of model_type {kind!r}, not sam')
  if not any((path / name).is_file() for name in WEIGHTS):
    raise _refusal(path, f'it has no {WEIGHTS[0]}')
  claims.check_folder(path, lambda told: _shapes(SamConfig.from_dict(told)))
  # A pair, which transformers' own types do not say.
  loaded: Any = SamModel.from_pretrained(
    path, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype='float32'
  )
  model, keys = loaded
  for what in ('missing_keys', 'unexpected_keys', 'mismatched_keys'):
    if keys[what]:
      example = f'{what.replace("_", " ")}, such as {sorted(keys[what])[0]}'
      raise _refusal(path, f'weights do not fit its config.json ({example})')
  if (path / 'preprocessor_config.json').is_file():
    images = _image_processor().from_pretrained(path, local_files_only=True)
  else:
    images = _image_processor()(**_sizes(model))
  side, padded = model.config.vision_config.image_size, images.pad_size
  if {padded['height'], padded['width']} != {side} or not 0 < images.size['longest_edge'] <= side:
    raise _refusal(
      path, 'its preprocessor_config.json is for images of another size than its config.json'
    )
  return model, SamProcessor(images)


def _from_file(path: Path):
  from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
  )

  weights = renamed(_read_weights(path))
  patches = weights.get('vision_encoder.patch_embed.projection.weight')
  if patches is None or len(patches) not in _ENCODERS or _SHARED not in weights:
    raise _refusal(path, 'it has not the names and sizes of ViT-B, ViT-L or ViT-H')
  width, side = len(patches), weights['vision_encoder.pos_embed'].shape[1] * patches.shape[-1]
  config = SamConfig(
    vision_config=SamVisionConfig(hidden_size=width, image_size=side, **_ENCODERS[width]),
    prompt_encoder_config=SamPromptEncoderConfig(image_size=side),
    # That of segment_anything; 1e-6 moves logits by 1e-4.
    mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-5),
  )
  claims.check_tensors(weights, _shapes(config))
  model = SamModel(config)
  model.load_state_dict(weights, strict=True)
  return model, SamProcessor(_image_processor()(**_sizes(model)))


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
  """Of the arrays of a SamModel, by name; allocates none of them."""
  import torch
  from transformers import SamModel

  with torch.device('meta'):
    return {name: tuple(array.shape) for name, array in SamModel(config).state_dict().items()}


def _read_weights(path: Path) -> dict[str, Any]:
  """The named tensors of a .pth file."""
  import torch

  claims.check_archive(path)
  try:
    held = torch.load(path, map_location='cpu', weights_only=True)
  except OSError:
    raise
  except Exception as error:  # What PyTorch says advises to unpickle it all the same.
    why = 'it cannot be read as weights alone, and nothing else is unpickled'
    raise _refusal(path, why) from error
  named = isinstance(held, dict) and all(isinstance(value, torch.Tensor) for value in held.values())
  if not named:
    raise _refusal(path, 'it holds something else than named weights')
  claims.check_tensors(held)
  return held


def renamed(weights: Mapping[str, Any]) -> dict[str, Any]:
  """Weights by the names of segment_anything -> by those of `transformers.SamModel`."""
  found = {}
  for name, value in weights.items():
    if name not in _NO_WEIGHTS:
      for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
      found[name] = value
  if _SHARED in found:
    found[_SHARED_COPY] = found[_SHARED]
  return found


def _image_processor():
  # The other one needs torchvision.
  from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

  return SamImageProcessorPil


def _sizes(model) -> dict[str, dict[str, int]]:
  side = model.config.vision_config.image_size
  return {'size': {'longest_edge': side}, 'pad_size': {'height': side, 'width': side}}
