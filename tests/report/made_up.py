"""Results of a made-up grid, of a data set with a hostile name."""

import math

import numpy as np

from ahm_jax.evaluation import compare

NASTY = '<script>alert("x")</script>&'


def make_results(gain=0.1, seeds=3, methods=('scratch', 'uniform', 'ahm')):
  rng = np.random.default_rng(0)
  cells, per_image = [], {}
  base = rng.uniform(0.4, 0.7, (seeds, 40))
  for labels in (20, 0):
    for method in methods:
      for seed in range(seeds):
        dice = base[seed] + 0.01 * rng.standard_normal(40) + (gain if method == 'ahm' else 0)
        per_image[method, labels, seed] = {str(i): float(value) for i, value in enumerate(dice)}
        scores = {
          'dice': float(dice.mean()),
          'iou': 0.4,
          'accuracy': 0.7 + 0.01 * seed,
          'auc': math.nan,
        }
        cells.append({'method': method, 'labels': labels, 'seed': seed, **scores})
  agent = {
    'difficulty_rank_correlation': 0.4812,
    'hardness_ratio': 1.47,
    'border_lift': math.nan,
    'mask_ratio': 0.6,
  }
  return {
    'dataset': NASTY,
    'split': 'test',
    'config': {'data': {'root': NASTY}, 'seed': 5},
    'cells': cells,
    'summary': compare.summarise_grid(cells, per_image, 200),
    'agent': {method: agent for method in methods if method != 'scratch'},
  }
