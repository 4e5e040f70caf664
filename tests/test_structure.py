"""What keeps the package in order: imports run downward, and some things have one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'ahm_jax'
# From the ground up: a folder, or a loose module, may import those before it, and none after it.
ORDER = (
  *('errors', 'task', 'config', 'runtime', 'models', 'data', 'masking', 'runs', 'weights'),
  *('selection', 'evaluation', 'training', 'report', 'sam', 'pipeline', 'predict', 'export'),
  *('benchmark', 'api'),
)
LOOSE = 3  # At most so many modules lie beside the folders.


def folder(module: str) -> str:
  return module.split('.')[1]


def imports(path: Path) -> set[str]:
  """The folders that a file imports, at its head or within functions."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('ahm_jax.'):
      found.add(folder(node.module))
    elif isinstance(node, ast.ImportFrom) and node.module == 'ahm_jax':
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.Import):
      found |= {folder(name.name) for name in node.names if name.name.startswith('ahm_jax.')}
  return found


def test_every_room_has_its_place():
  places = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob('*.py')}
  assert {place.removesuffix('.py') for place in places} - {'__init__'} == set(ORDER)
  assert len(list(PACKAGE.glob('*.py'))) <= LOOSE


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: path.stem)
def test_imports_run_downward(path):
  own = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
  if own == '__init__':
    return
  above = [name for name in imports(path) if ORDER.index(name) > ORDER.index(own)]
  assert not above, f'{path.relative_to(PACKAGE)} imports {above}, which lie above {own}'


@pytest.mark.parametrize(
  ('call', 'place'),
  [
    ('jax.pmap(', 'training/parallel_step.py'),
    ('import orbax', 'runs/checkpoints.py'),
    ('profiler.start_trace(', 'runtime/profiler.py'),
    ('fcntl.flock(', {'runtime/locks.py'}),
    # Of files by `json_files.parse`, but for two that say why; the others copy what they hold.
    (
      'json.loads(',
      {
        *('runtime/json_files.py', 'runs/checkpoint_files.py', 'predict/made.py'),
        *('config/differences.py', 'predict/folder.py'),
      },
    ),
  ],
)
def test_what_has_one_place(call, place):
  found = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob('*.py')
    if call in path.read_text(encoding='utf-8')
  }
  assert found == ({place} if isinstance(place, str) else place)
