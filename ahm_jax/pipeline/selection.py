"""Which training images to label next: `launch.select`."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data import originals
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.labelled import IMAGE, RANK
from ahm_jax.data.sampling import stratified
from ahm_jax.errors import UserError
from ahm_jax.evaluation.agent import image_difficulty
from ahm_jax.evaluation.per_image import spreadsheet_safe
from ahm_jax.pipeline.scores import pretrained_state
from ahm_jax.pipeline.setup import PICTURE, check_alike, load_data, open_trained
from ahm_jax.pipeline.stages import PRETRAIN, SEGMENT
from ahm_jax.report import selection_page
from ahm_jax.runs import directory, ownership, trained
from ahm_jax.runtime import durable, json_files
from ahm_jax.selection import features
from ahm_jax.selection.centres import k_centre
from ahm_jax.selection.coverage import prob_cover
from ahm_jax.selection.pick import Pick
from ahm_jax.selection.typical import typiclust
from ahm_jax.training import pretrain

LIST, PAGE = 'selection.csv', 'selection.html'
RANDOM, K_CENTRE, TYPICLUST, PROBCOVER, DIFFICULTY = METHODS = (
  *('random', 'k-centre', 'typiclust', 'probcover', 'difficulty'),
)


@dataclass(frozen=True)
class Options:
  method: str = RANDOM  # One of METHODS.
  count: int = 20  # Images to choose.
  # Choose among the images that have a mask, as though none had one: to compare methods.
  from_labelled: bool = False


class Selection(NamedTuple):
  """What was chosen, best first."""

  names: tuple[str, ...]
  labelled: int  # Images with a mask that count as chosen before.


class _Pool(NamedTuple):
  """The images that methods look at."""

  split: Split
  labelled: np.ndarray  # Indices of those that count as chosen before.


def select(
  config: Config, workdir: Path, options: Options, data: Dataset | None = None
) -> Selection:
  """Chooses training images to label, and writes selection.csv and selection.html.

  Images are compared by what the network in `init_from` makes of them, or by their pixels.

  Args:
    data: where it is loaded already.

  Raises:
    UserError: there are not so many images to choose from, `init_from` cannot be used, or `workdir`
      holds something else, or another selection.
  """
  ownership.check_kinds(workdir, ('data',), (LIST, PAGE))
  ownership.check_free(workdir, LIST, (*directory.BEFORE, PAGE))
  start = _start(config, options)
  data = data or load_data(config, workdir)
  pool = _pool(data.splits['train'], options)
  picks = _choose(config, options, pool, start, data)
  chosen = pool.split.take([pick.index for pick in picks])
  _write(Path(workdir), config, options, chosen, picks)
  return Selection(chosen.ids, len(pool.labelled))


def _start(config: Config, options: Options) -> trained.Trained | None:
  if not config.init_from:
    if options.method == DIFFICULTY:
      raise UserError(
        f'--method={DIFFICULTY} asks the agent of a pre-training; give --init_from=DIR of a '
        'pretrain run'
      )
    return None
  start = trained.load(Path(config.init_from), (PRETRAIN, SEGMENT), '--init_from')
  check_alike(config, start.config, PICTURE)
  has_agent = start.stage is PRETRAIN and (start.path / directory.FILE).exists()
  if options.method == DIFFICULTY and not has_agent:
    raise UserError(
      f'--method={DIFFICULTY} asks the agent of a pre-training, and --init_from={config.init_from} '
      'has none; give the workdir of a pretrain run'
    )
  return start


def _pool(train: Split, options: Options) -> _Pool:
  if options.from_labelled:
    pool, kind = _Pool(train.take(train.has_mask), np.array([], np.int64)), 'with'
  else:
    pool, kind = _Pool(train, np.flatnonzero(train.has_mask)), 'without'
  left = len(pool.split) - len(pool.labelled)
  if options.count > left:
    hint = '' if options.from_labelled else ', or choose among those with one by --from_labelled'
    raise UserError(
      f'--count is {options.count}, and there are {left} training images {kind} a mask to choose '
      f'from; lower it{hint}'
    )
  return pool


def _choose(
  config: Config, options: Options, pool: _Pool, start: trained.Trained | None, data: Dataset
) -> list[Pick]:
  images, labelled, count = pool.split.images, pool.labelled, options.count
  if options.method == RANDOM:
    others = np.setdiff1d(np.arange(len(images)), labelled)
    return [Pick(int(i)) for i in stratified(pool.split.labels, others, count, config.seed)]
  batch_size = config.evaluate.batch_size
  found = (
    features.of_network(start.network, start.variables, images, batch_size)
    if start
    else features.of_pixels(images)
  )
  if options.method == K_CENTRE:
    return k_centre(found, labelled, count)
  if options.method == TYPICLUST:
    return typiclust(found, labelled, count, config.seed)
  weights = None
  if options.method == DIFFICULTY:
    run = open_trained(config, Path(config.init_from).expanduser(), (PRETRAIN,), data)
    networks, state = pretrain.networks(run.config), pretrained_state(run)
    weights = _ranks(image_difficulty(networks, state, images, batch_size))
  classes = max(2, len(data.class_names))
  return prob_cover(found, labelled, count, config.seed, classes, weights)


def _ranks(values: np.ndarray) -> np.ndarray:
  """The place of each in ascending order, from 1 on."""
  ranks = np.empty(len(values), np.int64)
  ranks[np.argsort(values, kind='stable')] = np.arange(1, len(values) + 1)
  return ranks


def _write(
  workdir: Path, config: Config, options: Options, chosen: Split, picks: Sequence[Pick]
) -> None:
  """Writes the list, and a page of its images; a list that is there already must be the same."""
  table = _table(chosen.ids, picks)
  held = json_files.read_bytes(workdir / LIST)
  if held not in (None, table):
    raise UserError(
      f'{workdir / LIST} is of another selection, and is not written over; choose another '
      '--workdir, or move it away'
    )
  workdir.mkdir(parents=True, exist_ok=True)
  durable.write(workdir / LIST, table)
  first = range(min(len(picks), selection_page.PICTURED))
  order = sorted(first, key=lambda i: picks[i].index)  # That of the files.
  pictures = originals.pictures(config.data, 'train', chosen.take(order))
  shown = dict(zip(order, pictures, strict=True))
  modalities = config.data.modalities
  page = selection_page.page(options.method, chosen.ids, picks, shown, LIST, modalities)
  durable.write(workdir / PAGE, page)


def _table(names: Sequence[str], picks: Sequence[Pick]) -> bytes:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow([RANK, IMAGE, 'cluster', 'score'])
  for rank, (name, pick) in enumerate(zip(names, picks, strict=True), 1):
    score = '' if pick.score is None else f'{pick.score:.6g}'
    cluster = '' if pick.cluster is None else pick.cluster
    writer.writerow([rank, spreadsheet_safe(name), cluster, score])
  return text.getvalue().encode()
