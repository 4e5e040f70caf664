"""Of masks: empty, full, vanishing, turned and rare ones."""

import collections
from collections.abc import Iterable, Sequence

from ahm_jax.config import DataConfig
from ahm_jax.data.audit.finding import ERROR, FEW, NOTE, WARNING, Case, Finding, cases
from ahm_jax.data.audit.inspection import ImageRecord
from ahm_jax.data.sets.items import SPLITS
from ahm_jax.data.vanishing import Vanished

# Share of a class's masks that are empty, from which this is taken for how the class is.
BARE = 0.9
FULL = 0.98  # Share of the image that a mask covers which leaves nothing to find.


def find(images: Sequence[ImageRecord], config: DataConfig) -> Iterable[Finding]:
  """All of them."""
  yield from _masks(images)
  yield from _vanishing(images, config)
  yield from _turned(images)
  yield from _rare_mask_classes(images, config.mask_classes)


def _masks(images: Sequence[ImageRecord]) -> Iterable[Finding]:
  bare = _classes_without_lesion(images)
  masks = [image for image in images if image.mask is not None]
  yield Finding(
    ERROR,
    'no_lesion',
    'no mask holds a lesion',
    'look whether the masks were saved as they were drawn; there is nothing to learn from them',
    (Case(f'{len(masks)} masks'),) if masks and all(map(_is_empty, masks)) else (),
  )
  yield Finding(
    WARNING,
    'empty_mask',
    'masks are empty',
    'right where there is nothing to find; else draw the mask, or remove it so that the image '
    'serves pre-training only',
    cases(images, lambda image: _is_empty(image) and image.label not in bare),
  )
  yield Finding(
    NOTE,
    'empty_mask_of_class',
    f'masks are empty, as nearly all are of their class ({", ".join(sorted(bare))})',
    'right where there is nothing to find in this class; such images teach and score that nothing '
    'is found',
    cases(images, lambda image: _is_empty(image) and image.label in bare),
  )
  yield Finding(
    WARNING,
    'full_mask',
    f'masks cover {100 * FULL:.0f} % of the image or more',
    'look whether they are inverted or blank; remove those that are wrong',
    cases(images, lambda image: image.mask is not None and image.mask.total >= FULL),
  )
  yield Finding(
    WARNING,
    'mask_at_every_border',
    'masks touch all four borders of the image',
    'look whether they are inverted (0 is background), or the image is cut too narrowly',
    cases(
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
    cases(
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
    cases(images, lambda image: image.turned > 1, lambda image: f'orientation {image.turned}'),
  )


def _rare_mask_classes(images: Sequence[ImageRecord], names: Sequence[str]) -> Iterable[Finding]:
  rare = []
  for index, name in enumerate(names):
    for split in SPLITS:
      masks = [image.mask for image in images if image.split == split and image.mask is not None]
      count = sum(mask.coverage[index] > 0 for mask in masks)
      if masks and count < FEW:
        rare.append(Case(f'{name}: in {count} masks of {split}'))
  yield Finding(
    WARNING,
    'rare_mask_class',
    f'classes of config.data.mask_classes are in fewer than {FEW} masks of a split',
    'scores of them there mean little; label more, or join classes',
    tuple(rare),
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
