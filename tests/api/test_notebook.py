"""The notebook, whose code is run as it stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / '.assets/quickstart.ipynb'
RUN = """
import json, sys
cells = [cell for cell in json.load(open(sys.argv[1]))['cells'] if cell['cell_type'] == 'code']
for number, cell in enumerate(cells):
  exec(compile(''.join(cell['source']), f'cell {number}', 'exec'))
assert results[0].mask.shape == (96, 96) and results[1].mask.shape == (160, 160)
assert results[1].overlay().shape == (160, 160, 3) and 0 <= scores['dice'] <= 1
assert (run / 'evaluation.json').exists() and len(figure.axes) == 3
print('cells done:', len(cells))
"""


@pytest.fixture(scope='module')
def notebook():
  return json.loads(NOTEBOOK.read_text(encoding='utf-8'))


def test_its_cells_run_in_order(notebook, tmp_path):
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'MPLBACKEND': 'Agg', 'TMPDIR': str(tmp_path)}
  done = subprocess.run(
    [sys.executable, '-c', RUN, NOTEBOOK],
    env=environment | {'PYTHONPATH': str(NOTEBOOK.parents[1])},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  count = sum(cell['cell_type'] == 'code' for cell in notebook['cells'])
  assert done.stdout.endswith(f'cells done: {count}\n') and count >= 6
  assert 'Prediction(images[1], 160 x 160 pixels: ' in done.stdout
  assert 'image is of float64; give uint8, or say which values are black and white' in done.stdout
  assert {path.name for path in tmp_path.glob('*/*')} >= {'pretrained', 'segmented'}


def test_it_is_kept_without_outputs(notebook):
  assert notebook['nbformat'] == 4
  for cell in notebook['cells']:
    assert cell['id'] and cell['source']
    assert cell['cell_type'] != 'code' or (cell['outputs'] == [] and not cell['execution_count'])
