"""Runs the exported network; needs jax, numpy, and flatbuffers, which jax.export reads with, and
nothing else.

  python load.py images.npy results.npz

images.npy: IMAGES, images of any one size. results.npz: RESULTS.
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
    platform = {'gpu': 'cuda'}.get(jax.default_backend(), jax.default_backend())
  except (RuntimeError, AssertionError):  # The latter where JAX itself was installed without it.
    sys.exit(refuse('JAX does not find the device that JAX_PLATFORMS names; unset it'))
  if platform not in program.platforms:
    wanted = ', '.join(program.platforms)
    line = f'this program is for {wanted}, and not for {platform}; set JAX_PLATFORMS, or export it '
    sys.exit(refuse(f'{line}for that'))
  with np.load(home / 'weights.npz', allow_pickle=False) as stored:
    weights = jax.device_put({name: stored[name] for name in stored.files})
  return lambda images: jax.tree.map(np.asarray, jax.jit(program.call)(weights, images))


def refuse(line):
  """Prints an error, and returns the exit code for it."""
  print(f'error: {line}', file=sys.stderr)
  return 2


def main():
  """The command."""
  if len(sys.argv) != 3 or pathlib.Path(sys.argv[2]).exists():
    usage = 'python load.py images.npy results.npz'
    sys.exit(refuse(f'give the images and a file that is not there yet: {usage}'))
  results = load()(np.load(sys.argv[1], allow_pickle=False))
  # To np.savez itself, results would be results.npz, which may be there.
  with pathlib.Path(sys.argv[2]).open('xb') as file:
    np.savez(file, **results)


if __name__ == '__main__':
  main()
