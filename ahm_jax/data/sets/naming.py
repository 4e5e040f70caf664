"""Masks that are not named as their images: what their names have in common, and what to do.

Annotation tools and public sets name the mask of ID.jpg ID_mask.png, mask_ID.png or ID.PNG in other
case; nnU-Net names the image of the mask ID.nii.gz ID_0000.nii.gz.
"""

import collections
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ahm_jax.errors import printable

# What the names of masks have, and those of images have not.
_WORDS = frozenset(('mask', 'masks', 'seg', 'segm', 'segmentation', 'label', 'labels', 'roi')) | {
  'lesion', 'gt', 'groundtruth', 'truth', 'annotation', 'annotations',
}  # fmt: skip
_CHANNEL = re.compile('_[0-9]{4}')  # nnU-Net's.


class Misfit(NamedTuple):
  """How the name of a mask differs from that of its image."""

  prefix: str = ''  # What stands before the shorter name in the longer one,
  suffix: str = ''  # or behind it.
  of_image: bool = False  # Whether the longer one is that of the image.
  by_case: bool = False  # Whether they are alike only where upper and lower case are.

  @property
  def is_plain(self) -> bool:
    """Whether one such mask is enough to see what is meant."""
    return self.by_case or _is_word(self.prefix + self.suffix)

  def line(self, count: int, of: int) -> str:
    """What there is to say where `count` of `of` masks are named so."""
    shown = shlex.quote(printable(self.prefix or self.suffix))
    affix = f'begin with {shown}' if self.prefix else f'end in {shown}'
    if self.of_image:
      why = ", nnU-Net's number of a channel" if _CHANNEL.fullmatch(self.suffix) else ''
      cure = ', or name its modalities in config.data.modalities' if why else ''
      return (
        f'{count} of {of} masks have images whose names {affix}{why}; leave that out of the names '
        f'of the images{cure}'
      )
    if not self.by_case:
      field = f', or set --config.data.mask_suffix={shown}' if self.suffix else ''
      return f'{count} of {of} masks {affix}; name them as their images{field}'
    case = 'differ from their images in upper and lower case'
    both = f'{affix} and {case}' if self.prefix or self.suffix else case
    return f'{count} of {of} masks {both}; name them as their images'


def misfits(masks: Iterable[str], images: Iterable[str]) -> dict[str, Misfit]:
  """How masks that have no image of their name differ from one, where that can be seen.

  Args:
    masks, images: names without suffixes; the masks are not among the images.
  """
  known, lower = _Names(images), _Names(name.lower() for name in images)
  found, orphans = {}, set()
  for mask in masks:
    misfit = _affix(mask, known)
    if misfit is None and mask.lower() in lower.all:
      misfit = Misfit(by_case=True)
    elif misfit is None and (other := _affix(mask.lower(), lower)):
      start, end = len(other.prefix), len(mask) - len(other.suffix)
      misfit = Misfit(mask[:start], mask[end:], by_case=True)
    if misfit:
      found[mask] = misfit
    else:
      orphans.add(mask)
  lone = _Names(orphans)
  for image in sorted(known.all) if orphans else ():
    for rest in _cuts(image, lone):
      found.setdefault(rest.inner, Misfit(rest.prefix, rest.suffix, of_image=True))
  return found


def lines(found: Mapping[str, Misfit], of: int) -> tuple[list[str], set[str]]:
  """A line for each way of naming that several of `of` masks share, and the masks it is about."""
  counts = collections.Counter(found.values())
  shared = {
    misfit for misfit, count in counts.items() if count > 1 or misfit.is_plain or count == of
  }
  told = [misfit.line(count, of) for misfit, count in counts.most_common() if misfit in shared]
  return told, {mask for mask, misfit in found.items() if misfit in shared}


def likely_masks(images: Iterable[str]) -> list[str]:
  """Images that are named as masks of others among them."""
  known = _Names(images)
  return [name for name in known.all if (misfit := _affix(name, known)) and misfit.is_plain]


class _Names:
  """Some names, to be found within others."""

  def __init__(self, names: Iterable[str]) -> None:
    self.all = dict.fromkeys(names)
    self.lengths = sorted(set(map(len, self.all)), reverse=True)


class _Cut(NamedTuple):
  prefix: str
  inner: str
  suffix: str


def _affix(name: str, others: _Names) -> Misfit | None:
  """What `name` has more than the longest of `others` that it begins or ends with; a word for masks
  before anything else.
  """
  found = [Misfit(cut.prefix, cut.suffix) for cut in _cuts(name, others)]
  return next((misfit for misfit in found if misfit.is_plain), found[0] if found else None)


def _cuts(name: str, others: _Names) -> Iterable[_Cut]:
  """Ways of cutting a beginning or an end from a name that leave one of `others`, the shortest
  first; not amid a word or a number, so that 'im10' is not the mask of 'im1'.
  """
  for length in others.lengths:
    if not 0 < length < len(name):
      continue
    inner, affix = name[:length], name[length:]
    if inner in others.all and (_is_border(inner[-1], affix[0]) or _is_word(affix)):
      yield _Cut('', inner, affix)
    affix, inner = name[:-length], name[-length:]
    if inner in others.all and (_is_border(affix[-1], inner[0]) or _is_word(affix)):
      yield _Cut(affix, inner, '')


def _is_border(before: str, after: str) -> bool:
  return not ((before.isalpha() and after.isalpha()) or (before.isdigit() and after.isdigit()))


def _is_word(affix: str) -> bool:
  return re.sub(r'[\W_]+', '', affix).lower() in _WORDS
