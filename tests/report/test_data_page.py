import pytest

from ahm_jax.errors import UserError
from ahm_jax.report import data_page
from ahm_jax.runtime.json_files import write_json
from tests.hostile_json import DAMAGES


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_file_that_is_no_earlier_check_is_not_written_over(tmp_path, damage):
  (tmp_path / 'check.json').write_bytes(DAMAGES[damage])
  with pytest.raises(UserError, match=r'check\.json is damaged: .*; remove it, or choose another'):
    data_page.check_free(tmp_path)


def test_an_earlier_check_may_be_made_again(tmp_path):
  data_page.check_free(tmp_path)
  (tmp_path / 'check.html').write_text('mine')
  with pytest.raises(UserError, match=r'check\.html is there without check\.json'):
    data_page.check_free(tmp_path)
  write_json(tmp_path / 'check.json', {'format': 1, 'findings': [{'level': 'note'}]})
  data_page.check_free(tmp_path)
