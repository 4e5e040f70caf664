"""What the files about the project say is what holds."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))


def test_the_citation_is_that_of_the_readme():
  yaml = pytest.importorskip('yaml')
  told = yaml.safe_load((ROOT / '.github/CITATION.cff').read_text(encoding='utf-8'))
  assert {'cff-version', 'message', 'title', 'authors'} <= set(told)
  assert told['title'] == PROJECT['project']['name'] and 'version' not in told
  assert told['license'] == PROJECT['project']['license']['text']
  (paper,) = told['references']
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  assert f'doi = {{{paper["doi"]}}}' in readme and f'title = {{{paper["title"]}}}' in readme
  authors = ' and '.join(author['family-names'] for author in paper['authors'])
  assert f'author = {{{authors}}}, year = {{{paper["year"]}}}' in readme
  assert f'{{{paper["start"]}--{paper["end"]}}}' in readme


@pytest.mark.parametrize('name', ['CONTRIBUTING.md', 'CHANGELOG.md'])
def test_links_lead_somewhere(name):
  text = (ROOT / '.github' / name).read_text(encoding='utf-8')
  for link in re.findall(r'\]\(([^)#]+)', text):
    assert (ROOT / '.github' / link).exists(), link
  for place in re.findall(r'`((?:tests|launch|\.ci|\.assets|ahm_jax)/[\w./]+)`', text):
    assert (ROOT / place).exists() or 'FOLDER' in place, place


def test_every_package_is_installed():
  packages = PROJECT['tool']['setuptools']['packages']
  found = {'.'.join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob('ahm_jax/**/*.py')}
  assert set(packages) == found | {'ahm_jax.configs', 'ahm_jax.launch'}
  assert len(set(packages)) == len(packages)
