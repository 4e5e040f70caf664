"""A run that is opened, the plan of its training, and what would stop it."""

import dataclasses
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config import Config, RecipeConfig
from ahm_jax.data import dataset as datasets
from ahm_jax.data import sets
from ahm_jax.data.batches import Beside, Source, source
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.vanishing import Vanished, fate
from ahm_jax.errors import UserError, printable
from ahm_jax.masking import registry
from ahm_jax.runs import directory, provenance
from ahm_jax.runs.stage import Stage
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import parallel, processes
from ahm_jax.task import Task
from ahm_jax.weights.loading import LoadedWeights

# What two networks must have alike to see an image in the same way.
PICTURE = (
  *('data.image_size', 'data.channels', 'data.modalities'),
  *('data.window', 'data.intensity', 'data.slice_axis'),
)


@dataclass(frozen=True)
class Start:
  """What a run begins with: something of ours, other people's weights, or nothing."""

  trained: Trained | None = None
  weights: LoadedWeights | None = None
  teacher: Trained | None = None  # What it is to agree with on unlabelled images.

  @property
  def run(self) -> Path | None:
    """Directory of the run that it begins with; an export knows no images."""
    return _run_of(self.trained)


def _run_of(trained: Trained | None) -> Path | None:
  """Directory of the run that something of ours is, if it is one."""
  is_run = trained is not None and (trained.path / directory.FILE).exists()
  return trained.path if trained is not None and is_run else None


@dataclass(frozen=True)
class Run:
  """A run that was opened: all that its stage looks at."""

  stage: Stage
  config: Config
  workdir: Path
  data: Dataset
  start: Start  # Nothing in a run that is opened to be scored.

  @property
  def recipe(self) -> RecipeConfig:
    """That it is trained by."""
    return getattr(self.config, self.stage.recipe)


@dataclass(frozen=True)
class Plan:
  """A task that is ready to be trained.

  Attributes:
    split: whose images are trained on, those at `indices`.
    steps: of the whole training.
    validation: the held-out images that the task is validated on, by name.
    class_names: that a classifier distinguishes.
    imported: report on what was taken from other people's weights.
    beside: images of the split that are learnt from without their masks.
  """

  task: Task
  split: Split
  indices: np.ndarray
  steps: int
  validation: tuple[str, ...] = ()
  class_names: tuple[str, ...] = ()
  imported: dict[str, Any] | None = None
  beside: tuple[Beside, ...] = ()

  def source(self, run: Run) -> Source:
    """Its batches."""
    return source(
      self.split,
      run.config.data,
      self.indices,
      run.recipe.batch_size,
      run.config.seed,
      beside=self.beside,
    )

  def images(self, run: Run) -> provenance.Images:
    """What it learns from."""
    train, what = tuple(self.split.ids[i] for i in self.indices), run.stage.scored_by
    what = 'both' if any(beside.what == 'label' for beside in self.beside) else what
    parts, known = [('train', train, what)], set(train)
    for beside in self.beside:
      others = tuple(name for i in beside.indices if (name := self.split.ids[i]) not in known)
      parts.append(('train', others, beside.what))
      train, known = train + others, known | set(others)
    parts.append(('validation', self.validation, what))
    digests = [digest for part in parts for digest in provenance.digests(run.data, *part)]
    return provenance.Images(run.data.name, train, self.validation, digests=tuple(digests))


def open_run(stage: Stage, config: Config, workdir: Path, data: Dataset | None = None) -> Run:
  """Opens a run that is to be trained; writes nothing into its directory but prepared data.

  Args:
    data: where it is loaded already.

  Raises:
    UserError: devices cannot share its batches, its directory holds another run, what it is to
      begin with cannot be used or was trained on images that are held out here, or there are no
      data.
  """
  check_config(config, stage)
  directory.check(workdir, stage.name, config)
  start = stage.start(config)
  data = data or load_data(config, workdir)
  for origin in filter(None, (start.run, _run_of(start.teacher))):
    provenance.check_start(origin, data)
  return Run(stage, config, Path(workdir), data, start)


def open_trained(
  config: Config, workdir: Path, stages: Sequence[Stage], data: Dataset | None = None
) -> Run:
  """Opens a run that was trained, to score it: its own config, with `evaluate` of this one, and
  with this one's data folders where its own are gone. What it started from is not looked at.

  Raises:
    UserError: there is no run of one of the stages, or what it looks at is not there.
  """
  stage, held = directory.read(workdir, stages)
  own = held.data
  if directory.is_gone(own.root):
    own = dataclasses.replace(own, root=config.data.root)
  if directory.is_gone(own.prepared_dir):
    own = dataclasses.replace(own, prepared_dir=config.data.prepared_dir)
  config = dataclasses.replace(held, data=own, evaluate=config.evaluate)
  data = data or load_data(config, workdir)
  return Run(stage, config, Path(workdir), data, Start())


def load_data(config: Config, workdir: Path) -> Dataset:
  """The data set, prepared if need be; what the user should know of it is printed."""
  check_names(config)
  with processes.first_alone():
    data = datasets.load(config.data, workdir)
  for note in data.notes:
    print(printable(note))
  return data


def data_summary(data: Dataset, trained_on: int) -> dict[str, Any]:
  """What data.json holds: how many images there are, and how many are trained on."""
  splits = {
    name: {
      'images': len(split),
      'masks': int(split.has_mask.sum()),
      'labels': int((split.labels >= 0).sum()),
    }
    for name, split in data.splits.items()
  }
  return {
    'name': data.name,
    'splits': splits,
    'class_names': data.class_names,
    'trained_on': trained_on,
  }


def check_config(config: Config, stage: Stage) -> None:
  """Makes sure that a stage's config suits the devices; raises a UserError that says what to
  change.
  """
  check_names(config)
  stage.check(config)
  parallel.check_shared(getattr(config, stage.recipe).batch_size, parallel.all_devices())


def check_names(config: Config) -> None:
  """Raises a UserError where there is no such data set or masking strategy."""
  sets.check(config.data)
  for section in ('masking', 'segment.unlabelled.masking', 'segment.reconstruction.masking'):
    try:
      registry.check(operator.attrgetter(section)(config).strategy)
    except UserError as error:
      raise UserError(f'config.{section}.strategy: {error}') from error


def check_alike(
  config: Config, origin: Config, fields: Sequence[str], said: str = 'init_from'
) -> None:
  """Raises a UserError where a config differs from that of what it starts from in one of these.

  Args:
    said: the field that names what it starts from.
  """
  for name in fields:
    own, other = (operator.attrgetter(name)(item) for item in (config, origin))
    if own != other:
      raise UserError(
        f'config.{name} is {own}, but the run in config.{said}={operator.attrgetter(said)(config)} '
        f'has {other}; give both the same'
      )


def scored(config: Config, data: Dataset, what: str) -> list[str]:
  """Names of the images of `evaluate.split` that have a 'mask' or a 'label', or of all for 'image'.

  Raises:
    UserError: there are none.
  """
  split = data.splits[config.evaluate.split]
  known = _known(split, what)
  if not len(known):
    raise UserError(
      f'the {config.evaluate.split} split holds no {what}; name another: '
      '--config.evaluate.split=...'
    )
  return [split.ids[i] for i in known]


def held_out(data: Dataset, what: str) -> Split:
  """The validation images that have a 'mask' or a 'label'.

  Raises:
    UserError: there are none.
  """
  split = data.splits['validation']
  known = _known(split, what)
  if not len(known):
    hint = (
      '; without a column split in labels.csv, images without a mask all go to train'
      if what == 'label'
      else ''
    )
    raise UserError(
      f'no validation image has a {what}; training needs some to choose its best checkpoint by'
      f'{hint}'
    )
  return split.take(known)


def check_targets(config: Config, split: Split, indices: Collection[int], what: str) -> None:
  """Makes sure that there is something to learn: a lesion in a mask of the size that networks see.

  Args:
    split, indices: the images with a mask that a segmentation is trained or validated on.
    what: they are, as 'training'.

  Raises:
    UserError: there is none.
  """
  if any(split.masks[i].any() for i in indices):
    return
  vanished = Vanished(config.data.image_size, config.data.mask_classes)
  for i in indices:
    if split.full_masks[i]:
      vanished.add(fate(split.full_mask(i), split.masks[i]), split.full_masks[i])
  if lines := vanished.lines():
    raise UserError(
      f'no {what} image has a lesion to be found: {lines[0]}; set a larger config.data.image_size, '
      'or crop the images to what matters'
    )
  raise UserError(
    f'no {what} image has a lesion to be found: all {len(indices)} masks are empty; look whether '
    'they were saved as they were drawn, or label images with lesions'
  )


def _known(split: Split, what: str) -> np.ndarray:
  """Indices of the images of a split that have a 'mask' or a 'label'; of all for 'image'."""
  has = {'mask': split.has_mask, 'label': split.labels >= 0, 'image': np.ones(len(split), bool)}
  return np.flatnonzero(has[what])
