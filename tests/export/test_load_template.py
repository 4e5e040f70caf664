"""load.py, which is written beside a StableHLO program, on a planted one."""

import ast
import hashlib
import sys

import jax
import jax.export
import numpy as np
import pytest

from ahm_jax.export import load_template, stablehlo

pytest.importorskip('flatbuffers')


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A folder with a program that adds what its weights hold, and the loader."""
  program = jax.jit(lambda weights, images: {'sum': images + weights['a/b'], 'twice': images * 2})
  sizes = jax.export.symbolic_shape('b, h, w, 3')
  abstract = {'a/b': jax.ShapeDtypeStruct((), np.float32)}, jax.ShapeDtypeStruct(sizes, np.uint8)
  exported = jax.export.export(program, platforms=('cpu',))(*abstract)
  (tmp_path / stablehlo.PROGRAM).write_bytes(exported.serialize())
  np.savez(tmp_path / stablehlo.WEIGHTS, **{'a/b': np.float32(3)})
  results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  digests = stablehlo.digests(tmp_path)
  monkeypatch.setattr(load_template, 'FILES', digests)
  (tmp_path / stablehlo.LOADER).write_text(stablehlo.loader(abstract[1], results, digests))
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
  for name in (stablehlo.PROGRAM, stablehlo.WEIGHTS):
    digest = hashlib.sha256((home / name).read_bytes()).hexdigest()
    assert f"'{name}': '{digest}'" in written
    written = written.replace(digest, '')
  code = written.partition('import pathlib')[2], template.partition('import pathlib')[2]
  assert code[0].replace('uint8 [b, h, w, 3]', 'IMAGES') == code[1]


def refusal(home, monkeypatch, capsys, images='images.npy'):
  monkeypatch.setattr(load_template.load, '__defaults__', (home,))
  monkeypatch.setattr(sys, 'argv', ['load.py', str(home / images), str(home / 'results')])
  with pytest.raises(SystemExit) as ended:
    load_template.main()
  said = capsys.readouterr()
  assert (ended.value.code, said.out, said.err.count('\n')) == (2, '', 1)
  assert not (home / 'results').exists()
  return said.err


@pytest.mark.parametrize('name', [stablehlo.PROGRAM, stablehlo.WEIGHTS])
@pytest.mark.parametrize('damage', ['cut short', 'empty', 'one bit', 'garbage', 'gone', 'a folder'])
def test_a_file_that_is_not_whole_is_refused_in_a_line(home, monkeypatch, capsys, name, damage):
  content = (home / name).read_bytes()
  (home / name).unlink()
  if damage == 'a folder':
    (home / name).mkdir()
  elif damage != 'gone':
    (home / name).write_bytes(
      {
        'cut short': content[:-7],
        'empty': b'',
        'one bit': bytes([*content[:99], content[99] ^ 1, *content[100:]]),
        'garbage': np.random.default_rng(0).bytes(len(content)),
      }[damage]
    )
  np.save(home / 'images.npy', np.zeros((1, 2, 4, 3), np.uint8))
  line = refusal(home, monkeypatch, capsys)
  said = 'cannot be read (' if damage in ('gone', 'a folder') else 'is not what was exported; '
  assert line.startswith(f'error: {home / name} {said}')
  assert line.endswith('copy the whole export again\n')


@pytest.mark.parametrize(
  ('images', 'said'),
  [
    (np.zeros((2, 4, 3), np.uint8), 'does not hold images of the type'),
    (np.zeros((1, 2, 4, 3), np.float32), 'does not hold images of the type'),
    (np.zeros((1, 2, 4, 1), np.uint8), 'the program cannot take'),
    (np.zeros((1, 2, 4, 3), object), 'cannot be read as images.npy'),
    (None, 'cannot be read as images.npy'),
  ],
)
def test_images_that_do_not_fit_are_refused_in_a_line(home, monkeypatch, capsys, images, said):
  if images is not None:
    np.save(home / 'images.npy', images)
  assert said in refusal(home, monkeypatch, capsys)


def test_it_needs_nothing_but_jax_and_numpy():
  nodes = list(ast.walk(ast.parse(stablehlo.TEMPLATE.read_text())))
  assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
  imports = [node for node in nodes if isinstance(node, ast.Import)]
  names = {name.name for node in imports for name in node.names}
  assert names == {'hashlib', 'io', 'pathlib', 'sys', 'jax', 'jax.export', 'numpy'}
