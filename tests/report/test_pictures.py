import base64
import io

import numpy as np
from PIL import Image

from ahm_jax.report import pictures


def example(channels=3, h=48, w=96, **changes):
  truth = np.zeros((h, w), bool)
  truth[h // 4 : h // 2, w // 4 : w // 2] = True
  values = {
    'image': np.full((32, 32, channels), 200, np.uint8),
    'policy': np.linspace(0, 1, 16).reshape(4, 4),
    'hidden': np.eye(4, dtype=bool),
    'reconstruction': np.full((32, 32, channels), 90, np.uint8),
    'truth': truth,
    'prediction': np.roll(truth, w // 4, axis=1),
    'id': 'a',
    'dice': 0.5,
  }
  return pictures.Example(**{**values, **changes})


def test_panels_have_the_aspect_ratio_of_the_truth():
  for channels in (1, 3):
    shown = pictures.panels(example(channels), side=64)
    assert set(shown) == set(pictures.PANELS)
    assert all(
      picture.shape == (32, 64, 3) and picture.dtype == np.uint8 for picture in shown.values()
    )
    assert (shown['image'] == 200).all() and (shown['reconstruction'] == 90).all()


def test_hidden_panel_greys_the_hidden_patches_only():
  hidden = np.zeros((4, 4), bool)
  hidden[0, 1] = True
  picture = pictures.panels(example(hidden=hidden), side=64)['hidden']
  expected = np.full((32, 64, 3), 200)
  expected[0:8, 16:32] = 128
  np.testing.assert_array_equal(picture, expected)


def test_policy_panel_is_lighter_where_the_chance_is_higher():
  policy = np.zeros((2, 2))
  policy[1, 0] = 1
  picture = pictures.panels(example(policy=policy), side=64)['policy'].astype(int).sum(-1)
  assert (picture[16:, :32] > picture[:16].max()).all()
  assert len(np.unique(picture)) == 2


def test_outlines_run_along_the_borders():
  picture = pictures.panels(example(), side=96)['outline']
  truth = (picture == pictures.TRUTH_COLOUR).all(-1)
  prediction = (picture == pictures.PREDICTION_COLOUR).all(-1)
  # Truth: rows 12..23, columns 24..47; prediction: columns 48..71.
  assert truth[11:13, 30:40].all() and truth[15:20, 24].all()
  assert prediction[12, 55:65].all() and prediction[15:20, 71].all()
  assert not truth[17:19, 30:40].any() and not prediction[17:19, 55:65].any()
  assert (picture[40:, :] == 200).all()


def test_empty_masks_draw_no_outline():
  empty = np.zeros((48, 96), bool)
  picture = pictures.panels(example(truth=empty, prediction=empty), side=96)['outline']
  assert (picture == 200).all()


def test_data_uri_holds_the_picture():
  picture = np.full((8, 12, 3), (10, 200, 90), np.uint8)
  head, body = pictures.data_uri(picture).split(',')
  assert head == 'data:image/jpeg;base64'
  decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
  np.testing.assert_allclose(decoded, picture, atol=4)


def test_policies_sheet_shows_each_policy_over_its_image():
  images = np.stack([np.full((16, 16, 1), value, np.uint8) for value in (40, 200)])
  policies = {
    'a': np.zeros((2, 2, 2)),
    'b': np.ones((2, 4, 4)),
    'two lines': np.full((2, 1, 1), 0.5),
  }
  pixels = np.asarray(pictures.policies_sheet(images, policies, tile=64)).astype(int)
  # Titles have at most 8 letters a line.
  assert pixels.shape == (
    15 + 2 * 15 + 2 * 72 + 30,
    8 + 4 * 72,
    3,
  )

  def middle(row, column):
    return pixels[45 + 72 * row + 32, 8 + 72 * column + 32]

  assert (middle(0, 0) == 40).all() and (middle(1, 0) == 200).all()
  # Over mid-grey, 128; the picture's own grey is the rest.
  bar = pictures.colour_bar(3, 1)[0].astype(int)
  for row, grey in ((0, 40), (1, 200)):
    for column, colour in ((1, bar[0]), (2, bar[2]), (3, bar[1])):
      np.testing.assert_allclose(middle(row, column), colour + 0.35 * (grey - 128), atol=1.01)


def test_write_masks_picture(tmp_path):
  examples = [example(h=64, w=64), example(h=48, w=96)]
  pictures.write_masks_picture(examples, tmp_path / 'masks.png')
  with Image.open(tmp_path / 'masks.png') as sheet:
    pixels = np.asarray(sheet)
  assert pixels.shape[0] > 2 * 224 and pixels.shape[1] > 4 * 224
  first = 30 + 112  # Middle of the first row of pictures.
  assert (pixels[first, 8 + 112] == 200).all()  # Its image,
  assert (pixels[first, 8 + 3 * 232 + 112] == 90).all()  # and its reconstruction.
