import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ahm_jax.config import AugmentConfig, DataConfig
from ahm_jax.data import augment as module
from ahm_jax.data.augment import (
  augment,
  augment_batch,
  denormalise,
  for_data,
  geometry_only,
  normalise,
  recolour_batch,
)
from ahm_jax.data.readers.intensity import MISSING

NOTHING = {
  'flip': False,
  'scale': 0.0,
  'zoom_out': 0.0,
  'brightness': 0.0,
  'contrast': 0.0,
  'hue': 0.0,
}


def only(**fields):
  return AugmentConfig(**{**NOTHING, **fields})


def example(size=12, channels=3, seed=0):
  image = np.random.default_rng(seed).random((size, size, channels), np.float32)
  return image, (image[..., 0] > 0.5).astype(np.float32)


def many(config, image, mask, count=64):
  """Results of `count` keys for one image."""
  keys = jax.random.split(jax.random.key(3), count)
  return jax.jit(jax.vmap(lambda key: augment(key, image, mask, config)))(keys)


@pytest.mark.parametrize('channels', [1, 3])
def test_nothing_asked_nothing_changed(channels):
  image, mask = example(channels=channels)
  images, masks = many(only(), image, mask, 2)
  np.testing.assert_array_equal(images[1], image)
  np.testing.assert_array_equal(masks[1], mask)


def test_flip_gives_the_eight_poses_exactly_and_no_other():
  image, mask = example()
  poses = [np.rot90(flipped, turns) for flipped in (image, image[:, ::-1]) for turns in range(4)]
  mask_poses = [np.rot90(flipped, turns) for flipped in (mask, mask[:, ::-1]) for turns in range(4)]
  seen = []
  for moved, moved_mask in zip(*many(only(flip=True), image, mask), strict=True):
    (pose,) = [index for index, pose in enumerate(poses) if np.array_equal(moved, pose)]
    np.testing.assert_array_equal(moved_mask, mask_poses[pose])
    seen.append(pose)
  assert min(np.bincount(seen, minlength=8)) >= 2  # 8 expected of each.


def origins(config, size, count):
  """Row and column, in [0, size - 1], that each pixel is taken from: what becomes of an image of
  its own coordinates.
  """
  rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing='ij')
  ramp = np.stack([rows, columns, 0 * rows], -1).astype(np.float32) / size
  return np.moveaxis(many(config, ramp, ramp[..., 0], count)[0][..., :2] * size, -1, 1)


@pytest.mark.parametrize('zoom', [{'scale': 0.5}, {'zoom_out': 1.0}])
@pytest.mark.parametrize('flip', [False, True])
def test_zoom_against_scipy(flip, zoom):
  config = only(flip=flip, **zoom)
  image, mask = example(size=20)
  mask = scipy.ndimage.gaussian_filter(mask, 2) > 0.5
  moved, moved_masks = many(config, image, mask.astype(np.float32), 16)
  for coordinates, result, result_mask in zip(
    origins(config, 20, 16), moved, moved_masks, strict=True
  ):
    expected = [
      scipy.ndimage.map_coordinates(image[..., c], coordinates, order=1, mode='nearest')
      for c in range(3)
    ]
    np.testing.assert_allclose(result, np.stack(expected, -1), atol=1e-4)
    soft = scipy.ndimage.map_coordinates(
      mask.astype(np.float32), coordinates, order=1, mode='nearest'
    )
    clear = np.abs(soft - 0.5) > 1e-3
    np.testing.assert_array_equal(result_mask[clear], soft[clear] >= 0.5)
    assert set(np.unique(result_mask)) <= {0.0, 1.0}


def test_crop_is_a_square_inside_the_image_of_the_asked_size():
  size, count = 40, 200
  rows, columns = np.moveaxis(origins(only(scale=0.5), size, count), 1, 0)
  middle = slice(5, -5)  # At the very border coordinates are clipped to pixel centres.
  steps = np.diff(rows[:, middle, 0], axis=1)
  share = steps.mean(1)
  np.testing.assert_allclose(steps, np.repeat(share[:, None], steps.shape[1], 1), atol=1e-3)
  np.testing.assert_allclose(np.diff(columns[:, 0, middle], axis=1).mean(1), share, atol=1e-3)
  assert share.min() > 0.5 - 1e-3
  assert share.min() < 0.55
  assert 0.95 < share.max() < 1 + 1e-3
  for corner in (
    rows[:, 10, 0] - 10 * share - 0.5 * share + 0.5,
    columns[:, 0, 10] - 10 * share - 0.5 * share + 0.5,
  ):
    assert corner.min() > -1e-3
    assert (corner + share * size).max() < size + 1e-2
    small = share < 0.8
    place = corner[small] / (size - share[small] * size)  # 0: at the one border; 1: at the other.
    assert place.min() < 0.1
    assert place.max() > 0.9


def test_zooming_out_shows_the_whole_image_in_a_square_of_the_asked_size():
  size, count = 40, 200
  rows, columns = np.moveaxis(origins(only(scale=0.2, zoom_out=1.0), size, count), 1, 0)
  steps = [np.diff(along, axis=1) for along in (rows[:, :, 0], columns[:, 0, :])]
  share = steps[0].max(1)
  np.testing.assert_allclose(steps[1].max(1), share, atol=1e-3)  # A square.
  assert 0.8 - 1e-3 < share.min() < 0.85
  assert 1.95 < share.max() < 2 + 1e-3
  for along in (rows[:, :, 0], columns[:, 0, :]):
    outside = (share[share > 1] - 1) / 2 + 1e-2  # What the first pixel's centre may leave out.
    assert (along[share > 1].min(1) <= outside).all()
    assert (along[share > 1].max(1) >= size - 1 - outside).all()
    before = (along[share > 1.5] <= 1e-3).mean(1)  # Share of it that continues the first border.
    assert before.min() < 0.05
    assert before.max() > 0.3


def test_brightness_shifts():
  image = np.full((8, 8, 3), 0.5, np.float32)
  shifts = many(only(brightness=0.3), image, image[..., 0])[0] - image
  np.testing.assert_allclose(
    shifts, np.broadcast_to(shifts[:, :1, :1, :1], shifts.shape), atol=1e-6
  )
  drawn = shifts[:, 0, 0, 0]
  assert -0.3 <= drawn.min() < -0.2
  assert 0.2 < drawn.max() <= 0.3


def test_contrast_scales_about_the_mean():
  image = example()[0] * 0.3 + 0.3
  results = many(only(contrast=0.4), image, image[..., 0])[0]
  np.testing.assert_allclose(results.mean((1, 2, 3)), image.mean(), rtol=1e-5)
  factors = (results - image.mean()).std((1, 2, 3)) / image.std()
  np.testing.assert_allclose(
    results, image.mean() + factors[:, None, None, None] * (image - image.mean()), atol=1e-5
  )
  assert 0.6 <= factors.min() < 0.7
  assert 1.3 < factors.max() <= 1.4


@pytest.mark.parametrize('turn', [-0.7, -0.02, 0.0, 0.1, 0.5])
def test_hue_against_colorsys(turn):
  pixels = np.random.default_rng(1).random((40, 3))
  pixels[:8] = [
    [0, 0, 0],
    [1, 1, 1],
    [0.4, 0.4, 0.4],
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [1, 1, 0],
    [0.2, 0.7, 0.7],
  ]
  expected = []
  for pixel in pixels:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
  np.testing.assert_allclose(
    module._turn_hue(jnp.asarray(pixels, jnp.float32), turn), expected, atol=1e-5
  )


def test_hue_turns_as_far_as_asked_and_only_colours():
  image = np.broadcast_to(np.float32([0.8, 0.4, 0.2]), (4, 4, 3))  # Its hue is 1/18.
  turns = [
    colorsys.rgb_to_hsv(*pixel)[0] - 1 / 18
    for pixel in many(only(hue=0.05), image, image[..., 0])[0][:, 0, 0]
  ]
  assert -0.05 <= min(turns) < -0.03
  assert 0.03 < max(turns) <= 0.05 + 1e-6
  grey, mask = example(channels=1)
  np.testing.assert_array_equal(many(only(hue=0.5), grey, mask, 2)[0][0], grey)


@pytest.mark.parametrize('channels', [1, 3])
def test_strong_changes_stay_in_range(channels):
  image, mask = example(channels=channels)
  images, masks = many(
    AugmentConfig(flip=True, scale=0.9, brightness=1.0, contrast=1.0, hue=1.0), image, mask
  )
  assert images.min() == 0
  assert images.max() == 1
  assert set(np.unique(masks)) == {0.0, 1.0}


def test_colour_leaves_the_mask_alone():
  image, mask = example()
  masks = many(only(brightness=1.0, contrast=1.0, hue=1.0), image, mask)[1]
  np.testing.assert_array_equal(masks, np.broadcast_to(mask, masks.shape))


@pytest.fixture(scope='module')
def batch():
  generator = np.random.default_rng(2)
  images = generator.integers(0, 256, (4, 16, 16, 3), np.uint8)
  return (
    np.repeat(images[:1], 4, 0),
    np.repeat((images[:1, ..., 0] > 99).astype(np.uint8), 4, 0),
    np.arange(4, dtype=np.int32),
  )


def test_batch_is_in_range_and_float(batch):
  run = jax.jit(functools.partial(augment_batch, config=only()))
  images, masks = run(jax.random.key(0), *batch)
  assert images.dtype == masks.dtype == jnp.float32
  np.testing.assert_allclose(images, batch[0] / 255, rtol=1e-6)
  np.testing.assert_array_equal(masks, batch[1])


def test_every_position_has_its_own_draw_wherever_it_is_computed(batch):
  run = jax.jit(functools.partial(augment_batch, config=AugmentConfig()))
  key = jax.random.key(0)
  whole = run(key, *batch)
  halves = [run(key, *(part[share] for part in batch)) for share in (slice(0, 2), slice(2, 4))]
  for index in (0, 1):
    np.testing.assert_allclose(
      np.concatenate([half[index] for half in halves]), whole[index], atol=1e-6
    )
  for other in range(1, 4):
    # Four copies of one image, augmented in four ways.
    assert np.abs(whole[0][0] - whole[0][other]).max() > 0.05
  assert np.abs(whole[0] - run(jax.random.key(1), *batch)[0]).max() > 0.05


def test_normalise():
  np.testing.assert_array_equal(normalise(jnp.array([0.0, 0.5, 1.0])), [-2, 0, 2])


def test_denormalise_takes_normalise_back():
  x = np.linspace(0, 1, 11, dtype=np.float32)
  np.testing.assert_allclose(denormalise(normalise(x)), x, atol=1e-6)
  np.testing.assert_allclose(denormalise(np.array([-2.0, 0.0, 2.0])), [0, 0.5, 1])


def test_moving_and_then_recolouring_is_augmenting():
  generator = np.random.default_rng(1)
  images, masks = (
    generator.integers(0, 256, (3, 12, 12, 3), np.uint8),
    np.zeros((3, 12, 12), np.uint8),
  )
  key, positions = jax.random.key(4), np.array([0, 5, 2])
  config = AugmentConfig(brightness=0.3, contrast=0.3, hue=0.1)
  moved, _ = augment_batch(key, images, masks, positions, geometry_only(config))
  whole, _ = augment_batch(key, images, masks, positions, config)
  assert np.abs(moved - whole).max() > 0.05
  np.testing.assert_allclose(recolour_batch(key, moved, positions, config), whole, atol=1e-6)


def modal(**fields):
  data = DataConfig(modalities=('flair', 't1', 't2', 't1ce'))
  return for_data(only(**fields), data)


def test_modalities_are_rescaled_each_by_itself_and_air_stays_black():
  image = np.float32([[[0, 0.2, 0.4, 0.5]] * 4, [[0.6, 0.2, 0.1, 0]] * 4] * 2)
  results = many(modal(brightness=0.3), image, image[..., 0])[0]
  factors = results.sum((1, 2)) / image.sum((0, 1))
  np.testing.assert_allclose(results, image * factors[:, None, None], atol=1e-6)
  assert 0.7 <= factors.min() < 0.75
  assert 1.25 < factors.max() <= 1.3
  assert np.abs(np.corrcoef(factors.T) - np.eye(4)).max() < 0.5  # Drawn independently.
  assert not results[np.broadcast_to(image == 0, results.shape)].any()


def test_contrast_of_a_modality_is_about_its_own_mean():
  image = example(channels=4)[0] * 0.2 + np.float32([0.2, 0.3, 0.4, 0.5])
  results = many(modal(contrast=0.4), image, image[..., 0])[0]
  means = image.mean((0, 1))
  factors = (results - means).std((1, 2)) / image.std((0, 1))
  np.testing.assert_allclose(results, means + factors[:, None, None] * (image - means), atol=1e-5)
  assert (factors.max(1) - factors.min(1)).min() > 0.01


def test_three_modalities_have_no_hue_and_are_not_changed_as_colours():
  image, mask = example()
  config = for_data(only(hue=0.5), DataConfig(modalities=('a', 'b', 'c')))
  np.testing.assert_array_equal(many(config, image, mask, 2)[0][1], image)
  assert for_data(only(hue=0.5), DataConfig()) == only(hue=0.5) != config
  assert isinstance(geometry_only(modal(contrast=0.2)), module.ModalityAugment)


def dropping(share, **fields):
  data = DataConfig(modalities=('flair', 't1', 't2', 't1ce'), modality_dropout=share)
  return for_data(only(**fields), data)


def test_modalities_are_dropped_as_often_as_asked_but_never_all():
  image, mask = example(channels=4)
  for share in (0.2, 0.9):
    results = np.asarray(many(dropping(share), image, mask, 512)[0])
    missing = (results == np.float32(MISSING / 255)).all((1, 2))
    expected = share - share**4 / 4  # Of four dropped, one is kept.
    assert missing.mean() == pytest.approx(expected, abs=0.03)
    assert not missing.all(1).any()
    np.testing.assert_array_equal(results, np.where(missing[:, None, None], MISSING / 255, image))
    assert missing.mean(0).min() > expected - 0.08  # None is spared.


def test_what_has_no_file_stays_missing_and_the_only_other_one_is_kept():
  image, mask = example(channels=4)
  image[..., [0, 1, 3]] = MISSING / 255
  config = dropping(0.9, flip=True, scale=0.4, brightness=0.5, contrast=0.5)
  results = np.asarray(many(config, image, mask)[0])
  np.testing.assert_allclose(results[..., [0, 1, 3]], MISSING / 255, atol=1e-6)
  assert results[..., 2].std((1, 2)).min() > 0.01


def test_dropping_alone_drops_what_augmenting_drops(batch):
  images, masks, positions = batch
  images = np.concatenate([images, images[..., :1]], -1)
  config = dropping(0.5)
  key = jax.random.key(7)
  whole, _ = augment_batch(key, images, masks, positions, config)
  alone = module.drop_batch(key, images / np.float32(255), positions, config)
  np.testing.assert_allclose(alone, whole, atol=1e-6)
  assert np.abs(whole - images / 255).max() > 0.1
  still, _ = augment_batch(key, images, masks, positions, module.without_dropout(config))
  np.testing.assert_allclose(still, images / 255, atol=1e-6)
  assert module.drop_batch(key, images, positions, only()) is images
  assert geometry_only(config).dropout == 0
