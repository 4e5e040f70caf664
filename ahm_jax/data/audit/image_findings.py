"""Of images and their labels: what they look like, and what is missing."""

import collections
from collections.abc import Iterable, Sequence

from ahm_jax.data.audit.duplicates import FLATNESS
from ahm_jax.data.audit.finding import FEW, NOTE, WARNING, Case, Finding, cases, is_blank
from ahm_jax.data.audit.inspection import ImageRecord
from ahm_jax.data.readers.raster import DEEP
from ahm_jax.data.sets.items import SPLITS

DARK = 64  # Grey level of 255 that no pixel of a nearly black image reaches.
LONG = 2.0  # Ratio of the sides above which squashing an image to a square distorts it much.


def find(images: Sequence[ImageRecord], image_size: int) -> Iterable[Finding]:
  """All of them; images are resized to `image_size` pixels."""
  yield from _labels(images)
  yield from _appearance(images)
  yield from _missing(images)
  yield from _sizes(images, image_size)
  yield from _kinds(images)


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
      cases(images, lambda image: not image.label),
    )


def _appearance(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  yield Finding(
    WARNING,
    'blank_image',
    f'images are blank, or nearly so (grey levels differ by less than {FLATNESS:g} of 255)',
    'remove them',
    cases(images, is_blank),
  )
  yield Finding(
    WARNING,
    'dark_image',
    f'images of 16 bits a channel are nearly black (no value reaches {DARK} of 255), since their '
    'high bytes alone count',
    'stretch them to the whole range, or save grey ones without alpha, which are stretched here',
    cases(images, lambda image: image.kind.endswith(DEEP) and image.highest < DARK),
  )
  yield Finding(
    WARNING,
    'more_pages',
    'files hold several pages or frames, of which only the first one is read',
    'save each page that is wanted as a file of its own, or all as a NIfTI volume',
    cases(images, lambda image: image.pages > 1, lambda image: f'{image.pages} pages'),
  )
  yield Finding(
    WARNING,
    'voxel_size',
    'NIfTI volumes give two voxel sizes in mm; that of the sform counts, for areas too',
    'correct the one that is wrong, where areas in mm2 matter',
    cases(images, lambda image: bool(image.remark), lambda image: image.remark),
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
    cases(images, lambda image: not image.has_mask_file and image.listed),
  )
  yield Finding(
    NOTE,
    'no_row',
    'images have no row in labels.csv',
    'they serve pre-training only, without mask and label; add a row where they should not',
    cases(images, lambda image: not image.listed),
  )


def _sizes(images: Sequence[ImageRecord], size: int) -> Iterable[Finding]:
  def size_of(image: ImageRecord) -> str:
    return f'{image.width}x{image.height}'

  yield Finding(
    NOTE,
    'small_image',
    f'images are smaller than {size} px (config.data.image_size) and are enlarged',
    'choose a smaller config.data.image_size where most are',
    cases(images, lambda image: min(image.width, image.height) < size, size_of),
  )
  yield Finding(
    NOTE,
    'long_image',
    f'images are more than {LONG:g} times as long as wide, and are squashed to a square',
    'crop them where that matters',
    cases(
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
    cases(images, lambda image: image.kind != usual, lambda image: image.kind),
  )
