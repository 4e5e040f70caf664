import numpy as np
import pytest

from ahm_jax.sam.prompts import box, point, prompts, regions


def drawn(*rows):
  return np.array([[letter != '.' for letter in row] for row in rows])


L_SHAPE = drawn(
  '........',
  '.###....',
  '.###....',
  '.###....',
  '.######.',
  '........',
)
THREE = drawn(
  '##....#',
  '##..###',
  '....###',
  '.......',
  '#......',
)


def test_a_box_is_the_first_and_last_column_and_row():
  assert box(L_SHAPE) == (1, 1, 6, 4)
  assert box(drawn('..', '.#')) == (1, 1, 1, 1)


@pytest.mark.parametrize('margin, expected', [(1, (0, 0, 7, 5)), (100, (0, 0, 7, 5))])
def test_a_margin_ends_at_the_image(margin, expected):
  assert box(L_SHAPE, margin) == expected


def test_a_margin_within_the_image():
  mask = np.zeros((20, 30), bool)
  mask[8:11, 12:20] = True
  assert box(mask, 3) == (9, 5, 22, 13)


def test_the_point_is_the_deepest():
  assert point(L_SHAPE) == (2, 2)  # 2 from outside, as the pixel below, which comes later.
  # Beyond the image counts as outside: the middle row, of equals the first.
  assert point(np.ones((3, 5), bool)) == (
    1,
    1,
  )
  ring = np.ones((7, 7), bool)
  ring[2:5, 2:5] = False
  column, row = point(ring)
  assert ring[row, column]  # The centroid would lie in the hole.


def test_each_region_has_a_prompt_largest_first():
  """Areas 7, 4 and 1; the 7 hangs together at sides."""
  assert [region.sum() for region in regions(THREE)] == [7, 4, 1]
  assert prompts(THREE, 'box') == [(4, 0, 6, 2), (0, 0, 1, 1), (0, 4, 0, 4)]
  assert prompts(THREE, 'box', 1) == [(3, 0, 6, 3), (0, 0, 2, 2), (0, 3, 1, 4)]
  # None is deeper than 1, so the first by rows.
  assert prompts(THREE, 'point') == [
    (6, 0),
    (0, 0),
    (0, 4),
  ]


def test_corners_join_regions():
  assert prompts(drawn('#..', '.#.', '..#'), 'box') == [(0, 0, 2, 2)]


def test_the_smallest_of_four_regions_has_no_prompt():
  assert prompts(drawn('##.##.#.##'), 'box') == [(0, 0, 1, 0), (3, 0, 4, 0), (8, 0, 9, 0)]


def test_an_empty_mask_has_no_prompt():
  empty = np.zeros((4, 5), bool)
  assert prompts(empty, 'box', 3) == prompts(empty, 'point') == []
