"""What an error comes from."""

import errno
import os

import pytest

from ahm_jax.errors import REFUSALS, chain, full_disk, refusal
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


def tensorstores(said, code=None):
  code = f" [os_error_code='{code}']" if code else ''
  return ValueError(f'FAILED_PRECONDITION: Failed to open "/runs/a": {said}{code}')


REFUSED = {
  **{errno.errorcode[number]: OSError(number, os.strerror(number)) for number in REFUSALS},
  **{f'text {number}': tensorstores(os.strerror(number)) for number in REFUSALS},
  **{f'code {number}': tensorstores(os.strerror(number), number) for number in REFUSALS},
}
OTHER = (errno.EINVAL, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EBADMSG)
NOT_REFUSED = {
  'a decoder': OSError('decoder error -2'),
  'damage': tensorstores('CRC-32C checksum verification failed'),
  'a fault': ValueError('shapes differ'),
  **{f'text {number}': tensorstores(os.strerror(number)) for number in OTHER},
  **{f'code {number}': tensorstores(os.strerror(number), number) for number in OTHER},
  **{f'number {number}': OSError(number, os.strerror(number)) for number in OTHER},
  'a path': tensorstores('Is a directory: "Permission denied"', errno.EISDIR),
}


@pytest.mark.parametrize('error', REFUSED.values(), ids=REFUSED)
def test_what_the_system_refuses_is_told_in_its_words(error):
  assert refusal(error) in {os.strerror(number) for number in REFUSALS}
  assert refusal(error) in str(error)


@pytest.mark.parametrize('error', NOT_REFUSED.values(), ids=NOT_REFUSED)
def test_what_the_system_does_not_refuse(error):
  assert refusal(error) is None
