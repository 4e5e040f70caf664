"""Of images that are alike: leakage, and labels and masks that contradict each other."""

from collections.abc import Iterable, Sequence

import numpy as np

from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import SYMMETRY_NAMES, Pair
from ahm_jax.data.audit.finding import ERROR, NOTE, WARNING, Case, Finding, is_blank, where
from ahm_jax.data.audit.inspection import ImageRecord, MaskRecord

# Intersection over union, at 32 x 32 pixels, from which masks of near-duplicates count as the same.
SAME_MASK = 0.7


def find(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  """All of them."""
  prints = [image.print for image in images]
  same = [pair for pair in duplicates.same(prints) if not is_blank(images[pair.first])]
  near = duplicates.near(
    prints, [image.group for image in images], [image.split for image in images]
  )
  yield from _alike(images, same, 'same_image', 'the same')
  yield from _alike(images, near, 'near_duplicate', 'near-duplicates')
  yield from _differing(images, [*same, *near])


def _alike(
  images: Sequence[ImageRecord], pairs: Sequence[Pair], code: str, alike: str
) -> Iterable[Finding]:
  across: list[Pair] = []
  apart: list[Pair] = []
  together: list[Pair] = []
  for pair in pairs:
    first, second = images[pair.first], images[pair.second]
    if first.split != second.split:
      across.append(pair)
    else:
      (together if first.group == second.group else apart).append(pair)
  yield Finding(
    ERROR,
    f'{code}_across_splits',
    f'data leakage: images of different splits are {alike}',
    'look at each pair; give both one split and one group, or leave one out',
    _pair_cases(images, across),
  )
  yield Finding(
    WARNING,
    code,
    f'images of one split but of different groups are {alike}',
    'look at each pair; give both one group, or leave one out',
    _pair_cases(images, apart),
  )
  yield Finding(
    NOTE,
    f'{code}_in_group',
    f'images of one group are {alike} and count twice',
    'leave one of each pair out, or let them count twice',
    _pair_cases(images, together),
  )


def _differing(images: Sequence[ImageRecord], pairs: Sequence[Pair]) -> Iterable[Finding]:
  labels, masks = [], []
  for pair in pairs:
    first, second = images[pair.first], images[pair.second]
    text = _pair_text(images, pair)
    if first.label and second.label and first.label != second.label:
      labels.append(Case(f'{text}: {first.label} and {second.label}', pair[:2]))
    if first.mask and second.mask and first.mask.digest != second.mask.digest:
      overlap = _overlap(first.mask, second.mask, pair.symmetry)
      if pair.kind != 'near' or overlap < SAME_MASK:
        masks.append(Case(f'{text}: masks overlap by {overlap:.2f}', pair[:2]))
  yield Finding(
    WARNING,
    'labels_differ',
    'images that are the same or near-duplicates have different labels',
    'correct the label of one',
    tuple(labels),
  )
  yield Finding(
    WARNING,
    'masks_differ',
    'images that are the same or near-duplicates have different masks',
    'look at each pair, and keep the mask that is right',
    tuple(masks),
  )


def _overlap(first: MaskRecord, second: MaskRecord, symmetry: int) -> float:
  """Intersection over union of two masks, when the first is transformed as its image.

  1 where both are empty.
  """
  small = duplicates.transformed(first.small, symmetry)
  union = int(np.maximum(small, second.small).sum())
  return int(np.minimum(small, second.small).sum()) / union if union else 1.0


def _pair_cases(images: Sequence[ImageRecord], pairs: Iterable[Pair]) -> tuple[Case, ...]:
  return tuple(Case(_pair_text(images, pair), pair[:2]) for pair in pairs)


def _pair_text(images: Sequence[ImageRecord], pair: Pair) -> str:
  how = {
    'file': 'the same file',
    'pixels': 'the same pixels',
    'near': f'correlation {pair.correlation:.2f}',
  }[pair.kind]
  turned = f', {SYMMETRY_NAMES[pair.symmetry]}' if pair.symmetry else ''
  return f'{where(images[pair.first])} and {where(images[pair.second])} ({how}{turned})'
