"""What an error comes from."""

import errno
import os

import pytest

from ahm_jax.errors import chain, full_disk
from ahm_jax.runtime import refusals


def raised(error, cause, hidden=False):
  """An error that was raised while another one was handled, as if `from None` where hidden."""
  try:
    try:
      raise cause
    finally:
      raise error
  except KeyError as found:
    found.__suppress_context__ = hidden
    return found


def test_a_chain_is_what_a_traceback_shows():
  cause = OSError(errno.EACCES, os.strerror(errno.EACCES), '/y')
  assert list(chain(raised(KeyError('x'), cause)))[1] is cause
  assert len(list(chain(raised(KeyError('x'), cause, hidden=True)))) == 1
  assert list(chain(None)) == []
  first, second = KeyError('a'), KeyError('b')
  first.__cause__, second.__cause__ = second, first
  assert list(chain(first)) == [first, second]


@pytest.mark.parametrize('hidden', [True, False])
def test_what_was_hidden_explains_nothing(hidden):
  for number, explain in ((errno.EACCES, refusals.explain), (errno.ENOSPC, full_disk)):
    cause = OSError(number, os.strerror(number), '/y')
    assert (explain(raised(KeyError('x'), cause, hidden)) is None) == hidden
