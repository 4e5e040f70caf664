"""Which images a run learns from: written down beside it, so that none of them is scored as held
out later.

Where labels.csv gives no splits, a new image or mask deals all of them anew, and so does another
data.split_seed.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoints, directory


class Images(NamedTuple):
  """What a run learns from, by name, in order."""

  dataset: str
  train: tuple[str, ...]  # Its parameters,
  validation: tuple[str, ...] = ()  # and which of its checkpoints is the best.
  run: str = ''  # Its directory; of a run's own images, where that lies now.


class Lineage(NamedTuple):
  """What images.json holds."""

  own: Images
  origins: tuple[
    Images, ...
  ]  # Of the run that it started from, of the one that that one did, and so on.


def begin(workdir: Path, images: Images, start: Path | None) -> None:
  """Writes images.json, but for a run that has it, or has a checkpoint: what that learnt from is
  not known any more.

  Args:
    start: directory of the run that this one starts from, if it does.
  """
  if (workdir / directory.IMAGES).exists() or checkpoints.latest_step(workdir):
    return
  before = _read(start) if start else None
  origins = () if before is None else (before.own, *before.origins)
  tree = {'own': images._asdict(), 'origins': [origin._asdict() for origin in origins]}
  directory.write_json(workdir / directory.IMAGES, tree)


def check_same(workdir: Path, images: Images) -> None:
  """Makes sure that a run which goes on in `workdir` learns from the images that it began with.

  Raises:
    UserError: it does not.
  """
  held = _read(workdir)
  if held is None or (held.own.train, held.own.validation) == (images.train, images.validation):
    return
  was, now = map(_splits, (held.own, images))
  changed = [name for name in was | now if was.get(name) != now.get(name)]
  what = 'they are the same in another order'
  if changed:
    what = (
      f'{len(changed)} are learnt from now and were not, or were and are not, as {min(changed)!r}'
    )
  raise UserError(
    f'{workdir} holds a run that began with other images: {what}; choose another --workdir, or put images, masks, labels and '
    'splits back as they were'
  )


def _splits(images: Images) -> dict[str, str]:
  return dict.fromkeys(images.train, 'train') | dict.fromkeys(images.validation, 'validation')


def check_scored(workdir: Path, split: str, names: Collection[str]) -> None:
  """Makes sure that neither the run in `workdir` nor those that it started from have learnt from
  images of its own data set.

  Args:
    split: 'validation' or 'test'; of 'train' there is nothing to say.
    names: of the images in it that are to be scored.

  Raises:
    UserError: one has.
  """
  if held := _read(workdir):
    _check_unseen(_of(held, held.own.dataset), split, names)


def check_start(start: Path, data: Dataset) -> None:
  """Makes sure that neither the run in `start` nor those that it started from have learnt from what
  `data` holds out.

  Runs on data sets of other names are not asked.

  Raises:
    UserError: one has.
  """
  if held := _read(start):
    for split in ('validation', 'test'):
      _check_unseen(_of(held, data.name), split, data.splits[split].ids)


def _of(held: Lineage, dataset: str) -> list[Images]:
  return [item for item in (held.own, *held.origins) if item.dataset == dataset]


def _check_unseen(runs: Sequence[Images], split: str, names: Collection[str]) -> None:
  for item in runs if split != 'train' else ():
    seen = {*item.train, *(item.validation if split == 'test' else ())}
    if both := seen.intersection(names):
      raise UserError(
        f'{item.run} has learnt from {len(both)} images that are in the {split} split of {item.dataset} now, as {min(both)!r}; '
        'scores of images that it knows tell nothing; put them back (labels.csv, data.split_seed), or train again'
      )


def check_grid(workdir: Path, data: Dataset) -> None:
  """Makes sure that a grid has one data set throughout, which is written down, as a digest, where
  the grid begins.

  Raises:
    UserError: images, splits, masks or labels are not those that the grid in `workdir` began with.
  """
  path = workdir / directory.IMAGES
  if path.exists():
    if _parsed(path, lambda held: str(held['digest'])) != _digest(data):
      raise UserError(
        f'{workdir} holds a grid that began with other images, splits, masks or labels; choose another --workdir, or put '
        'them back'
      )
  elif not (workdir / directory.FILE).exists():
    workdir.mkdir(parents=True, exist_ok=True)
    directory.write_json(path, {'digest': _digest(data)})


def _digest(data: Dataset) -> str:
  classes = (*data.class_names, '')  # The last is that of label -1.
  known = {
    name: (
      split.ids,
      split.groups,
      split.has_mask.tolist(),
      [classes[label] for label in split.labels],
    )
    for name, split in data.splits.items()
  }
  return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _read(workdir: Path) -> Lineage | None:
  path = workdir / directory.IMAGES
  if not path.exists():
    return None
  read = _parsed(
    path, lambda held: Lineage(_images(held['own']), tuple(map(_images, held['origins'])))
  )
  return read._replace(own=read.own._replace(run=str(workdir)))


def _images(held: dict[str, Any]) -> Images:
  return Images(held['dataset'], tuple(held['train']), tuple(held['validation']), held['run'])


def _parsed(path: Path, read: Callable[[Any], Any]) -> Any:
  try:
    return read(json.loads(path.read_text()))
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} cannot be read; remove it, and what was learnt from is not asked any more'
    ) from error
