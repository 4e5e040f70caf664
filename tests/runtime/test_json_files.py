import json
import math

import pytest

from ahm_jax.errors import UserError
from ahm_jax.runtime.json_files import read_json, write_json


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path):
  path = tmp_path / 'scores.json'
  write_json(path, {'dice': (0.5, math.nan), 'by': {'a': math.inf, 'b': 1}})
  assert read_json(path) == {'dice': [0.5, None], 'by': {'a': None, 'b': 1}}
  assert [item.name for item in tmp_path.iterdir()] == ['scores.json']
  write_json(path, [])
  assert json.loads(path.read_text()) == []


def test_no_file_is_none_and_no_json_is_named(tmp_path):
  assert read_json(tmp_path / 'none.json') is None
  (tmp_path / 'cut.json').write_text('{"dice": ')
  with pytest.raises(UserError, match=r'cut\.json cannot be read as JSON'):
    read_json(tmp_path / 'cut.json')
