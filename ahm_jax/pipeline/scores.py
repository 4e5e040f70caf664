"""How a run of each stage is scored on `evaluate.split`: scores in the mean, and rows of images."""

from typing import Any

import jax

from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation import metrics, per_image
from ahm_jax.evaluation.agent import learning_metrics
from ahm_jax.evaluation.confidence import ranking
from ahm_jax.pipeline import lesions
from ahm_jax.pipeline.setup import Run
from ahm_jax.runs import checkpoint_reading, directory, trained
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import parallel
from ahm_jax.task import TrainState
from ahm_jax.training import classify, pretrain, segment

Scores = tuple[dict[str, Any], list[dict]]


def pretraining(run: Run) -> Scores:
  """The agent's learning metrics; there are no rows."""
  state = pretrained_state(run)
  return learning_metrics(pretrain.networks(run.config), state, _split(run)), []


def pretrained_state(run: Run) -> TrainState:
  """The last state of a pre-training, with that of its masking strategy."""
  task = pretrain.build(run.config, run.data.splits['validation'], steps=1, steps_per_epoch=1)
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  device = jax.sharding.SingleDeviceSharding(parallel.all_devices()[0])
  return checkpoint_reading.load_state(run.workdir, parallel.abstract(shapes, device))


def segmentation(run: Run) -> Scores:
  """Scores of masks at the images' own size."""
  classes, rows = run.config.data.mask_classes, []
  segmenter, split = trained.load_run(run.workdir, run.stage, run.config), _split(run)
  for part, probabilities in lesions.in_parts(segmenter, split):
    rows += per_image.segmentation_rows(probabilities, part, run.config.evaluate.threshold, classes)
  rows = per_image.with_groups(rows, split)
  by_class = metrics.summarise_by_class(rows, classes) if classes else {}
  scores = metrics.summarise(rows) | by_class | metrics.summarise_groups(rows, classes)
  scores |= ranking([row['confidence'] for row in rows], [row['dice'] for row in rows])
  return (scores | _diagnoses(run, segmenter, split, rows), rows)


def _diagnoses(run: Run, segmenter: Trained, split: Split, rows: list[dict]) -> dict[str, float]:
  """Scores of what a segmentation says of all images with a label; their rows are added to those
  of masks.
  """
  if not segmenter.diagnoses:
    return {}
  names, evaluate = _class_names(run), run.config.evaluate
  probabilities = segment.predict_diagnoses(
    segmenter.network, segmenter.variables, split.images, evaluate.batch_size, evaluate.flips
  )
  told = {row['image']: row for row in per_image.classification_rows(probabilities, split, names)}
  for row in rows:
    row |= told.get(row['image'], {})
  return metrics.classification_scores(probabilities, split.labels)


def classification(run: Run) -> Scores:
  """Scores of diagnoses.

  Raises:
    UserError: the data set's classes are no longer those that the run distinguishes.
  """
  names = _class_names(run)
  classifier = trained.load_run(run.workdir, run.stage, run.config)
  segmenter = run.stage.start(run.config).trained
  split = lesions.classifier_inputs(run.config, segmenter, _split(run))
  probabilities = classify.predict(
    classifier.network, classifier.variables, split.images, run.config.evaluate.batch_size
  )
  rows = per_image.with_groups(per_image.classification_rows(probabilities, split, names), split)
  return metrics.classification_scores(probabilities, split.labels), rows


def _class_names(run: Run) -> tuple[str, ...]:
  """The diagnoses that a run distinguishes, which must still be those of the data set."""
  known, names = directory.class_names(run.workdir), tuple(run.data.class_names)
  if known != names:
    raise UserError(
      f'{run.workdir} distinguishes {known}, but the classes of the data set are {names} now; '
      'train again'
    )
  return names


def _split(run: Run) -> Split:
  return run.data.splits[run.config.evaluate.split]
