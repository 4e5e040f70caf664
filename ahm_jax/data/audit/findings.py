"""What there is to say of a data set that was inspected: what is wrong, how badly, where, and
what to do.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import FLATNESS, WAY_NAMES, Pair
from ahm_jax.data.audit.inspection import DEEP, ImageRecord, Inspection, SeenMask
from ahm_jax.data.sets.folder import SPLITS

ERROR, WARNING, NOTE = LEVELS = ('error', 'warning', 'note')
FEW = 5  # Images of a class in a split; below this, scores of it mean little.
BARE = (
  0.9  # Share of a class's masks that are empty, from which this is taken for how the class is.
)
DARK = 64  # Grey level of 255 that no pixel of a nearly black image reaches.
FULL = 0.98  # Share of the image that a mask covers which leaves nothing to find.
LONG = 2.0  # Ratio of the sides above which squashing an image to a square distorts it much.
# Intersection over union, at 32 x 32 pixels, from which masks of near-duplicates count as the same.
SAME_MASK = 0.7


class Case(NamedTuple):
  """One image, pair, file or line that a finding is about."""

  text: str
  images: tuple[int, ...] = ()  # Indices into `Inspection.images`, to be shown.


class Finding(NamedTuple):
  """All of one kind."""

  level: str  # One of LEVELS. 'error': preparation refuses the set, or scores would be wrong.
  code: str  # A short name that stays the same.
  what: str  # A line.
  do: str  # What the user can do, a line.
  cases: tuple[Case, ...]


def find(inspection: Inspection, config: DataConfig) -> list[Finding]:
  """All findings, worst first."""
  looks: tuple[Callable[[Inspection, DataConfig], Iterable[Finding]], ...] = (
    _files,
    _pairs,
    _masks,
    _classes,
    _rest,
  )
  found = [finding for look in looks for finding in look(inspection, config) if finding.cases]
  return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def worst(findings: Sequence[Finding]) -> str | None:
  """The level of the worst finding."""
  return min((finding.level for finding in findings), key=LEVELS.index, default=None)


# Files and tables.


def _files(inspection: Inspection, config: DataConfig) -> Iterable[Finding]:
  yield Finding(
    ERROR,
    'layout',
    'files and tables do not fit together',
    'mend each as its line says; an image whose row is wrong counts here as one without a row',
    tuple(Case(line) for line in inspection.layout),
  )
  yield Finding(
    ERROR,
    'group_in_several_splits',
    'groups are in several splits, so what is tested on was trained on',
    'give all images of a group one split',
    tuple(Case(line) for line in inspection.crossing),
  )
  yield Finding(
    WARNING,
    'reading',
    'parts of the folder are passed over, or may be read otherwise than is meant',
    'look at each line, and change the folder or labels.csv where it is not what is meant',
    tuple(Case(line) for line in inspection.notes),
  )
  unreadable = [
    Case(problem.text) for problem in inspection.problems if problem.kind == 'unreadable'
  ]
  if config.skip_unreadable:
    yield Finding(
      WARNING,
      'unreadable',
      'files cannot be read and are left out',
      'replace them',
      tuple(unreadable),
    )
  else:
    do = 'replace them, or have such files left out by --config.data.skip_unreadable'
    yield Finding(ERROR, 'unreadable', 'files cannot be read', do, tuple(unreadable))
  yield Finding(
    ERROR,
    'unfit',
    'files can be read but not used',
    'mend each as its line says',
    tuple(Case(problem.text) for problem in inspection.problems if problem.kind == 'unfit'),
  )


# Duplicates.


def _pairs(inspection: Inspection, config: DataConfig) -> Iterable[Finding]:
  images = inspection.images
  prints = [image.print for image in images]
  blank = [_is_blank(image) for image in images]
  same = [pair for pair in duplicates.same(prints) if not blank[pair.first]]
  near = duplicates.near(
    prints, [image.group for image in images], [image.split for image in images]
  )
  for pairs, code, alike in (
    (same, 'same_image', 'the same'),
    (near, 'near_duplicate', 'near-duplicates'),
  ):
    across = [pair for pair in pairs if images[pair.first].split != images[pair.second].split]
    within = [pair for pair in pairs if images[pair.first].split == images[pair.second].split]
    apart, together = [], []
    for pair in within:
      (together if images[pair.first].group == images[pair.second].group else apart).append(pair)
    yield Finding(
      ERROR,
      f'{code}_across_splits',
      f'images of different splits are {alike}, so what is tested on was trained on',
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
  yield from _differing(images, [*same, *near])


def _differing(images: Sequence[ImageRecord], pairs: Sequence[Pair]) -> Iterable[Finding]:
  yield Finding(
    WARNING,
    'labels_differ',
    'images that are the same or near-duplicates have different labels',
    'mend the label of one',
    tuple(
      Case(
        f'{_pair_text(images, pair)}: {images[pair.first].label} and {images[pair.second].label}',
        pair[:2],
      )
      for pair in pairs
      if images[pair.first].label
      and images[pair.second].label
      and images[pair.first].label != images[pair.second].label
    ),
  )
  cases = []
  for pair in pairs:
    first, second = images[pair.first].mask, images[pair.second].mask
    if first is None or second is None or first.digest == second.digest:
      continue
    overlap = _overlap(first, second, pair.way)
    if pair.kind != 'near' or overlap < SAME_MASK:
      cases.append(Case(f'{_pair_text(images, pair)}: masks overlap by {overlap:.2f}', pair[:2]))
  yield Finding(
    WARNING,
    'masks_differ',
    'images that are the same or near-duplicates have different masks',
    'look at each pair, and keep the mask that is right',
    tuple(cases),
  )


def _overlap(first: SeenMask, second: SeenMask, way: int) -> float:
  """Intersection over union of two masks, when the first is laid on the second.

  1 where both are empty.
  """
  laid = duplicates.lay(first.small, way)
  union = int(np.maximum(laid, second.small).sum())
  return int(np.minimum(laid, second.small).sum()) / union if union else 1.0


def _pair_cases(images: Sequence[ImageRecord], pairs: Iterable[Pair]) -> tuple[Case, ...]:
  return tuple(Case(_pair_text(images, pair), pair[:2]) for pair in pairs)


def _pair_text(images: Sequence[ImageRecord], pair: Pair) -> str:
  how = {
    'file': 'the same file',
    'pixels': 'the same pixels',
    'near': f'correlation {pair.correlation:.2f}',
  }[pair.kind]
  laid = f', {WAY_NAMES[pair.way]}' if pair.way else ''
  return f'{_where(images[pair.first])} and {_where(images[pair.second])} ({how}{laid})'


# Masks.


def _masks(inspection: Inspection, config: DataConfig) -> Iterable[Finding]:
  images = inspection.images
  bare = _classes_without_lesion(images)
  yield Finding(
    WARNING,
    'empty_mask',
    'masks are empty',
    'right where there is nothing to find; else draw the mask, or remove it so that the image serves pre-training only',
    _cases(images, lambda image: _is_empty(image) and image.label not in bare),
  )
  yield Finding(
    NOTE,
    'empty_mask_of_class',
    f'masks are empty, as nearly all are of their class ({", ".join(sorted(bare))})',
    'right where there is nothing to find in this class; such images teach and score that nothing is found',
    _cases(images, lambda image: _is_empty(image) and image.label in bare),
  )
  yield Finding(
    WARNING,
    'full_mask',
    f'masks cover {100 * FULL:.0f} % of the image or more',
    'look whether they are inverted or blank; remove those that are wrong',
    _cases(images, lambda image: image.mask is not None and image.mask.total >= FULL),
  )
  yield Finding(
    WARNING,
    'mask_at_every_border',
    'masks touch all four borders of the image',
    'look whether they are inverted (0 is background), or the image is cut too narrowly',
    _cases(
      images,
      lambda image: image.mask is not None and image.mask.borders == 4 and image.mask.total < FULL,
    ),
  )
  yield Finding(
    WARNING,
    'split_without_masks',
    'splits have no image with a mask',
    'segmentation chooses its checkpoint on validation and is scored on test; move groups there, or label some images',
    tuple(
      Case(split)
      for split in SPLITS
      if not any(image.mask and image.split == split for image in images)
    ),
  )
  if config.mask_classes:
    cases = []
    for index, name in enumerate(config.mask_classes):
      for split in SPLITS:
        masks = [image.mask for image in images if image.split == split and image.mask is not None]
        count = sum(mask.coverage[index] > 0 for mask in masks)
        if masks and count < FEW:
          cases.append(Case(f'{name}: in {count} masks of {split}'))
    yield Finding(
      WARNING,
      'rare_mask_class',
      f'classes of config.data.mask_classes are in fewer than {FEW} masks of a split',
      'scores of them there mean little; label more, or join classes',
      tuple(cases),
    )


def _is_empty(image: ImageRecord) -> bool:
  return image.mask is not None and image.mask.total == 0


def _classes_without_lesion(images: Sequence[ImageRecord]) -> set[str]:
  """Classes of which nearly all masks are empty."""
  masks = collections.Counter(
    image.label for image in images if image.label and image.mask is not None
  )
  empty = collections.Counter(image.label for image in images if image.label and _is_empty(image))
  return {label for label, count in empty.items() if count >= BARE * masks[label] and count >= FEW}


# Labels.


def _classes(inspection: Inspection, config: DataConfig) -> Iterable[Finding]:
  images = inspection.images
  counts = collections.Counter((image.split, image.label) for image in images)
  names = sorted({image.label for image in images} - {''})
  yield Finding(
    WARNING,
    'small_class',
    f'classes have fewer than {FEW} images in a split',
    'scores of them there mean little; collect more, deal the groups anew, or join classes',
    tuple(
      Case(f'{name}: {counts[split, name]} in {split}')
      for name in names
      for split in SPLITS
      if counts[split, name] < FEW and any(image.split == split and image.label for image in images)
    ),
  )
  if names:
    yield Finding(
      NOTE,
      'no_label',
      'images have no label',
      'they do not serve classification; fill the column label where the class is known',
      _cases(images, lambda image: not image.label),
    )


# Images.


def _rest(inspection: Inspection, config: DataConfig) -> Iterable[Finding]:
  images, size = inspection.images, config.image_size
  yield Finding(
    WARNING,
    'blank_image',
    f'images are blank, or nearly so (grey levels differ by less than {FLATNESS:g} of 255)',
    'remove them',
    _cases(images, _is_blank),
  )
  yield Finding(
    WARNING,
    'dark_image',
    f'images of 16 bits a channel are nearly black (no value reaches {DARK} of 255), since their high bytes alone count',
    'stretch them to the whole range, or save grey ones without alpha, which are stretched here',
    _cases(images, lambda image: image.kind.endswith(DEEP) and image.highest < DARK),
  )
  yield Finding(
    WARNING,
    'more_pages',
    'TIFF files hold several pages, of which only the first one is read',
    'save each page that is wanted as a file of its own, or all as a NIfTI volume',
    _cases(images, lambda image: image.pages > 1, lambda image: f'{image.pages} pages'),
  )
  yield Finding(
    WARNING,
    'empty_split',
    'splits hold no image',
    'training needs all three; fill the column split, or leave it out and have the images dealt by a seed',
    tuple(Case(split) for split in SPLITS if not any(image.split == split for image in images)),
  )
  yield Finding(
    NOTE,
    'no_mask',
    'images have no mask',
    'they serve pre-training only',
    _cases(images, lambda image: not image.has_mask_file and image.listed),
  )
  yield Finding(
    NOTE,
    'no_row',
    'images have no row in labels.csv',
    'they serve pre-training only, without mask and label; add a row where they should not',
    _cases(images, lambda image: not image.listed),
  )
  yield Finding(
    NOTE,
    'small_image',
    f'images are smaller than {size} px (config.data.image_size) and are blown up',
    'choose a smaller config.data.image_size where most are',
    _cases(
      images,
      lambda image: min(image.width, image.height) < size,
      lambda image: f'{image.width}x{image.height}',
    ),
  )
  yield Finding(
    NOTE,
    'long_image',
    f'images are more than {LONG:g} times as long as wide, and are squashed to a square',
    'crop them where that matters',
    _cases(
      images,
      lambda image: max(image.width, image.height) > LONG * min(image.width, image.height),
      lambda image: f'{image.width}x{image.height}',
    ),
  )
  kinds = collections.Counter(image.kind for image in images)
  usual = kinds.most_common(1)[0][0] if kinds else ''
  yield Finding(
    NOTE,
    'other_kind',
    f'images are of another kind than most ({usual})',
    'look whether they come from another source; all are read alike',
    _cases(images, lambda image: image.kind != usual, lambda image: image.kind),
  )


def _is_blank(image: ImageRecord) -> bool:
  return image.contrast < FLATNESS


def _where(image: ImageRecord) -> str:
  return f'{image.split}/{image.name}'


def _cases(
  images: Sequence[ImageRecord],
  which: Callable[[ImageRecord], bool],
  said: Callable[[ImageRecord], str] | None = None,
) -> tuple[Case, ...]:
  return tuple(
    Case(_where(image) + (f' ({said(image)})' if said else ''), (index,))
    for index, image in enumerate(images)
    if which(image)
  )
