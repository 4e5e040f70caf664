"""Networks that were not trained, and images, as of tests of prediction."""

from tests.predict.conftest import images, make_segmenter, segmenter  # noqa: F401
