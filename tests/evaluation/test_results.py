import dataclasses

import numpy as np
import pytest

from ahm_jax.config import Config, DataConfig, GridConfig
from ahm_jax.errors import UserError
from ahm_jax.evaluation import compare, results
from ahm_jax.runtime import json_files

IMAGES = [f'ISIC_{number:07d}' for number in range(700)]
METHODS, LABELS, SEEDS = ('scratch', 'uniform', 'ahm'), (10, 20), (0, 1)


def made(path, mask_classes):
  """A grid, its config, and results.json of it."""
  config = Config(
    data=DataConfig(name='folder', root='x', mask_classes=mask_classes),
    grid=GridConfig(methods=METHODS, labels=LABELS, seeds=SEEDS),
  )
  config = dataclasses.replace(
    config, evaluate=dataclasses.replace(config.evaluate, bootstrap_samples=100)
  )
  columns, draws = results.dice_columns(mask_classes), np.random.default_rng(0)
  cells = results.Cells({}, {}, {})
  for method in METHODS:
    for labels in LABELS:
      for seed in SEEDS:
        dice = draws.random((len(columns), len(IMAGES)))
        cells.dice[method, labels, seed] = {
          name: dict(zip(IMAGES, row.tolist(), strict=True))
          for name, row in zip(columns, dice, strict=True)
        }
        cells.scores[method, labels, seed] = {
          **{'method': method, 'labels': labels, 'seed': seed, 'dice': float(dice[0].mean())},
          **({'dice_by_class': dict.fromkeys(mask_classes, 0.5)} if mask_classes else {}),
        }
  tree = results.tree(cells, config, 'x', dict.fromkeys(IMAGES, 0))
  json_files.write_json(path, tree)
  return cells, config


def test_methods_are_compared_with_the_baselines_of_the_grid(tmp_path):
  cells, config = made(tmp_path / 'results.json', ())
  own = dataclasses.replace(config, grid=dataclasses.replace(config.grid, baselines=('uniform',)))
  tree = results.tree(cells, own, 'x', dict.fromkeys(IMAGES, 0))
  for row in (*tree['summary'], *tree['over_labels']):
    assert compare.compared_with([row]) == ['uniform']
    assert (row['vs_uniform'] is None) == (row['method'] == 'uniform')


@pytest.mark.parametrize('mask_classes', [(), ('disc', 'cup')])
def test_a_large_grid_is_read_back(tmp_path, monkeypatch, mask_classes):
  """Beyond what other files may have: 4,000 cells of 900 images of three classes have 262 MiB."""
  path = tmp_path / 'results.json'
  cells, config = made(path, mask_classes)
  monkeypatch.setattr(json_files, 'MOST_BYTES', 30_000)
  monkeypatch.setattr(results, '_CELLS', len(cells.scores))
  values = len(cells.scores) * len(IMAGES) * len(results.dice_columns(mask_classes))
  assert 30_000 < path.stat().st_size < 24 * values
  found = results.read([str(path)], config, 'x', IMAGES)
  assert found.scores == cells.scores
  for key, columns in cells.dice.items():
    for name, held in columns.items():
      assert list(found.dice[key][name]) == IMAGES
      np.testing.assert_allclose(
        list(found.dice[key][name].values()), list(held.values()), atol=0.6 * 10**-results.DIGITS
      )


def test_a_file_that_no_grid_can_have_written_is_refused(tmp_path, monkeypatch):
  path = tmp_path / 'results.json'
  _, config = made(path, ())
  monkeypatch.setattr(json_files, 'MOST_BYTES', 30_000)
  monkeypatch.setattr(results, '_CELLS', 1)
  size = path.stat().st_size
  with pytest.raises(
    UserError, match=rf'results\.json is damaged: it holds {size} bytes, over \d+; leave it out'
  ):
    results.read([str(path)], config, 'x', IMAGES)
