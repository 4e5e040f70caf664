"""Streams of processes of their own, which are closed, full, gone or of few letters."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, faulthandler, os, sys
from ahm_jax.runtime import streams
streams.make_steady()
faulthandler.enable(sys.stderr)
with open(sys.argv[1], 'w') as file:
  for line in range(3):
    print('\\xe9t\\xe9', line, '\\udcff', flush=True)
    print('error', line, file=sys.stderr)
    with contextlib.suppress(OSError):
      os.write(2, b'from C++\\n')
  file.write('work')
"""
DROPPED = 'standard output cannot be written ({}); it is dropped'
CASES = {  # What follows the command, and what stands on the two streams, beside 'from C++'.
  '': (['\\xe9t\\xe9 {} \\udcff'] * 3, ['error {}'] * 3),
  '>&-': ([], ['error {}'] * 3),
  '2>&-': (['\\xe9t\\xe9 {} \\udcff'] * 3, []),
  '<&- >&- 2>&-': ([], []),
  '>/dev/full': ([], [DROPPED.format('No space left on device'), *['error {}'] * 3]),
  '2>/dev/full': (['\\xe9t\\xe9 {} \\udcff'] * 3, []),
  '> >(exec true)': ([], [DROPPED.format('Broken pipe'), *['error {}'] * 3]),
}


@pytest.mark.parametrize('after', CASES)
def test_a_stream_that_cannot_be_written_stops_nothing(tmp_path, after):
  command = f'exec "$@" {after}'
  if 'exec true' in after:  # Whose reader is gone by then.
    command = f'{{ sleep 0.3; exec "$@"; }} {after}'
  variables = {
    'PYTHONIOENCODING': 'ascii',
    'LC_ALL': 'C',
    'PYTHONUTF8': '0',
    'PATH': '/usr/bin:/bin',
  }
  done = subprocess.run(
    ['bash', '-c', command, 'bash', sys.executable, '-c', SCRIPT, tmp_path / 'file'],
    env=variables,
    capture_output=True,
    text=True,
    check=False,
  )
  out, err = CASES[after]
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'file').read_text() == 'work'
  errors = [line for line in done.stderr.splitlines() if line != 'from C++']
  assert done.stdout.splitlines() == [line.format(i) for i, line in enumerate(out)]
  said = len(err) - 3 if err else 0
  assert errors == err[:said] + [line.format(i) for i, line in enumerate(err[said:])]


NATIVE = """
import os, sys
from ahm_jax.runtime import streams, native_errors
streams.make_steady()
native = native_errors.NativeErrors()
os.write(2, b'''I0000 00:00:00.1 9 cuda.cc:1] a note
of two lines
F1130 11:28:28.2 9 client.h:80] Terminating process because the JAX distributed service detected
fatal errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy:
1
*** Check failure stack trace: ***
    @     0x7f696f840634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
W1130 11:28:29.2 9 other.cc:80] another note
''')
native.pass_on()
print('the end', native.reason, file=sys.stderr)
"""


def test_what_cpp_writes_is_passed_on_without_its_stack_traces():
  done = subprocess.run([sys.executable, '-c', NATIVE], capture_output=True, text=True, check=False)
  assert done.stderr.splitlines() == [
    'I0000 00:00:00.1 9 cuda.cc:1] a note',
    'of two lines',
    'W1130 11:28:29.2 9 other.cc:80] another note',
    'the end The following tasks are unhealthy',
  ]


PARTS = """
import os, sys
from ahm_jax.runtime import native_errors
native_errors._EVERY = 1e9
native = native_errors.NativeErrors()
for part in sys.argv[1:]:
  os.write(2, os.fsencode(part))
  native.pass_on(is_last=False)
native.pass_on()
native.pass_on()
"""
TRACE = (
  'W1130 11:28:29.2 9 a.cc:8] notè\n@@\n*** Check failure stack trace: ***\n    @     0x7f6 b\nend'
)


@pytest.mark.parametrize('size', [1, 7, 1000])
def test_lines_that_come_in_parts_are_whole(size):
  """However often one looks: also amid a character, and amid what tells a stack trace."""
  data = TRACE.encode()
  parts = [os.fsdecode(data[start : start + size]) for start in range(0, len(data), size)]
  command = [sys.executable, '-c', PARTS, *parts]
  done = subprocess.run(command, capture_output=True, check=False)
  assert done.stderr.decode() == 'W1130 11:28:29.2 9 a.cc:8] notè\n@@\nend\n'


LOGGED = """
import logging, sys
logging.basicConfig()
from ahm_jax.runtime import streams
streams.make_steady()
assert logging.root.handlers[0].stream is sys.stderr
logging.error('once')
"""


def test_loggers_write_to_the_new_stream():
  command = [sys.executable, '-c', LOGGED]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (0, 'ERROR:root:once\n')
