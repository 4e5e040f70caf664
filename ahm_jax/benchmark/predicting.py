"""`launch.predict` against the network alone, and its memory against the number of images."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from ahm_jax.benchmark.timing import alternate, figure, ratios
from ahm_jax.benchmark.trainings import configured
from ahm_jax.benchmark.workloads import Bench, Result
from ahm_jax.models.layers import init_variables
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.predict.options import Options
from ahm_jax.predict.run import predict
from ahm_jax.predict.stream import forward
from ahm_jax.runs.trained import Trained

# Width and height of the JPEGs, those of most of ISIC 2018's classification images.
PHOTOGRAPH = (600, 450)
BATCH = 8
COUNTS = (100, 10_000)  # Images whose memory is compared.
CONFIG = 'smoke'


def predicting(bench: Bench) -> Result:
  """Predicting a folder of JPEGs, from files to files, against the forward pass of as many
  images in memory, in images/s.
  """
  sizes, figures, found = bench.sizes, [], {}
  for name, width, side, count in (
    ('network-bound', sizes.predict_width, sizes.predict_side, sizes.predict_images),
    (
      'file-bound',
      max(1, sizes.predict_width // 8),
      max(16, sizes.predict_side // 4 // 16 * 16),
      4 * sizes.predict_images,
    ),
  ):
    segmenter = untrained(width, side)
    with tempfile.TemporaryDirectory() as folder:
      draw(Path(folder) / 'images', count)
      taken = alternate(_sides(segmenter, Path(folder), count), bench.seconds)
    for what, seconds in taken.items():
      rates = [count / x for x in seconds]
      figures.append(
        figure('predict', f'{what}, {name} (width {width}, {side} px)', 'images/s', rates)
      )
    key = 'predict_vs_forward' if name == 'network-bound' else 'predict_vs_forward_file_bound'
    found[key] = ratios(taken['forward pass'], taken['predict'])
  return Result(figures, found)


def untrained(width: int, side: int) -> Trained:
  """A segmenter with random weights."""
  config = configured(width, side, BATCH, augmented=False)
  variables = init_variables(SEGMENT.network(config, ()), jax.random.key(0), (1, side, side, 3))
  return Trained(
    Path('untrained'),
    SEGMENT,
    config,
    0,
    {name: variables[name] for name in ('params', 'batch_stats')},
  )


def draw(root: Path, count: int) -> None:
  """`count` JPEGs with as much detail as a photograph."""
  root.mkdir()
  rng = np.random.default_rng(0)
  for number in range(count):
    coarse = Image.fromarray(rng.integers(0, 256, (45, 60, 3), np.uint8)).resize(
      PHOTOGRAPH, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + rng.integers(-8, 9, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
      root / f'{number:05d}.jpg', quality=90
    )


def _sides(segmenter: Trained, folder: Path, count: int) -> dict:
  batch = np.random.default_rng(0).integers(
    0, 256, (BATCH, segmenter.image_size, segmenter.image_size, 3), np.uint8
  )
  variables, run = jax.device_put(segmenter.variables), forward(segmenter, flips=False)

  def network():
    jax.block_until_ready([run(variables, batch) for _ in range(-(-count // BATCH))])

  def files():
    with tempfile.TemporaryDirectory(dir=folder) as out:
      assert (
        predict(segmenter, folder / 'images', Path(out), Options(0.5), batch_size=BATCH).done
        == count
      )

  return {'forward pass': network, 'predict': files}


def memory(bench: Bench) -> Result:
  """The most memory that `launch.predict` takes for 100 and for 10,000 small images, in MiB.

  A process of its own for each.
  """
  del bench
  figures, peaks = [], []
  with tempfile.TemporaryDirectory() as folder:
    home = Path(folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(
      home / 'image.jpg'
    )
    _launch(
      'segment', f'--config={CONFIG}', f'--workdir={home / "run"}', '--config.segment.steps=1'
    )
    for count in COUNTS:
      (home / f'images{count}').mkdir()
      for number in range(count):
        os.link(home / 'image.jpg', home / f'images{count}' / f'{number:05d}.jpg')
      flags = (
        f'--checkpoint={home / "run"}',
        f'--images={home}/images{count}',
        f'--out={home}/out{count}',
      )
      peaks.append(_launch('predict', *flags))
      figures.append(figure('predict_memory', f'{count} images', 'MiB', [peaks[-1]]))
  return Result(figures, {'predict_memory_10000_vs_100': [peaks[1] / peaks[0]]})


def _launch(stage: str, *flags: str) -> float:
  """The highest resident set of a command, in MiB."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'ahm_jax.api.command', stage, *flags],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise RuntimeError(f'{stage} {" ".join(flags)} ended with {process.returncode}')
  return usage.ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)
