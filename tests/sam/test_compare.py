"""What is made of a comparator's masks, with one whose masks are known."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import Config, DataConfig
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.sam import compare
from ahm_jax.sam.compare import Options


class Filler:
  """Finds all of each box, or a point's pixel; remembers what it was shown."""

  def __init__(self):
    self.calls = []

  def masks(self, name, image, kind, prompts):
    self.calls.append((name, image, kind, prompts))
    found = np.zeros((len(prompts), *image.shape[:2]), bool)
    for mask, prompt in zip(found, prompts, strict=True):
      left, top, right, bottom = prompt if kind == 'box' else prompt * 2
      mask[top : bottom + 1, left : right + 1] = True
    return found


def png(mask):
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'png')
  return file.getvalue()


def cells(height, width, *filled):
  mask = np.zeros((height, width), bool)
  for row, column in filled:
    mask[row, column] = True
  return mask


# An L of 3 pixels, whose box has 4; two single pixels; nothing.
TRUTHS = [cells(4, 4, (0, 0), (1, 0), (1, 1)), cells(8, 4, (0, 0), (7, 3)), cells(4, 4)]
# At 4 x 4 pixels. In the second, of 8 x 4, the upper right quarter is found; in the third one
# pixel.
FOUND = np.float32(
  [cells(4, 4, (0, 0)), cells(4, 4, (0, 2), (0, 3), (1, 2), (1, 3)), cells(4, 4, (2, 2))]
)


@pytest.fixture
def split():
  return Split(
    ids=('l', 'two', 'none'),
    images=np.zeros((3, 4, 4, 1), np.uint8),
    masks=np.zeros((3, 4, 4), np.uint8),
    labels=np.full(3, -1, np.int32),
    has_mask=np.ones(3, bool),
    groups=('l', 'two', 'none'),
    full_masks=tuple(map(png, TRUTHS)),
  )


def rows(options, split, model=None):
  pictures = (np.full((*truth.shape, 1), 7 * i, np.uint8) for i, truth in enumerate(TRUTHS))
  parts = [(split.take([0, 1]), FOUND[:2]), (split.take([2]), FOUND[2:])]
  return compare.rows(options, model or Filler(), pictures, parts, 3, 0.5)


def counts(side):
  return [(row['image'], row['tp'], row['fp'], row['fn']) for row in side]


def test_boxes_from_the_truth(split):
  model = Filler()
  found = rows(Options('sam', 'x', 'box', 'truth'), split, model)
  assert counts(found.theirs) == [('l', 3, 1, 0), ('two', 2, 0, 0), ('none', 0, 0, 0)]
  assert counts(found.ours) == [('l', 1, 0, 2), ('two', 0, 8, 2), ('none', 0, 1, 0)]
  # None for an empty mask.
  assert [call[3] for call in model.calls] == [
    [(0, 0, 1, 1)],
    [(0, 0, 0, 0), (3, 7, 3, 7)],
  ]
  name, image, kind, _ = model.calls[1]
  assert (name, kind) == ('sam', 'box')
  np.testing.assert_array_equal(image, np.full((8, 4, 3), 7))  # Grey, three times.


def test_points_and_margins_and_prompts_from_our_unet(split):
  assert counts(rows(Options('sam', 'x', 'point', 'truth'), split).theirs) == [
    ('l', 1, 0, 2),
    ('two', 2, 0, 0),
    ('none', 0, 0, 0),
  ]
  unet = rows(Options('sam', 'x', 'box', 'unet'), split).theirs
  # What it found are boxes themselves.
  assert counts(unet) == counts(rows(Options('sam', 'x', 'box', 'unet'), split).ours)
  wider = rows(Options('medsam', 'x', 'box', 'unet', margin=1), split).theirs
  assert counts(wider) == [('l', 3, 1, 0), ('two', 0, 15, 2), ('none', 0, 9, 0)]


def test_where_our_unet_finds_nothing_nothing_is_found(split):
  model = Filler()
  parts = [(split, np.zeros((3, 4, 4), np.float32))]
  found = compare.rows(
    Options('sam', 'x'), model, (np.zeros((*t.shape, 3), np.uint8) for t in TRUTHS), parts, 3, 0.5
  )
  assert counts(found.theirs) == [('l', 0, 0, 3), ('two', 0, 0, 2), ('none', 0, 0, 0)]
  assert model.calls == []


def test_means_their_difference_and_the_table(split):
  """Dice by hand: ours 1/2, 0 and 0 (a false alarm), theirs 6/7, 1 and none, as nothing is there
  and nothing was found.
  """
  options = Options('sam', 'weights', 'box', 'truth')
  result = compare.result(options, rows(options, split), 500)
  assert result['unet']['dice'] == pytest.approx(1 / 6)
  assert result['dice'] == pytest.approx(13 / 14)
  # Over the two that both score.
  assert result['difference']['dice'] == pytest.approx(13 / 14 - 1 / 4)
  low, high = result['difference']['dice_ci95']
  assert low < result['difference']['dice'] < high
  for side in (result, result['unet']):
    assert 0 <= side['dice_ci95'][0] <= side['dice'] <= side['dice_ci95'][1] <= 1
  assert (result['both_empty'], result['unet']['false_alarms'], result['images']) == (1, 1, 3)
  assert result['comparator'] == {
    'name': 'sam',
    'checkpoint': 'weights',
    'prompt': 'box',
    'prompt_from': 'truth',
    'margin': 0,
  }
  header, rule, ours, theirs, note = compare.table(options, result).splitlines()
  assert header.split()[:3] == ['Dice', 'vs', 'U-Net'] and set(rule) == {'-'}
  assert ours.startswith('our U-Net') and ' 0.167 [' in ours
  assert (
    theirs.startswith('Segment Anything, box from truth')
    and ' 0.929 [' in theirs
    and ' +0.679 [' in theirs
  )
  # False alarms.
  assert ours[-1] == '1' and theirs[-1] == '0' and len(ours) == len(theirs) == len(header)
  assert note.startswith('3 images; ') and 'Prompts from the truth' in note


def test_a_difference_is_paired():
  """The comparator is 0.1 better on each image, however much images differ."""
  ours = [
    {
      'image': name,
      'dice': value,
      'iou': 0,
      'hd95': 0,
      'precision': 0,
      'recall': 0,
      'tp': 1,
      'fp': 0,
      'fn': 0,
    }
    for name, value in (('a', 0), ('b', 0.4), ('c', 0.9))
  ]
  found = compare.Rows(ours, [row | {'dice': row['dice'] + 0.1} for row in ours])
  difference = compare.result(Options('sam', 'x'), found, 200)['difference']
  assert difference == {'dice': pytest.approx(0.1), 'dice_ci95': pytest.approx([0.1, 0.1])}


def test_images_of_one_group_are_drawn_together(split):
  """Two images of one patient are no more than one: with all of one group, nothing is known of
  other groups.
  """
  options = Options('sam', 'weights', 'box', 'truth')
  found = rows(options, split)
  alone = compare.result(options, found, 500, {'l': 0, 'two': 1, 'none': 2})
  assert alone == compare.result(options, found, 500)
  joined = compare.result(options, found, 500, {'l': 0, 'two': 0, 'none': 0})
  assert joined['difference'] == {'dice': alone['difference']['dice'], 'dice_ci95': None}
  assert joined['dice_ci95'] is None and joined['unet']['dice_ci95'] is None


def test_scores_that_are_not_known():
  row = {key: math.nan for key in ('dice', 'iou', 'hd95', 'precision', 'recall')} | {
    'image': 'a',
    'tp': 0,
    'fp': 0,
    'fn': 0,
  }
  options = Options('sam', 'x', 'point')
  result = compare.result(options, compare.Rows([row], [row]), 100)
  assert result['difference'] == {'dice': None, 'dice_ci95': None}
  assert 'Prompts from the truth' not in compare.table(options, result)


@pytest.mark.parametrize(
  'options, config, said',
  [
    (Options('sam', ''), Config(), '--comparator=sam needs --sam_checkpoint'),
    (Options('sam', 'x', 'point', margin=3), Config(), '--sam_margin widens boxes'),
    (Options('medsam', 'x', 'point'), Config(), 'MedSAM was trained with boxes only'),
    (
      Options('sam', 'x'),
      Config(data=DataConfig(mask_classes=('a', 'b'))),
      'this run has 2 classes',
    ),
  ],
)
def test_what_does_not_go_together(options, config, said):
  with pytest.raises(UserError, match=said):
    compare.check(options, config)


def test_names_say_what_was_compared():
  assert Options('medsam', 'x', margin=5).name == 'medsam_box_unet'
  assert Options('medsam', 'x', margin=5).title == 'MedSAM, box + 5 px from unet'


def test_modalities_are_no_photographs():
  config = Config(data=DataConfig(name='folder', root='x', modalities=('t1', 't2')))
  with pytest.raises(UserError, match='looks at photographs, and this run has 2 modalities'):
    compare.check(Options('sam', 'file'), config)
