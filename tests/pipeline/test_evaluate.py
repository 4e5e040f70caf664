"""How a run is scored, and what keeps it from being scored."""

import dataclasses

import numpy as np
import pytest

from ahm_jax.config import Config
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation import per_image
from ahm_jax.pipeline import evaluate as evaluation
from ahm_jax.pipeline.evaluate import evaluate
from ahm_jax.pipeline.setup import Plan, Run, Start
from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT
from ahm_jax.pipeline.train import begin
from ahm_jax.runs import directory
from ahm_jax.runtime import json_files
from tests.runtime.test_places import MOVES, everything

NAMES = tuple('abcd')
SPLIT = Split(
  ids=NAMES,
  images=np.zeros((4, 16, 16, 3), np.uint8),
  masks=np.zeros((4, 16, 16), np.uint8),
  labels=np.array([0, 1, 0, 1], np.int32),
  has_mask=np.ones(4, bool),
  groups=NAMES,
  full_masks=(b'',) * 4,
)
DATA = Dataset('toy', ('x', 'y'), dict.fromkeys(('train', 'validation', 'test'), SPLIT), ())


def test_an_evaluation_that_is_cut_short_leaves_none_beside_the_scores_of_another(
  tmp_path, monkeypatch
):
  directory.claim(tmp_path, 'segment', Config())
  rows = [{'image': 'a', 'dice': 0.5}]
  stage = SEGMENT._replace(score=lambda _: ({'dice': 0.5}, rows))
  monkeypatch.setattr(evaluation, 'STAGES', (stage,))
  result = evaluate(Config(), tmp_path, DATA)
  assert result == {'stage': 'segment', 'split': 'test', 'threshold': 0.5, 'dice': 0.5}

  def fail(*_):
    raise OSError('cut short')

  monkeypatch.setattr(per_image, 'write', fail)
  with pytest.raises(OSError, match='cut short'):
    evaluate(Config(), tmp_path, DATA)
  assert not (tmp_path / directory.EVALUATION).exists()


@pytest.mark.parametrize('move', MOVES)
def test_scores_of_a_run_that_is_moved_do_not_go_into_another_folder(tmp_path, monkeypatch, move):
  change, _ = MOVES[move]
  workdir = tmp_path / 'place' / 'home'
  directory.claim(workdir, 'segment', Config())
  json_files.write_json(workdir / directory.EVALUATION, 'of another run, where this is a copy')
  states = []

  def score(_):
    change(workdir)
    states.append(everything(tmp_path))
    return {'dice': 0.5}, [{'image': 'a', 'dice': 0.5}]

  monkeypatch.setattr(evaluation, 'STAGES', (SEGMENT._replace(score=score),))
  with pytest.raises(UserError, match=r'^\S*/home was (moved to|removed or replaced) '):
    evaluate(Config(), workdir, DATA)
  assert states == [everything(tmp_path)]


def test_a_classifier_of_other_classes_than_the_data_have_now_is_not_scored(tmp_path):
  config = dataclasses.replace(
    Config(), classify=dataclasses.replace(Config().classify, input='image')
  )
  directory.claim(tmp_path, 'classify', config)
  json_files.write_json(tmp_path / directory.CLASSES, ['y', 'x'])
  with pytest.raises(
    UserError,
    match=r"distinguishes \('y', 'x'\), but the classes of the data set are \('x', 'y'\) now",
  ):
    evaluate(config, tmp_path, DATA)


def test_a_segmentation_is_scored_though_its_start_is_gone(tmp_path, monkeypatch):
  config = Config(init_from=str(tmp_path / 'gone'))
  directory.claim(tmp_path / 'run', 'segment', config)
  stage = SEGMENT._replace(score=lambda _: ({'dice': 0.5}, []))
  monkeypatch.setattr(evaluation, 'STAGES', (stage,))
  assert evaluate(Config(), tmp_path / 'run', DATA)['dice'] == 0.5


def test_a_run_does_not_resume_with_other_classes(tmp_path):
  plan = Plan(None, SPLIT, np.arange(4), 1, class_names=('x', 'y'))
  run = Run(CLASSIFY, Config(), tmp_path, DATA, Start())
  begin(run, plan)
  begin(run, plan)
  with pytest.raises(UserError, match=r"began with the classes \('x', 'y'\), and they are \('x',"):
    begin(run, dataclasses.replace(plan, class_names=('x', 'z')))
