"""The brain phantoms: determinism, contrasts, and that no sequence by itself shows the lesions."""

import numpy as np
import pytest

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import dataset
from ahm_jax.data.drawing import brain
from ahm_jax.data.sets import phantom_mri
from ahm_jax.data.sets.phantom import generator
from ahm_jax.errors import UserError

NAMES = ('flair', 't1', 't2')


def draw(index, size=64, split='train', seed=0):
  return phantom_mri.draw(generator(seed, split, index), size)


def test_an_image_depends_on_seed_split_and_index_alone():
  image, mask = draw(4)
  assert image.dtype == np.uint8 and image.shape == (64, 64, 3) and mask.dtype == bool
  draw(5)
  np.testing.assert_array_equal(draw(4)[0], image)
  for other in (draw(5), draw(4, seed=1), draw(4, split='test')):
    assert (other[0] != image).mean() > 0.5


@pytest.mark.parametrize('index', range(3))
def test_a_scene_is_the_same_at_every_size(index):
  small, large = draw(index, 48)[1], draw(index, 96)[1]
  shrunk = large.reshape(48, 2, 48, 2).mean((1, 3)) >= 0.5
  assert 2 * (shrunk & small).sum() / (shrunk.sum() + small.sum()) > 0.9


def test_every_phantom_has_lesions_of_some_size():
  shares = np.array([draw(index, split='test')[1].mean() for index in range(200)])
  # Half axes are at least 0.035, less 2 * 0.01 of raggedness.
  assert shares.min() > np.pi * 0.015**2 and 0.01 < np.median(shares) < 0.05 and shares.max() < 0.15


def by_tissue(index, size=96):
  """Where a tissue alone lies, [S, S] each, and the sequences without noise, bias or gain."""
  anatomy = brain.draw_anatomy(generator(0, 'train', index), size)
  left = np.ones((size, size))
  shares = dict.fromkeys(('air', 'scalp', 'fluid', 'grey', 'white', 'lesion'), 0)
  for tissue, cover in reversed(anatomy.layers):
    shares[tissue] = shares[tissue] + left * cover
    left = left * (1 - cover)
  return {tissue: share > 0.99 for tissue, share in shares.items()}


def test_sequences_show_one_anatomy_in_their_contrasts():
  levels = {name: {} for name in NAMES}
  for index in range(8):
    places, (image, mask) = by_tissue(index), draw(index, 96)
    assert not (places['lesion'] & ~mask).any()
    for k, name in enumerate(NAMES):
      for tissue, place in places.items():
        levels[name].setdefault(tissue, []).extend(image[..., k][place].tolist())
  mean = {name: {key: np.mean(values) for key, values in levels[name].items()} for name in NAMES}
  for name in NAMES:
    expected = brain.CONTRASTS[name]
    for tissue, signal in expected.items():  # A gain of 0.925 in the mean.
      assert mean[name][tissue] == pytest.approx(255 * 0.925 * signal, rel=0.12), (name, tissue)
    assert mean[name]['air'] < 25
  assert mean['flair']['fluid'] < mean['flair']['white'] < mean['flair']['grey']
  assert mean['t1']['fluid'] < mean['t1']['grey'] < mean['t1']['white']
  assert mean['t2']['white'] < mean['t2']['grey'] < mean['t2']['fluid']


def test_lesions_are_told_from_all_tissues_by_two_sequences_and_by_none_alone():
  for name in NAMES:
    others = dict(brain.CONTRASTS[name])
    lesion = others.pop('lesion')
    assert min(abs(lesion - signal) for signal in others.values()) == 0
  for pair in (('flair', 't2'), ('t1', 't2')):
    signals = {
      tissue: np.array([brain.CONTRASTS[name][tissue] for name in pair]) for tissue in others
    }
    lesion = np.array([brain.CONTRASTS[name]['lesion'] for name in pair])
    assert min(np.abs(lesion - signal).max() for signal in signals.values()) > 0.2


def test_modalities_are_chosen_by_name_and_prepared(tmp_path):
  counts = PhantomConfig(train=2, validation=1, test=1)
  config = DataConfig(name='phantom_mri', image_size=32, phantom=counts, modalities=('t2', 'flair'))
  data = dataset.load(config, tmp_path)
  image, mask = draw(1, 32)
  np.testing.assert_array_equal(data.splits['train'].images[1], image[..., [2, 0]])
  np.testing.assert_array_equal(data.splits['train'].full_mask(1), mask)


@pytest.mark.parametrize('names', [(), ('t1', 'pd')])
def test_others_are_refused(names):
  config = DataConfig(name='phantom_mri', modalities=names)
  with pytest.raises(UserError, match='phantom_mri draws flair, t1, t2; name some of these'):
    phantom_mri.list_items(config)
