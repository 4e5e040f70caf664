r"""Your own images: a folder of images, with masks and labels for some of them.

  DIR/images/NAME.jpg   (or .png, .bmp, .tif, .webp; .dcm; .nii, .nii.gz), of any size, 8 or 16
                        bits, grey or colour
  DIR/masks/NAME.png    one channel, 0 and 255 (or 65535) or 0 and 1, of the image's size
  DIR/labels.csv        columns image,label,split,group, in any case; of them only image is
                        required, and others are not used

An image without a mask, or without a row in labels.csv, serves pre-training only, and with
folder.py:few segmentation too, which looks at no mask of it; one with a label but no mask serves
classification too, where that uses all labels or config.classify.labels of them. The run says how
many there are. Without labels.csv, every image with a mask serves segmentation.
split is train, validation or test, and the images of one group (a patient, near-duplicates) share
it. Without that column the groups are assigned to splits from config.data.split_seed, in the
shares config.data.split_fractions. Then:

  launch/with_env python -m launch.prepare_data --config=configs/folder.py \
    --config.data.root=DIR --workdir=runs/mine
  launch/with_env python -m launch.pretrain --config=configs/folder.py \
    --config.data.root=DIR --workdir=runs/mine_ahm
  launch/with_env python -m launch.segment --config=configs/folder.py \
    --config.data.root=DIR --workdir=runs/mine_50 \
    --config.init_from=runs/mine_ahm --config.data.labels=50
  launch/with_env python -m launch.reproduce --config=configs/folder.py \
    --config.data.root=DIR --workdir=runs/mine_grid

prepare_data checks every file, and can be left out: the others prepare what they need. reproduce
runs the whole comparison of scratch, uniform and ahm, at the numbers of labels in
config.grid.labels. The recipe is that of configs/isic.py, a GPU's work, 224 px and base width 64.

Variants: folder.py:few uses all training images again while it segments, for a few dozen masks; a
step takes some three times as long. It is for single runs; a grid compares this by adding
'scratch_control' and 'ahm_consistency' to config.grid.methods of folder.py. folder.py:cpu and
folder.py:cpu_few are for 2 cores, 64 px and base width 16, the recipe of configs/isic_cpu.py;
folder.py:paper has the published hyper-parameters in place of the best that were found. Those files
say what the recipes reached; there is no result of this one.

Several classes: masks hold 0 for background and 1, 2, ... for the names in
--config.data.mask_classes=liver,tumour; of a palette image the indices count, not the colours.
Without classes, the brighter of a grey palette's two colours is the lesion, and black is
background.

DICOM and NIfTI (pip install -e '.[medical]', which launch/with_env has done): a NIfTI volume, and a
DICOM file of several frames, gives one image a slice, named NAME_s0000, NAME_s0001, ...; its row in
labels.csv is that of NAME. Slices lie across axis config.data.slice_axis of the volume in RAS+
orientation, and every config.data.every_slice-th is taken. The mask of a volume is a volume of the
same shape and orientation, NIfTI for NIfTI; a slice where it is empty counts as an image without
lesion. The slices of a volume are one group, as are the DICOM files of a patient (PatientID; where
that is empty, of a StudyInstanceUID or SeriesInstanceUID), where labels.csv gives no group. Grey of
more than 8 bits is shown by --config.data.window=CENTRE,WIDTH, else by the DICOM file's own window,
else from the 0.5th to the 99.5th percentile of each file. Where the pixels' spacing is known,
distances are scored in mm too.

Several modalities, as the sequences of an MRI: --config.data.modalities=flair,t1,t2 names them, and
each is a channel. A case ID lies in one file, NIfTI with a fourth axis or TIFF with a page a
modality; or in a file a modality in their order, images/ID_0000.nii.gz, ID_0001.nii.gz, ... (or
.png, .tif), as nnU-Net names them, of one size and place. Its mask and its row are those of ID.
--config.data.intensity=percentile (of the case's values that are not 0), zscore or
window/CENTRE/WIDTH, one for all or one for each, says what becomes black and white. A case that
lacks one is refused, but for --config.data.modality_dropout=0.2, which hides modalities in training
so that launch.predict takes such cases too. --config.masking.per_modality hides patches of each.

Colour of 16 bits a channel keeps its high bytes, and of a TIFF of several pages the first one is
read; prepare_data --check says where that loses something. What else lies in images/ and masks/ is
passed over, which the run says.

Masks may be shapes too: DIR/masks/NAME.json of LabelMe (polygons, rectangles, circles), or
DIR/coco.json of COCO (polygons, with pip install -e '.[coco]', and run lengths). Shapes of one
class are joined; of those that overlap the last one counts.

Where all masks have something behind the names of their images, as in ID_mask.png, give it by
--config.data.mask_suffix=_mask. labels.csv may have semicolons or tabs in place of commas; a label
or group nan, NA, N/A, none, null or - counts as none.

Sets of nnU-Net (dataset.json, imagesTr, labelsTr) and of the Medical Segmentation Decathlon are
read as they lie, by --config.data.name=nnunet --config.data.root=DIR and, of grey images,
--config.data.channels=1; ahm_jax/data/sets/nnunet.py says what becomes of them. splits_final.json,
copied into DIR from nnU-Net's preprocessed folder, says which cases validate, by
--config.data.fold; labelsTs which are tested on.

Links that lead out of DIR, names with control characters and images of more than 89 million pixels
are refused.
"""

from ahm_jax import config
from configs import isic, isic_cpu

VARIANTS = {
  '': isic.get_config,
  'few': lambda: with_unlabelled(isic.get_config()),
  'cpu': isic_cpu.get_config,
  'cpu_few': lambda: with_unlabelled(isic_cpu.get_config()),
  'paper': lambda: isic.get_config('paper'),
}
LABELS, SEEDS = (20, 50), (0, 1, 2)  # Of a grid; few enough for a small folder.


def get_config(variant=''):
  config.check_variant(__file__, variant, VARIANTS)
  c = VARIANTS[variant]()
  c.grid.labels, c.grid.seeds = LABELS, SEEDS
  return c


def with_unlabelled(c):
  c.segment.update(isic.consistency())
  return c
