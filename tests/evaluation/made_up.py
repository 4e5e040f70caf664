"""Grids of made-up scores."""

import numpy as np


def grid(dice, **scores):
  """Cells and per-image Dice from {(method, labels): float [seeds, images]}.

  `scores`: a number for each cell.
  """
  cells, per_image = [], {}
  for (method, labels), values in dice.items():
    for seed, row in enumerate(np.atleast_2d(values)):
      cells.append(
        {
          'method': method,
          'labels': labels,
          'seed': seed,
          **{k: v[method, labels][seed] for k, v in scores.items()},
        }
      )
      per_image[method, labels, seed] = {f'image{i}': float(value) for i, value in enumerate(row)}
  return cells, per_image
