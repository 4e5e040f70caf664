"""Runs the exported network; needs jax, numpy, and flatbuffers, which jax.export reads with, and
nothing else.

  python load.py images.npy results.npz

images.npy: IMAGES, images of any one size. results.npz: RESULTS.
"""

import hashlib
import io
import pathlib
import sys

import jax
import jax.export
import numpy as np

# SHA-256 of the files beside this one. JAX does not notice all damage of a program.
FILES = {
  'program.stablehlo': '',
  'weights.npz': '',
}


def load(home=pathlib.Path(__file__).parent):
  """A function from images, as above, to a dict of arrays."""
  contents = [whole(home / name, digest) for name, digest in FILES.items()]
  program = jax.export.deserialize(bytearray(contents[0]))
  try:
    platform = {'gpu': 'cuda'}.get(jax.default_backend(), jax.default_backend())
  except (RuntimeError, AssertionError):  # The latter where JAX itself was installed without it.
    sys.exit(refuse('JAX does not find the device that JAX_PLATFORMS names; unset it'))
  if platform not in program.platforms:
    wanted = ', '.join(program.platforms)
    line = f'this program is for {wanted}, and not for {platform}; set JAX_PLATFORMS, or export it '
    sys.exit(refuse(f'{line}for that'))
  archive = io.BytesIO(contents[1])
  with np.load(archive, allow_pickle=False) as stored:
    weights = jax.device_put({name: stored[name] for name in stored.files})
  return lambda images: jax.tree.map(np.asarray, jax.jit(program.call)(weights, images))


def whole(path, digest):
  """What a file holds; ends the process where that is not what was exported."""
  try:
    content = path.read_bytes()
  except OSError as error:
    sys.exit(refuse(f'{path} cannot be read ({error.strerror}); copy the whole export again'))
  if hashlib.sha256(content).hexdigest() != digest:
    sys.exit(refuse(f'{path} is not what was exported; copy the whole export again'))
  return content


def images_in(path):
  """The images in a file; ends the process where there are none."""
  try:
    images = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    sys.exit(refuse(f'{path} cannot be read as images.npy ({error})'))
  if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
    sys.exit(refuse(f'{path} does not hold images of the type IMAGES'))
  return images


def refuse(line):
  """Prints an error, and returns the exit code for it."""
  print('error: ' + ' '.join(line.split()), file=sys.stderr)
  return 2


def main():
  """The command."""
  if len(sys.argv) != 3 or pathlib.Path(sys.argv[2]).exists():
    usage = 'python load.py images.npy results.npz'
    sys.exit(refuse(f'give the images and a file that is not there yet: {usage}'))
  images = images_in(sys.argv[1])
  try:
    results = load()(images)
  except ValueError as error:  # Of other channels.
    sys.exit(refuse(f'the program cannot take {sys.argv[1]} ({str(error)[:200]})'))
  # To np.savez itself, results would be results.npz, which may be there.
  with pathlib.Path(sys.argv[2]).open('xb') as file:
    np.savez(file, **results)


if __name__ == '__main__':
  main()
