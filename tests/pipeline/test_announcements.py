"""What a training says when it begins and when it has ended."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ahm_jax.config import Config, DataConfig, ModelConfig
from ahm_jax.data.batches import Beside
from ahm_jax.pipeline import announcements
from ahm_jax.pipeline.setup import Plan, Run, Start
from ahm_jax.pipeline.stages import PRETRAIN, SEGMENT
from ahm_jax.runs import metrics_log
from ahm_jax.runtime import parallel


def opened(tmp_path, stage=SEGMENT, steps=100, beside=(), model=None, size=64, **recipe):
  own = dataclasses.replace(getattr(Config(), stage.recipe), **recipe)
  config = dataclasses.replace(
    Config(),
    model=model or ModelConfig(unet_width=16),
    data=DataConfig(image_size=size),
    **{stage.recipe: own},
  )
  shown = SimpleNamespace(shown='dice', keep_best=stage.keeps_best)
  plan = Plan(shown, None, np.arange(5), steps, ('a', 'b', 'c'), beside=tuple(beside))
  return Run(stage, config, tmp_path, None, Start()), plan


def test_it_begins_with_steps_images_device_and_precision(tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))
  beside = Beside(np.arange(5), 8, 3, 'image')
  run, plan = opened(tmp_path, steps=1200, beside=[beside], batch_size=4)
  expected = 'segment: 1,200 steps of 12 images on 1 CPU, float32; the first one compiles'
  assert announcements.beginning(run, plan, 0) == [expected]
  assert announcements.beginning(run, plan, 700) == ['segment resumes at step 700 of 1,200']
  assert announcements.beginning(run, plan, 1200) == []
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:4]))
  assert 'on 4 CPUs, float32' in announcements.beginning(run, plan, 0)[0]


def test_more_steps_than_were_asked_for_are_explained(tmp_path):
  run, plan = opened(tmp_path, steps=105, min_epochs=10.0)
  recipe = dataclasses.replace(run.config.segment, steps=60)
  run = dataclasses.replace(run, config=dataclasses.replace(run.config, segment=recipe))
  (line,) = announcements.beginning(run, plan, 0)
  assert '105 steps (segment.min_epochs=10 asks for more than 60) of' in line


@pytest.mark.parametrize(('width', 'size', 'said'), [(64, 224, True), (16, 64, False)])
def test_a_gpus_work_on_a_cpu_is_said(tmp_path, width, size, said):
  run, plan = opened(tmp_path, model=ModelConfig(unet_width=width), size=size)
  lines = announcements.beginning(run, plan, 0)
  assert len(lines) == 1 + said
  if said:
    assert 'no GPU is used' in lines[1] and '--config=folder:cpu' in lines[1]


def test_it_ends_with_the_validation_of_what_is_kept(tmp_path):
  lines = [(50, 0.4), (77, 0.477), (100, 0.45)]
  (tmp_path / metrics_log.FILE).write_text(
    ''.join(f'{{"step": {step}, "validation/dice": {dice}}}\n' for step, dice in lines)
  )
  run, plan = opened(tmp_path)
  state = SimpleNamespace(step=np.int32(77))
  ended = announcements.ending(run, plan, state, True, 186.4)
  assert ended == 'segment: done in 3:06; best validation dice 0.477 at step 77 (3 images)'
  again = announcements.ending(run, plan, state, False, 1.0)
  assert again.startswith('segment: was finished already; best validation dice 0.477')
  last = announcements.ending(
    *opened(tmp_path, PRETRAIN), SimpleNamespace(step=np.int32(100)), True, 3723
  )
  assert last == 'pretrain: done in 1:02:03; validation dice 0.450 at step 100'
  unknown = SimpleNamespace(step=np.int32(3))
  assert announcements.ending(run, plan, unknown, True, 0) == 'segment: done in 0:00'
