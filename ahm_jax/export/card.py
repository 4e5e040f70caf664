"""MODEL_CARD.md, which goes with every export (after Mitchell et al., 2019, arXiv 1810.03993)."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config import DataConfig, SegmentConfig, to_dict
from ahm_jax.data.readers import cases, intensity
from ahm_jax.data.readers.base import count_of
from ahm_jax.evaluation import per_image, stored
from ahm_jax.evaluation.intervals import group_indices, mean_over_images
from ahm_jax.export import shared
from ahm_jax.models.inputs import SCALINGS
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.pipeline.stages import PRETRAIN, SEGMENT
from ahm_jax.runs import directory
from ahm_jax.runs.trained import EXPORT, Trained, config_digest, description
from ahm_jax.runtime import json_files

CARD = 'MODEL_CARD.md'
NOT_STATED = 'not stated'
_PACKAGES = (
  'ahm_jax',
  'jax',
  'jaxlib',
  'flax',
  'orbax-checkpoint',
  'jax2onnx',
  'onnx',
  'onnxruntime',
  'safetensors',
)
_SCORES = ('dice', 'iou', 'precision', 'recall', 'hd95')


def write(trained: Trained, home: Path, facts: Mapping[str, Any]) -> None:
  """Writes MODEL_CARD.md and export.json.

  Args:
    facts: 'format', 'licence', 'versions' and 'notes', what the format says of its files.
  """
  known, config = data_and_scores(trained), shared.without_paths(trained.config)
  described = {
    'format': facts['format'],
    'stage': trained.stage.name,
    'step': trained.step,
    'class_names': list(trained.class_names),
    'digest': trained.digest,
    'config_digest': config_digest(config),
    'config': to_dict(config),
    **facts,
    **known,
  }
  json_files.write_json(home / EXPORT, described)
  (home / CARD).write_text(text(trained, facts, known), encoding='utf-8')


def versions() -> dict[str, str]:
  """Of Python and the packages that an export depends on, where they are installed."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def data_and_scores(trained: Trained) -> dict[str, Any]:
  """What the folder that the network came from holds of these: {'data', 'scores'}, each None if
  nothing.
  """
  if (held := description(trained.path)) is not None:
    return {'data': held.get('data'), 'scores': held.get('scores')}
  return {'data': directory.summary(trained.path), 'scores': _scores(trained)}


def _scores(trained: Trained) -> dict[str, Any] | None:
  """Those of launch.evaluate, with 95 % intervals over images, or groups of them, where there
  are scores per image.
  """
  result = stored.evaluation(trained.path)
  if result is None:
    return None
  path = trained.path / directory.PER_IMAGE
  rows = per_image.read(path) if path.exists() else []
  samples = trained.config.evaluate.bootstrap_samples
  groups = group_indices(
    [row['image'] for row in rows], {row['image']: row['group'] for row in rows if 'group' in row}
  )
  intervals = {}
  for name, values in _per_image(rows).items():
    (mean, interval), score = mean_over_images(values, samples, groups), result.get(name)
    # Rows are of images with a mask, and diagnoses are scored on others too.
    if (
      mean is not None
      and score is not None
      and math.isclose(mean, score, rel_tol=1e-6, abs_tol=1e-9)
    ):
      intervals[name] = interval
  return {'split': result['split'], 'values': _flat(result), 'intervals': intervals}


def _per_image(rows: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """Scores whose mean over images launch.evaluate has: of diagnoses, of masks, or of both."""
  scores = {}
  if any(row.get('predicted') for row in rows):
    right = [float(row['label'] == row['predicted']) if row['label'] else np.nan for row in rows]
    scores['accuracy'] = np.array(right)
  if not rows or 'dice' in rows[0]:
    scores |= {name: np.array([row[name] for row in rows], float) for name in _SCORES}
  return scores


def _flat(result: Mapping[str, Any]) -> dict[str, float]:
  flat: dict[str, float] = {}
  for name, value in result.items():
    if name in directory.CONDITIONS:
      continue
    if isinstance(value, Mapping):
      flat |= {f'{name} {single}': number for single, number in value.items()}
    elif isinstance(value, int | float):
      flat[name] = value
  return flat


def text(trained: Trained, facts: Mapping[str, Any], known: Mapping[str, Any]) -> str:
  """The card, of what `write` has."""
  config = shared.without_paths(trained.config)
  lines = [
    f'# Model card: {trained.stage}',
    '',
    f'This is {trained.stage.card.network}. It was trained with ahm_jax and exported in the '
    f'format {facts["format"]}.',
    '',
    '**It is not a medical device.** It has not been approved for, and must not be used in, '
    'diagnosis or the care of patients.',
    '',
    '## Use',
    '',
    f'- Intended: {trained.stage.card.use}.',
    '- Not intended: any decision about a patient; images of other organs, devices or populations, '
    'untested.',
    f'- Licence: {shared.plain(facts["licence"]) or NOT_STATED}. The licence of the data may '
    'restrict what may be done with the weights.',
    '',
    '## Network',
    '',
    *(f'- {name}: {value}' for name, value in _network(trained).items()),
    *(f'- {name}: {value}' for name, value in facts.get('notes', {}).items()),
    '',
    '## Data',
    '',
    *_data(trained, known['data']),
    '',
    '## Scores',
    '',
    *_score_lines(known['scores']),
    '',
    '## Versions',
    '',
    *(f'- {name} {version}' for name, version in facts['versions'].items()),
    '',
    '## Config',
    '',
    f'SHA-256 `{config_digest(config)}`',
    '',
    '```json',
    json.dumps(to_dict(config), indent=2),
    '```',
    '',
  ]
  return '\n'.join(lines)


def _network(trained: Trained) -> dict[str, Any]:
  network, side = trained.network, trained.image_size
  sees = f'{_kind(trained.config.data)}, resized to {side} x {side} pixels'
  says = shared.plain(trained.stage.card.outputs(trained.config, trained.class_names))
  weights = f'SHA-256 `{trained.digest}`, of step {trained.step}'
  if not isinstance(network, VGG16):
    return {'sees': sees, 'says': says, 'width': network.width, 'weights': weights}
  if (source := trained.config.classify.input) != 'image':
    sees += f"; of each, what a segmentation found (config.classify.input = '{source}')"
  started = {}
  if trained.config.model.vgg_weights:
    name, scaling = Path(trained.config.model.vgg_weights).name, SCALINGS[network.input]
    started['started from'] = f'{shared.plain(name)}, of images scaled as {scaling.said}'
  return {
    'sees': sees,
    'says': says,
    'width': f'{network.width} (hidden {network.hidden})',
    'normalisation': network.norm or 'none',
    **started,
    'weights': weights,
  }


def _kind(data: DataConfig) -> str:
  """What the images are, and of modalities how they became 8 bits."""
  if not data.modalities:
    return f'{"RGB" if data.is_colour else "grey"} images'
  mapped = ', '.join(
    f'{shared.plain(name)} ({shared.plain(intensity.described(entry))})'
    for name, entry in zip(
      data.modalities, cases.entries(data.intensity, data.modalities), strict=True
    )
  )
  unknown = f'; {intensity.MISSING} everywhere stands for one that is not known'
  return (
    f'images of {count_of(len(data.modalities))}, in this order: {mapped}'
    f'{unknown if data.modality_dropout else ""}'
  )


def _data(trained: Trained, data: Mapping[str, Any] | None) -> list[str]:
  config = trained.config
  if data is None:
    return [
      f'- Name: {shared.plain(config.data.name)}',
      '- Counts: not known; the training did not write them down',
    ]
  lines = [f'- Name: {shared.plain(data["name"])}']
  for split, counts in data['splits'].items():
    lines.append(
      f'- {shared.plain(split)}: {counts["images"]} images, {counts["masks"]} with a mask, '
      f'{counts["labels"]} with a label'
    )
  training = getattr(config, trained.stage.recipe)
  lines.append(
    f'- Trained on {data["trained_on"]} images, {training.batch_size} at a step, seed {config.seed}'
  )
  if trained.stage is SEGMENT:
    lines += _beside(config.segment)
  if config.init_from and trained.stage is not PRETRAIN:
    lines.append(f'- Started from {shared.plain(Path(config.init_from).name)}')
  return lines


def _beside(recipe: SegmentConfig) -> list[str]:
  """What a segmentation has learnt from beside images with a mask."""
  sizes = {
    'for their label': recipe.diagnosis.batch_size,
    'to be reconstructed': recipe.reconstruction.batch_size,
    'to be segmented as a teacher does': recipe.unlabelled.batch_size,
  }
  told = ', '.join(f'{size} {why}' for why, size in sizes.items() if size)
  return [f'- Beside them at a step, any of the training split: {told}'] if told else []


def _score_lines(scores: Mapping[str, Any] | None) -> list[str]:
  if not scores:
    return ['There are none: launch.evaluate was not run before the export.']
  lines = [
    f"On the {shared.plain(scores['split'])} split, at the images' own size, by launch.evaluate:",
    '',
    '| score | value | 95 % interval |',
    '|---|---|---|',
  ]
  for name, value in scores['values'].items():
    interval = scores['intervals'].get(name)
    shown = f'{interval[0]:.4f} to {interval[1]:.4f}' if interval else 'none'
    number = 'not known' if value is None else round(value, 4)
    lines.append(f'| {shared.plain(name)} | {number} | {shown} |')
  return [
    *lines,
    '',
    'Intervals are over images, or groups of them, of this one training; another seed would move '
    'the scores more.',
  ]
