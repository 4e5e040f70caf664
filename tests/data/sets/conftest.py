"""A data set of nnU-Net."""

import pytest

from tests.data.sets.nnunet_set import SIX, NnUNet


@pytest.fixture
def plain(tmp_path):
  """Six cases of one label, without splits."""
  return NnUNet(tmp_path / 'Dataset001_Set').add(*SIX)
