"""What is kept of a segmentation that uses unlabelled images."""

import dataclasses

import jax
import numpy as np
import pytest

from ahm_jax.config import UnlabelledConfig
from ahm_jax.models.build import segmentation_unet
from ahm_jax.training import pseudo_masks, segment

LABELLED = np.array([1, 6])


@pytest.fixture(scope='module')
def make(make_config, split):
  """make(mask_classes=(), **fields of `unlabelled`): a config and its segmentation task."""

  def make(mask_classes=(), **fields):
    config = make_config()
    recipe = dataclasses.replace(
      config.segment,
      ema_decay=0.9,
      unlabelled=UnlabelledConfig(**{'batch_size': 2, **fields}),
    )
    data = dataclasses.replace(config.data, mask_classes=mask_classes)
    config = dataclasses.replace(config, segment=recipe, data=data)
    keep = pseudo_masks.snapshot(config, split, LABELLED)
    return config, segment.build(config, split, 10, 1)._replace(snapshot=keep)

  return make


def test_images_without_a_mask_in_the_run_are_watched_first_those_whose_mask_is_known(split):
  whole = split.take(np.arange(40) % len(split))
  labelled = np.arange(0, 40, 3)

  def watched(count, labelled=labelled, seed=0):
    """Where so many of the other images have a mask."""
    known = np.setdiff1d(np.arange(40), labelled)[:count]
    held = dataclasses.replace(whole, has_mask=np.isin(np.arange(40), [*labelled, *known]))
    found = pseudo_masks.watched(held, labelled, seed).tolist()
    assert len(set(found)) == len(found) and not set(found) & set(labelled.tolist())
    assert [i in known for i in found] == sorted((i in known for i in found), reverse=True)
    return found, sum(i in known for i in found)

  for count in (0, 1, 3, 4, 20):
    found, known = watched(count)
    assert (len(found), known) == (4, min(count, 4))
    assert watched(count) == (found, known)
    # In the shares of the classes, which are halves.
    assert count in (1, 3) or sorted(whole.labels[found]) == [0, 0, 1, 1]
  assert len({tuple(watched(20, seed=seed)[0]) for seed in range(9)}) > 5
  assert [len(watched(0, np.arange(left))[0]) for left in (36, 38, 40)] == [4, 2, 0]


def test_runs_without_unlabelled_images_keep_nothing(make, split):
  config, task = make(batch_size=0)
  assert task.snapshot is None
  config, _ = make()
  assert pseudo_masks.snapshot(config, split, np.arange(len(split))) is None


@pytest.mark.parametrize('mask_classes', [(), ('small', 'large')])
def test_what_is_scored_says_the_pseudo_masks(make, split, mask_classes):
  config, task = make(mask_classes)
  state = jax.tree.map(np.asarray, jax.jit(task.init)(jax.random.key(1)))
  task.evaluate(state)
  programs = segment._compiled._cache_size(), segment._most_probable._cache_size()
  kept = task.snapshot(state)
  assert (segment._compiled._cache_size(), segment._most_probable._cache_size()) == programs
  indices = pseudo_masks.watched(split, LABELLED, config.seed)
  assert kept['indices'].tolist() == indices.tolist() and kept['indices'].dtype == np.int32
  unet = segmentation_unet(config.model, len(mask_classes))
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  says = segment.predict(unet, variables, split.images[indices], len(split))
  assert (kept['pseudo_masks'].shape, kept['pseudo_masks'].dtype) == ((4, 16, 16), np.uint8)
  if mask_classes:
    np.testing.assert_array_equal(kept['pseudo_masks'], says.argmax(-1))
  else:
    np.testing.assert_allclose(kept['pseudo_masks'] / 255, says, atol=0.0021)
