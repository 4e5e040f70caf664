"""What a grid compares, and what it shows of its cells."""

import re
from pathlib import Path

import pytest

from ahm_jax.config import from_config_dict, pretraining_of
from ahm_jax.errors import UserError
from ahm_jax.pipeline.grid import Cell, _alike, check_methods, reproduce


def cells(*keys):
  return [
    Cell(Path('grid'), method, pretraining_of(method), labels, seed)
    for method, labels, seed in keys
  ]


def test_the_viewer_compares_cells_of_one_number_of_labels_and_one_seed():
  """As where the others stand in config.grid.results."""
  whole = cells(
    *(
      (method, labels, seed)
      for seed in (0, 1)
      for labels in (20, 50)
      for method in ('scratch', 'ahm')
    )
  )
  assert _alike(whole) == {'scratch': whole[0], 'ahm': whole[1]}
  part = cells(('scratch', 20, 0), ('uniform', 50, 0), ('ahm', 50, 0))
  assert _alike(part) == {'uniform': part[1], 'ahm': part[2]}
  assert _alike([]) == {}


@pytest.mark.parametrize(
  ('grid', 'message'),
  [
    (
      {'methods': ('scratch', 'imagenet')},
      "config.grid.methods holds 'imagenet': 'imagenet' is no masking strategy; there are uniform",
    ),
    ({'methods': ('amh',)}, 'did you mean ahm?'),
    (
      {'methods': ('r2',), 'variants': {'r2': {'strategy': 'reinforced'}}},
      "config.grid.methods holds 'r2': 'reinforced' is no masking strategy",
    ),
    (
      {'variants': {'hpm': {'strategy': 'ahm'}}},
      "config.grid.variants holds 'hpm', which is a masking strategy",
    ),
    ({'methods': ('ahm:rounds=0',)}, 'config.masking.rounds is 0; it must be at least 1'),
  ],
)
def test_a_method_that_is_none_is_refused_before_anything_is_written(grid, message, tmp_path):
  config = from_config_dict({'grid': grid})
  with pytest.raises(UserError, match=re.escape(message)):
    reproduce(config, tmp_path / 'grid')
  assert not list(tmp_path.iterdir())


def test_methods_are_strategies_with_changes_and_names_for_them():
  methods = ('scratch', 'scratch:segment.steps=7', 'uniform', 'ahm:rounds=2', 'r2')
  variants = {'r2': {'strategy': 'ahm', 'rounds': 2}}
  check_methods(from_config_dict({'grid': {'methods': methods, 'variants': variants}}))
