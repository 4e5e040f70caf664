"""The phantoms: exact masks, determinism, and that they are neither trivial nor hopeless."""

import numpy as np
import pytest
from scipy import ndimage
from threadpoolctl import threadpool_limits

from ahm_jax.data.sets import phantom


@pytest.fixture(scope='module')
def drawn():
  """Images [200, 48, 48, 3], masks, labels."""
  with threadpool_limits(1, user_api='blas'):
    samples = [phantom.draw(phantom.generator(3, 'train', i), 48) for i in range(200)]
  return tuple(np.stack(part) for part in zip(*samples, strict=True))


@pytest.mark.parametrize(('size', 'channels'), [(16, 3), (33, 1), (128, 3)])
def test_shapes_types_and_values(size, channels):
  image, mask, label = phantom.draw(phantom.generator(0, 'test', 5), size, channels)
  assert image.shape == (size, size, channels)
  assert mask.shape == (size, size)
  assert image.dtype == mask.dtype == np.uint8
  assert set(np.unique(mask)) == {0, 1}
  assert 0 <= label < len(phantom.CLASS_NAMES)
  assert image.std() > 5


def test_an_image_depends_on_seed_split_and_index_alone():
  def draw(*source):
    return phantom.draw(phantom.generator(*source), 32)[0]

  reference = draw(1, 'train', 4)
  draw(1, 'train', 5)
  np.testing.assert_array_equal(draw(1, 'train', 4), reference)
  for other in ((2, 'train', 4), (1, 'validation', 4), (1, 'train', 5)):
    assert (draw(*other) != reference).mean() > 0.5


@pytest.mark.parametrize('index', range(4))
def test_a_scene_is_the_same_at_every_size(index):
  small = phantom.draw(phantom.generator(0, 'train', index), 48)
  large = phantom.draw(phantom.generator(0, 'train', index), 96)
  shrunk = large[1].reshape(48, 2, 48, 2).mean((1, 3)) >= 0.5
  assert small[2] == large[2]
  assert 2 * (shrunk & (small[1] > 0)).sum() / (shrunk.sum() + small[1].sum()) > 0.93


def test_the_mask_is_where_the_lesion_was_laid_with_half_its_strength(monkeypatch):
  monkeypatch.setattr(phantom, 'lay_over', lambda _, density: density)
  monkeypatch.setattr(phantom, 'photograph', lambda _, picture: picture)
  real = phantom.draw_layers
  for index in range(12):
    layers = real(phantom.generator(0, 'train', index), 40)
    # A lesion of one dense pigment on white skin: brightness tells alpha, to the rounding of a
    # pixel.
    plain = layers._replace(
      skin=np.zeros_like(layers.skin), lesion=np.full_like(layers.lesion, 2.0)
    )
    monkeypatch.setattr(phantom, 'draw_layers', lambda *_, plain=plain: plain)
    image, mask, _ = phantom.draw(phantom.generator(0, 'train', index), 40)
    half = 255 * np.exp(-1.0)
    sure = np.abs(image[..., 0] - half) > 1
    np.testing.assert_array_equal((image[..., 0] < half)[sure], (mask > 0)[sure])
    assert sure.mean() > 0.95


def test_alpha_is_composited_over_the_skin():
  layers = phantom.draw_layers(phantom.generator(0, 'train', 0), 32)
  assert layers.alpha.min() >= 0 and layers.alpha.max() <= 1
  assert layers.skin.shape == layers.lesion.shape == (3, 32, 32)
  assert (layers.skin > 0).all() and (layers.lesion >= 0).all()
  assert layers.skin.dtype == layers.lesion.dtype == layers.alpha.dtype == np.float32


def test_every_image_has_lesion_and_skin(drawn):
  share = drawn[1].mean((1, 2))
  assert share.min() > 0.005
  assert share.max() < 0.9


def test_classes_occur_in_their_shares(drawn):
  shares = np.bincount(drawn[2], minlength=3) / len(drawn[2])
  np.testing.assert_allclose(shares, phantom.CLASS_SHARES, atol=0.1)


def test_classes_differ_in_diameter_border_and_asymmetry_but_overlap(drawn):
  _, masks, labels = drawn
  masks = masks.astype(bool)
  area = masks.sum((1, 2))
  rim = np.stack([mask & ~ndimage.binary_erosion(mask) for mask in masks]).sum((1, 2))
  raggedness = rim / np.sqrt(area)
  lopsidedness = np.array([_asymmetry(mask) for mask in masks])
  nevus, melanoma = labels == 0, labels == 1
  for trait in (area, raggedness, lopsidedness):
    assert trait[melanoma].mean() > 1.1 * trait[nevus].mean()
    assert (trait[nevus] > np.median(trait[melanoma])).any()
    assert (trait[melanoma] < np.median(trait[nevus])).any()


def _asymmetry(mask):
  """1 - overlap of a mask with itself, turned half about its centre."""
  rows, columns = np.nonzero(mask)
  padded = np.zeros((3 * len(mask), 3 * len(mask)), bool)
  padded[len(mask) + rows, len(mask) + columns] = True
  turned = np.zeros_like(padded)
  turned[
    len(mask) + round(2 * rows.mean()) - rows, len(mask) + round(2 * columns.mean()) - columns
  ] = True
  return 1 - (padded & turned).sum() / (padded | turned).sum()


def test_melanomas_have_more_colours(drawn):
  images, masks, labels = drawn
  spread = np.array(
    [
      image[mask > 0].astype(float).std(0).sum()
      for image, mask in zip(images, masks, strict=True)
      if mask.sum() > 9
    ]
  )
  assert spread[labels == 1].mean() > 1.15 * spread[labels == 0].mean()


def test_a_threshold_neither_solves_nor_fails_the_segmentation(drawn):
  scores = []
  for image, mask in zip(drawn[0], drawn[1], strict=True):
    grey = image.mean(-1)
    dice = [
      2 * ((grey < t) & (mask > 0)).sum() / ((grey < t).sum() + mask.sum()) for t in [_otsu(grey)]
    ]
    scores += dice
  assert 0.4 < np.mean(scores) < 0.85
  assert np.percentile(scores, 15) < 0.6


def _otsu(grey):
  candidates = np.percentile(grey, np.arange(2, 99))
  return max(candidates, key=lambda t: (grey < t).mean() * (grey >= t).mean() * _gap(grey, t) ** 2)


def _gap(grey, t):
  return (
    grey[grey >= t].mean() - grey[grey < t].mean() if (grey < t).any() and (grey >= t).any() else 0
  )


def test_some_lesions_are_faint_and_most_are_not(drawn):
  images, masks, _ = drawn
  grey = images.mean(-1)
  contrast = np.array(
    [g[m == 0].mean() - g[m == 1].mean() for g, m in zip(grey, masks, strict=True)]
  )
  assert 0.02 < (contrast < 15).mean() < 0.4
  assert np.median(contrast) > 25


def test_lesion_patches_are_harder_to_repair_from_around_than_skin(drawn):
  """The structure that the masking agent is to find: 8 x 8 patches, repaired from a frame around
  them.
  """
  images, masks, _ = drawn
  image = images.mean(-1) / 255
  errors = {'skin': [], 'lesion': [], 'border': []}
  for row in range(8, 40, 8):
    for column in range(8, 40, 8):
      window = image[:, row - 2 : row + 10, column - 2 : column + 10]
      inner = window[:, 2:10, 2:10]
      frame = (window.sum((1, 2)) - inner.sum((1, 2))) / (144 - 64)
      error = ((inner - frame[:, None, None]) ** 2).mean((1, 2))
      cover = masks[:, row : row + 8, column : column + 8].mean((1, 2))
      errors['skin'].append(error[cover == 0])
      errors['lesion'].append(error[cover == 1])
      errors['border'].append(error[(cover > 0) & (cover < 1)])
  median = {kind: np.median(np.concatenate(values)) for kind, values in errors.items()}
  assert median['border'] > 3 * median['skin']
  assert median['lesion'] > 2 * median['skin']
