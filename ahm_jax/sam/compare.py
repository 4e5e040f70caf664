"""Segment Anything or MedSAM beside one of our segmentation runs: the same images, scores and
table.

Each image is shown at its own size, as its file holds it; grey is repeated in three channels.
Prompts are drawn from the true mask or from what our U-Net found (see `prompts`), and the masks of
an image's prompts are put together. Where there is nothing to draw a prompt from, nothing is found.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation import intervals, metrics
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.per_image import mask_row
from ahm_jax.evaluation.tables import aligned, interval_text
from ahm_jax.runtime.progress import Bar
from ahm_jax.sam.model import TITLES, Sam
from ahm_jax.sam.prompts import prompts

COMPARATORS = tuple(TITLES)
SOURCES = ('unet', 'truth')
# Of the table's scores beside Dice.
_DIGITS = {
  'iou': 3,
  'hd95': 1,
  'precision': 3,
  'recall': 3,
  'pooled_dice': 3,
  'missed': 0,
  'false_alarms': 0,
}


@dataclass(frozen=True)
class Options:
  """What is compared with, and how it is prompted."""

  comparator: str  # One of COMPARATORS.
  checkpoint: str  # See `sam.model.load`.
  prompt: str = 'box'  # Of KINDS.
  prompt_from: str = 'unet'  # Of SOURCES.
  margin: int = 0  # Pixels that a box is widened by to each side.

  @property
  def name(self) -> str:
    """As in the names of files."""
    return f'{self.comparator}_{self.prompt}_{self.prompt_from}'

  @property
  def title(self) -> str:
    """As in the table."""
    margin = f' + {self.margin} px' if self.margin else ''
    return f'{TITLES[self.comparator]}, {self.prompt}{margin} from {self.prompt_from}'


def check(options: Options, config: Config) -> None:
  """Raises a UserError where the options do not go together, or not with a run of this config."""
  if not options.checkpoint:
    raise UserError(
      f'--comparator={options.comparator} needs --sam_checkpoint: a folder with '
      'model.safetensors, or a .pth'
    )
  if options.prompt == 'point' and options.margin:
    raise UserError(
      '--sam_margin widens boxes, and --sam_prompt=point draws none; leave out one of them'
    )
  if options.prompt == 'point' and options.comparator == 'medsam':
    raise UserError('MedSAM was trained with boxes only; use --sam_prompt=box')
  if config.data.modalities:
    raise UserError(
      f'--comparator={options.comparator} looks at photographs, and this run has '
      f'{len(config.data.modalities)} modalities (config.data.modalities); leave it out'
    )
  if config.data.mask_classes:
    raise UserError(
      f'--comparator={options.comparator} segments lesion and background only, and this run has '
      f'{len(config.data.mask_classes)} classes (config.data.mask_classes); give a run with binary '
      'masks'
    )


class Rows(NamedTuple):
  """Of `metrics.segmentation_scores`, one an image, in the same order."""

  ours: list[dict]
  theirs: list[dict]


def rows(
  options: Options,
  model: Sam,
  pictures: Iterator[np.ndarray],
  parts: Iterable[tuple[Split, np.ndarray]],
  count: int,
  threshold: float,
) -> Rows:
  """Scores our U-Net and the comparator image by image.

  Args:
    pictures: the images, uint8 [h, w, C].
    parts: the same images in splits, all with masks, each with our probabilities, float32 [N, S,
      S].
    count: how many images.
    threshold: of our U-Net, see `predicted_mask`.
  """
  found = Rows([], [])
  with contextlib.closing(Bar(options.name, 0, count)) as bar:
    for split, probabilities in parts:
      for i in range(len(split)):
        image, truth = next(pictures), split.full_mask(i)
        own = predicted_mask(probabilities[i], truth.shape, threshold)
        theirs = predict(options, model, image, truth if options.prompt_from == 'truth' else own)
        found.ours.append(mask_row(split, i, own, truth))
        found.theirs.append(mask_row(split, i, theirs, truth))
        bar.advance()
  return found


def predict(options: Options, model: Sam, image: np.ndarray, source: np.ndarray) -> np.ndarray:
  """What the comparator finds in an image, by prompts from a mask.

  Args:
    image: uint8 [h, w, C].
    source: the mask, bool [h, w].

  Returns:
    bool [h, w].
  """
  drawn = prompts(source, options.prompt, options.margin)
  if not drawn:
    return np.zeros(source.shape, bool)
  colour = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
  found = model.masks(options.comparator, colour, options.prompt, drawn)
  return np.any(found, axis=0)


def result(
  options: Options, found: Rows, samples: int, groups: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
  """Scores in the mean.

  Args:
    samples: of the bootstrap.
    groups: of images, by name; see `per_image.group_numbers`.

  Returns:
    'comparator': the options.
    The scores of `metrics.summarise` for the comparator, with 'dice_ci95'; 'unet': the same of our
      U-Net.
    'difference': 'dice', the comparator's minus ours, and 'dice_ci95', over the images that have a
    Dice by both. Intervals cover images, or groups of them, and not trainings.
  """
  ours, theirs = (np.array([row['dice'] for row in side]) for side in found)
  indices = intervals.group_indices([row['image'] for row in found.ours], groups)
  own, other = (
    {**metrics.summarise(side), 'dice_ci95': _interval(dice, indices, samples)}
    for side, dice in zip(found, (ours, theirs), strict=True)
  )
  difference, interval = intervals.difference_over_images(theirs, ours, samples, indices)
  about = {
    'name': options.comparator,
    'checkpoint': options.checkpoint,
    'prompt': options.prompt,
    'prompt_from': options.prompt_from,
    'margin': options.margin,
  }
  return {
    'comparator': about,
    **other,
    'unet': own,
    'difference': {'dice': difference, 'dice_ci95': interval},
  }


def _interval(dice: np.ndarray, indices: Sequence[int], samples: int) -> list[float] | None:
  _, interval = intervals.mean_over_images(dice, samples, indices)
  return None if interval is None else [max(interval[0], 0.0), min(interval[1], 1.0)]


def table(options: Options, scores: Mapping[str, Any]) -> str:
  """What `result` returned, for a terminal: a line for our U-Net and one for the comparator."""
  columns = ('IoU', 'HD95', 'precision', 'recall', 'pooled Dice', 'missed', 'false alarms')
  difference = scores['difference']
  header, ours, theirs = aligned(
    [
      ['', 'Dice', 'vs U-Net', *columns],
      _line('our U-Net', scores['unet'], ''),
      _line(options.title, scores, interval_text(difference['dice'], difference['dice_ci95'], '+')),
    ]
  )
  note = f'{scores["images"]} images; 95 % intervals over images, or groups of them.'
  if options.prompt_from == 'truth':
    note += ' Prompts from the truth say where the lesion is, and whether there is one.'
  return '\n'.join([header, '-' * len(header), ours, theirs, note])


def _line(title: str, side: Mapping[str, Any], difference: str) -> list[str]:
  numbers = [f'{side[key]:.{digits}f}' for key, digits in _DIGITS.items()]
  return [title, interval_text(side['dice'], side['dice_ci95']), difference, *numbers]
