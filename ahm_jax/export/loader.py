"""The text of load.py, which is written beside a StableHLO program."""

_TEXT = '''"""Runs the exported network; needs jax and flatbuffers, which jax.export reads with, and nothing else.

  python load.py images.npy results.npz

images.npy: uint8 [b, h, w, {channels}], images of any one size. results.npz: {results}.
"""

import pathlib
import sys

import jax
import jax.export
import numpy as np


def load(home=pathlib.Path(__file__).parent):
  """A function from images, as above, to a dict of arrays."""
  program = jax.export.deserialize(bytearray((home / 'program.stablehlo').read_bytes()))
  try:
    platform = {{'gpu': 'cuda'}}.get(jax.default_backend(), jax.default_backend())
  except (RuntimeError, AssertionError):  # The latter where JAX itself was installed without it.
    sys.exit(refuse('JAX does not find the device that JAX_PLATFORMS names; unset it'))
  if platform not in program.platforms:
    wanted = ', '.join(program.platforms)
    sys.exit(refuse(f'this program is for {{wanted}}, and not for {{platform}}; set JAX_PLATFORMS, or export it for that'))
  with np.load(home / 'weights.npz', allow_pickle=False) as stored:
    weights = jax.device_put({{name: stored[name] for name in stored.files}})
  return lambda images: jax.tree.map(np.asarray, jax.jit(program.call)(weights, images))


def refuse(line):
  print(f'error: {{line}}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  if len(sys.argv) != 3 or pathlib.Path(sys.argv[2]).exists():
    sys.exit(refuse('give the images and a file that is not there yet: python load.py images.npy results.npz'))
  results = load()(np.load(sys.argv[1], allow_pickle=False))
  with open(sys.argv[2], 'xb') as file:  # To np.savez itself, results would be results.npz, which may be there.
    np.savez(file, **results)
'''

_RESULTS = {
  'segment': 'mask, uint8 [b, h, w], and probabilities, float32 [b, h, w, ...]',
  'classify': 'class, int32 [b], and probabilities, float32 [b, classes]',
}


def text(stage: str, channels: int) -> str:
  return _TEXT.format(channels=channels, results=_RESULTS[stage])
