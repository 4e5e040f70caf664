"""What the steps ask of a GPU, read from their programs before XLA changes them.

Nothing is compiled.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.task import Batch
from ahm_jax.training import classify, pretrain, segment
from ahm_jax.training.parallel_step import parallel_step

OPERATION = re.compile(
  r'stablehlo\.(convolution|dot_general)\b.*: '
  r'\(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>'
)
SUM = re.compile(r'stablehlo\.reduce.*applies stablehlo\.add .*: \(tensor<[\dx]*x(\w+)>')


def with_features(config):
  return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, features=1.0))


BUILD = {
  'segment': lambda config, split: segment.build(config, split, 10, 1),
  'features': lambda config, split: pretrain.build(with_features(config), split, 10, 1),
  'pretrain': lambda config, split: pretrain.build(config, split, 10, 1),
  'classify': lambda config, split: classify.build(config, split, 2, 10, 1),
}


@pytest.fixture(scope='module')
def program(make_config, split):
  """program(stage, platform, agent_trunk) -> the text of its step in bfloat16 on one device, and
  the state's shapes.
  """

  @functools.cache
  def lower(stage, platform, agent_trunk='light'):
    config = make_config(strategy='ahm', workers=2)
    config = dataclasses.replace(
      config, model=dataclasses.replace(config.model, dtype='bfloat16', agent_trunk=agent_trunk)
    )
    task = BUILD[stage](config, split)
    advance = parallel_step(task.step, tuple(jax.local_devices()[:1]))
    positions = jnp.arange(len(split))
    batch = jax.tree.map(
      lambda x: x[None], Batch(split.images, split.masks, split.labels, positions)
    )
    arguments = (
      jax.eval_shape(task.init, jax.random.key(0)),
      None,
      batch,
      jax.random.key(0),
      np.zeros(1, np.int32),
    )
    if platform == 'cpu':
      return advance.lower(*arguments).as_text(), arguments[0]
    return jax.jit(advance).trace(*arguments).lower(
      lowering_platforms=(platform,)
    ).as_text(), arguments[0]

  return lower


@pytest.mark.parametrize(
  ('stage', 'trunk', 'layers', 'maps'),
  [
    ('segment', 'light', 6 + 1, 1),
    ('pretrain', 'light', 6 + 1 + 2 + 6, 3 + 1 + 1),
    ('pretrain', 'vgg16', 6 + 1 + 7 + 6, 3 + 1 + 1),
    ('features', 'light', 6 + 1 + 2 + 6 + 4, 3 + 1 + 1),
    ('classify', 'light', 13 + 2, 2),
  ],
)
def test_what_is_wide_is_bfloat16(program, stage, trunk, layers, maps):
  """The last layers, of `maps` outputs, are float32, as products.

  The others have forward pass and gradients in bfloat16.
  """
  text, _ = program(stage, 'cuda', trunk)
  operations = [found.groups() for line in text.splitlines() if (found := OPERATION.search(line))]
  assert len(operations) >= 3 * layers - 2
  for kind, *types in operations:
    if any(not item.endswith('bf16') for item in types):
      assert kind == 'dot_general', types
      assert all(item.endswith('f32') for item in types)
      assert min(int(item.split('x')[-2]) for item in types) <= maps, types
  # As of a kernel gradient for each worker or image.
  assert not re.search('feature_group_count = [2-9]', text)


@pytest.mark.parametrize(
  ('stage', 'trunk'), [('segment', 'light'), ('pretrain', 'vgg16'), ('features', 'light')]
)
def test_sums_over_pixels_are_float32(program, stage, trunk):
  """Those in bfloat16 would be computed so by GPUs that can: the gradients of biases, of batch
  normalisation, the losses.
  """
  text, _ = program(stage, 'cuda', trunk)
  dtypes = {found[1] for line in text.splitlines() if (found := SUM.search(line))}
  assert 'f32' in dtypes
  assert 'bf16' not in dtypes


@pytest.mark.parametrize('stage', BUILD)
def test_every_array_of_the_state_is_given_up_for_the_new_one(program, stage):
  text, state = program(stage, 'cpu')
  assert text.count('tf.aliasing_output') == len(jax.tree.leaves(state))
