"""What a grid shows of its cells."""

from pathlib import Path

import pytest

from ahm_jax.config import Config, GridConfig, from_config_dict
from ahm_jax.data.dataset import Dataset
from ahm_jax.pipeline.cells import cell_of
from ahm_jax.pipeline.gallery import Networks, _alike, _colours

DATA = Dataset('toy', (), {}, ())


def networks(*keys):
  return [
    Networks(cell_of(Path('grid'), method, *rest, GridConfig()), Config(), DATA)
    for method, *rest in keys
  ]


def test_the_viewer_compares_cells_of_one_number_of_labels_and_one_seed():
  """As where the others stand in config.grid.results."""
  whole = networks(
    *(
      (method, labels, seed)
      for seed in (0, 1)
      for labels in (20, 50)
      for method in ('scratch', 'ahm')
    )
  )
  assert _alike(whole) == {'scratch': whole[0], 'ahm': whole[1]}
  part = networks(('scratch', 20, 0), ('uniform', 50, 0), ('ahm', 50, 0))
  assert _alike(part) == {'uniform': part[1], 'ahm': part[2]}
  assert _alike([]) == {}


@pytest.mark.parametrize(
  ('config', 'said'),
  [
    ({}, ''),
    ({'data': {'modalities': ('t1', 't2')}}, 'Pictures show t1, one of 2 modalities.'),
    (
      {'data': {'modalities': ('t1', 't2')}, 'masking': {'per_modality': True}},
      'Pictures show t1, one of 2 modalities. Of patches that are masked per modality, those of t1 '
      'are shown.',
    ),
    (
      {
        'data': {'modalities': ('a', 'b', 'c')},
        'grid': {
          'methods': ('ahm', 'each'),
          'variants': {'each': {'strategy': 'ahm', 'per_modality': True}},
        },
      },
      'Pictures are in false colours: a red, b green, c blue. Of patches that are masked per '
      'modality, those of a are shown.',
    ),
    (
      {
        'data': {'modalities': ('t1', 't2')},
        'masking': {'per_modality': True},
        'grid': {'methods': ('scratch',)},
      },
      'Pictures show t1, one of 2 modalities.',
    ),
  ],
)
def test_what_is_shown_of_modalities_is_said(config, said):
  assert _colours(from_config_dict(config)) == said
