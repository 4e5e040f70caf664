"""Scores of a finished run, alone or beside Segment Anything."""

from pathlib import Path
from typing import Any

from ahm_jax.config import Config
from ahm_jax.data import manifest, originals
from ahm_jax.data.dataset import Dataset
from ahm_jax.evaluation import per_image
from ahm_jax.pipeline import lesions
from ahm_jax.pipeline.setup import Run, open_trained, scored
from ahm_jax.pipeline.stages import SEGMENT, STAGES
from ahm_jax.runs import directory, ownership, provenance, trained
from ahm_jax.runtime import json_files, places
from ahm_jax.sam import compare as comparison
from ahm_jax.sam import model as segment_anything


def evaluate(config: Config, workdir: Path, data: Dataset | None = None) -> dict[str, Any]:
  """Scores the run in `workdir`, by its own config, on `evaluate.split`.

  Writes evaluation.json and, but for pre-training, per_image.csv there.

  Args:
    data: where it is loaded already.

  Returns:
    What evaluation.json holds: `directory.CONDITIONS` and the scores in the mean.

  Raises:
    UserError: there is no run, or it was trained on images that are to be scored.
  """
  run = open_trained(config, workdir, STAGES, data)
  with places.kept(run.workdir):
    return evaluate_run(run)


def evaluate_run(run: Run) -> dict[str, Any]:
  """`evaluate`, of a run that was opened."""
  ownership.check_kinds(run.workdir, (manifest.HOME,), directory.EVALUATIONS)
  _check_unseen(run)
  scores, rows = run.stage.score(run)
  conditions = (run.stage.name, run.config.evaluate.split, run.config.evaluate.threshold)
  result = {**dict(zip(directory.CONDITIONS, conditions, strict=True)), **scores}
  path = run.workdir / directory.EVALUATION
  places.check(path)
  path.unlink(missing_ok=True)  # Until both files are of one evaluation.
  if rows:
    per_image.write(run.workdir / directory.PER_IMAGE, rows)
  json_files.write_json(path, result)
  return result


def _check_unseen(run: Run) -> None:
  names = scored(run.config, run.data, run.stage.scored_by)
  provenance.check_scored(run.workdir, run.config.evaluate.split, names)


def compare(
  options: comparison.Options, config: Config, workdir: Path, data: Dataset | None = None
) -> dict[str, Any]:
  """Scores Segment Anything, or MedSAM, on the images of `evaluate.split` beside the segmentation
  run in `workdir`.

  Writes evaluation_NAME.json and per_image_NAME.csv there, NAME that of the options; the run's own
  evaluation stays as it is.

  Returns:
    What evaluation_NAME.json holds, see `ahm_jax.sam.compare.result`.
  """
  stage, held = directory.read(workdir, (SEGMENT,))
  comparison.check(options, held)
  model = segment_anything.load(options.checkpoint)
  run = open_trained(config, workdir, (stage,), data)
  with places.kept(run.workdir):
    ownership.check_kinds(run.workdir, (manifest.HOME,), directory.EVALUATIONS)
    _check_unseen(run)
    name, evaluation = run.config.evaluate.split, run.config.evaluate
    split = run.data.splits[name].take(run.data.splits[name].has_mask)
    segmenter = trained.load_run(run.workdir, stage, run.config)
    pictures = originals.pictures(run.config.data, name, split)
    parts = lesions.in_parts(segmenter, split)
    found = comparison.rows(options, model, pictures, parts, len(split), evaluation.threshold)
    groups = per_image.group_numbers(split)
    scores = comparison.result(options, found, evaluation.bootstrap_samples, groups)
    result = {'stage': stage.name, 'split': name, **scores}
    per_image.write(run.workdir / f'per_image_{options.name}.csv', found.theirs)
    json_files.write_json(run.workdir / f'evaluation_{options.name}.json', result)
    return result
