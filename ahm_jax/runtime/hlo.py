"""What the operations of a compiled program are: kind and source of each, from its HLO text."""

import collections
import re
from collections.abc import Iterable

_CONTAINERS = {'while', 'call', 'conditional'}  # Their time is that of the operations inside.
_MOVES = {
  'copy',
  'transpose',
  'bitcast',
  'reshape',
  'slice',
  'concatenate',
  'pad',
  'broadcast',
  'reverse',
  'dynamic-slice',
}
_NOTHING = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'iota'}
_COMMUNICATION = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?[\])}] ([a-z][\w\-]*)\(')


def describe(program: str) -> dict[str, tuple[str, str]]:
  """Kind and source of every operation of a compiled program, given as HLO text.

  Containers are left out.
  """
  inside: dict[str, set[str]] = collections.defaultdict(set)  # Opcodes of each computation.
  lines = []
  computation = ''
  for line in program.splitlines():
    if header := _COMPUTATION.match(line):
      computation = header[1]
    elif found := _INSTRUCTION.match(line):
      inside[computation].add(_opcode(line, found[2]))
      lines.append((found[1], found[2], line))
  described = {}
  for name, opcode, line in lines:
    called = re.search(r'calls=%?([\w.\-]+)', line)
    opcodes = inside[called[1]] if called and opcode == 'fusion' else {_opcode(line, opcode)}
    source = re.search(r'op_name="([^"]*)"', line)
    if opcode not in _CONTAINERS:
      described[name] = _kind(opcodes), _short(source[1]) if source else ''
  return described


def _opcode(line: str, opcode: str) -> str:
  """A custom call goes by what it calls."""
  target = re.search(r'custom_call_target="([^"]*)"', line)
  return target[1].lower() if target and opcode == 'custom-call' else opcode


def _kind(opcodes: Iterable[str]) -> str:
  opcodes = set(opcodes) - _NOTHING
  if any('conv' in opcode and 'convert' not in opcode for opcode in opcodes):
    return 'convolution'
  if any(opcode == 'dot' or 'gemm' in opcode or 'matmul' in opcode for opcode in opcodes):
    return 'matrix'
  if any(opcode.startswith(_COMMUNICATION) for opcode in opcodes):
    return 'communication'
  return 'copy' if opcodes <= _MOVES else 'elementwise'


def _short(source: str) -> str:
  """The last parts of a path such as
  jit(step)/transpose(jvp(UNet))/encoder1/first/convolution/conv_general_dilated.
  """
  backward = 'backward ' if 'transpose(' in source else ''
  return backward + '/'.join(re.sub(r'\w+\(.*\)/', '', source).split('/')[-4:])
