"""The report's pseudo-masks: what a network said of images without their masks, from its first
validation to its last.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.metrics import mask_scores
from ahm_jax.report import pictures
from ahm_jax.report.class_pictures import class_overlay
from ahm_jax.report.pictures import PREDICTION_COLOUR, TRUTH_COLOUR
from ahm_jax.report.viewer import share_of

SIDE = 160  # Of a picture, pixels.


@dataclass(frozen=True, eq=False)
class Watched:
  """One image in the course of a training.

  Attributes:
    id: its name.
    image: uint8 [S, S, C].
    truth: bool [S, S], with classes uint8; None where it is not known.
    found: by step, the probability of lesion, float32 [S, S]; with classes the most probable one,
      uint8 [S, S].
  """

  id: str
  image: np.ndarray
  truth: np.ndarray | None
  found: Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Course:
  """What one run showed.

  Attributes:
    labels: number of labelled images that it learns from, 0 for all.
    own_teacher: whether its moving average is the teacher; else it has another, which stays as it
      is.
    images: with the same steps all.
    threshold, mask_classes: as for `per_image.segmentation_rows`.
  """

  method: str
  labels: int
  seed: int
  own_teacher: bool
  images: Sequence[Watched]
  threshold: float
  mask_classes: Sequence[str] = ()


def view(course: Course) -> dict[str, Any]:
  """What the page holds of a course: 'method', 'labels', 'seed', 'own_teacher', 'threshold';
  'columns', pictures of the longest row; 'rows', of 'id' and 'figures', see `pictures.figure`.
  """
  rows = [{'id': watched.id, 'figures': _figures(course, watched)} for watched in course.images]
  return {
    'method': course.method,
    'labels': course.labels,
    'seed': course.seed,
    'own_teacher': course.own_teacher,
    'threshold': course.threshold,
    'columns': max((len(row['figures']) for row in rows), default=0),
    'rows': rows,
  }


def _figures(course: Course, watched: Watched) -> list[dict[str, str]]:
  image = pictures.resized(watched.image, (SIDE, SIDE))
  shown = [pictures.figure(image, f'Image {watched.id}', 'Image')]
  shown += [_at_step(course, watched, image, step) for step in watched.found]
  if watched.truth is not None:
    alt = f'The true mask on image {watched.id}: {share_of(watched.truth)}'
    shown.append(pictures.figure(_drawn(image, watched.truth, TRUTH_COLOUR), alt, 'True mask'))
  return shown


def _at_step(course: Course, watched: Watched, image: np.ndarray, step: int) -> dict[str, str]:
  found, truth = watched.found[step], watched.truth
  if course.mask_classes:
    mask, picture = found, class_overlay(image, found)
  else:
    mask = predicted_mask(found, found.shape, course.threshold)
    picture = pictures.heat_map(watched.image, found, SIDE)
    if truth is not None:
      picture = _drawn(picture, truth, TRUTH_COLOUR)
    picture = _drawn(picture, mask, PREDICTION_COLOUR, 1)
  caption = f'Step {step}'
  if truth is not None:
    dice = mask_scores(mask, truth, course.mask_classes)['dice']
    caption += f', Dice {dice:.2f}' if math.isfinite(dice) else ', both empty'
  alt = f'Pseudo-mask of image {watched.id} at step {step}: {share_of(mask)}'
  return pictures.figure(picture, alt, caption)


def _drawn(
  picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], half_width: int = 2
) -> np.ndarray:
  """The picture with the border of a mask in a colour, or with its classes in theirs."""
  if mask.dtype != bool:
    return class_overlay(picture, mask)
  drawn = picture.copy()
  pictures.draw_border(drawn, mask, colour, half_width)
  return drawn
