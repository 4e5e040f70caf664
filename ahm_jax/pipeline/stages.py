"""The stages of the pipeline: pre-training, segmentation, classification, a `Stage` record each.

Whatever asks what there is to train, looks here. A new stage is a task in `ahm_jax.training`, its
recipe in `ahm_jax.config.fields`, a record here and a script in `launch`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ahm_jax.config import Config, fields
from ahm_jax.data.batches import Beside, check_pairs
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.labelled import segmented_indices
from ahm_jax.data.sampling import labelled_indices
from ahm_jax.errors import UserError
from ahm_jax.models import build
from ahm_jax.models.vgg16 import VGG16Trunk
from ahm_jax.pipeline import lesions, scores
from ahm_jax.pipeline.setup import (
  PICTURE,
  Plan,
  Run,
  Start,
  check_alike,
  check_targets,
  held_out,
)
from ahm_jax.pipeline.train import train
from ahm_jax.runs import directory, trained
from ahm_jax.runs.stage import Card, Stage
from ahm_jax.runtime import parallel
from ahm_jax.training import classify as classification
from ahm_jax.training import diagnosis, pseudo_masks
from ahm_jax.training import pretrain as pretraining
from ahm_jax.training import segment as segmentation
from ahm_jax.training.optimizers import total_steps
from ahm_jax.weights import loading
from ahm_jax.weights.files import is_weights

# What must be alike in a segmentation and the pre-training that it starts from.
_UNET = ('model.unet_width', 'data.channels', 'data.modalities')


# Pre-training.


def _check_pretraining(config: Config) -> None:
  devices = len(parallel.all_devices())
  pretraining.check_workers(config.masking.workers, config.pretrain.batch_size, devices)
  pretraining.check_reward(config)


def _plan_pretraining(run: Run) -> Plan:
  config, train, validation = run.config, run.data.splits['train'], run.data.splits['validation']
  steps, epoch = _length(run, len(train))
  taken = agent_weights(config)
  if config.model.vgg_weights and not taken:
    print(f'config.model.vgg_weights is not used: {config.masking.strategy} masks without a VGG16')
  return Plan(
    task=pretraining.build(config, validation, steps, epoch, taken and taken.variables),
    split=train,
    indices=np.arange(len(train)),
    steps=steps,
    validation=validation.ids if run.recipe.patience else (),
    imported=taken and taken.report,
  )


def agent_weights(config: Config) -> loading.LoadedWeights | None:
  """Other people's weights that the agent of a pre-training starts from.

  None where the config names none, or the strategy has no agent with a VGG16.

  Raises:
    UserError: they do not fit.
  """
  if not (config.model.vgg_weights and pretraining.networks(config).strategy.load_trunk):
    return None
  model = config.model
  trunk = VGG16Trunk(stages=3, width=model.agent_width, input=model.vgg_input)
  path, adapt = Path(model.vgg_weights), bool(config.data.modalities)
  return loading.vgg16_trunk(path, trunk, _image_shape(config), adapt)


PRETRAIN = Stage(
  name=fields.PRETRAIN,
  title='Pre-training',
  recipe='pretrain',
  scored_by='image',
  keeps_best=False,
  network=lambda config, _: build.reconstruction_unet(config.model, config.data.depth),
  probabilities=None,
  start=lambda _: Start(),
  check=_check_pretraining,
  plan=_plan_pretraining,
  score=scores.pretraining,
  curves=(
    ('loss', 'Loss on masked patches'),
    ('validation/uniform_loss', 'Held-out loss under uniform masks'),
    ('validation/difficulty_rank_correlation', 'Difficulty rank correlation'),
    ('validation/hardness_ratio', 'Hardness ratio'),
  ),
  following='launch.segment with --config.init_from={workdir} and a --workdir of its own',
  card=Card(
    network='a U-Net that was pre-trained to reconstruct masked images; it says nothing of an '
    'image until it is trained further',
    use='to start the training of a segmentation from, in research',
    outputs=lambda config, _: f'{config.data.depth} channels of the reconstructed image',
  ),
)


# Segmentation.


def _check_segmentation(config: Config) -> None:
  unlabelled, devices = config.segment.unlabelled, len(parallel.all_devices())
  check_pairs(unlabelled.batch_size, devices)
  field, diagnosed = 'config.segment.diagnosis.batch_size', config.segment.diagnosis.batch_size
  parallel.check_shared(diagnosed, parallel.all_devices(), field)
  if unlabelled.hide:
    section = 'segment.unlabelled.masking'
    workers = unlabelled.masking.workers
    pretraining.check_workers(workers, unlabelled.batch_size, devices, section)
  if (reconstruction := config.segment.reconstruction).batch_size:
    section, workers = 'segment.reconstruction.masking', reconstruction.masking.workers
    pretraining.check_workers(workers, reconstruction.batch_size, devices, section)


def _start_segmentation(config: Config) -> Start:
  return dataclasses.replace(_first_weights(config), teacher=_teacher(config))


def _teacher(config: Config) -> trained.Trained | None:
  """What segments unlabelled images for the student, where that is not its own average."""
  unlabelled, said = config.segment.unlabelled, 'segment.unlabelled.teacher'
  if not (unlabelled.teacher and unlabelled.batch_size):
    return None
  place = unlabelled.teacher
  for name, value in (('{seed}', config.seed), ('{labels}', config.data.labels or 'all')):
    place = place.replace(name, str(value))
  found = trained.load(Path(place), (SEGMENT,), f'--config.{said}')
  check_alike(config, found.config, (*_UNET, *PICTURE, 'data.mask_classes'), said)
  return found


def _first_weights(config: Config) -> Start:
  """What the U-Net starts from."""
  if not config.init_from:
    return Start()
  if is_weights(config.init_from):
    unet = build.segmentation_unet(config.model, len(config.data.mask_classes))
    path = Path(config.init_from).expanduser()
    adapt = bool(config.data.modalities)
    return Start(weights=loading.unet(path, unet, _image_shape(config), adapt))
  path = Path(config.init_from).expanduser()
  if not (path / trained.EXPORT).exists():
    return _start_from_run(config, PRETRAIN, _UNET)
  start = trained.load(path, (PRETRAIN,), '--config.init_from')
  check_alike(config, start.config, _UNET)
  return Start(start)


def _plan_segmentation(run: Run) -> Plan:
  config, train, start = run.config, run.data.splits['train'], run.start
  if start.trained and start.run:
    _say_unfinished(start.trained, len(train))
  chosen = segmented_indices(config, run.data)
  validation = held_out(run.data, 'mask')
  check_targets(config, train, chosen, 'training')
  check_targets(config, validation, range(len(validation)), 'validation')
  steps, epoch = _length(run, len(chosen))
  pretrained = start.trained.variables['params'] if start.trained else None
  foreign = start.weights.variables if start.weights else None
  teacher = start.teacher.variables if start.teacher else None
  told = diagnoses(config, run.data)
  task = segmentation.build(
    config,
    validation,
    steps,
    epoch,
    pretrained,
    foreign,
    teacher,
    told and told.task,
    told and told.validation,
  )
  return Plan(
    task=task._replace(snapshot=pseudo_masks.snapshot(config, train, chosen)),
    split=train,
    indices=chosen,
    steps=steps,
    validation=tuple(dict.fromkeys((*validation.ids, *(told.validation.ids if told else ())))),
    class_names=run.data.class_names if told else (),
    imported=start.weights.report if start.weights else None,
    beside=_beside(config, train, told),
  )


class Told(NamedTuple):
  """The diagnoses that a segmentation learns to tell."""

  indices: np.ndarray  # Of the training images that it learns them from.
  task: diagnosis.Diagnosing
  validation: Split


def diagnoses(config: Config, data: Dataset) -> Told | None:
  """Those that a segmentation learns, None where its config asks for none.

  Raises:
    UserError: too few images have a label, or all have the same.
  """
  recipe = config.segment.diagnosis
  if not recipe.batch_size:
    return None
  check_classes(data)
  field = 'config.segment.diagnosis.labels'
  train = data.splits['train']
  chosen = labelled_indices(train, recipe.labels, config.seed, 'label', field)
  task = diagnosis.diagnosing(recipe, train.labels[chosen], len(data.class_names))
  return Told(chosen, task, held_out(data, 'label'))


def _beside(config: Config, train: Split, told: Told | None) -> tuple[Beside, ...]:
  """What a segmentation learns from without masks, in the order that its step expects."""
  recipe, parts = config.segment, []
  if told:
    parts.append(Beside.diagnosed(told.indices, recipe.diagnosis.batch_size))
  if recipe.reconstruction.batch_size:
    parts.append(Beside.reconstructed(train, recipe.reconstruction.batch_size))
  if recipe.unlabelled.batch_size:
    parts.append(Beside.unlabelled(train, recipe.unlabelled.batch_size))
  return tuple(parts)


def _say_unfinished(start: trained.Trained, images: int) -> None:
  """Says so where a pre-training has not reached its last step; one with patience may end before.

  Args:
    images: how many it was trained on, unless its directory says so.
  """
  recipe = start.config.pretrain
  known = directory.summary(start.path)
  whole = total_steps(recipe, known['trained_on'] if known else images)
  if start.step < whole and not recipe.patience:
    print(f'{start.path} is not finished: step {start.step} of {whole} is taken')


def _said_by_segmentation(config: Config, diagnoses: Sequence[str]) -> str:
  classes = config.data.mask_classes
  of_pixels = ', '.join(('background', *classes)) if classes else trained.LESION
  return of_pixels + (f'; of the image as a whole: {", ".join(diagnoses)}' if diagnoses else '')


SEGMENT = Stage(
  name=fields.SEGMENT,
  title='Segmentation',
  recipe='segment',
  scored_by='mask',
  keeps_best=True,
  network=lambda config, names: build.segmentation_unet(
    config.model,
    len(config.data.mask_classes),
    len(names),
    config.data.depth if config.segment.reconstruction.batch_size else 0,
  ),
  probabilities=segmentation.probabilities,
  with_diagnoses=segmentation.with_diagnoses,
  start=_start_segmentation,
  check=_check_segmentation,
  plan=_plan_segmentation,
  score=scores.segmentation,
  curves=(('loss', 'Training loss'), ('validation/dice', 'Validation Dice')),
  following='launch.evaluate with the same flags scores it; new images: python -m launch.predict '
  '--checkpoint={workdir} --images=DIR --out=DIR',
  card=Card(
    network='a U-Net that says of every pixel of an image how likely it belongs to a lesion, or to '
    'each of several classes',
    use='research on the segmentation of images of the kind, source and preparation that it was '
    'trained on',
    outputs=_said_by_segmentation,
  ),
)


# Classification.


def _start_classification(config: Config) -> Start:
  if config.classify.input == 'image':
    return Start()
  if not config.init_from:
    raise UserError(
      f'config.classify.input={config.classify.input} needs a segmentation: --config.init_from=DIR '
      'of a segment run, or --config.classify.input=image'
    )
  return _start_from_run(config, SEGMENT, PICTURE)


def _plan_classification(run: Run) -> Plan:
  config, data, segmenter = run.config, run.data, run.start.trained
  check_classes(data)
  train, classes = data.splits['train'], len(data.class_names)
  chosen = diagnosed(config, data)
  if not config.classify.labels and len(chosen) < config.data.labels:
    print(
      f'of {config.data.labels} images that the segmentation learns from, {len(chosen)} have a '
      'label to classify by'
    )
  labelled = lesions.classifier_inputs(config, segmenter, train.take(chosen))
  validation = lesions.classifier_inputs(config, segmenter, held_out(data, 'label'))
  steps, epoch = _length(run, len(labelled))
  weights = (
    classification.balanced_weights(labelled.labels, classes) if config.classify.balanced else None
  )
  taken = classifier_weights(config, classes)
  foreign = taken.variables if taken else None
  return Plan(
    task=classification.build(config, validation, classes, steps, epoch, weights, foreign),
    split=labelled,
    indices=np.arange(len(labelled)),
    steps=steps,
    validation=validation.ids,
    class_names=data.class_names,
    imported=taken.report if taken else None,
  )


def check_classes(data: Dataset) -> None:
  """Raises a UserError where there are no diagnoses to tell apart."""
  if len(data.class_names) < 2:
    raise UserError(
      'there are fewer than two classes; give labels.csv a column label that names at least two'
    )


def diagnosed(config: Config, data: Dataset) -> np.ndarray:
  """Which images a classifier learns from: of those with a label, the ones that the segmentation
  learns from too.

  Where config.classify.labels says how many, or all labels are used, one needs no mask for it.
  All of a list, config.data.labelled_from, are not all labels.

  Raises:
    UserError: there are none.
  """
  count, train = config.classify.labels, data.splits['train']
  if count or not (config.data.labels or config.data.labelled_from):
    return labelled_indices(train, count, config.seed, by='label')
  chosen = segmented_indices(config, data)
  known = chosen[train.labels[chosen] >= 0]
  if not len(known):
    raise UserError(
      f'none of the {len(chosen)} training images that a segmentation learns from has a label to '
      'classify by; say how many others a classifier is to learn from, --config.classify.labels=...'
    )
  return known


def classifier_weights(config: Config, classes: int) -> loading.LoadedWeights | None:
  """Other people's weights that a classifier starts from; None where the config names none.

  Raises:
    UserError: they do not fit.
  """
  if not config.model.vgg_weights:
    return None
  network = build.classifier(config.model, classes)
  path, adapt = Path(config.model.vgg_weights), bool(config.data.modalities)
  return loading.vgg16(path, network, _image_shape(config), adapt)


CLASSIFY = Stage(
  name=fields.CLASSIFY,
  title='Classification',
  recipe='classifier',
  scored_by='label',
  keeps_best=True,
  network=lambda config, names: build.classifier(config.model, len(names)),
  probabilities=classification.probabilities,
  start=_start_classification,
  plan=_plan_classification,
  score=scores.classification,
  curves=(
    ('loss', 'Training loss'),
    ('validation/balanced_accuracy', 'Validation balanced accuracy'),
  ),
  following='launch.evaluate with the same flags scores it; new images: launch.predict with '
  '--classifier={workdir}',
  card=Card(
    network='a VGG16 that says of an image how likely each diagnosis is',
    use='research on the classification of images of the kind, source and preparation that it was '
    'trained on',
    outputs=lambda _, names: ', '.join(names),
  ),
)

STAGES: Sequence[Stage] = (PRETRAIN, SEGMENT, CLASSIFY)


def _start_from_run(config: Config, stage: Stage, alike: Sequence[str]) -> Start:
  """What the run that `init_from` names has learnt, where these fields are alike in both."""
  path = Path(config.init_from).expanduser()
  _, held = directory.read(path, (stage,))
  check_alike(config, held, alike)
  return Start(trained.load_run(path, stage, held))


def _length(run: Run, count: int) -> tuple[int, float]:
  """Steps of the whole training on so many images, and batches in one pass over them."""
  return total_steps(run.recipe, count), count / run.recipe.batch_size


def _image_shape(config: Config) -> tuple[int, int, int, int]:
  return 1, config.data.image_size, config.data.image_size, config.data.depth


# For launch scripts, and for Python: (config, workdir, data=None) -> TrainState, see `train`.

# A U-Net, and the agent that masks for it, on all training images, with or without masks.
pretrain = functools.partial(train, PRETRAIN)
# A U-Net on `data.labels` labelled images, from scratch or from what `init_from` names.
segment = functools.partial(train, SEGMENT)
# A classifier on what the segmentation run that `init_from` names finds in the labelled images.
classify = functools.partial(train, CLASSIFY)
