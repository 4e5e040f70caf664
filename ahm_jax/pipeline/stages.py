"""The stages of a run, each a function of a config and the folder it writes into.

Launch scripts and the grid call these.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import jax

from ahm_jax.config import Config
from ahm_jax.data import originals, sets
from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError
from ahm_jax.evaluation import masks as scoring
from ahm_jax.evaluation import metrics
from ahm_jax.evaluation.agent import learning_metrics
from ahm_jax.pipeline import lesions, setup
from ahm_jax.pipeline.setup import Plan
from ahm_jax.report import data_page
from ahm_jax.runs import checkpoints, directory, provenance
from ahm_jax.runs import trained as exported
from ahm_jax.runtime import parallel, processes
from ahm_jax.sam import compare
from ahm_jax.sam import model as sam
from ahm_jax.task import TrainState
from ahm_jax.training import classify as classification
from ahm_jax.training import pretrain as pretraining
from ahm_jax.training.loop import fit
from ahm_jax.weights import loading

EVALUATION = 'evaluation.json'
CONDITIONS = ('stage', 'split', 'threshold')  # What it holds beside scores: how they were made.
PER_IMAGE = 'per_image.csv'
DIAGNOSES = 'classes.json'  # Of a classify run.
IMPORTED = 'imported.json'  # What it took from foreign weights.


def check_data(config: Config, workdir: Path) -> bool:
  """Looks at all images and masks of the data set, prints what it found, and writes check.json and
  check.html.

  Nothing is prepared, and nothing is changed but those two files.

  Returns:
    whether there is an error among the findings.

  Raises:
    UserError: there is no data set to look at, or `workdir` lies in it.
  """
  source = sets.find(config.data)
  root = source.folder(config.data)
  if root and Path(workdir).resolve().is_relative_to(root):
    raise UserError(
      f'--workdir={workdir} lies in the data folder {root}, which is not to be changed; choose another'
    )
  name = source.display_name(config.data)
  seen = inspection.inspect(config.data, data_page.thumbnail)
  found = findings.find(seen, config.data)
  numbers = inspection.numbers(seen, config.data.mask_classes)
  data_page.write(Path(workdir), name, numbers, found, seen)
  print(data_page.text(name, numbers, found))
  print(f'{Path(workdir) / data_page.HTML} shows them; {data_page.JSON} beside it holds everything')
  return findings.worst(found) == findings.ERROR


def pretrain(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Pre-trains a U-Net, and the agent that masks for it, on all training images, with or without
  masks.
  """
  return _fit(setup.pretrain(config, workdir, data), config, workdir)


def segment(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Trains a U-Net to segment with `data.labels` labelled images, from scratch or from the run
  that `init_from` names.
  """
  return _fit(setup.segment(config, workdir, data), config, workdir)


def classify(config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Trains a classifier on what the segmentation run that `init_from` names finds in the
  labelled images.
  """
  plan = setup.classify(config, workdir, data)
  state = _fit(plan, config, workdir)
  if processes.is_first():
    directory.write_json(workdir / DIAGNOSES, plan.class_names)
  return state


def diagnoses(config: Config, workdir: Path) -> tuple[str, ...]:
  """The classes that the classify run in `workdir`, whose config this is, tells apart, in the order
  of its outputs.

  Raises:
    UserError: the run has not written them down, and its data set is not there to tell.
  """
  path = workdir / DIAGNOSES
  if path.exists():
    return tuple(json.loads(path.read_text()))
  return setup.load_data(config, workdir).class_names


def evaluate(config: Config, workdir: Path, data: Dataset | None = None) -> dict:
  """Scores the run in `workdir`, by its own config, on `evaluate.split`.

  Writes evaluation.json and, but for pre-training, per_image.csv there.

  Returns:
    What evaluation.json holds: CONDITIONS and the scores in the mean.
  """
  stage, config = _run_to_score(config, workdir, tuple(_EVALUATIONS))
  data = data or setup.load_data(config, workdir)
  provenance.check_scored(
    workdir, config.evaluate.split, setup.scored(config, data, _SCORED_BY[stage])
  )
  scores, rows = _EVALUATIONS[stage](config, workdir, data)
  result = {
    'stage': stage,
    'split': config.evaluate.split,
    'threshold': config.evaluate.threshold,
    **scores,
  }
  (workdir / EVALUATION).unlink(missing_ok=True)  # Until both files are of one evaluation.
  if rows:
    metrics.write_per_image(workdir / PER_IMAGE, rows)
  directory.write_json(workdir / EVALUATION, result)
  return result


def _run_to_score(config: Config, workdir: Path, names: tuple[str, ...]) -> tuple[str, Config]:
  """Stage and config of the run in `workdir`, with `evaluate` of this config, and with its data
  folder if the run's is gone.
  """
  stage, trained = directory.read(workdir, names)
  data = trained.data
  if directory.is_gone(data.root):
    data = dataclasses.replace(data, root=config.data.root)
  if directory.is_gone(data.prepared_dir):
    data = dataclasses.replace(data, prepared_dir=config.data.prepared_dir)
  return stage, dataclasses.replace(trained, data=data, evaluate=config.evaluate)


def compare(
  options: compare.Options, config: Config, workdir: Path, data: Dataset | None = None
) -> dict:
  """Scores Segment Anything, or MedSAM, on the images of `evaluate.split` beside the segmentation
  run in `workdir`.

  Writes evaluation_NAME.json and per_image_NAME.csv there, NAME that of the options; the run's own
  evaluation stays as it is.

  Returns:
    What evaluation_NAME.json holds, see `comparator.result`.
  """
  _, config = _run_to_score(config, workdir, ('segment',))
  compare.check(options, config)
  model = sam.load(options.checkpoint)
  data = data or setup.load_data(config, workdir)
  name = config.evaluate.split
  provenance.check_scored(workdir, name, setup.scored(config, data, 'mask'))
  split = data.splits[name].take(data.splits[name].has_mask)
  pictures, parts = (
    originals.pictures(config.data, name, split),
    lesions.in_parts(config, workdir, split),
  )
  found = compare.rows(options, model, pictures, parts, len(split), config.evaluate.threshold)
  scores = compare.result(
    options, found, config.evaluate.bootstrap_samples, scoring.group_numbers(split)
  )
  result = {'stage': 'segment', 'split': name, **scores}
  metrics.write_per_image(workdir / f'per_image_{options.name}.csv', found.theirs)
  directory.write_json(workdir / f'evaluation_{options.name}.json', result)
  return result


def _fit(plan: Plan, config: Config, workdir: Path) -> TrainState:
  batches = plan.source(config)
  first = processes.is_first()
  with contextlib.ExitStack() as stack:
    with processes.first_alone():
      if first:
        stack.enter_context(directory.owned(workdir))
      provenance.check_same(workdir, plan.images)
      claim = directory.claim if first else directory.check
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
  """Says what was taken from foreign weights, and writes that down, what the data are, and which
  images are learnt from.
  """
  directory.write_json(workdir / setup.DATA, plan.data)
  provenance.begin(workdir, plan.images, plan.start)
  if plan.imported:
    directory.write_json(workdir / IMPORTED, plan.imported)
    print('\n'.join(loading.lines(plan.imported)))


def load_pretrained(config: Config, workdir: Path, data: Dataset) -> TrainState:
  """The last state of the pre-training run in `workdir`, whose config this is."""
  task = pretraining.build(config, data.splits['validation'], steps=1, steps_per_epoch=1)
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  device = jax.sharding.SingleDeviceSharding(parallel.all_devices()[0])
  return checkpoints.load_state(workdir, parallel.abstract(shapes, device))


def _evaluate_pretrain(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  nets = pretraining.networks(config.model, config.masking, config.data.channels)
  split = data.splits[config.evaluate.split]
  return learning_metrics(nets, load_pretrained(config, workdir, data), split, config.masking), []


def _evaluate_segment(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  classes, rows = config.data.mask_classes, []
  for part, probabilities in lesions.in_parts(config, workdir, data.splits[config.evaluate.split]):
    rows += scoring.segmentation_rows(probabilities, part, config.evaluate.threshold, classes)
  rows = scoring.with_groups(rows, data.splits[config.evaluate.split])
  by_class = metrics.summarise_by_class(rows, classes) if classes else {}
  return metrics.summarise(rows) | by_class | metrics.summarise_groups(rows, classes), rows


def _evaluate_classify(config: Config, workdir: Path, data: Dataset) -> tuple[dict, list[dict]]:
  split = lesions.classifier_inputs(config, data.splits[config.evaluate.split])
  known = diagnoses(config, workdir) if (workdir / DIAGNOSES).exists() else tuple(data.class_names)
  if known != tuple(data.class_names):
    raise UserError(
      f'{workdir} tells {known} apart, but the classes of the data set are {data.class_names} now; train again'
    )
  vgg = classification.network(config.model, len(data.class_names))
  best = exported.load_run(workdir, 'classify', config, tuple(data.class_names)).variables
  norms = best.get('batch_stats', {})
  probabilities = classification.predict(
    vgg, best['params'], norms, split.images, config.evaluate.batch_size
  )
  rows = scoring.with_groups(
    scoring.classification_rows(probabilities, split, data.class_names), split
  )
  return metrics.classification_scores(probabilities, split.labels), rows


_SCORED_BY = {'pretrain': 'image', 'segment': 'mask', 'classify': 'label'}
_EVALUATIONS = {
  'pretrain': _evaluate_pretrain,
  'segment': _evaluate_segment,
  'classify': _evaluate_classify,
}
