import base64
import io

import matplotlib
import numpy as np
from PIL import Image

from ahm_jax.report import class_pictures, overlays
from ahm_jax.report.pictures import PREDICTION_COLOUR, TRUTH_COLOUR

CLEAR = 0


def decoded(uri):
  head, body = uri.split(',')
  assert head == 'data:image/png;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert('RGBA')).astype(int)


def test_policy_has_a_pixel_a_patch_in_the_colours_of_the_scale():
  pixels = decoded(overlays.policy_layer(np.array([[0.0, 0.5], [1.0, 1.2]])))
  assert pixels.shape == (2, 2, 4) and (pixels[..., 3] == 166).all()  # 0.65 of 255.
  for place, value in (((0, 0), 0.0), ((0, 1), 0.5), ((1, 0), 1.0), ((1, 1), 1.0)):
    np.testing.assert_allclose(
      pixels[place][:3], np.array(matplotlib.colormaps['viridis'](value)[:3]) * 255, atol=1.5
    )


def test_hidden_patches_are_grey_and_all_else_is_clear():
  pixels = decoded(overlays.hidden_layer(np.array([[True, False]])))
  assert pixels.tolist() == [[[128, 128, 128, 255], [0, 0, 0, 0]]]


def test_a_mask_is_tinted_and_has_a_border():
  mask = np.zeros((160, 320), bool)
  mask[40:80, 100:200] = True
  pixels = decoded(overlays.mask_layer(mask, (9, 8, 7)))
  assert pixels.shape == (160, 320, 4)
  assert (pixels[..., 3] > 0).tolist() == mask.tolist()
  assert (pixels[40:80, 100:200, :3] == (9, 8, 7)).all()
  opaque = pixels[..., 3] == 255
  assert (
    opaque[40:42, 100:200].all()
    and opaque[40:80, 198:200].all()
    and not opaque[42:78, 102:198].any()
  )


def test_classes_keep_their_colours_and_patterns():
  """As `class_overlay` paints them, but over nothing."""
  mask = np.zeros((320, 320), np.uint8)
  mask[20:100, 20:200], mask[150:300, 30:300] = 1, 2
  pixels = decoded(overlays.mask_layer(mask, (0, 0, 0)))
  assert (pixels[..., 3] > 0).tolist() == (mask > 0).tolist()
  painted = class_pictures.class_overlay(np.full((320, 320, 3), 128, np.uint8), mask)
  opacity = pixels[..., 3:] / 255
  np.testing.assert_allclose(opacity * pixels[..., :3] + (1 - opacity) * 128, painted, atol=2)


def test_errors_have_a_colour_each():
  truth = np.array([[1, 1, 0, 0]], bool).repeat(80, 0).repeat(80, 1)
  prediction = np.array([[1, 0, 1, 0]], bool).repeat(80, 0).repeat(80, 1)
  pixels = decoded(overlays.error_layer(prediction, truth))[40, 40::80]
  assert pixels[:3, :3].tolist() == [[255, 255, 255], list(TRUTH_COLOUR), list(PREDICTION_COLOUR)]
  assert pixels[3, 3] == CLEAR and pixels[0, 3] < pixels[1, 3] == pixels[2, 3]


def test_a_class_taken_for_another_is_an_error_of_its_own():
  truth = np.array([[1, 2, 2, 0, 0]], np.uint8).repeat(64, 0).repeat(64, 1)
  prediction = np.array([[2, 2, 0, 1, 0]], np.uint8).repeat(64, 0).repeat(64, 1)
  pixels = decoded(overlays.error_layer(prediction, truth))[32, 32::64]
  expected = [
    list(overlays.CONFUSED_COLOUR),
    [255, 255, 255],
    list(TRUTH_COLOUR),
    list(PREDICTION_COLOUR),
  ]
  assert pixels[:4, :3].tolist() == expected and pixels[4, 3] == CLEAR


def test_masks_of_any_size_are_shown_at_one():
  for shape, shown in (((2, 4), (160, 320)), ((1000, 250), (320, 80)), ((1, 1000), (1, 320))):
    assert overlays.at_shown_size(np.ones(shape, bool)).shape == shown
  halves = np.array([[True, False]])
  np.testing.assert_array_equal(
    overlays.at_shown_size(halves), halves.repeat(160, 0).repeat(160, 1)
  )
