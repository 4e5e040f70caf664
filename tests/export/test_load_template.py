"""load.py, which is written beside a StableHLO program, on a planted one."""

import ast
import sys

import jax
import jax.export
import numpy as np
import pytest

from ahm_jax.export import load_template, stablehlo

pytest.importorskip('flatbuffers')


@pytest.fixture
def home(tmp_path):
  """A folder with a program that adds what its weights hold, and the loader."""
  program = jax.jit(lambda weights, images: {'sum': images + weights['a/b'], 'twice': images * 2})
  sizes = jax.export.symbolic_shape('b, h, w, 3')
  abstract = {'a/b': jax.ShapeDtypeStruct((), np.float32)}, jax.ShapeDtypeStruct(sizes, np.uint8)
  exported = jax.export.export(program, platforms=('cpu',))(*abstract)
  (tmp_path / stablehlo.PROGRAM).write_bytes(exported.serialize())
  np.savez(tmp_path / stablehlo.WEIGHTS, **{'a/b': np.float32(3)})
  results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  (tmp_path / stablehlo.LOADER).write_text(stablehlo.loader(abstract[1], results))
  return tmp_path


def test_it_runs_the_program_and_is_a_command(home, monkeypatch, capsys):
  images = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
  found = load_template.load(home)(images)
  assert found.keys() == {'sum', 'twice'} and found['sum'].dtype == np.float32
  np.testing.assert_array_equal(found['sum'], images + np.float32(3))

  np.save(home / 'images.npy', images)
  monkeypatch.setattr(load_template.load, '__defaults__', (home,))
  monkeypatch.setattr(sys, 'argv', ['load.py', str(home / 'images.npy'), str(home / 'results')])
  load_template.main()
  with np.load(home / 'results', allow_pickle=False) as stored:
    np.testing.assert_array_equal(stored['sum'], found['sum'])
  with pytest.raises(SystemExit) as ended:
    load_template.main()
  assert ended.value.code == 2
  assert capsys.readouterr().err == (
    'error: give the images and a file that is not there yet: python load.py images.npy '
    'results.npz\n'
  )


def test_what_is_written_is_the_template_with_shapes(home):
  written, template = (home / stablehlo.LOADER).read_text(), stablehlo.TEMPLATE.read_text()
  said = ast.get_docstring(ast.parse(written))
  assert 'images.npy: uint8 [b, h, w, 3], images of any one size. ' in said
  assert 'results.npz: sum, float32 [b, h, w, 3], and twice, uint8 [b, h, w, 3].' in said
  assert written.partition('import pathlib')[2] == template.partition('import pathlib')[2]


def test_it_needs_nothing_but_jax_and_numpy():
  nodes = list(ast.walk(ast.parse(stablehlo.TEMPLATE.read_text())))
  assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
  imports = [node for node in nodes if isinstance(node, ast.Import)]
  names = {name.name for node in imports for name in node.names}
  assert names == {'pathlib', 'sys', 'jax', 'jax.export', 'numpy'}
