import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.predict.model import load_segmenter


def test_the_digest_is_that_of_the_weights(segmenter, make_segmenter):
  assert make_segmenter().digest == segmenter.digest != make_segmenter(seed=1).digest


def test_what_it_says_of_itself(make_segmenter):
  binary, classes = make_segmenter(), make_segmenter(('a', 'b'), channels=1)
  assert (binary.image_size, binary.channels, binary.mask_classes, binary.class_names) == (
    16,
    3,
    (),
    ('lesion',),
  )
  assert (classes.channels, classes.class_names) == (1, ('a', 'b'))
  assert binary.probabilities(binary.variables, np.zeros((2, 16, 16, 3), np.uint8)).shape == (
    2,
    16,
    16,
  )
  found = np.asarray(classes.probabilities(classes.variables, np.zeros((2, 16, 16, 1), np.uint8)))
  np.testing.assert_allclose(found.sum(-1), np.ones((2, 16, 16)), atol=1e-5)


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(UserError, match='there is no such folder'):
    load_segmenter(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='holds no run; give the --workdir of a segment run'):
    load_segmenter(tmp_path)
