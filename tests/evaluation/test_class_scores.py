"""Scores, rows and tables where masks have several classes."""

import math

import numpy as np
import pytest

from ahm_jax.data.dataset import Split
from ahm_jax.data.mask_png import encode_mask
from ahm_jax.evaluation import compare, metrics, per_image
from ahm_jax.evaluation.agent import border_lift
from ahm_jax.evaluation.per_image import segmentation_rows
from ahm_jax.evaluation.tables import table

NAMES = ('disc', 'cup')


def pair():
  """6 x 8 pixels, of which 16 are disc and 4 cup.

  Of the disc 8 are found, and 8 pixels are called cup, 4 of them rightly.
  """
  truth, prediction = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
  truth[:2], truth[3:5, :2] = 1, 2
  prediction[:1], prediction[3:5, :4] = 1, 2
  return prediction, truth


def test_scores_by_hand():
  scores = metrics.class_scores(*pair(), NAMES)
  single = {
    'dice_disc': 2 * 8 / (8 + 16),
    'dice_cup': 2 * 4 / (8 + 4),
    'iou_disc': 8 / 16,
    'iou_cup': 4 / 8,
  }
  single |= {
    'precision_disc': 1,
    'precision_cup': 0.5,
    'recall_disc': 0.5,
    'recall_cup': 1,
    'hd95_disc': 1,
    'hd95_cup': 2,
  }
  assert {name: scores[name] for name in single} == pytest.approx(single)
  means = {'dice': 2 / 3, 'iou': 0.5, 'precision': 0.75, 'recall': 0.75, 'hd95': 1.5}
  assert {name: scores[name] for name in means} == pytest.approx(means)
  assert [scores[name] for name in ('tp', 'fp', 'fn', 'tp_cup', 'fp_cup', 'fn_cup')] == [
    12,
    4,
    8,
    4,
    4,
    0,
  ]


def test_each_class_is_scored_as_a_mask_of_its_own():
  rng = np.random.default_rng(0)
  prediction, truth = rng.integers(0, 3, (2, 9, 7)).astype(np.uint8)
  scores = metrics.class_scores(prediction, truth, NAMES)
  for k, name in enumerate(NAMES, 1):
    for key, value in metrics.segmentation_scores(prediction == k, truth == k).items():
      assert scores[f'{key}_{name}'] == value
  assert list(scores)[:8] == list(metrics.segmentation_scores(prediction == 1, truth == 1))


def test_a_class_that_both_lack_is_left_out_and_one_that_one_lacks_is_not():
  prediction, truth = pair()
  without = metrics.class_scores(
    np.where(prediction == 2, 0, prediction), np.where(truth == 2, 0, truth), NAMES
  )
  assert without['dice'] == without['dice_disc'] == pytest.approx(2 / 3)
  assert math.isnan(without['dice_cup']) and math.isnan(without['hd95_cup'])
  missed = metrics.class_scores(np.where(prediction == 2, 0, prediction), truth, NAMES)
  assert missed['dice'] == pytest.approx((2 / 3 + 0) / 2)
  assert missed['hd95_cup'] == 10  # The diagonal.
  nothing = metrics.class_scores(0 * truth, 0 * truth, NAMES)
  assert (
    all(math.isnan(nothing[key]) for key in ('dice', 'hd95', 'dice_disc', 'recall_cup'))
    and nothing['tp'] == 0
  )


def rows_of_three():
  """The pair; the disc alone, rightly found; nothing, where a pixel of cup is found."""
  prediction, truth = pair()
  disc, nothing, pixel = np.where(truth == 1, truth, 0), 0 * truth, 0 * truth
  pixel[0, 0] = 2
  return [
    metrics.class_scores(*both, NAMES)
    for both in ((prediction, truth), (disc, disc), (pixel, nothing))
  ]


def test_means_over_images_by_hand():
  rows = rows_of_three()
  summary, by_class = metrics.summarise(rows), metrics.summarise_by_class(rows, NAMES)
  assert summary['dice'] == pytest.approx((2 / 3 + 1 + 0) / 3)
  assert summary['pooled_dice'] == pytest.approx(2 * 28 / (2 * 28 + 5 + 8))
  assert [summary[key] for key in ('images', 'both_empty', 'missed', 'false_alarms')] == [
    3,
    0,
    0,
    1,
  ]
  assert by_class['dice_by_class'] == pytest.approx(
    {'disc': (2 / 3 + 1) / 2, 'cup': (2 / 3 + 0) / 2}
  )
  assert by_class['pooled_dice_by_class'] == pytest.approx(
    {'disc': 48 / (48 + 8), 'cup': 8 / (8 + 5)}
  )
  assert by_class['both_empty_by_class'] == {'disc': 1, 'cup': 1}
  assert by_class['false_alarms_by_class'] == {'disc': 0, 'cup': 1}
  assert set(by_class) >= {
    'iou_by_class',
    'hd95_by_class',
    'precision_by_class',
    'recall_by_class',
    'missed_by_class',
  }


def test_per_image_csv_round_trip(tmp_path):
  rows = [{'image': str(i), **row} for i, row in enumerate(rows_of_three())]
  per_image.write(tmp_path / 'per_image.csv', rows)
  back = per_image.read(tmp_path / 'per_image.csv')
  assert (
    back[0] == rows[0] and type(back[0]['tp_cup']) is int and type(back[0]['dice_cup']) is float
  )
  assert math.isnan(back[1]['dice_cup'])
  assert metrics.summarise_by_class(back, NAMES) == metrics.summarise_by_class(rows, NAMES)
  assert (
    (tmp_path / 'per_image.csv')
    .read_text()
    .startswith('image,dice,iou,hd95,precision,recall,tp,fp,fn,dice_disc,dice_cup,')
  )


def test_rows_at_the_images_own_resolution():
  truth = np.zeros((8, 12), np.uint8)
  truth[:, 6:9], truth[:, 9:] = 1, 2
  names = ('a', 'b')
  split = Split(
    ids=names,
    images=np.zeros((2, 4, 4, 3), np.uint8),
    masks=np.zeros((2, 4, 4), np.uint8),
    labels=np.full(2, -1, np.int32),
    has_mask=np.array([True, False]),
    groups=names,
    full_masks=(encode_mask(truth), b''),
  )
  probabilities = np.repeat(np.eye(3, dtype=np.float32)[None, [0, 0, 1, 2]], 4, axis=0)
  (row,) = segmentation_rows(np.stack([probabilities] * 2), split, 0.5, NAMES)
  assert (row['image'], row['dice'], row['dice_disc'], row['dice_cup'], row['hd95']) == (
    'a',
    1,
    1,
    1,
    0,
  )
  assert (row['tp_disc'], row['tp_cup']) == (24, 24)


def make_grid():
  rng = np.random.default_rng(0)
  cells, per_image, by_class = [], {}, {name: {} for name in NAMES}
  for method in ('scratch', 'ahm'):
    for seed in (0, 1, 2):
      key = (method, 20, seed)
      for name, level in zip(NAMES, (0.9, 0.5), strict=True):
        by_class[name][key] = {
          str(i): float(level + 0.05 * rng.standard_normal()) for i in range(30)
        }
      by_class['cup'][key]['3'] = math.nan
      dice = {
        i: float(np.nanmean([by_class[name][key][i] for name in NAMES]))
        for i in map(str, range(30))
      }
      per_image[key] = dice
      cells.append(
        {'method': method, 'labels': 20, 'seed': seed, 'dice': float(np.mean(list(dice.values())))}
      )
  return cells, per_image, by_class


def test_the_summary_of_a_grid_has_each_class_with_its_interval():
  cells, per_image, by_class = make_grid()
  summary = compare.summarise_grid(cells, per_image, 200, by_class=by_class)
  for row in summary:
    for name in NAMES:
      alone = compare.summarise_grid(cells, by_class[name], 200)
      own = next(item for item in alone if item['method'] == row['method'])
      assert (
        row['dice_by_class'][name] == own['dice']
        and row['dice_by_class_ci95'][name] == own['dice_ci95']
      )
      assert row['dice_by_class'][name] == pytest.approx({'disc': 0.9, 'cup': 0.5}[name], abs=0.02)
  assert compare.mask_classes(summary) == list(NAMES)
  plain = compare.summarise_grid(cells, per_image, 200)
  assert [
    {k: v for k, v in row.items() if not k.startswith('dice_by_class')} for row in summary
  ] == plain
  assert compare.mask_classes(plain) == []


def test_the_table_has_a_block_of_classes():
  cells, per_image, by_class = make_grid()
  summary = compare.summarise_grid(cells, per_image, 200, by_class=by_class)
  lines = table(summary).splitlines()
  header = next(line for line in lines if 'Dice disc' in line)
  assert header.split() == ['labels', 'method', 'Dice', 'disc', 'Dice', 'cup']
  assert any(
    f'{summary[1]["dice_by_class"]["cup"]:.3f} [' in line for line in lines[lines.index(header) :]
  )
  assert 'disc' not in table(compare.summarise_grid(cells, per_image, 200))


def test_the_border_of_any_class_is_a_border():
  masks = np.zeros((1, 8, 8), np.uint8)
  # The first patch is all lesion, the second crossed by its border.
  masks[0, :4, :4], masks[0, :2, 4:] = (
    2,
    3,
  )
  probability = np.array([[[0.9, 0.6], [0.3, 0.3]]])
  assert (
    border_lift(probability, masks, 4) == border_lift(probability, masks > 0, 4) == pytest.approx(2)
  )
