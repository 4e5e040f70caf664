"""The report's failures: the images that each method segmented worst, with both borders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.report import pictures
from ahm_jax.report.viewer import error_of

COUNT = 3  # Images of a method.
_SIDE = 320  # Of a picture's longer side, pixels.


@dataclass(frozen=True, eq=False)
class Failure:
  """A held-out image: `image`, `truth`, `prediction`, `id` and `dice` as of `pictures.Example`."""

  image: np.ndarray
  truth: np.ndarray
  prediction: np.ndarray
  id: str
  dice: float


class Failures(NamedTuple):
  """Those of one run."""

  method: str
  labels: int  # That it learnt from, 0 for all.
  seed: int
  images: Sequence[Failure]  # Worst first.


def worst(dice: Sequence[float], count: int) -> list[int]:
  """Places of the lowest Dice, lowest first; images without any lesion, and right (nan), are not
  among them.
  """
  scored = [i for i, value in enumerate(dice) if math.isfinite(value)]
  return sorted(scored, key=lambda i: dice[i])[:count]


def view(failures: Failures) -> dict[str, Any]:
  """What the page holds of them, as of `pseudo_masks.view`: one row."""
  figures = [figure for failure in failures.images for figure in _figures(failure)]
  return {
    'method': failures.method,
    'labels': failures.labels,
    'seed': failures.seed,
    'columns': len(figures),
    'rows': [{'id': '', 'figures': figures}],
  }


def _figures(failure: Failure) -> list[dict[str, str]]:
  """One with both borders; with classes two, of the true and the predicted ones."""
  shown = pictures.compared(failure.image, failure.truth, failure.prediction, _SIDE)
  wrong = error_of(failure.prediction, failure.truth)
  said = f'{failure.id}, Dice {failure.dice:.2f}'
  return [
    pictures.figure(picture, f'Image {failure.id}, {name}: {wrong}', f'{said}{caption}')
    for (name, picture), caption in zip(
      shown.items(), ('',) if len(shown) == 1 else (', true', ', predicted'), strict=True
    )
  ]
