r"""Finds masks in a folder of images by a trained segmentation, and measures them.

  python -m launch.predict --checkpoint=runs/mine_50 --images=new/images --out=new/predicted
  python -m launch.predict --checkpoint=runs/mine_50 --images=new/images --out=new/predicted \
    --flips --overlays

Reads JPEG, PNG, TIFF, BMP, WebP, DICOM of any name and NIfTI (every slice of a volume), in folders
of folders too; says what it passes over. Run the same command again after an interruption, or when
images were added, changed or removed: it makes what is missing, what is of another image than the
one there now, and what is not as it was written, and tries images again that could not be read.
Masks of images that are gone stay, without a row, and are named. Memory does not grow with the
number of images.

Flags:
  --checkpoint=DIR    Workdir of a segment run, of which the best checkpoint is taken, or an export
                      of one.
  --images=DIR        Folder of images. Hidden files and links to folders are passed over.
  --out=DIR           Folder to write into; made if it is not there. No other's file is written
                      over.
  --classifier=DIR    Workdir of a classify run, for a diagnosis of each image.
  --threshold=P       Lesion where the probability is at least this; the run's own where it is not
                      given. Of several classes the likeliest is taken.
  --flips             Average over the image, upside down, mirrored and both; four times the work.
  --tile=PIXELS       Look at larger images window by window, of this side in pixels of the image,
                      and average where windows overlap, with weights that fall towards their sides.
                      The network was trained on whole images, so this is for images much larger
                      than those. 0, the default: as a whole.
  --overlap=SHARE     Of a window that the next one covers too, at least; 0.5.
  --probabilities     Write them too.
  --overlays          Write pictures too, of the image with the mask's border.
  --batch_size=N      Images, or windows, that the network takes at a time; 8.
  --threads=N         That read and write; as many as there are cores.

What OUT holds then:
  masks/NAME.png          the image's size; 0 and 255, or with several classes their indices
  volumes/NAME.nii.gz     of a NIfTI image, beside the masks of its slices: all in one volume of 8
                          bits with its shape and affine, as indices (of binary masks 0 and 1). Of a
                          network trained by data.name=nnunet, CASE.nii.gz for CASE_0000.nii.gz, as
                          nnU-Net's own
  probabilities/NAME.png  of 16 bits, 65535 for 1; with several classes probabilities/CLASS/NAME.png
  overlays/NAME.jpg
  predict.json            what made it: a digest of the weights, the options, the versions
  made.txt                what was made of each image, by size and times, for the next run; without
                          it all is made again
  predictions.csv         a row an image, or a slice of a volume:
    image, slice          its path below --images, and the number of the slice from 0, counted
                          across config.data.slice_axis of the volume in RAS+ orientation:
                          numpy.stack(masks, slice_axis) lies on what nibabel has of it by
                          as_closest_canonical
    mask, status          the mask's path, and ok, or what is wrong with the image
    width, height         in pixels
    pages                 in an image's file, of which the first one counts; empty for volumes
    lacking               modalities that the case has no file of, where some may lack
    area_px, area_mm2     of the mask, in pixels, and in mm2 where DICOM or NIfTI tell the spacing
    area_share            area_px / (width * height)
    class                 the class with the largest area, background where nothing was found; the
                          diagnosis with --classifier, or of a segmentation that tells it
    probability           mean over the mask, of each pixel's own class
    confidence            soft Dice, 2 sum(p m) / (sum(p) + sum(m)), of probabilities p and mask m,
                          with several classes the mean over those found: near 1 where the network
                          is sure, low where it is not (arXiv 2402.10665). 1 - max(p) where nothing
                          was found.
    ..._CLASS             areas and probability of each class, where there are several
    class_probability...  with a diagnosis: of it, and of each one

Exit codes: 0 done, also where some images could not be read (they are named, and have a row without
  a mask); 2 wrong input, or a full disk, said in one line; 75 interrupted by Ctrl-C or SIGTERM: run
  the same command again; it resumes."""

import sys
from pathlib import Path

from absl import flags

from launch import app

_CHECKPOINT = app.define_path('checkpoint', None, 'Workdir of a segment run, or an export.')
_IMAGES = app.define_path('images', None, 'Folder of images.')
_OUT = app.define_path('out', None, 'Folder to write into.')
_CLASSIFIER = app.define_path('classifier', '', 'Workdir of a classify run.')
_THRESHOLD = flags.DEFINE_float('threshold', None, 'Lesion where the probability is at least this.')
_FLIPS = flags.DEFINE_bool('flips', False, 'Average over flips.')
_TILE = flags.DEFINE_integer('tile', 0, 'Side of a window in pixels of the image; 0: whole images.')
_OVERLAP = flags.DEFINE_float('overlap', 0.5, 'Share of a window that the next one covers too.')
_PROBABILITIES = flags.DEFINE_bool('probabilities', False, 'Write probabilities too.')
_OVERLAYS = flags.DEFINE_bool('overlays', False, 'Write overlays too.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Images at a time.')
_THREADS = flags.DEFINE_integer(
  'threads', 0, 'Threads that read and write; 0: as many as there are cores.'
)


def main() -> None:
  from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT
  from ahm_jax.predict.diagnosis import check_together
  from ahm_jax.predict.options import Options, check
  from ahm_jax.predict.run import predict
  from ahm_jax.runs.trained import load

  segmenter = load(Path(_CHECKPOINT.value or ''), (SEGMENT,))
  classifier = None
  if _CLASSIFIER.value:
    classifier = load(Path(_CLASSIFIER.value), (CLASSIFY,), '--classifier')
    check_together(classifier, segmenter)
  options = Options(
    threshold=segmenter.config.evaluate.threshold if _THRESHOLD.value is None else _THRESHOLD.value,
    flips=_FLIPS.value,
    tile=_TILE.value,
    overlap=_OVERLAP.value,
    probabilities=_PROBABILITIES.value,
    overlays=_OVERLAYS.value,
  )
  check(options, _BATCH_SIZE.value, _THREADS.value)
  images, out = (Path(flag.value or '').expanduser() for flag in (_IMAGES, _OUT))
  counts = predict(segmenter, images, out, options, classifier, _BATCH_SIZE.value, _THREADS.value)
  print(
    f'images with a mask: {counts.done}; they are in {out / "masks"}, and measured in '
    f'{out / "predictions.csv"}'
  )
  if counts.failed:
    print(f'images without a mask: {counts.failed}; the column status says why', file=sys.stderr)


if __name__ == '__main__':
  app.run_tool(main, required=('checkpoint', 'images', 'out'))
