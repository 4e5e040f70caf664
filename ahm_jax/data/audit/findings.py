"""What there is to say of a data set that was inspected: what is wrong, how badly, where, and
what to do.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import FLATNESS, SYMMETRY_NAMES, Pair
from ahm_jax.data.audit.inspection import (
  UNAVAILABLE,
  UNREADABLE,
  UNSUPPORTED,
  ImageRecord,
  Inspection,
  MaskRecord,
)
from ahm_jax.data.readers.raster import DEEP
from ahm_jax.data.sets.items import SPLITS
from ahm_jax.data.vanishing import Vanished

ERROR, WARNING, NOTE = LEVELS = ('error', 'warning', 'note')
FEW = 5  # Images of a class in a split; below this, scores of it mean little.
# Share of a class's masks that are empty, from which this is taken for how the class is.
BARE = 0.9
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
  images = inspection.images
  found = [
    *_files(inspection, config.skip_unreadable),
    *_pairs(images),
    *_masks(images),
    *_vanishing(images, config),
    *_turned(images),
    *_rare_mask_classes(images, config.mask_classes),
    *_labels(images),
    *_appearance(images),
    *_missing(images),
    *_sizes(images, config.image_size),
    *_kinds(images),
  ]
  return sorted(
    (finding for finding in found if finding.cases),
    key=lambda finding: LEVELS.index(finding.level),
  )


def worst(findings: Sequence[Finding]) -> str | None:
  """The level of the worst finding."""
  return min((finding.level for finding in findings), key=LEVELS.index, default=None)


# Files and tables.


def _files(inspection: Inspection, skip_unreadable: bool) -> Iterable[Finding]:
  yield Finding(
    ERROR,
    'layout',
    'files and tables do not fit together',
    'fix each as its line says; an image whose row is wrong counts here as one without a row',
    tuple(Case(line) for line in inspection.layout),
  )
  yield Finding(
    ERROR,
    'group_in_several_splits',
    'data leakage: groups are in several splits',
    'give all images of a group one split',
    tuple(Case(line) for line in inspection.crossing),
  )
  yield Finding(
    WARNING,
    'reading',
    'parts of the folder are ignored, or may be read otherwise than is meant',
    'look at each line, and change the folder or labels.csv where it is not what is meant',
    tuple(Case(line) for line in inspection.notes),
  )
  unreadable = _problem_cases(inspection, UNREADABLE)
  if skip_unreadable:
    what = 'files cannot be read and are left out'
    yield Finding(WARNING, 'unreadable', what, 'replace them', unreadable)
  else:
    do = 'replace them, or have such files left out by --config.data.skip_unreadable'
    yield Finding(ERROR, 'unreadable', 'files cannot be read', do, unreadable)
  yield Finding(
    ERROR,
    'unavailable',
    'the system does not hand out files; what they hold is not known',
    'make them readable, and check again',
    _problem_cases(inspection, UNAVAILABLE),
  )
  yield Finding(
    ERROR,
    'unsupported',
    'files can be read but not used',
    'fix each as its line says',
    _problem_cases(inspection, UNSUPPORTED),
  )


def _problem_cases(inspection: Inspection, kind: str) -> tuple[Case, ...]:
  return tuple(Case(problem.text) for problem in inspection.problems if problem.kind == kind)


# Duplicates.


def _pairs(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  prints = [image.print for image in images]
  same = [pair for pair in duplicates.same(prints) if not _is_blank(images[pair.first])]
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
  return f'{_where(images[pair.first])} and {_where(images[pair.second])} ({how}{turned})'


# Masks.


def _masks(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  bare = _classes_without_lesion(images)
  yield Finding(
    WARNING,
    'empty_mask',
    'masks are empty',
    'right where there is nothing to find; else draw the mask, or remove it so that the image '
    'serves pre-training only',
    _cases(images, lambda image: _is_empty(image) and image.label not in bare),
  )
  yield Finding(
    NOTE,
    'empty_mask_of_class',
    f'masks are empty, as nearly all are of their class ({", ".join(sorted(bare))})',
    'right where there is nothing to find in this class; such images teach and score that nothing '
    'is found',
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
  with_mask = {image.split for image in images if image.mask}
  yield Finding(
    WARNING,
    'split_without_masks',
    'splits have no image with a mask',
    'segmentation chooses its checkpoint on validation and is scored on test; move groups there, '
    'or label some images',
    tuple(Case(split) for split in SPLITS if split not in with_mask),
  )


def _vanishing(images: Sequence[ImageRecord], config: DataConfig) -> Iterable[Finding]:
  vanished = Vanished(config.image_size, config.mask_classes)
  trained_on: list[bool] = []  # Of each training mask with a lesion: whether some of it is left.
  for image in images:
    if image.mask is not None:
      vanished.add(image.mask.fate, image.mask.png)
      if image.split == 'train' and image.mask.fate.held:
        trained_on.append(image.mask.fate.lost != image.mask.fate.held)

  def names(image: ImageRecord) -> str:
    assert image.mask is not None
    return ', '.join(config.mask_classes[index - 1] for index in sorted(image.mask.fate.lost))

  yield Finding(
    WARNING if any(trained_on) or not trained_on else ERROR,
    'vanishing_lesion',
    '; '.join(vanished.lines()),
    'choose a larger config.data.image_size, or crop the images to what matters; what has vanished '
    'is trained on as background',
    _cases(
      images,
      lambda image: image.mask is not None and bool(image.mask.fate.lost),
      names if config.mask_classes else None,
    ),
  )


def _turned(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  yield Finding(
    WARNING,
    'turned_image',
    'images are turned or mirrored by an EXIF orientation that their masks do not have',
    'look whether they fit; where a mask was drawn on the pixels as they are stored, save the '
    'image without the tag',
    _cases(images, lambda image: image.turned > 1, lambda image: f'orientation {image.turned}'),
  )


def _rare_mask_classes(images: Sequence[ImageRecord], names: Sequence[str]) -> Iterable[Finding]:
  cases = []
  for index, name in enumerate(names):
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


def _labels(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  counts = collections.Counter((image.split, image.label) for image in images if image.label)
  names = sorted({label for _, label in counts})
  labelled = {split for split, _ in counts}
  yield Finding(
    WARNING,
    'small_class',
    f'classes have fewer than {FEW} images in a split',
    'scores of them there mean little; collect more, split the groups again, or join classes',
    tuple(
      Case(f'{name}: {counts[split, name]} in {split}')
      for name in names
      for split in SPLITS
      if split in labelled and counts[split, name] < FEW
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


def _appearance(images: Sequence[ImageRecord]) -> Iterable[Finding]:
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
    f'images of 16 bits a channel are nearly black (no value reaches {DARK} of 255), since their '
    'high bytes alone count',
    'stretch them to the whole range, or save grey ones without alpha, which are stretched here',
    _cases(images, lambda image: image.kind.endswith(DEEP) and image.highest < DARK),
  )
  yield Finding(
    WARNING,
    'more_pages',
    'files hold several pages or frames, of which only the first one is read',
    'save each page that is wanted as a file of its own, or all as a NIfTI volume',
    _cases(images, lambda image: image.pages > 1, lambda image: f'{image.pages} pages'),
  )
  yield Finding(
    WARNING,
    'voxel_size',
    'NIfTI volumes give two voxel sizes in mm; that of the sform counts, for areas too',
    'correct the one that is wrong, where areas in mm2 matter',
    _cases(images, lambda image: bool(image.remark), lambda image: image.remark),
  )


def _missing(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  filled = {image.split for image in images}
  yield Finding(
    WARNING,
    'empty_split',
    'splits hold no image',
    'training needs all three; fill the column split, or leave it out and have the images split '
    'by a seed',
    tuple(Case(split) for split in SPLITS if split not in filled),
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


def _sizes(images: Sequence[ImageRecord], size: int) -> Iterable[Finding]:
  def size_of(image: ImageRecord) -> str:
    return f'{image.width}x{image.height}'

  yield Finding(
    NOTE,
    'small_image',
    f'images are smaller than {size} px (config.data.image_size) and are enlarged',
    'choose a smaller config.data.image_size where most are',
    _cases(images, lambda image: min(image.width, image.height) < size, size_of),
  )
  yield Finding(
    NOTE,
    'long_image',
    f'images are more than {LONG:g} times as long as wide, and are squashed to a square',
    'crop them where that matters',
    _cases(
      images,
      lambda image: max(image.width, image.height) > LONG * min(image.width, image.height),
      size_of,
    ),
  )


def _kinds(images: Sequence[ImageRecord]) -> Iterable[Finding]:
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
