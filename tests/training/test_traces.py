"""What is traced and compiled is so at the first step and the first validation, and never again."""

import jax
import numpy as np
import pytest

from ahm_jax.config import DataConfig, RecipeConfig
from ahm_jax.data.batches import Source, source
from ahm_jax.training import classify, pretrain, segment
from ahm_jax.training.loop import fit

STEPS, EVERY = 9, 3
RECIPE = RecipeConfig(steps=STEPS, log_every=2, eval_every=EVERY)
CLASSES = 2


class Counting(Source):
  """Notes how many events there were when each step asked for its inputs."""

  def inputs(self, start, stop):
    for inputs in super().inputs(start, stop):
      self.counts.append(len(self.events))
      yield inputs


@pytest.fixture
def events():
  """Every tracing of a function and every compilation, as they happen."""
  found = []

  def listen(name, _, **__):
    if name.startswith('/jax/core/compile/'):
      found.append(name)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


def counts(task, split, events, workdir, share):
  item = source(split, DataConfig(resident_share=share), np.arange(len(split)), len(split), 0)
  watched = Counting.__new__(Counting)
  vars(watched).update(vars(item), counts=[], events=events)
  fit(task, watched, RECIPE, workdir, 0, STEPS)
  return [*watched.counts, len(events)]


TASKS = {
  'pretrain': lambda config, split: pretrain.build(config, split, STEPS, 1),
  'segment': lambda config, split: segment.build(config, split, STEPS, 1),
  'classify': lambda config, split: classify.build(config, split, CLASSES, STEPS, 1),
}


@pytest.mark.parametrize(
  ('name', 'share'), [('pretrain', 1.0), ('segment', 1.0), ('segment', 0.0), ('classify', 1.0)]
)
def test_nothing_is_traced_again(name, share, make_config, split, events, tmp_path):
  # As in no other test: a new program.
  config = make_config(augment=True, learning_rate=2.5e-3, strategy='ahm', workers=4)
  found = counts(TASKS[name](config, split), split, events, tmp_path, share)
  assert len(found) == STEPS + 1
  assert found[0] < found[1], 'the first step is not seen'
  assert found[1:EVERY] == [found[1]] * (EVERY - 1)  # Steps 2 and 3 before the first validation.
  # Two more validations and saves among them.
  assert found[EVERY:-1] == [found[EVERY]] * (STEPS - EVERY)
