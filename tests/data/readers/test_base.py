"""What becomes of the errors that decoders and the system raise."""

import errno
import os
from pathlib import Path

import pytest

from ahm_jax.data.readers.base import UnavailableFile, Unreadable, decoding


def numbered(number: int) -> OSError:
  return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
  ('error', 'said'),
  [(numbered(number), os.strerror(number)) for number in (errno.EACCES, errno.EIO, errno.EMFILE)]
  + [(MemoryError(), 'does not fit into memory')],
)
def test_what_the_system_refuses_is_not_called_damaged(error, said):
  with (
    pytest.raises(UnavailableFile, match=rf'^images/a\.png .*{said}'),
    decoding(Path('images/a.png')),
  ):
    raise error


@pytest.mark.parametrize(
  'error', [OSError('truncated'), numbered(errno.EINVAL), ValueError(), SyntaxError(), EOFError()]
)
def test_what_a_decoder_stumbles_over_is_unreadable(error):
  with pytest.raises(Unreadable, match=r'^images/a\.png$'), decoding(Path('images/a.png')):
    raise error
