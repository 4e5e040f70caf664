import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.dataset import Split
from ahm_jax.evaluation import metrics, per_image
from ahm_jax.evaluation.per_image import classification_rows, segmentation_rows


def png(mask):
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'png')
  return file.getvalue()


def make_split(*truths, labels=None):
  """Images of 4 x 4 pixels with masks of any size; None: no mask."""
  count = len(truths)
  return Split(
    ids=tuple(f'image{i}' for i in range(count)),
    images=np.zeros((count, 4, 4, 3), np.uint8),
    masks=np.zeros((count, 4, 4), np.uint8),
    labels=np.full(count, -1, np.int32) if labels is None else np.array(labels, np.int32),
    has_mask=np.array([truth is not None for truth in truths]),
    groups=tuple(map(str, range(count))),
    full_masks=tuple(b'' if truth is None else png(truth) for truth in truths),
  )


@pytest.fixture
def left_half():
  """What the network says at 4 x 4 pixels."""
  return np.repeat(np.float32([[1, 1, 0, 0]]), 4, axis=0)


def test_scores_at_the_images_own_resolution(left_half):
  """The same probabilities over a wide and a tall image; one without mask has no row."""
  wide, tall = np.zeros((8, 12), bool), np.zeros((20, 4), bool)
  wide[:, :6] = True
  tall[:5, :2] = True
  probabilities = np.stack([left_half] * 3)
  rows = segmentation_rows(probabilities, make_split(wide, None, tall), 0.5)
  assert [row['image'] for row in rows] == ['image0', 'image2']
  assert [(row['tp'], row['fp'], row['fn']) for row in rows] == [(48, 0, 0), (10, 30, 0)]
  assert rows[0]['dice'] == 1
  assert rows[0]['hd95'] == 0
  assert rows[1]['confidence'] == pytest.approx(0.999)  # Probabilities of 4 columns are 0 or 1.
  assert 0.9 < rows[0]['confidence'] < 0.999
  assert rows[1]['dice'] == pytest.approx(2 * 10 / (2 * 10 + 30))
  (lower,) = segmentation_rows(probabilities[:1], make_split(wide), 0.3)
  assert (lower['tp'], lower['fp'], lower['fn']) == (48, 8, 0)  # One column more.
  assert lower['dice'] == pytest.approx(96 / 104)


def test_distances_in_millimetres_where_the_spacing_is_known(left_half):
  """A lesion of the left half, wholly missed in one column's breadth: 1 pixel of 3 mm."""
  truth = np.zeros((4, 4), bool)
  truth[:, :3] = True
  split = dataclasses.replace(
    make_split(truth, truth), spacing=np.float32([[1, 3], [np.nan, np.nan]])
  )
  first, second = segmentation_rows(np.stack([left_half] * 2), split, 0.5)
  assert (first['hd95'], first['hd95_mm'], second['hd95']) == (1, 3, 1)
  assert 'hd95_mm' not in second


def test_the_threshold_itself_is_lesion():
  (row,) = segmentation_rows(
    np.full((1, 4, 4), 0.5, np.float32), make_split(np.ones((4, 4), bool)), 0.5
  )
  assert row['tp'] == 16


def test_a_row_for_each_image_with_a_label():
  probabilities = np.float32([[0.25, 0.75], [0.5, 0.5], [0.875, 0.125]])
  rows = classification_rows(
    probabilities, make_split(None, None, None, labels=[0, -1, 0]), ('naevus', 'melanoma')
  )
  assert rows == [
    {
      'image': 'image0',
      'label': 'naevus',
      'predicted': 'melanoma',
      'probability_naevus': 0.25,
      'probability_melanoma': 0.75,
    },
    {
      'image': 'image2',
      'label': 'naevus',
      'predicted': 'naevus',
      'probability_naevus': 0.875,
      'probability_melanoma': 0.125,
    },
  ]


def test_per_image_csv_round_trip(tmp_path):
  lesion, empty = np.eye(4, dtype=bool), np.zeros((4, 4), bool)
  rows = [
    {
      'image': 'a,"1"',
      **metrics.segmentation_scores(lesion, lesion),
      'label': 'nevus',
      'predicted': 'nevus',
    },
    {
      'image': 'é2',
      **metrics.segmentation_scores(empty, empty),
      'label': '',
      'predicted': 'melanoma',
    },
  ]
  rows = [{**row, 'probability_nevus': 1 / 3, 'probability_melanoma': 2 / 3} for row in rows]
  per_image.write(tmp_path / 'per_image.csv', rows)
  back = per_image.read(tmp_path / 'per_image.csv')
  assert back[0] == rows[0]
  assert [type(back[0][key]) for key in ('image', 'tp', 'dice')] == [str, int, float]
  assert back[1]['image'] == 'é2' and math.isnan(back[1]['dice']) and back[1]['label'] == ''
  assert metrics.summarise(back) == metrics.summarise(rows)


@pytest.mark.parametrize(
  'name',
  ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', "'=1", "'", 'a=1', '=HYPERLINK("x")', '<b>', 'a,b'],
)
def test_texts_that_begin_like_formulas_are_written_so_that_they_are_not_run(tmp_path, name):
  scores = metrics.segmentation_scores(np.ones((2, 2), bool), np.ones((2, 2), bool))
  rows = [{'image': name, **scores, 'label': name, 'predicted': 'x', f'probability_{name}': 0.5}]
  per_image.write(tmp_path / 'a.csv', rows)
  with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
    cells = [cell for row in csv.reader(file) for cell in row]
  assert not [cell for cell in cells if cell.startswith(('=', '+', '-', '@', '\t', '\r'))]
  assert per_image.read(tmp_path / 'a.csv') == rows
