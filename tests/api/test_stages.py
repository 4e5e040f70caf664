"""The stages from Python: what they pass on, and how they end."""

import errno
import os
from pathlib import Path

import pytest

import ahm_jax
from ahm_jax.errors import UserError
from ahm_jax.pipeline import evaluate as scoring
from ahm_jax.pipeline import stages

TRAININGS = ('pretrain', 'segment', 'classify')


@pytest.fixture(scope='module')
def config():
  return ahm_jax.get_config('smoke')


@pytest.mark.parametrize('name', TRAININGS)
def test_a_stage_is_that_of_its_command(name, config, monkeypatch, tmp_path):
  called = []
  monkeypatch.setattr(stages, name, lambda *arguments: called.append(arguments))
  monkeypatch.setenv('HOME', str(tmp_path))
  assert getattr(ahm_jax, name)(config, '~/run') == tmp_path / 'run'
  assert called == [(config, tmp_path / 'run')]


def test_evaluate_gives_the_scores(config, monkeypatch, tmp_path):
  monkeypatch.setattr(scoring, 'evaluate', lambda *arguments: {'dice': 0.5, 'of': arguments})
  found = ahm_jax.evaluate(config, str(tmp_path))
  assert found == {'dice': 0.5, 'of': (config, tmp_path)}


@pytest.mark.parametrize('name', [*TRAININGS, 'evaluate'])
def test_wrong_input_is_refused_in_one_line(name, config, tmp_path):
  stage = getattr(ahm_jax, name)
  with pytest.raises(UserError, match=r'^config is of type str; make one by ahm_jax.get_config'):
    stage('smoke', tmp_path / 'run')
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(UserError, match='file is not a folder; choose another'):
    stage(config, tmp_path / 'file/run')
  assert sorted(tmp_path.iterdir()) == [tmp_path / 'file']


def test_what_stops_a_command_with_a_line_is_a_user_error(config, monkeypatch, tmp_path):
  def fail_with(error):
    def fail(*_):
      raise error

    monkeypatch.setattr(stages, 'segment', fail)

  for number, message in (
    (errno.ENOSPC, f'^no space left on device in {tmp_path}/run .* make room and call it again'),
    (errno.EACCES, 'denied'),
  ):
    fail_with(OSError(number, os.strerror(number), str(tmp_path / 'run/x')))
    with pytest.raises(UserError, match=message):
      ahm_jax.segment(config, tmp_path / 'run')
  for error in (KeyError('a fault'), KeyboardInterrupt()):
    fail_with(error)
    with pytest.raises(type(error)) as raised:
      ahm_jax.segment(config, Path(tmp_path / 'run'))
    assert raised.value is error
