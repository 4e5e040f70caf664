"""Provenance: which images a run is trained on, itself and by what it started from.

It is written down beside the run, so that a data leakage is found: an image that is held out now,
but was trained on. Where labels.csv gives no splits, a new image or mask splits all of them again,
and so does another data.split_seed. Beside the names stand digests of what is learnt from each
image, so that a run does not go on with other pixels under the same names.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoint_reading, directory
from ahm_jax.runtime import json_files, schema

_CURE = 'restore it, or remove it, and data leakage is not looked for'
_NAMES = schema.list_of(schema.text, unique=True)


def _paired(value: dict[str, Any]) -> None:
  count, digests = len(value['train']) + len(value['validation']), value.get('digests')
  if digests and len(digests) != count:
    raise ValueError(f'.digests are {len(digests)}, of {count} images')


_IMAGES = schema.both(
  schema.record(
    {'dataset': schema.text, 'train': _NAMES, 'validation': _NAMES, 'run': schema.text},
    {'digests': schema.list_of(schema.text)},
  ),
  _paired,
)
_RUN = schema.record({'own': _IMAGES, 'origins': schema.list_of(_IMAGES)})
_GRID = schema.record({'digest': schema.text}, {'images': schema.mapping(schema.text)})


class Images(NamedTuple):
  """The images of a run, by name, in order."""

  dataset: str
  train: tuple[str, ...]  # Its parameters are trained on these,
  validation: tuple[str, ...] = ()  # and its best checkpoint is chosen by these.
  run: str = ''  # Its directory; of a run's own images, where that lies now.
  # Of those of `train`, then of `validation`, see `digests`; empty: unknown, as in runs of old.
  digests: tuple[str, ...] = ()


class Provenance(NamedTuple):
  """What images.json holds."""

  own: Images
  origins: tuple[Images, ...]  # Of the run that it started from, of that one's start, and so on.


def digests(data: Dataset, split: str, names: Iterable[str], what: str) -> tuple[str, ...]:
  """Digests of images as they were prepared, with that of which 'mask' or 'label' is learnt.

  Args:
    names: of images of the split.
    what: the images alone ('image'), or also their masks ('mask'), labels ('label'), or 'both'.
  """
  held = data.splits[split]
  place = {name: i for i, name in enumerate(held.ids)}
  classes = (*data.class_names, '')  # The last is that of label -1.

  def of(i: int) -> str:
    found = hashlib.sha256(held.digests[i, 0].tobytes())
    if what in ('mask', 'both'):
      found.update(held.digests[i, 1].tobytes() + bytes([bool(held.has_mask[i])]))
    if what in ('label', 'both'):
      found.update(classes[held.labels[i]].encode())
    return found.hexdigest()[:16]

  return tuple(of(place[name]) for name in names)


def begin(workdir: Path, images: Images, start: Path | None) -> None:
  """Writes images.json, unless the run has it, or has a checkpoint: which images that was trained
  on is not known any more then.

  Args:
    start: directory of the run that this one starts from, if it does.
  """
  if (workdir / directory.IMAGES).exists() or checkpoint_reading.latest_step(workdir):
    return
  before = _read(start) if start else None
  origins = () if before is None else (before.own._replace(digests=()), *before.origins)
  tree = {'own': images._asdict(), 'origins': [origin._asdict() for origin in origins]}
  json_files.write_json(workdir / directory.IMAGES, tree)


def check_same(workdir: Path, images: Images) -> None:
  """Makes sure that a run that resumes in `workdir` is trained on the images that it began with.

  Raises:
    UserError: it does not.
  """
  held = _read(workdir)
  if held is None:
    return
  if (held.own.train, held.own.validation) == (images.train, images.validation):
    _check_contents(workdir, 'run', dict(_contents(held.own)), dict(_contents(images)))
    return
  was, now = map(_splits, (held.own, images))
  changed = [name for name in was | now if was.get(name) != now.get(name)]
  what = 'they are the same in another order'
  if changed:
    what = f'{len(changed)} were added, left out or moved between splits, as {min(changed)!r}'
  raise UserError(
    f'{workdir} holds a run that began with other images: {what}; choose another --workdir, or '
    'restore images, masks, labels and splits'
  )


def check_listed(workdir: Path, names: Sequence[str]) -> None:
  """Makes sure that the run in `workdir`, if there is one, has learnt from the masks of these
  images, in this order.

  Raises:
    UserError: it has not.
  """
  held, known = _read(workdir), directory.summary(workdir)
  if held and known and held.own.train[: known['trained_on']] != tuple(names):
    raise UserError(
      f'{workdir} holds a run that has learnt from other images than config.data.labelled_from '
      'names now; choose another --workdir, or restore the list'
    )


def _contents(images: Images) -> Iterator[tuple[str, str]]:
  """The digest of each image by its name; none where they are unknown."""
  return zip((*images.train, *images.validation), images.digests, strict=False)


def _check_contents(
  workdir: Path, kind: str, was: Mapping[str, str], now: Mapping[str, str]
) -> None:
  """Compares images of the same names; where digests are unknown there is nothing to compare."""
  changed = [name for name, held in was.items() if now.get(name, held) != held]
  if changed:
    raise UserError(
      f'{workdir} holds a {kind} that began with other images: {len(changed)} of {len(was)} have '
      f'other pixels, masks or labels under the same names, as {min(changed)!r}; choose another '
      '--workdir, or restore them'
    )


def _splits(images: Images) -> dict[str, str]:
  return dict.fromkeys(images.train, 'train') | dict.fromkeys(images.validation, 'validation')


def check_scored(workdir: Path, split: str, names: Collection[str]) -> None:
  """Makes sure that neither the run in `workdir` nor those that it started from were trained on
  images that are to be scored; images of other data sets are not compared.

  Args:
    split: 'validation' or 'test'; of 'train' there is nothing to say.
    names: of the images in it that are to be scored.

  Raises:
    UserError: one was.
  """
  if held := _read(workdir):
    _check_unseen(_of(held, held.own.dataset), split, names)


def check_start(start: Path, data: Dataset) -> None:
  """Makes sure that neither the run in `start` nor those that it started from were trained on what
  `data` holds out; runs on data sets of other names are not compared.

  Raises:
    UserError: one was.
  """
  if held := _read(start):
    for split in ('validation', 'test'):
      _check_unseen(_of(held, data.name), split, data.splits[split].ids)


def _of(held: Provenance, dataset: str) -> list[Images]:
  return [item for item in (held.own, *held.origins) if item.dataset == dataset]


def _check_unseen(runs: Sequence[Images], split: str, names: Collection[str]) -> None:
  for item in runs if split != 'train' else ():
    seen = {*item.train, *(item.validation if split == 'test' else ())}
    if both := seen.intersection(names):
      raise UserError(
        f'data leakage: {len(both)} {split} images of {item.dataset} were used to train '
        f'{item.run}, as {min(both)!r}; restore the splits (labels.csv or '
        'splits_final.json, data.fold, data.split_seed), or train again'
      )


def check_grid(workdir: Path, data: Dataset) -> None:
  """Makes sure that a grid has one data set throughout, which is written down, as a digest, where
  the grid begins.

  Raises:
    UserError: images, splits, masks or labels are not those that the grid in `workdir` began with.
  """
  path = workdir / directory.IMAGES
  if held := json_files.read_json(path, _GRID, _CURE):
    # One of old has no digests of single images.
    known, contents = held['digest'], held.get('images', {})
    if known != _digest(data):
      raise UserError(
        f'{workdir} holds a grid that began with other images, splits, masks or labels; choose '
        'another --workdir, or restore them'
      )
    _check_contents(workdir, 'grid', contents, _all_contents(data))
  elif not (workdir / directory.FILE).exists():
    workdir.mkdir(parents=True, exist_ok=True)
    json_files.write_json(path, {'digest': _digest(data), 'images': _all_contents(data)})


def _all_contents(data: Dataset) -> dict[str, str]:
  return {
    name: digest
    for key, split in data.splits.items()
    for name, digest in zip(split.ids, digests(data, key, split.ids, 'both'), strict=True)
  }


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


def _read(workdir: Path) -> Provenance | None:
  held = json_files.read_json(workdir / directory.IMAGES, _RUN, _CURE)
  if held is None:
    return None
  own = _images(held['own'])._replace(run=str(workdir))
  return Provenance(own, tuple(map(_images, held['origins'])))


def _images(held: dict[str, Any]) -> Images:
  return Images(
    held['dataset'],
    tuple(held['train']),
    tuple(held['validation']),
    held['run'],
    tuple(held.get('digests', ())),
  )
