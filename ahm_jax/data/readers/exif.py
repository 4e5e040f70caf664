"""The EXIF orientation of an image: how the camera was turned, and what undoes it."""

from PIL import ExifTags, Image, TiffImagePlugin

QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations of a camera that was turned by a quarter.
TURNS = {  # What undoes an EXIF orientation.
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_SUBDIRECTORIES = (0x8769, 0x8825, 0xA005)  # EXIF tags of a TIFF that lead to more of them.


def orientation(picture: Image.Image) -> int:
  """Of an image that is open, 1 to 8; 1 where it says none, or what is none."""
  try:
    found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1
  except MemoryError:
    raise
  except Exception:  # EXIF data can be broken in any way.
    return 1


def without_subdirectories(picture: TiffImagePlugin.TiffImageFile) -> int:
  """The orientation of a TIFF, whose metadata Pillow will leave alone when it loads it."""
  found = orientation(picture)
  exif = picture.getexif()
  for tag in _SUBDIRECTORIES:
    if tag in exif:
      del exif[tag]
  return found
