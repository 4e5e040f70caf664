"""Which fields a result depends on; the messages are tested with `ahm_jax.runs.directory`."""

import pytest

from ahm_jax.config import CLASSIFY, PRETRAIN, REPRODUCE, SEGMENT, differences, from_config_dict
from ahm_jax.config.fields import STAGES, Config
from ahm_jax.config.tree import leaves


def stages_of(name):
  return {leaf.name: leaf.stages for leaf in leaves(Config())}[name]


@pytest.mark.parametrize(
  ('name', 'stages'),
  [
    ('seed', STAGES),
    ('data.image_size', STAGES),
    ('evaluate.threshold', STAGES),
    ('data.labels', (SEGMENT, CLASSIFY)),
    ('data.labelled_from', (SEGMENT, CLASSIFY)),
    ('init_from', (SEGMENT, CLASSIFY)),
    ('masking.rounds', (PRETRAIN,)),
    ('pretrain.augment.hue', (PRETRAIN,)),
    ('segment.steps', (SEGMENT,)),
    ('classifier.steps', (CLASSIFY,)),
    ('model.vgg_norm', (CLASSIFY,)),
    ('model.vgg_weights', (PRETRAIN, CLASSIFY)),
    ('model.vgg_input', (PRETRAIN, CLASSIFY)),
    ('model.recompute', ()),
    ('evaluate.split', ()),
    ('safety.save_minutes', ()),
    ('grid.seeds', ()),
  ],
)
def test_a_field_matters_to_stages(name, stages):
  assert stages_of(name) == set(stages)


def test_equal_configs_have_no_differences():
  assert differences(Config(), from_config_dict({}), REPRODUCE) == []


def test_differences_have_both_values():
  other = from_config_dict({'seed': 3, 'data': {'labels': 5}, 'grid': {'seeds': (9,)}})
  assert differences(Config(), other, PRETRAIN) == [('seed', 0, 3)]
  assert differences(Config(), other, SEGMENT) == [('seed', 0, 3), ('data.labels', 0, 5)]


def test_a_method_of_a_grid_keeps_its_name():
  def grid(rounds, methods=('scratch', 'r')):
    return from_config_dict(
      {'grid': {'methods': methods, 'variants': {'r': {'strategy': 'ahm', 'rounds': rounds}}}}
    )

  assert differences(grid(2), grid(2), REPRODUCE) == []
  (found,) = differences(grid(2), grid(3), REPRODUCE)
  assert (found.name, found.own['rounds']) == ('grid.variants.r', 3)
  # What was written down holds the variants that some grid used.
  (found,) = differences(grid(2, ('scratch',)), grid(3), REPRODUCE)
  assert found.name == 'grid.variants.r'
  assert differences(grid(2), grid(3, ('scratch',)), REPRODUCE) == []
  assert differences(from_config_dict({}), grid(3), REPRODUCE) == []
  assert differences(grid(2), grid(3), SEGMENT) == []
