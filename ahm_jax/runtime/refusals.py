"""What the system, JAX or the locale refuse, which is no fault of the program, in one line."""

import errno
import os
import sys

from ahm_jax.errors import REFUSALS, chain, printable

_AGAIN = 'then run the same command again'


def explain(error: BaseException) -> str | None:
  """What was refused, and what to do; None where `error` is something else."""
  for found in chain(error):
    if said := _explain(found):
      return said
  return None


def _explain(error: BaseException) -> str | None:
  text = ' '.join(str(error).split())
  if isinstance(error, MemoryError) or _is_out_of_memory(text):
    return f'out of memory ({text or "MemoryError"}); take a smaller batch_size or image_size, ' + (
      f'or free memory; {_AGAIN}'
    )
  if isinstance(error, OSError):
    return _of_system(error)
  if isinstance(error, UnicodeError) and not _is_utf8():
    return (
      f'the locale of this process is {sys.getfilesystemencoding()}, which has no room for a name '
      'or text here; run the same command again with PYTHONUTF8=1 before it'
    )
  if raised_in(error) == 'jax._src.xla_bridge':
    platforms = f' for JAX_PLATFORMS={asked}' if (asked := os.environ.get('JAX_PLATFORMS')) else ''
    said = f' ({text.partition(" (set JAX_")[0].rstrip(".")})' if text else ''
    return f'JAX finds no device{platforms}{said}; set it to what is here, such as cpu, or unset it'
  if not isinstance(error, RuntimeError):
    return None
  if 'home directory' in text:
    return 'a path begins with ~, and this user has no home directory; give it in full'
  if 'start new thread' in text:
    return f'the system lets this process start no more threads; raise ulimit -u, {_AGAIN}'
  return None


def raised_in(error: BaseException) -> str:
  """The module in which an error was raised; '' where it was not raised."""
  trace = error.__traceback__
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
  return '' if trace is None else str(trace.tb_frame.f_globals.get('__name__'))


def _is_out_of_memory(text: str) -> bool:
  return 'RESOURCE_EXHAUSTED' in text or 'std::bad_alloc' in text


def _of_system(error: OSError) -> str | None:
  if 'usable temporary directory' in str(error):
    return f'there is no folder for temporary files; set TMPDIR to one, {_AGAIN}'
  if error.errno not in REFUSALS:
    return None
  where = ' and '.join(printable(name) for name in _names(error))
  said = f'{where}: {error.strerror}' if where else f'{error.strerror}'
  if error.errno in (errno.EMFILE, errno.ENFILE):
    return f'{said}; raise the limit on open files (ulimit -n), {_AGAIN}'
  return f'{said}; see to it, {_AGAIN}'


def _names(error: OSError) -> list[str]:
  names = (error.filename, error.filename2)
  return [os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike)]


def _is_utf8() -> bool:
  return sys.getfilesystemencoding().lower().replace('-', '') == 'utf8'
