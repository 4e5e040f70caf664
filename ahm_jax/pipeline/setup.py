"""What a stage needs before it trains: its task, its images, where it starts from.

And what would stop it.
"""

import dataclasses
import functools
import itertools
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.config import Config, RecipeConfig, pretraining_of, recipe, with_method
from ahm_jax.data import dataset as datasets
from ahm_jax.data.batches import Source, source
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.sampling import labelled_indices
from ahm_jax.errors import UserError
from ahm_jax.models.vgg16 import VGG16Trunk
from ahm_jax.pipeline import lesions
from ahm_jax.runs import directory, provenance
from ahm_jax.runs import trained as exported
from ahm_jax.runtime import parallel, processes
from ahm_jax.task import Task
from ahm_jax.training import classify as classification
from ahm_jax.training import pretrain as pretraining
from ahm_jax.training import segment as segmentation
from ahm_jax.training.optimizers import total_steps
from ahm_jax.weights import loading
from ahm_jax.weights.files import is_weights

DATA = 'data.json'  # In a run's directory: how many images it had, for its model card.


def load_data(config: Config, workdir: Path) -> Dataset:
  """The data set, prepared if need be; what the user should know of it is printed."""
  with processes.first_alone():
    data = datasets.load(config.data, workdir)
  for note in data.notes:
    print(note)
  return data


def check_batches(config: Config, names: Sequence[str]) -> None:
  """Makes sure that the batches of some recipes can be shared out.

  Raises a UserError that says what to change.
  """
  devices = parallel.all_devices()
  for name in names:
    batch_size = recipe(config, name).batch_size
    if name == 'pretrain':
      pretraining.check_workers(config.masking.workers, batch_size, len(devices))
    parallel.check_shared(batch_size, devices)


class Plan(NamedTuple):
  """A stage that is ready to be trained."""

  task: Task
  recipe: RecipeConfig
  split: Split
  indices: np.ndarray  # Of the images of the split that are trained on.
  steps: int
  data: dict[str, Any]  # What the run's directory is to say of its data, for a model card.
  images: provenance.Images  # What it learns from.
  class_names: tuple[str, ...] = ()  # That a classifier tells apart.
  imported: dict[str, Any] | None = None  # What was taken from foreign weights, and what was not.
  start: Path | None = None  # Directory of the run that it starts from.

  def source(self, config: Config) -> Source:
    """Its batches."""
    return source(self.split, config.data, self.indices, self.recipe.batch_size, config.seed)


def pretrain(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  """That of `stages.pretrain`.

  Data are loaded where they are not given, and a UserError says why it cannot be trained.
  """
  check_batches(config, ['pretrain'])
  directory.check(workdir, 'pretrain', config)
  data = data or load_data(config, workdir)
  train = data.splits['train']
  training = recipe(config, 'pretrain')
  steps = total_steps(training, len(train.ids))
  build = functools.partial(
    pretraining.build,
    config,
    data.splits['validation'],
    steps,
    len(train.ids) / training.batch_size,
  )
  task, imported = build(), None
  if taken := _foreign_trunk(config, task):
    task, imported = build(foreign=taken.variables), taken.report
  elif config.model.vgg_weights:
    print(f'config.model.vgg_weights is not used: {config.masking.strategy} masks without a VGG16')
  images = provenance.Images(
    data.name, train.ids, data.splits['validation'].ids if training.patience else ()
  )
  return Plan(
    task,
    training,
    train,
    np.arange(len(train.ids)),
    steps,
    data_summary(data, len(train.ids)),
    images,
    imported=imported,
  )


def _foreign_trunk(config: Config, task: Task) -> loading.LoadedWeights | None:
  """What the agent of a pre-training starts from.

  None where there are no foreign weights, or no agent with a VGG16.
  """
  if not (config.model.vgg_weights and pretraining.has_vgg_trunk(task)):
    return None
  trunk = VGG16Trunk(stages=3, width=config.model.agent_width)
  return loading.vgg16(Path(config.model.vgg_weights), trunk, _image_shape(config))


def segment(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  """That of `stages.segment`, as `pretrain`."""
  start = _segmentation_start(config)
  directory.check(workdir, 'segment', config)
  data = data or load_data(config, workdir)
  if start.path:
    provenance.check_start(start.path, data)
  train = data.splits['train']
  if start.origin and start.step < (whole := _whole(start.origin, start.path, len(train))):
    print(f'{config.init_from} is not finished: step {start.step} of {whole} is taken')
  chosen = labelled_indices(train, config.data.labels, config.seed)
  training = recipe(config, 'segment')
  steps = total_steps(training, len(chosen))
  validation = _held_out(data, 'mask')
  task = segmentation.build(
    config, validation, steps, len(chosen) / training.batch_size, start.pretrained, start.foreign
  )
  images = provenance.Images(data.name, train.take(chosen).ids, validation.ids)
  told = data_summary(data, len(chosen))
  return Plan(
    task, training, train, chosen, steps, told, images, imported=start.imported, start=start.path
  )


def _whole(origin: Config, workdir: Path, images: int) -> int:
  """Steps that a pre-training has in all, of so many images unless its directory says how many.

  0 if it may end before.
  """
  training = recipe(origin, 'pretrain')
  path = workdir / DATA
  images = json.loads(path.read_text())['trained_on'] if path.exists() else images
  return 0 if training.patience else total_steps(training, images)


class _Start(NamedTuple):
  """What a segmentation starts from."""

  pretrained: Any = None  # Parameters by our own pre-training,
  origin: Config | None = None  # the config of that run, None of an export, which was finished,
  step: int = 0  # its step,
  path: Path | None = None  # and its directory.
  foreign: Any = None  # Variables from elsewhere,
  imported: dict[str, Any] | None = None  # and the report on them.


def _segmentation_start(config: Config) -> _Start:
  if not config.init_from:
    return _Start()
  path = Path(config.init_from).expanduser()
  if is_weights(config.init_from):
    unet = segmentation.network(config.model, len(config.data.mask_classes))
    taken = loading.unet(path, unet, _image_shape(config))
    return _Start(foreign=taken.variables, imported=taken.report)
  if (path / exported.FILE).exists():
    trained = exported.load_export(path, ('pretrain',), '--config.init_from')
    _check_alike(config, trained.config, _UNET)
    return _Start(trained.variables['params'])
  _, origin = directory.read(path, ('pretrain',))
  _check_alike(config, origin, _UNET)
  learnt = exported.load_run(path, 'pretrain', origin)
  return _Start(learnt.variables['params'], origin, learnt.step, path)


def _image_shape(config: Config) -> tuple[int, int, int, int]:
  return 1, config.data.image_size, config.data.image_size, config.data.channels


def data_summary(data: Dataset, trained_on: int) -> dict[str, Any]:
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


def classify(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  """That of `stages.classify`, as `pretrain`.

  Runs the segmentation that it starts from on its images.
  """
  start = None
  if config.classify.input != 'image':
    if not config.init_from:
      raise UserError(
        f'config.classify.input={config.classify.input} needs a segmentation: --config.init_from=DIR of a segment run, '
        'or --config.classify.input=image'
      )
    start = Path(config.init_from).expanduser()
    _, origin = directory.read(start, ('segment',))
    _check_alike(config, origin, _PICTURE)
  directory.check(workdir, 'classify', config)
  data = data or load_data(config, workdir)
  if start:
    provenance.check_start(start, data)
  if len(data.class_names) < 2:
    raise UserError(
      'there are no two classes to tell apart; give labels.csv a column label that names at least two'
    )
  train = data.splits['train']
  chosen = _diagnosed(config, train)
  if not config.classify.labels and len(chosen) < config.data.labels:
    print(
      f'of {config.data.labels} images that the segmentation learns from, {len(chosen)} have a label to classify by'
    )
  labelled = lesions.classifier_inputs(config, train.take(chosen))
  held_out = _held_out(data, 'label')
  validation = lesions.classifier_inputs(config, held_out)
  training = recipe(config, 'classifier')
  steps = total_steps(training, len(labelled))
  classes = len(data.class_names)
  weights = (
    classification.balanced_weights(labelled.labels, classes) if config.classify.balanced else None
  )
  taken = loading.LoadedWeights(None, None)
  if config.model.vgg_weights:
    taken = _foreign_vgg16(config, classes)
  task = classification.build(
    config,
    validation,
    classes,
    steps,
    len(labelled) / training.batch_size,
    weights,
    taken.variables,
  )
  told, images = (
    data_summary(data, len(labelled)),
    provenance.Images(data.name, labelled.ids, held_out.ids),
  )
  return Plan(
    task,
    training,
    labelled,
    np.arange(len(labelled)),
    steps,
    told,
    images,
    data.class_names,
    taken.report,
    start,
  )


def _diagnosed(config: Config, train: Split) -> np.ndarray:
  """Which images a classifier learns from: of those with a label, the ones that the segmentation
  learns from too.

  Where config.classify.labels says how many, or all labels are used, one needs no mask for it.
  """
  count = config.classify.labels
  if count or not config.data.labels:
    return labelled_indices(train, count, config.seed, by='label')
  chosen = labelled_indices(train, config.data.labels, config.seed)
  known = chosen[train.labels[chosen] >= 0]
  if not len(known):
    raise UserError(
      f'none of the {len(chosen)} training images that a segmentation learns from has a label to classify by; '
      'say how many others a classifier is to learn from, --config.classify.labels=...'
    )
  return known


_UNET = (
  'model.unet_width',
  'data.channels',
)  # What a segmentation and the pre-training that it starts from share,
_PICTURE = (
  'data.image_size',
  'data.channels',
  'data.window',
  'data.slice_axis',
)  # and a classification and its segmentation.


def _check_alike(config: Config, origin: Config, names: Sequence[str]) -> None:
  for name in names:
    own, other = (operator.attrgetter(name)(item) for item in (config, origin))
    if own != other:
      raise UserError(
        f'config.{name} is {own}, but the run in config.init_from={config.init_from} has {other}; give both the same'
      )


def _foreign_vgg16(config: Config, classes: int) -> loading.LoadedWeights:
  network = classification.network(config.model, classes)
  return loading.vgg16(Path(config.model.vgg_weights), network, _image_shape(config))


def check_grid(config: Config, data: Dataset) -> None:
  """Says before a grid's hours of training what would stop it later.

  Raises:
    UserError: devices cannot share a batch; or more labels are asked for than there are; or the
      validation split, or the one to be scored, holds no image with a mask, or none with a label
      where the grid classifies; or there is none for a classifier to learn from; or the foreign
      weights do not fit the classifier or an agent.
  """
  classifies = grid_classifies(config, data)
  for method in config.grid.methods:
    check_batches(
      with_method(config, method),
      ['pretrain', 'segment'] if pretraining_of(method) else ['segment'],
    )
  for labels, seed in itertools.product(config.grid.labels, config.grid.seeds):
    cell = dataclasses.replace(
      config, seed=seed, data=dataclasses.replace(config.data, labels=labels)
    )
    labelled_indices(data.splits['train'], labels, seed)
    if classifies:
      _diagnosed(cell, data.splits['train'])
  for what in ('mask', 'label') if classifies else ('mask',):
    _held_out(data, what)
    scored(config, data, what)
  if classifies:
    check_batches(config, ['classifier'])
  if config.model.vgg_weights:
    if classifies:
      _foreign_vgg16(config, len(data.class_names))
    for pretraining_method in {pretraining_of(method) for method in config.grid.methods} - {''}:
      own = with_method(config, pretraining_method)
      _foreign_trunk(
        own, pretraining.build(own, data.splits['validation'], steps=1, steps_per_epoch=1)
      )


def grid_classifies(config: Config, data: Dataset) -> bool:
  return config.grid.classify and len(data.class_names) > 1


def scored(config: Config, data: Dataset, what: str) -> list[str]:
  """Names of the images of `evaluate.split` that have a 'mask' or a 'label', or of all for 'image'.

  Raises:
    UserError: there are none.
  """
  split = data.splits[config.evaluate.split]
  known = _known(split, what)
  if not len(known):
    raise UserError(
      f'the {config.evaluate.split} split holds no {what}; name another: --config.evaluate.split=...'
    )
  return [split.ids[i] for i in known]


def _known(split: Split, what: str) -> np.ndarray:
  """Indices of the images of a split that have a 'mask' or a 'label'; of all for 'image'."""
  return np.flatnonzero(
    {'mask': split.has_mask, 'label': split.labels >= 0, 'image': np.ones(len(split), bool)}[what]
  )


def _held_out(data: Dataset, what: str) -> Split:
  """The validation images that have a 'mask' or a 'label'."""
  split = data.splits['validation']
  known = _known(split, what)
  if not len(known):
    hint = (
      '; without a column split in labels.csv, images without a mask all go to train'
      if what == 'label'
      else ''
    )
    raise UserError(
      f'no validation image has a {what}; training needs some to choose its best checkpoint by{hint}'
    )
  return split.take(known)
