"""What Pillow reads wrongly of a BMP: pixels of more bits than a grey palette needs."""

import struct

from PIL import BmpImagePlugin, ImagePalette

_OS2 = 12  # Size of OS/2's header.
_RAW = {1: 'P;1', 4: 'P;4', 8: 'P'}  # How Pillow calls pixels of so many bits.
_RIGHT = {'1': 1, 'L': 8}  # Bits of a pixel in the modes that Pillow takes for grey palettes.


def mend(picture: BmpImagePlugin.BmpImageFile) -> None:
  """Corrects how a BMP that is open will be decoded.

  Where the colours of a palette are grey levels in order, Pillow drops it, and takes pixels for 1
  bit where it has two colours, else for 8 bits, however many they have.
  """
  bits = _bits(picture)
  if bits not in _RAW or _RIGHT.get(picture.mode, bits) == bits:
    return
  levels = (0, 255) if picture.mode == '1' else range(2**bits)
  picture._mode = 'P'
  picture.palette = ImagePalette.raw('RGB', bytes(level for level in levels for _ in range(3)))
  picture.tile = [
    tile._replace(args=(_RAW[bits], *tile.args[1:]))
    for tile in picture.tile
    if isinstance(tile.args, tuple)
  ]


def _bits(picture: BmpImagePlugin.BmpImageFile) -> int:
  """Of a pixel, as the header has them."""
  assert picture.fp is not None
  picture.fp.seek(14)
  header = picture.fp.read(16).ljust(16, b'\0')
  place = 10 if struct.unpack('<I', header[:4])[0] == _OS2 else 14
  return struct.unpack('<H', header[place : place + 2])[0]
