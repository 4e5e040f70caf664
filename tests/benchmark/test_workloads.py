"""The workloads at sizes at which they take seconds.

What they measure is not looked at, only that it is there.
"""

import functools
import math
from types import SimpleNamespace

import jax
import pytest

from ahm_jax.benchmark import growth, predicting, suite, trainings, workloads
from ahm_jax.benchmark.timing import Figure
from ahm_jax.benchmark.trainings import Sizes
from ahm_jax.benchmark.workloads import Bench, Result
from ahm_jax.models import unet
from ahm_jax.runtime import parallel

TINY = Sizes(
  unet_width=2,
  unet_side=32,
  unet_batches=(1, 2),
  dtypes=('float32',),
  pretrain_width=2,
  pretrain_side=32,
  pretrain_patch=8,
  pretrain_batch=4,
  vgg_width=2,
  vgg_side=32,
  vgg_batch=2,
  growth_batches=(1, 2),
  growth_sides=(32, 64),
  scaling_batch=2,
  predict_width=2,
  predict_side=32,
  predict_images=3,
)
BENCH = Bench('cpu', TINY, seconds=0.0)
ONE_BATCH = BENCH._replace(sizes=TINY._replace(unet_batches=(1,)))


@pytest.fixture(scope='module', autouse=True)
def shallow_unets():
  """Of two resolutions: the programs of five compile for several times as long."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(unet, 'LEVELS', 2)
    yield


def check(result: Result, workload: str, names: set[str]):
  assert {item.name for item in result.figures} >= names
  for item in result.figures:
    assert item.workload == workload and item.samples >= 3
    assert 0 <= item.low <= item.median <= item.high < math.inf
  for values in result.ratios.values():
    assert all(0 < value < math.inf for value in values)


def test_a_training_step_is_counted_and_timed(monkeypatch):
  """Beside PyTorch in the one form that compiles nothing; `test_torch` runs them all."""
  if workloads.has_torch():
    from ahm_jax.benchmark import torch_steps

    eager = [form for form in torch_steps.FORMS['cpu'] if form.name == 'eager']
    assert eager
    monkeypatch.setitem(torch_steps.FORMS, 'cpu', eager)
  result = workloads.unet_train(ONE_BATCH)
  check(result, 'unet_train', {'ours float32, batch 1'})
  assert {item.unit for item in result.figures} == {'images/s', 'TFLOP/s'}


def test_every_batch_has_its_figures(monkeypatch):
  monkeypatch.setattr(workloads, 'has_torch', lambda: False)
  monkeypatch.setattr(workloads, '_our_unet_training', lambda *_: lambda: None)
  result = workloads.unet_train(BENCH)
  names = [item.name for item in result.figures]
  assert names == ['ours float32, batch 1', 'ours float32, batch 2']


def test_weak_scaling_over_the_devices_there_are(monkeypatch):
  """What a step over several devices computes, the tests of trainings say."""
  asked = []

  def pretraining(config, split, devices):
    asked.append((config.pretrain.batch_size, config.masking.workers, len(split), devices))
    return lambda: None

  local = tuple(jax.local_devices())
  monkeypatch.setattr(parallel, 'all_devices', lambda: local[:3])
  monkeypatch.setattr(workloads.trainings, 'pretraining', pretraining)
  result = workloads.scaling(BENCH)
  assert asked == [(2, 1, 4, local[:1]), (4, 2, 8, local[:2])]
  check(result, 'scaling', {'1 device', '2 devices', '2 devices, share of linear'})
  assert not any(item.name.startswith('4') for item in result.figures)
  assert [item.median for item in result.figures if item.name == '1 device, share of linear'] == [
    100
  ]


def test_the_share_of_the_matrix_rate_is_given_on_a_gpu(monkeypatch):
  monkeypatch.setattr(workloads, 'has_torch', lambda: False)
  monkeypatch.setattr(workloads, 'matrix_rate', lambda: 0.5)
  result = workloads.unet_train(ONE_BATCH._replace(platform='gpu'))
  rate, share = (
    next(item for item in result.figures if item.unit == unit)
    for unit in ('TFLOP/s', '% of matrix rate')
  )
  assert share.name.endswith('MFU') and share.median == pytest.approx(100 * rate.median / 0.5)


def test_the_matrix_rate_is_a_number_of_operations_a_second():
  assert 0 < workloads.matrix_rate(side=64) < 1e3


def test_unlabelled_images_are_set_against_none(monkeypatch):
  asked = []

  def segmentation(config, split):
    asked.append((config.segment.batch_size, config.segment.unlabelled.batch_size, len(split)))
    assert bool(config.segment.ema_decay) == (asked[-1][1] > 0)
    assert bool(config.segment.unlabelled.agreement) == (asked[-1][1] > 0)
    return trainings.segmentation(config, split) if asked[-1][1] == 2 else lambda: None

  monkeypatch.setattr(workloads, 'trainings', SimpleNamespace(segmentation=segmentation))
  result = workloads.unlabelled(BENCH)
  assert asked == [(4, count, 8) for count in (0, 2, 4, 8)]
  check(result, 'unlabelled', {f'{count} unlabelled' for count in (0, 2, 4, 8)})
  assert list(result.ratios) == ['unlabelled_vs_labelled_time']


def test_streamed_input_is_set_against_resident(monkeypatch):
  """Augmentation, which it has, is a matter of the tests of training."""
  asked = []

  def still(_, augmented, **fields):
    asked.append((augmented, fields))
    return workloads.configured(2, 32, 4, False, masking__patch_size=8, **fields)

  monkeypatch.setattr(workloads, 'pretraining_config', still)
  result = workloads.inputs(BENCH)
  check(result, 'input', {'resident', 'streamed', 'resident, waiting', 'streamed, waiting'})
  assert asked == [(True, {'masking__strategy': 'uniform'})]
  assert list(result.ratios) == ['streamed_vs_resident']
  assert all(item.high <= 100 for item in result.figures if item.unit == '% of step')


def test_predicting_is_set_against_the_network_alone():
  result = predicting.predicting(BENCH)
  check(
    result,
    'predict',
    {'forward pass, network-bound (width 2, 32 px)', 'predict, file-bound (width 1, 16 px)'},
  )
  assert list(result.ratios) == ['predict_vs_forward', 'predict_vs_forward_file_bound']


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images():
  result = predicting.memory(BENCH)
  (ratio,) = result.ratios['predict_memory_10000_vs_100']
  assert ratio < 1.05, result.figures


def test_growth_has_time_and_memory_for_every_value_and_a_page(monkeypatch):
  """Uniform masks have no agent to compile."""
  uniform = functools.partial(growth.pretraining_config, masking__strategy='uniform')
  monkeypatch.setattr(growth, 'pretraining_config', uniform)
  monkeypatch.setattr(growth, 'AXES', ('batch',))
  result = growth.growth(BENCH)
  assert [(item.name, item.unit) for item in result.figures] == [
    (f'batch={batch}', unit) for batch in TINY.growth_batches for unit in ('ms', 'MiB')
  ]
  small, large = (item.median for item in result.figures if item.unit == 'MiB')
  assert 0 < small < large
  page = growth.growth_page(result.figures, '<cpu>')
  assert page.count('<svg') == 2 and '&lt;cpu&gt;' in page and '<cpu>' not in page


def test_growth_changes_one_thing_at_a_time(monkeypatch):
  monkeypatch.setattr(growth.trainings, 'pretraining', lambda config, _: config)
  seen = {}
  for axis, value, build in growth._points(TINY):
    config = build()
    shape = (
      config.pretrain.batch_size,
      config.data.image_size,
      config.masking.workers,
      config.masking.rounds,
    )
    seen[axis, value] = shape
  assert seen['batch', 2] == (2, 32, 1, 1)
  assert seen['side', 64] == (1, 64, 1, 1)
  assert seen['workers', 1] == (8, 32, 1, 1) and seen['workers', 8] == (8, 32, 8, 1)
  assert seen['rounds', 4] == (1, 32, 1, 4)


def test_what_is_written_has_every_documented_key(monkeypatch):
  fake = Result(
    [Figure('pretrain', 'uniform', 'ms', 2.0, 1.0, 3.0, 3)],
    {'ahm_light_vs_uniform_time': [1.0, 3.0, 2.0]},
  )

  def pretrain(_):
    """A fake."""
    return fake

  monkeypatch.setitem(suite.WORKLOADS, 'pretrain', pretrain)
  said = []
  results = suite.measure(['pretrain'], said.append)
  assert list(results) == ['versions', 'device', 'figures', 'ratios', 'ratio_ranges']
  assert list(results['ratios']) == list(suite.RATIOS)
  assert (
    results['ratios']['ahm_light_vs_uniform_time'] == 2.0
    and results['ratios']['unet_train_vs_torch'] is None
  )
  assert results['ratio_ranges'] == {'ahm_light_vs_uniform_time': [1.0, 3.0]}
  assert results['figures'] == [fake.figures[0]._asdict()]
  assert results['versions']['jax'] == jax.__version__ and results['device']['platform'] == 'cpu'
  assert said[0] == 'pretrain: A fake.' and len(said) == 3
