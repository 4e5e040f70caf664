"""Which images a run learns from: written down beside it, so that none of them is scored as held out later.

Where labels.csv gives no splits, a new image or mask deals all of them anew, and so does another data.split_seed.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ahm_jax import rundir
from ahm_jax.errors import UserError

FILE = 'images.json'


class Images(NamedTuple):
  """What a run learns from, by name, in order."""

  dataset: str
  train: tuple[str, ...]  # Its parameters,
  validation: tuple[str, ...] = ()  # and which of its checkpoints is the best.


def write(workdir: Path, images: Images) -> None:
  rundir.write_json(workdir / FILE, images._asdict())


def check_same(workdir: Path, images: Images) -> None:
  """Makes sure that a run which goes on in `workdir` learns from the images that it began with.

  Raises:
    UserError: it does not.
  """
  held = _read(workdir)
  if held is None or held._replace(dataset=images.dataset) == images:
    return
  was, now = ({name: split for split in ('train', 'validation') for name in getattr(item, split)} for item in (held, images))
  changed = [name for name in was | now if was.get(name) != now.get(name)]
  raise UserError(
    f'{workdir} holds a run that began with other images: {len(changed)} were added, are gone, or are in another split now, as '
    f'{min(changed)!r}; choose another --workdir, or put them back'
  )


def check_held_out(workdir: Path, dataset: str, split: str, names: Collection[str]) -> None:
  """Makes sure that the run in `workdir`, and those that it started from, have learnt from no image of a split.

  Args:
    dataset: name of the data set; runs on others are not asked, nor are those that have not written down what they learnt from.
    split: 'validation' or 'test'; of 'train' there is nothing to say.
    names: of the images in it now.

  Raises:
    UserError: one has.
  """
  if split == 'train':
    return
  for place, held in _history(workdir):
    seen = {*held.train, *(held.validation if split == 'test' else ())}
    if held.dataset == dataset and (both := seen.intersection(names)):
      raise UserError(
        f'{place} has learnt from {len(both)} images that are in the {split} split now, as {min(both)!r}, and scores of images '
        'that it knows tell nothing; put them back where they were (labels.csv, data.split_seed), or train again'
      )


def _history(workdir: Path) -> Iterator[tuple[Path, Images]]:
  """A run, what it started from, and so on, as far as they have written down what they learnt from."""
  stage = ''
  while stage != 'pretrain' and (workdir / rundir.FILE).exists():
    if held := _read(workdir):
      yield workdir, held
    stage, config = rundir.read(workdir, ('pretrain', 'segment', 'classify'))
    if not config.init_from:
      return
    workdir = Path(config.init_from).expanduser()


def _read(workdir: Path) -> Images | None:
  path = workdir / FILE
  if not path.exists():
    return None
  try:
    held = json.loads(path.read_text())
    return Images(held['dataset'], tuple(held['train']), tuple(held['validation']))
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} cannot be read; remove it, and what the run learnt from is not asked any more') from error
