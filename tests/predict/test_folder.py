import pytest

from ahm_jax.errors import UserError
from ahm_jax.predict import folder


@pytest.mark.parametrize('name', ['log.txt', 'predict.log', 'slurm-17.out', '.lock', 'run.e12'])
def test_a_log_makes_a_folder_no_less_empty(tmp_path, name):
  (tmp_path / name).write_text('predicting\n')
  folder.check(tmp_path, {})
  (tmp_path / 'mine').touch()
  with pytest.raises(UserError, match='holds other files, and nothing is written over'):
    folder.check(tmp_path, {})


@pytest.mark.parametrize('name', ['made.txt', 'notes.txt', 'masks/a.png', 'run.log/a', 'log'])
def test_what_is_no_log_is_refused(tmp_path, name):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).touch()
  with pytest.raises(UserError, match='holds other files, and nothing is written over'):
    folder.check(tmp_path, {})
