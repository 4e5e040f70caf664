import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import MaskingConfig
from ahm_jax.errors import UserError
from ahm_jax.masking import registry
from ahm_jax.masking.strategy import WORKERS, Context
from ahm_jax.models.agent import Agent

FLAT = ('uniform', 'blockwise')  # Mask every patch equally often.
# Of a VGG16, in a strategy's state; a strategy that is not named has as many as its state holds.
TRUNKS = {
  **dict.fromkeys(('ahm', 'untrained', 'reinforce', 'adamae', 'adios'), 1),
  'hpm': 2,
  **dict.fromkeys(('uniform', 'blockwise', 'saliency', 'anatomask'), 0),
  **dict.fromkeys(('oracle_lesion', 'oracle_border', 'oracle_background'), 0),
}
COUNTED = ('adamae',)  # Mask an exact number of patches.


def test_an_unknown_name_is_refused_with_the_nearest():
  with pytest.raises(
    UserError, match=r"'reinforced' is no masking strategy.*did you mean reinforce"
  ):
    registry.check('reinforced')


@pytest.fixture(scope='module')
def masked_at_70(build):
  """masked_at_70(name) -> a strategy, made once so that its programs are compiled once."""
  return functools.cache(lambda name: build(strategy=name, mask_ratio=0.7)[0])


@functools.partial(jax.jit, static_argnums=(0, 3))
def workers_propose(strategy, state, images, train, key):
  def propose(images, key):
    return strategy.propose(state, images, key, 1.0, train)

  return jax.vmap(propose, axis_name=WORKERS)(images, jax.random.split(key, 2))


@pytest.mark.parametrize('name', registry.names())
@pytest.mark.parametrize('train', [True, False])
def test_every_image_is_masked_at_the_ratio_in_the_mean(masked_at_70, images, start, name, train):
  strategy = masked_at_70(name)
  done = workers_propose(strategy, start(strategy), images, train, jax.random.key(1))
  assert done.hidden.shape == done.probability.shape == (2, 3, 4, 4)
  assert set(np.unique(done.hidden)) == {0, 1}
  np.testing.assert_allclose(done.probability.mean((-2, -1)), np.full((2, 3), 0.7), atol=1e-5)
  spread = np.asarray(done.probability).std((-2, -1))
  assert np.all(spread < 1e-6) if name in FLAT else np.all(spread > 1e-3)


@pytest.mark.parametrize('name', registry.names())
def test_patches_are_masked_as_often_as_the_ratio_says(masked_at_70, images, start, name):
  """Over 300 draws of 6 images of 16 patches the standard error of the share is 0.003, less where
  counts are exact.
  """
  strategy = masked_at_70(name)
  state = start(strategy)

  def hidden(key):
    return strategy.propose(state, images.reshape(6, 16, 16, 2), key, 1.0, False).hidden

  share = jax.jit(jax.vmap(hidden))(jax.random.split(jax.random.key(3), 300)).mean()
  expected = 11 / 16 if name in COUNTED else 0.7  # round(0.7 * 16)
  assert share == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize('name', COUNTED)
def test_exact_count(build, images, start, name):
  strategy, _ = build(strategy=name, mask_ratio=0.6)
  done = workers_propose(strategy, start(strategy), images, True, jax.random.key(1))
  np.testing.assert_array_equal(done.hidden.sum((-2, -1)), np.full((2, 3), 10))  # round(0.6 * 16)


@pytest.mark.parametrize('name', registry.names())
def test_masks_are_functions_of_their_key(masked_at_70, images, start, name):
  strategy = masked_at_70(name)
  one, same, other = (
    workers_propose(strategy, start(strategy), images, True, jax.random.key(key)).hidden
    for key in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, same)
  assert np.any(one != other)
  assert np.any(one[0] != one[1])


@pytest.mark.parametrize('name', registry.names())
def test_every_trunk_of_a_vgg16_starts_from_given_weights_and_no_other(images, leaves, name):
  """In HPM the teacher's too, which starts as its agent does."""
  given = {'trunk': {'conv1_1': {'bias': jnp.full(2, 7.0)}}}
  for trunk in ('vgg16', 'light'):
    masking = MaskingConfig(strategy=name, patch_size=4)
    agent = Agent(trunk=trunk, width=2, patch_size=4)
    strategy = registry.build(Context(masking, agent, None, lambda tree: tree))
    before = strategy.init(jax.random.key(0), images[0, :1], {})
    old = leaves(before)
    biases = [path for path in old if "['conv1_1']['bias']" in path and 'opt_state' not in path]
    assert len(biases) == (TRUNKS.get(name, len(biases)) if trunk == 'vgg16' else 0)
    assert (strategy.load_trunk is not None) == bool(biases)
    if strategy.load_trunk is None:
      continue
    new = leaves(strategy.load_trunk(before, given))
    assert [path for path in new if not np.array_equal(old[path], new[path])] == biases
    assert all((new[path] == 7).all() for path in biases)


@pytest.mark.parametrize('name', registry.names())
def test_masks_of_single_modalities_keep_the_ratio_over_all_or_are_refused(images, name):
  """Images of 2 modalities, 4 x 4 patches of each."""
  masking = MaskingConfig(strategy=name, patch_size=4, mask_ratio=0.5, per_modality=True)
  agent = Agent(trunk='light', width=2, patch_size=4, modalities=2, output_variance=1.0)
  context = Context(masking, agent, lambda _, masked: jnp.roll(masked, 3, 2), lambda tree: tree)
  if name in ('blockwise', 'saliency', 'oracle_lesion', 'oracle_border', 'oracle_background'):
    with pytest.raises(
      UserError, match=f'{name!r} masks a patch of all modalities at once'
    ) as said:
      registry.build(context)
    assert 'uniform, untrained, reinforce, ahm, anatomask, hpm' in str(said.value)
    return
  strategy = registry.build(context)
  state = strategy.init(jax.random.key(0), images[0, :1], {'params': {}, 'batch_stats': {}})
  done = strategy.propose(state, images[0], jax.random.key(1), 1.0, False)
  assert done.hidden.shape == done.probability.shape == (3, 4, 8)
  np.testing.assert_allclose(done.probability.mean((-2, -1)), np.full(3, 0.5), atol=1e-5)
  first, second = done.hidden[..., :4], done.hidden[..., 4:]
  assert np.any(first != second)  # One is not the mask of the other.
