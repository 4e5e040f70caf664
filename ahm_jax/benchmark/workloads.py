"""What is measured: a function for each workload, which gives its figures and its ratios."""

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.benchmark import trainings
from ahm_jax.benchmark.timing import Figure, alternate, figure, ratios
from ahm_jax.benchmark.trainings import Sizes, configured, random_split
from ahm_jax.config import Config
from ahm_jax.models.build import segmentation_unet
from ahm_jax.models.layers import init_variables
from ahm_jax.runtime import parallel
from ahm_jax.training import segment
from ahm_jax.training.stepper import Stepper

SECONDS = 30.0  # Of timing, for each group of sides that take turns; warming up comes on top.
Sides = dict[str, Callable[[], object]]  # By name, what takes turns; see `alternate`.
LABELLED = 4  # Images of a segmentation step, as its recipes have them.
DEVICE_STEPS = 10  # Of a side that is too short, or too uneven, to be timed alone.


class Result(NamedTuple):
  figures: list[Figure]
  ratios: dict[str, list[float]]  # One number a round.


class Bench(NamedTuple):
  """What every workload is given."""

  platform: str  # 'cpu' or 'gpu'.
  sizes: Sizes
  seconds: float = SECONDS


def has_torch() -> bool:
  return importlib.util.find_spec('torch') is not None


def unet_train(bench: Bench) -> Result:
  """U-Net segmentation training step, in images/s; ours and PyTorch's."""
  return _against_torch(bench, 'unet_train', _our_unet_training, 'unet_training')


def unet_infer(bench: Bench) -> Result:
  """U-Net inference from uint8 images to probabilities, in images/s; ours and PyTorch's."""
  return _against_torch(bench, 'unet_infer', _our_unet_inference, 'unet_inference')


def vgg16(bench: Bench) -> Result:
  """VGG16 training step, in images/s; ours and PyTorch's."""
  sizes = bench.sizes
  sides: Sides = {f'ours {dtype}': _our_vgg16(sizes, dtype) for dtype in sizes.dtypes}
  sides |= _torch_sides(bench, 'vgg16_training', sizes.vgg_width, sizes.vgg_side, sizes.vgg_batch)
  taken = alternate(sides, bench.seconds)
  figures = [
    _rate('vgg16', f'{name}, batch {sizes.vgg_batch}', seconds, sizes.vgg_batch)
    for name, seconds in taken.items()
  ]
  return Result(figures, _best_against_torch('vgg16_train_vs_torch', taken))


def pretrain(bench: Bench) -> Result:
  """Pre-training step at one total batch: uniform masks, AHM by trunk, by workers K and by
  rounds T; in milliseconds.
  """
  variants: dict[str, dict[str, Any]] = {
    'uniform': {'masking__strategy': 'uniform'},
    'ahm light': {},
    'ahm vgg16': {'model__agent_trunk': 'vgg16'},
    'ahm light, K=1': {'masking__workers': 1},
    'ahm light, K=16': {'masking__workers': 16},
    'ahm light, T=2': {'masking__rounds': 2},
    'ahm light, T=4': {'masking__rounds': 4},
  }
  split = random_split(4 * bench.sizes.pretrain_batch, bench.sizes.pretrain_side)
  sides = {
    name: trainings.pretraining(pretraining_config(bench.sizes, **fields), split)
    for name, fields in variants.items()
  }
  taken = alternate(sides, 2 * bench.seconds)
  return Result(
    [figure('pretrain', name, 'ms', [1e3 * x for x in seconds]) for name, seconds in taken.items()],
    {
      'ahm_light_vs_uniform_time': ratios(taken['ahm light'], taken['uniform']),
      'ahm_vgg16_vs_uniform_time': ratios(taken['ahm vgg16'], taken['uniform']),
    },
  )


def unlabelled(bench: Bench) -> Result:
  """Segmentation step on four labelled images, and with two, four and eight unlabelled ones beside
  them, which the teacher sees twice; in milliseconds.
  """
  sizes = bench.sizes
  split = random_split(2 * LABELLED, sizes.pretrain_side)
  sides: Sides = {}
  for count in (0, 2, 4, 8):
    fields = {
      'segment__ema_decay': 0.99 if count else 0.0,
      'segment__unlabelled__batch_size': count,
      'segment__unlabelled__agreement': 0.9 if count else 0.0,
    }
    config = configured(sizes.pretrain_width, sizes.pretrain_side, LABELLED, True, **fields)
    sides[f'{count} unlabelled'] = trainings.segmentation(config, split)
  taken = alternate(sides, 2 * bench.seconds)
  figures = [
    figure('unlabelled', name, 'ms', [1e3 * x for x in seconds]) for name, seconds in taken.items()
  ]
  return Result(
    figures, {'unlabelled_vs_labelled_time': ratios(taken['8 unlabelled'], taken['0 unlabelled'])}
  )


def public_loop(bench: Bench) -> Result:
  """The public reproduction's loop, an image a step, against our AHM step at batch 12 with the
  same networks; images/s.
  """
  sizes, batch = bench.sizes, 12
  fields: dict[str, Any] = {'model__agent_trunk': 'vgg16', 'masking__patch_size': 16}
  split = random_split(2 * batch, sizes.pretrain_side)
  sides: Sides = {'ours': trainings.pretraining(pretraining_config(sizes, batch, **fields), split)}
  if has_torch():
    from ahm_jax.benchmark.public_loop import PublicLoop
    from ahm_jax.benchmark.torch_steps import device

    loop = PublicLoop(sizes.pretrain_width, device(bench.platform))
    image = (split.images[0].transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)
    sides['public loop'] = lambda: [loop(image) for _ in range(batch)]
  taken = alternate(sides, bench.seconds)
  found = {}
  if 'public loop' in taken:
    found['ahm_vs_public_loop'] = ratios(taken['public loop'], taken['ours'])
  return Result(
    [_rate('public_loop', name, seconds, batch) for name, seconds in taken.items()], found
  )


def inputs(bench: Bench) -> Result:
  """Images/s of uniform pre-training, resident and streamed, with augmentation, and the share of
  a step spent waiting.
  """
  sizes = bench.sizes
  config = pretraining_config(sizes, masking__strategy='uniform', augmented=True)
  split = random_split(8 * sizes.pretrain_batch, sizes.pretrain_side)
  sides: Sides = {}
  waits: dict[str, list[float]] = {}
  for name, resident in (('resident', True), ('streamed', False)):
    training = trainings.pretraining(config, split, resident)
    waits[name] = []
    sides[name] = functools.partial(_steps_with_waits, training, waits[name])
  taken = alternate(sides, 2 * bench.seconds)
  figures = [
    _rate('input', name, seconds, DEVICE_STEPS * sizes.pretrain_batch)
    for name, seconds in taken.items()
  ]
  for name, seconds in taken.items():
    timed = waits[name][2::2]  # After the call that warmed up, every second one; see `alternate`.
    shares = [100 * wait / whole for wait, whole in zip(timed, seconds, strict=True)]
    figures.append(figure('input', f'{name}, waiting', '% of step', shares))
  return Result(figures, {'streamed_vs_resident': ratios(taken['resident'], taken['streamed'])})


def _steps_with_waits(training: Stepper, waits: list[float]) -> None:
  waited = 0.0
  for _ in range(DEVICE_STEPS):
    started = time.perf_counter()
    batch = training.next_inputs()
    waited += time.perf_counter() - started
    training.step(batch)
    jax.block_until_ready(training.state)
  waits.append(waited)


def scaling(bench: Bench) -> Result:
  """Weak scaling: images/s of AHM steps over 1, 2, 4 and more of the local devices, as many images
  on each.
  """
  devices = parallel.all_devices()
  sides, batches = {}, {}
  for count in (2**i for i in range(len(devices).bit_length())):
    batch = count * bench.sizes.scaling_batch
    config = pretraining_config(bench.sizes, batch, masking__workers=count)
    split = random_split(2 * batch, bench.sizes.pretrain_side)
    name = f'{count} devices' if count > 1 else '1 device'
    sides[name] = trainings.pretraining(config, split, devices=devices[:count])
    batches[name] = batch
  taken = alternate(sides, bench.seconds)
  figures = [_rate('scaling', name, seconds, batches[name]) for name, seconds in taken.items()]
  for name, seconds in taken.items():
    shares = [100 * share for share in ratios(taken['1 device'], seconds)]
    figures.append(figure('scaling', f'{name}, share of linear', '%', shares))
  return Result(figures, {})


def pretraining_config(
  sizes: Sizes, batch: int | None = None, augmented: bool = False, **fields: Any
) -> Config:
  """AHM with the light trunk and four workers at a benchmark's size.

  `fields` as `configured` takes them.
  """
  common = {
    'masking__patch_size': sizes.pretrain_patch,
    'masking__workers': 4,
    'model__agent_trunk': 'light',
  }
  if 'bfloat16' in sizes.dtypes:
    common['model__dtype'] = 'bfloat16'
  batch = batch or sizes.pretrain_batch
  return configured(sizes.pretrain_width, sizes.pretrain_side, batch, augmented, **common | fields)


def _against_torch(bench: Bench, workload: str, ours: Callable, theirs: str) -> Result:
  figures: list[Figure] = []
  found: dict[str, list[float]] = {}
  for batch in bench.sizes.unet_batches:
    sides: Sides = {
      f'ours {dtype}': ours(bench.sizes, batch, dtype) for dtype in bench.sizes.dtypes
    }
    operations = {
      name: side.operations() for name, side in sides.items() if isinstance(side, Stepper)
    }
    sides |= _torch_sides(bench, theirs, bench.sizes.unet_width, bench.sizes.unet_side, batch)
    taken = alternate(sides, bench.seconds)
    for name, seconds in taken.items():
      figures.append(_rate(workload, f'{name}, batch {batch}', seconds, batch))
      if name in operations:
        rates = [operations[name] / 1e12 / x for x in seconds]
        figures.append(figure(workload, f'{name}, batch {batch}', 'TFLOP/s', rates))
        if bench.platform == 'gpu':
          shares = [100 * rate / matrix_rate() for rate in rates]
          figures.append(
            figure(workload, f'{name}, batch {batch}, MFU', '% of matrix rate', shares)
          )
    # The last batch is the largest; a ratio without a batch in its name is that one's.
    key = (
      f'{workload}_vs_torch'
      if batch == bench.sizes.unet_batches[-1]
      else f'{workload}_vs_torch_batch{batch}'
    )
    found |= _best_against_torch(key, taken)
  return Result(figures, found)


@functools.cache
def matrix_rate(side: int = 8192) -> float:
  """What the device does at its best, in TFLOP/s: the product of two bfloat16 matrices of `side`
  x `side`, median of ROUNDS.
  """
  left, right = jax.random.normal(jax.random.key(0), (2, side, side), jnp.bfloat16)
  product = jax.jit(jnp.matmul)
  sides = {'product': lambda: jax.block_until_ready(product(left, right))}
  seconds = alternate(sides, float('inf'))['product']
  return 2 * side**3 / statistics.median(seconds) / 1e12


def _torch_sides(bench: Bench, function: str, width: int, side: int, batch: int) -> Sides:
  if not has_torch():
    return {}
  from ahm_jax.benchmark import torch_steps

  build = getattr(torch_steps, function)
  forms = torch_steps.FORMS[bench.platform]
  return {f'PyTorch {form.name}': build(width, side, batch, form, bench.platform) for form in forms}


def _best_against_torch(key: str, taken: Mapping[str, list[float]]) -> dict[str, list[float]]:
  """Our fastest side against PyTorch's fastest form, by medians.

  Images/s, so their time over ours.
  """
  ours = [seconds for name, seconds in taken.items() if name.startswith('ours')]
  theirs = [seconds for name, seconds in taken.items() if name.startswith('PyTorch')]
  if not theirs:
    return {}
  return {key: ratios(min(theirs, key=statistics.median), min(ours, key=statistics.median))}


def _rate(workload: str, name: str, seconds: list[float], images: int) -> Figure:
  return figure(workload, name, 'images/s', [images / x for x in seconds])


def _our_unet_training(sizes: Sizes, batch: int, dtype: str) -> Stepper:
  config = configured(sizes.unet_width, sizes.unet_side, batch, augmented=False, model__dtype=dtype)
  return trainings.segmentation(config, random_split(2 * batch, sizes.unet_side))


def _our_unet_inference(sizes: Sizes, batch: int, dtype: str) -> Callable[[], None]:
  config = configured(sizes.unet_width, sizes.unet_side, batch, augmented=False, model__dtype=dtype)
  unet = segmentation_unet(config.model)
  images = jnp.asarray(random_split(batch, sizes.unet_side).images)
  variables = init_variables(unet, jax.random.key(0), (1, *images.shape[1:]))
  return lambda: jax.block_until_ready(segment.probabilities(unet, variables, images))


def _our_vgg16(sizes: Sizes, dtype: str) -> Stepper:
  config = configured(
    sizes.vgg_width, sizes.vgg_side, sizes.vgg_batch, augmented=False, model__dtype=dtype
  )
  return trainings.classification(config, random_split(2 * sizes.vgg_batch, sizes.vgg_side))
