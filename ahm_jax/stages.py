"""The stages of a run, each a function of a config and the folder it writes into. Launch scripts and the grid call these."""

import contextlib
import dataclasses
import functools
import itertools
import json
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ahm_jax import checkpoint, lineage, parallel, processes, rundir
from ahm_jax.config import Config, RecipeConfig, pretraining_of, recipe, with_init
from ahm_jax.data import dataset as datasets
from ahm_jax.data import findings, inspection, originals
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.source import Source, source
from ahm_jax.errors import UserError
from ahm_jax.evaluation import check_page, comparator, metrics, sam
from ahm_jax.evaluation import evaluate as scoring
from ahm_jax.evaluation.agent import learning_metrics
from ahm_jax.interop import foreign
from ahm_jax.interop import trained as exported
from ahm_jax.interop.files import is_weights
from ahm_jax.models.vgg16 import VGG16Trunk
from ahm_jax.training import classify as classification
from ahm_jax.training import pretrain as pretraining
from ahm_jax.training import segment as segmentation
from ahm_jax.training.loop import fit
from ahm_jax.training.optimizers import total_steps
from ahm_jax.training.state import Task, TrainState

EVALUATION = 'evaluation.json'
CONDITIONS = ('stage', 'split', 'threshold')  # What it holds beside scores: how they were made.
PER_IMAGE = 'per_image.csv'
DIAGNOSES = 'classes.json'  # Of a classify run.
DATA = 'data.json'  # How many images a run had, for its model card.
IMPORTED = 'imported.json'  # What it took from foreign weights.


def load_data(config: Config, workdir: Path) -> Dataset:
  """The data set, prepared if need be; what the user should know of it is printed."""
  with processes.first_alone():
    data = datasets.load(config.data, workdir)
  for note in data.notes:
    print(note)
  return data


def check_data(config: Config, workdir: Path) -> bool:
  """Looks at all images and masks of the data set, prints what it found, and writes check.json and check.html.

  Nothing is prepared, and nothing is changed but those two files.

  Returns:
    whether there is an error among the findings.

  Raises:
    UserError: there is no data set to look at, or `workdir` lies in it.
  """
  root = Path(config.data.root).expanduser().resolve()
  if config.data.name != 'phantom' and Path(workdir).resolve().is_relative_to(root):
    raise UserError(f'--workdir={workdir} lies in the data folder {root}, which is not to be changed; choose another')
  name = root.name if config.data.name == 'folder' else config.data.name
  seen = inspection.inspect(config.data, check_page.thumbnail)
  found = findings.find(seen, config.data)
  numbers = inspection.numbers(seen, config.data.mask_classes)
  check_page.write(Path(workdir), name, numbers, found, seen)
  print(check_page.text(name, numbers, found))
  print(f'{Path(workdir) / check_page.HTML} shows them; {check_page.JSON} beside it holds everything')
  return findings.worst(found) == findings.ERROR


def check_batches(config: Config, names: Sequence[str]) -> None:
  """Makes sure that the batches of some recipes can be shared out; raises a UserError that says what to change."""
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
  class_names: tuple[str, ...] = ()  # That a classifier tells apart.
  data: dict[str, Any] | None = None  # What the run's directory is to say of its data, for a model card.
  imported: dict[str, Any] | None = None  # What was taken from foreign weights, and what was not.
  images: lineage.Images | None = None  # What it learns from.

  def source(self, config: Config) -> Source:
    """Its batches."""
    return source(self.split, config.data, self.indices, self.recipe.batch_size, config.seed)


def pretrain(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Pre-trains a U-Net, and the agent that masks for it, on all training images, with or without masks."""
  return _fit(plan_pretrain(config, workdir, data), config, workdir)


def segment(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Trains a U-Net to segment with `data.labels` labelled images, from scratch or from the run that `init_from` names."""
  return _fit(plan_segment(config, workdir, data), config, workdir)


def classify(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Trains a classifier on what the segmentation run that `init_from` names finds in the labelled images."""
  plan = plan_classify(config, workdir, data)
  state = _fit(plan, config, workdir)
  if processes.is_first():
    rundir.write_json(workdir / DIAGNOSES, plan.class_names)
  return state


def diagnoses(config: Config, workdir: Path) -> tuple[str, ...]:
  """The classes that the classify run in `workdir`, whose config this is, tells apart, in the order of its outputs.

  Raises:
    UserError: the run has not written them down, and its data set is not there to tell.
  """
  path = workdir / DIAGNOSES
  if path.exists():
    return tuple(json.loads(path.read_text()))
  return load_data(config, workdir).class_names


def plan_pretrain(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  check_batches(config, ['pretrain'])
  rundir.check(workdir, 'pretrain', config)
  data = data or load_data(config, workdir)
  train = data.splits['train']
  training = recipe(config, 'pretrain')
  steps = total_steps(training, len(train.ids))
  build = functools.partial(pretraining.build, config, data.splits['validation'], steps, len(train.ids) / training.batch_size)
  task, imported = build(), None
  if taken := _foreign_trunk(config, task):
    task, imported = build(foreign=taken.variables), taken.report
  elif config.model.vgg_weights:
    print(f'config.model.vgg_weights is not used: {config.masking.strategy} masks without a VGG16')
  images = lineage.Images(data.name, train.ids)
  return Plan(task, training, train, np.arange(len(train.ids)), steps, (), _told(data, len(train.ids)), imported, images)


def _foreign_trunk(config: Config, task: Task) -> foreign.Taken | None:
  """What the agent of a pre-training starts from; None where there are no foreign weights, or no agent with a VGG16."""
  if not (config.model.vgg_weights and pretraining.has_vgg_trunk(task)):
    return None
  trunk = VGG16Trunk(stages=3, width=config.model.agent_width)
  return foreign.vgg16(Path(config.model.vgg_weights), trunk, _image_shape(config))


def plan_segment(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  start = _segmentation_start(config)
  rundir.check(workdir, 'segment', config)
  data = data or load_data(config, workdir)
  _check_start(config, data)
  train = data.splits['train']
  if start.origin and start.step < (whole := _whole(start.origin, Path(config.init_from).expanduser(), len(train))):
    print(f'{config.init_from} is not finished: step {start.step} of {whole} is taken')
  chosen = datasets.labelled_indices(train, config.data.labels, config.seed)
  training = recipe(config, 'segment')
  steps = total_steps(training, len(chosen))
  validation = _held_out(data, 'mask')
  task = segmentation.build(config, validation, steps, len(chosen) / training.batch_size, start.pretrained, start.foreign)
  images = lineage.Images(data.name, train.take(chosen).ids, validation.ids)
  return Plan(task, training, train, chosen, steps, (), _told(data, len(chosen)), start.imported, images)


def _check_start(config: Config, data: Dataset) -> None:
  """Makes sure that the run which `init_from` names has learnt from nothing that is held out here."""
  for name in ('validation', 'test') if config.init_from else ():
    lineage.check_held_out(Path(config.init_from).expanduser(), data.name, name, data.splits[name].ids)


def _whole(origin: Config, workdir: Path, images: int) -> int:
  """Steps that a pre-training has in all, of so many images unless its directory says how many; 0 if it may end before."""
  training = recipe(origin, 'pretrain')
  path = workdir / DATA
  images = json.loads(path.read_text())['trained_on'] if path.exists() else images
  return 0 if training.patience else total_steps(training, images)


class _Start(NamedTuple):
  """What a segmentation starts from."""

  pretrained: Any = None  # Parameters by our own pre-training,
  origin: Config | None = None  # the config of that run, None of an export, which was finished,
  step: int = 0  # and its step.
  foreign: Any = None  # Variables from elsewhere,
  imported: dict[str, Any] | None = None  # and the report on them.


def _segmentation_start(config: Config) -> _Start:
  if not config.init_from:
    return _Start()
  path = Path(config.init_from).expanduser()
  if is_weights(config.init_from):
    unet = segmentation.network(config.model, len(config.data.mask_classes))
    taken = foreign.unet(path, unet, _image_shape(config))
    return _Start(foreign=taken.variables, imported=taken.report)
  if (path / exported.FILE).exists():
    trained = exported.load_export(path, ('pretrain',), '--config.init_from')
    _check_alike(config, trained.config, _UNET)
    return _Start(trained.variables['params'])
  _, origin = rundir.read(path, ('pretrain',))
  _check_alike(config, origin, _UNET)
  learnt = exported.load_run(path, 'pretrain', origin)
  return _Start(learnt.variables['params'], origin, learnt.step)


def _image_shape(config: Config) -> tuple[int, int, int, int]:
  return 1, config.data.image_size, config.data.image_size, config.data.channels


def _told(data: Dataset, trained_on: int) -> dict[str, Any]:
  splits = {
    name: {'images': len(split), 'masks': int(split.has_mask.sum()), 'labels': int((split.labels >= 0).sum())}
    for name, split in data.splits.items()
  }
  return {'name': data.name, 'splits': splits, 'class_names': data.class_names, 'trained_on': trained_on}


def plan_classify(config: Config, workdir: Path, data: Dataset | None = None) -> Plan:
  if config.classify.input != 'image':
    if not config.init_from:
      raise UserError(
        f'config.classify.input={config.classify.input} needs a segmentation: --config.init_from=DIR of a segment run, '
        'or --config.classify.input=image'
      )
    _, origin = rundir.read(Path(config.init_from).expanduser(), ('segment',))
    _check_alike(config, origin, _PICTURE)
  rundir.check(workdir, 'classify', config)
  data = data or load_data(config, workdir)
  _check_start(config, data)
  if len(data.class_names) < 2:
    raise UserError('there are no two classes to tell apart; give labels.csv a column label that names at least two')
  train = data.splits['train']
  chosen = _diagnosed(config, train)
  if not config.classify.labels and len(chosen) < config.data.labels:
    print(f'of {config.data.labels} images that the segmentation learns from, {len(chosen)} have a label to classify by')
  labelled = _classifier_inputs(config, train.take(chosen))
  held_out = _held_out(data, 'label')
  validation = _classifier_inputs(config, held_out)
  training = recipe(config, 'classifier')
  steps = total_steps(training, len(labelled))
  classes = len(data.class_names)
  weights = classification.balanced_weights(labelled.labels, classes) if config.classify.balanced else None
  taken = foreign.Taken(None, None)
  if config.model.vgg_weights:
    taken = _foreign_vgg16(config, classes)
  task = classification.build(config, validation, classes, steps, len(labelled) / training.batch_size, weights, taken.variables)
  told, images = _told(data, len(labelled)), lineage.Images(data.name, labelled.ids, held_out.ids)
  return Plan(task, training, labelled, np.arange(len(labelled)), steps, data.class_names, told, taken.report, images)


def _diagnosed(config: Config, train: Split) -> np.ndarray:
  """Which images a classifier learns from: of those with a label, the ones that the segmentation learns from too.

  Where config.classify.labels says how many, or all labels are used, one needs no mask for it.
  """
  count = config.classify.labels
  if count or not config.data.labels:
    return datasets.labelled_indices(train, count, config.seed, by='label')
  chosen = datasets.labelled_indices(train, config.data.labels, config.seed)
  known = chosen[train.labels[chosen] >= 0]
  if not len(known):
    raise UserError(
      f'none of the {len(chosen)} training images that a segmentation learns from has a label to classify by; '
      'say how many others a classifier is to learn from, --config.classify.labels=...'
    )
  return known


_UNET = ('model.unet_width', 'data.channels')  # What a segmentation and the pre-training that it starts from share,
_PICTURE = ('data.image_size', 'data.channels', 'data.window', 'data.slice_axis')  # and a classification and its segmentation.


def _foreign_vgg16(config: Config, classes: int) -> foreign.Taken:
  network = classification.network(config.model, classes)
  return foreign.vgg16(Path(config.model.vgg_weights), network, _image_shape(config))


def evaluate(config: Config, workdir: Path, data: Dataset | None = None) -> dict:
  """Scores the run in `workdir`, by its own config, on `evaluate.split`.

  Writes evaluation.json and, but for pre-training, per_image.csv there.

  Returns:
    What evaluation.json holds: CONDITIONS and the scores in the mean.
  """
  stage, config = _scored(config, workdir, tuple(_EVALUATIONS))
  data = data or load_data(config, workdir)
  _check_scored(config, data, _SCORED_BY[stage])
  lineage.check_held_out(workdir, data.name, config.evaluate.split, data.splits[config.evaluate.split].ids)
  scores, rows = _EVALUATIONS[stage](config, workdir, data)
  result = {'stage': stage, 'split': config.evaluate.split, 'threshold': config.evaluate.threshold, **scores}
  (workdir / EVALUATION).unlink(missing_ok=True)  # Until both files are of one evaluation.
  if rows:
    metrics.write_per_image(workdir / PER_IMAGE, rows)
  rundir.write_json(workdir / EVALUATION, result)
  return result


def _scored(config: Config, workdir: Path, names: tuple[str, ...]) -> tuple[str, Config]:
  """Stage and config of the run in `workdir`, with `evaluate` of this config, and with its data folder if the run's is gone."""
  stage, trained = rundir.read(workdir, names)
  data = trained.data
  if rundir.is_gone(data.root):
    data = dataclasses.replace(data, root=config.data.root)
  if rundir.is_gone(data.prepared_dir):
    data = dataclasses.replace(data, prepared_dir=config.data.prepared_dir)
  return stage, dataclasses.replace(trained, data=data, evaluate=config.evaluate)


def compare(options: comparator.Options, config: Config, workdir: Path, data: Dataset | None = None) -> dict:
  """Scores Segment Anything, or MedSAM, on the images of `evaluate.split` beside the segmentation run in `workdir`.

  Writes evaluation_NAME.json and per_image_NAME.csv there, NAME that of the options; the run's own evaluation stays as it is.

  Returns:
    What evaluation_NAME.json holds, see `comparator.result`.
  """
  _, config = _scored(config, workdir, ('segment',))
  comparator.check(options, config)
  model = sam.load(options.checkpoint)
  data = data or load_data(config, workdir)
  name = config.evaluate.split
  _check_scored(config, data, 'mask')
  lineage.check_held_out(workdir, data.name, name, data.splits[name].ids)
  split = data.splits[name].take(data.splits[name].has_mask)
  pictures, parts = originals.pictures(config.data, name, split), _predicted(config, workdir, split)
  found = comparator.rows(options, model, pictures, parts, len(split), config.evaluate.threshold)
  scores = comparator.result(options, found, config.evaluate.bootstrap_samples, scoring.group_numbers(split))
  result = {'stage': 'segment', 'split': name, **scores}
  metrics.write_per_image(workdir / f'per_image_{options.name}.csv', found.theirs)
  rundir.write_json(workdir / f'evaluation_{options.name}.json', result)
  return result


def _check_alike(config: Config, origin: Config, names: Sequence[str]) -> None:
  for name in names:
    own, other = (operator.attrgetter(name)(item) for item in (config, origin))
    if own != other:
      raise UserError(
        f'config.{name} is {own}, but the run in config.init_from={config.init_from} has {other}; give both the same'
      )


def check_grid(config: Config, data: Dataset) -> None:
  """Says before a grid's hours of training what would stop it later.

  Raises:
    UserError: more labels are asked for than there are; or the validation split, or the one to be scored, holds no image with a
      mask, or none with a label where the grid classifies; or there is none for a classifier to learn from; or the foreign
      weights do not fit the classifier or an agent.
  """
  classifies = config.grid.classify and len(data.class_names) > 1
  for labels, seed in itertools.product(config.grid.labels, config.grid.seeds):
    cell = dataclasses.replace(config, seed=seed, data=dataclasses.replace(config.data, labels=labels))
    datasets.labelled_indices(data.splits['train'], labels, seed)
    if classifies:
      _diagnosed(cell, data.splits['train'])
  for what in ('mask', 'label') if classifies else ('mask',):
    _held_out(data, what)
    _check_scored(config, data, what)
  if classifies:
    check_batches(config, ['classifier'])
  if config.model.vgg_weights:
    if classifies:
      _foreign_vgg16(config, len(data.class_names))
    for init in filter(pretraining_of, config.grid.inits):
      own = with_init(config, init)
      _foreign_trunk(own, pretraining.build(own, data.splits['validation'], steps=1, steps_per_epoch=1))


def _check_scored(config: Config, data: Dataset, what: str) -> None:
  if not len(_known(data.splits[config.evaluate.split], what)):
    raise UserError(f'the {config.evaluate.split} split holds no {what}; name another: --config.evaluate.split=...')


def _known(split: Split, what: str) -> np.ndarray:
  """Indices of the images of a split that have a 'mask' or a 'label'; of all for 'image'."""
  return np.flatnonzero({'mask': split.has_mask, 'label': split.labels >= 0, 'image': np.ones(len(split), bool)}[what])


def _held_out(data: Dataset, what: str) -> Split:
  """The validation images that have a 'mask' or a 'label'."""
  split = data.splits['validation']
  known = _known(split, what)
  if not len(known):
    raise UserError(f'no validation image has a {what}; training needs some to choose its best checkpoint by')
  return split.take(known)


def _fit(plan: Plan, config: Config, workdir: Path) -> TrainState:
  batches = plan.source(config)
  first = processes.is_first()
  with contextlib.ExitStack() as stack:
    with processes.first_alone():
      if first:
        stack.enter_context(rundir.owned(workdir))
      if plan.images:
        lineage.check_same(workdir, plan.images)
      claim = rundir.claim if first else rundir.check
      claim(workdir, plan.task.name, config)
      if first:
        _tell(plan, workdir)
    return fit(
      plan.task,
      batches,
      plan.recipe,
      workdir,
      seed=config.seed,
      total_steps=plan.steps,
      safety=config.safety,
      profile_steps=config.profile.steps,
    )


def _tell(plan: Plan, workdir: Path) -> None:
  """Says what was taken from foreign weights, and writes that down, what the data are, and which images are learnt from."""
  if plan.data:
    rundir.write_json(workdir / DATA, plan.data)
  if plan.images:
    lineage.write(workdir, plan.images)
  if plan.imported:
    rundir.write_json(workdir / IMPORTED, plan.imported)
    print('\n'.join(foreign.lines(plan.imported)))


def predict_lesions(config: Config, workdir: Path, images: np.ndarray) -> np.ndarray:
  """Lesion probabilities by the best checkpoint of the segmentation run in `workdir`.

  Args:
    config: that run's.
    images: uint8 [N, S, S, C].

  Returns:
    float32 [N, S, S]; where the run's masks have K classes, those of background and of each, [N, S, S, K + 1].
  """
  return segmentation.predict(*_best_unet(config, workdir), images, config.evaluate.batch_size)


def find_lesions(config: Config, workdir: Path, images: np.ndarray, threshold: float) -> np.ndarray:
  """Where `predict_lesions` is at least `threshold`; with classes, where one is likelier than background: bool [N, S, S]."""
  if config.data.mask_classes:
    return segmentation.predict_classes(*_best_unet(config, workdir), images, config.evaluate.batch_size) > 0
  return predict_lesions(config, workdir, images) >= threshold


def _best_unet(config: Config, workdir: Path) -> tuple[Any, Any, Any]:
  """The U-Net of a segmentation run, with the parameters and the batch statistics of its best checkpoint."""
  best = exported.load_run(workdir, 'segment', config).variables
  return segmentation.network(config.model, len(config.data.mask_classes)), best['params'], best['batch_stats']


def load_pretrained(config: Config, workdir: Path, data: Dataset) -> TrainState:
  """The last state of the pre-training run in `workdir`, whose config this is."""
  task = pretraining.build(config, data.splits['validation'], steps=1, steps_per_epoch=1)
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  device = jax.sharding.SingleDeviceSharding(parallel.all_devices()[0])
  return checkpoint.load_state(workdir, parallel.abstract(shapes, device))


def _classifier_inputs(config: Config, split: Split) -> Split:
  """The split with what the classifier sees in place of its images."""
  lesions = np.zeros(split.masks.shape, bool)
  if config.classify.input != 'image':
    segmenter = Path(config.init_from).expanduser()
    _, segmenter_config = rundir.read(segmenter, ('segment',))
    lesions = find_lesions(segmenter_config, segmenter, split.images, config.evaluate.threshold)
  return dataclasses.replace(split, images=classification.inputs(split, lesions, config.classify))


def _evaluate_pretrain(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  nets = pretraining.networks(config.model, config.masking, config.data.channels)
  split = data.splits[config.evaluate.split]
  return learning_metrics(nets, load_pretrained(config, workdir, data), split, config.masking), []


def _evaluate_segment(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  classes, rows = config.data.mask_classes, []
  for part, probabilities in _predicted(config, workdir, data.splits[config.evaluate.split]):
    rows += scoring.segmentation_rows(probabilities, part, config.evaluate.threshold, classes)
  rows = scoring.with_groups(rows, data.splits[config.evaluate.split])
  by_class = metrics.summarise_by_class(rows, classes) if classes else {}
  return metrics.summarise(rows) | by_class | metrics.summarise_groups(rows, classes), rows


def _predicted(config: Config, workdir: Path, split: Split) -> Iterator[tuple[Split, np.ndarray]]:
  """A split in parts, with what `predict_lesions` gives for each: of all, many classes would fill the memory."""
  unet, batch_size = _best_unet(config, workdir), config.evaluate.batch_size
  for start in range(0, len(split), batch_size):
    part = split.take(slice(start, start + batch_size))
    yield part, segmentation.predict(*unet, part.images, batch_size)


def _evaluate_classify(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  split = _classifier_inputs(config, data.splits[config.evaluate.split])
  vgg = classification.network(config.model, len(data.class_names))
  best = exported.load_run(workdir, 'classify', config, tuple(data.class_names)).variables
  norms = best.get('batch_stats', {})
  probabilities = classification.predict(vgg, best['params'], norms, split.images, config.evaluate.batch_size)
  rows = scoring.with_groups(scoring.classification_rows(probabilities, split, data.class_names), split)
  return metrics.classification_scores(probabilities, split.labels), rows


_SCORED_BY = {'pretrain': 'image', 'segment': 'mask', 'classify': 'label'}
_EVALUATIONS = {'pretrain': _evaluate_pretrain, 'segment': _evaluate_segment, 'classify': _evaluate_classify}
