"""Folders whose images and masks only the words in their paths tell apart, or only what the files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segshrink
from segshrink.config import load_dataset
from segshrink.data import inspect_dataset, open_dataset
from segshrink.data.path_words import may_name_a_class, words_of

from .test_init import SIZE, draw, image, mask

pytestmark = pytest.mark.usefixtures("_without_torch")
GRAY = "gray"
COLORS = ((0, 0, 255), (255, 255, 0))


@dataclass(frozen=True)
class Folder:
    """A layout.

    Attributes:
        source: Where it is from.
        names: What stands for "{0}", its folder for "{1}" and its last part for "{2}" in paths.
        files: Path → what lies there: values of a mask, None for an image, GRAY for one of a band.
        first: Which mask an image has.
        split: What the split says.
        others: Further masks of the same images.
        pairs: How many there are; those of all names by default.
        images: Images without masks.
    """

    source: str
    names: Sequence[str]
    files: Mapping[str, Any]
    first: tuple[str, str]
    split: Any = frozenset({"random", "seed"})
    others: Sequence[str] = ()
    pairs: int | None = None
    images: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


PARTS = ("train/11", "train/12", "val/13")
LAYOUTS = {
    "ISPRS Potsdam": Folder(
        "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx",
        ("2_10", "2_11", "3_10"),
        {
            "2_Ortho_RGB/top_potsdam_{0}_RGB.tif": None,
            "3_Ortho_IRRG/top_potsdam_{0}_IRRG.tif": None,
            "1_DSM/dsm_potsdam_0{0}.tif": GRAY,
            "5_Labels_all/top_potsdam_{0}_label.tif": COLORS,
            "5_Labels_all_noBoundary/top_potsdam_{0}_label_noBoundary.tif": COLORS,
        },
        ("2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "5_Labels_all/top_potsdam_2_10_label.tif"),
        others=("5_Labels_all_noBoundary/top_potsdam_*_label_noBoundary.tif",),
    ),
    "ISPRS Vaihingen": Folder(
        "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx",
        ("1", "3", "5"),
        {
            "top/top_mosaic_09cm_area{0}.tif": None,
            "dsm/dsm_09cm_matching_area{0}.tif": GRAY,
            "gts_for_participants/top_mosaic_09cm_area{0}.tif": COLORS,
        },
        ("top/top_mosaic_09cm_area1.tif", "gts_for_participants/top_mosaic_09cm_area1.tif"),
        images=("top/top_mosaic_09cm_area2.tif",),
    ),
    "iSAID": Folder(
        "https://captain-whu.github.io/iSAID/",
        ("train/P0001", "train/P0002", "val/P0003"),
        {
            "{1}/images/{2}.png": None,
            "{1}/Instance_masks/images/{2}_instance_id_RGB.png": COLORS,
            "{1}/Semantic_masks/images/{2}_instance_color_RGB.png": COLORS,
        },
        ("train/images/P0001.png", "train/Semantic_masks/images/P0001_instance_color_RGB.png"),
        {"train": ["train"], "val": ["val"]},
        ("*/Instance_masks/images/P*_instance_id_RGB.png",),
    ),
    "FloodNet": Folder(
        "https://github.com/BinaLab/FloodNet-Supervised_v1.0",
        PARTS,
        {
            "FloodNet-Supervised_v1.0/{1}/{1}-org-img/{2}.jpg": None,
            "FloodNet-Supervised_v1.0/{1}/{1}-label-img/{2}_lab.png": (0, 1),
            "ColorMasks-FloodNetv1.0/ColorMasks-{1}/{2}_lab.png": COLORS,
        },
        (
            "FloodNet-Supervised_v1.0/train/train-org-img/11.jpg",
            "FloodNet-Supervised_v1.0/train/train-label-img/11_lab.png",
        ),
        {"train": ["FloodNet-Supervised_v1.0/train"], "val": ["FloodNet-Supervised_v1.0/val"]},
        ("ColorMasks-FloodNetv1.0/ColorMasks-*/*_lab.png",),
    ),
    "DroneDeploy": Folder(
        "https://github.com/dronedeploy/dd-ml-segmentation-benchmark",
        ("1d4fbe33f3_F1BE1D4184OPENPIPELINE", "2ef3a4994a_0CCD105428OPENPIPELINE", "3c0d3b53cb_19E7AF1A9FOPENPIPELINE"),
        {
            "images/{0}-ortho.tif": None,
            "elevations/{0}-elev.tif": GRAY,
            "labels/{0}-label.png": COLORS,
        },
        (
            "images/1d4fbe33f3_F1BE1D4184OPENPIPELINE-ortho.tif",
            "labels/1d4fbe33f3_F1BE1D4184OPENPIPELINE-label.png",
        ),
    ),
    "KITTI semantics": Folder(
        "https://www.cvlibs.net/datasets/kitti/eval_semseg.php",
        ("000000", "000001", "000002"),
        {
            "training/image_2/{0}_10.png": None,
            "testing/image_2/{0}_10.png": None,
            "training/semantic/{0}_10.png": (7, 11),
            "training/semantic_rgb/{0}_10.png": COLORS,
            "training/instance/{0}_10.png": (7, 11),
        },
        ("training/image_2/000000_10.png", "training/semantic/000000_10.png"),
        others=("training/semantic_rgb/*_10.png",),
    ),
    "BDD100K": Folder(
        "https://doc.bdd100k.com/format.html",
        PARTS,
        {
            "bdd100k/images/10k/{0}.jpg": None,
            "bdd100k/labels/sem_seg/masks/{0}.png": (0, 13),
            "bdd100k/labels/sem_seg/colormaps/{0}.png": COLORS,
        },
        ("bdd100k/images/10k/train/11.jpg", "bdd100k/labels/sem_seg/masks/train/11.png"),
        {"train": ["bdd100k/images/10k/train"], "val": ["bdd100k/images/10k/val"]},
        ("bdd100k/labels/sem_seg/colormaps/*/*.png",),
    ),
    "PASCAL Context": Folder(
        "https://github.com/open-mmlab/mmsegmentation (docs, VOC2010)",
        ("2008_000002", "2008_000003", "2008_000007", "2008_000008"),
        {
            "VOC2010/JPEGImages/{0}.jpg": None,
            "VOC2010/SegmentationClassContext/{0}.png": (0, 1),
            "VOC2010/SegmentationObject/{0}.png": (0, 1),
        },
        ("VOC2010/JPEGImages/2008_000002.jpg", "VOC2010/SegmentationClassContext/2008_000002.png"),
        others=("VOC2010/SegmentationObject/*.png",),
    ),
    "SYNTHIA": Folder(
        "https://synthia-dataset.net/downloads (SYNTHIA-RAND-CITYSCAPES)",
        ("0000000", "0000001", "0000002"),
        {
            "RGB/{0}.png": None,
            "Depth/Depth/{0}.png": GRAY,
            "GT/COLOR/{0}.png": COLORS,
            "GT/LABELS/{0}.png": (0, 1),
        },
        ("RGB/0000000.png", "GT/LABELS/0000000.png"),
        others=("GT/COLOR/*.png",),
    ),
    "LIP": Folder(
        "https://github.com/Engineering-Course/LIP_SSL",
        ("train/100_7", "train/101_9", "val/102_8"),
        {
            "TrainVal_images/{1}_images/{2}.jpg": None,
            "TrainVal_parsing_annotations/{1}_segmentations/{2}.png": (0, 1),
        },
        ("TrainVal_images/train_images/100_7.jpg", "TrainVal_parsing_annotations/train_segmentations/100_7.png"),
        {"train": "TrainVal_images/train_id.txt", "val": "TrainVal_images/val_id.txt"},
        images=("Testing_images/testing_images/103_1.jpg",),
        texts={"TrainVal_images/train_id.txt": "100_7\n101_9\n", "TrainVal_images/val_id.txt": "102_8\n"},
    ),
    "ISIC 2017": Folder(
        "https://challenge.isic-archive.com/data/#2017",
        ("Training/0000001", "Training/0000002", "Validation/0000003"),
        {
            "ISIC-2017_{1}_Data/ISIC_{2}.jpg": None,
            "ISIC-2017_{1}_Data/ISIC_{2}_superpixels.png": None,
            "ISIC-2017_{1}_Part1_GroundTruth/ISIC_{2}_segmentation.png": (0, 255),
        },
        (
            "ISIC-2017_Training_Data/ISIC_0000001.jpg",
            "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png",
        ),
        {"train": ["ISIC-2017_Training_Data"], "val": ["ISIC-2017_Validation_Data"]},
    ),
    "DRIVE": Folder(
        "https://drive.grand-challenge.org (manual1, and the mask of the field of view)",
        ("training/21", "training/22", "test/01"),
        {
            "{1}/images/{2}_{1}.tif": None,
            "{1}/1st_manual/{2}_manual1.gif": (0, 255),
            "{1}/mask/{2}_{1}_mask.gif": (0, 255),
        },
        ("training/images/21_training.tif", "training/1st_manual/21_manual1.gif"),
        {"train": ["training"], "val": ["test"]},
        ("*/mask/*_mask.gif",),
    ),
    "HRF": Folder(
        "https://www5.cs.fau.de/research/data/fundus-images",
        ("01_dr", "02_dr", "01_g", "02_g"),
        {"images/{0}.JPG": None, "manual1/{0}.tif": (0, 255), "mask/{0}_mask.tif": (0, 255)},
        ("images/01_dr.JPG", "manual1/01_dr.tif"),
        others=("mask/*_mask.tif",),
    ),
    "KITTI road": Folder(
        "https://www.cvlibs.net/datasets/kitti/eval_road.php",
        ("um/000000", "um/000001", "umm/000000", "umm/000001"),
        {"training/image_2/{1}_{2}.png": None, "training/gt_image_2/{1}_road_{2}.png": COLORS},
        ("training/image_2/um_000001.png", "training/gt_image_2/um_road_000001.png"),
        images=("testing/image_2/um_000000.png",),
    ),
    "scenes in brackets": Folder(
        "wildcards in names",
        ("Scene [1]/1", "Scene [1]/2", "Scene [2]/1"),
        {"{1}/images/{2}.png": None, "{1}/masks/{2}.png": (0, 1)},
        ("Scene [1]/images/1.png", "Scene [1]/masks/1.png"),
        frozenset({"train", "val"}),
    ),
    "BUSI": Folder(
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        ("benign/benign (1)", "benign/benign (2)", "malignant/malignant (1)"),
        {"Dataset_BUSI_with_GT/{0}.png": None, "Dataset_BUSI_with_GT/{0}_mask.png": (0, 255)},
        ("Dataset_BUSI_with_GT/benign/benign (1).png", "Dataset_BUSI_with_GT/benign/benign (1)_mask.png"),
        frozenset({"train", "val"}),
    ),
    "RUGD": Folder(
        "http://rugd.vision",
        ("creek/creek_00001", "creek/creek_00006", "park-1/park-1_00001", "park-1/park-1_00006"),
        {"RUGD_frames-with-annotations/{0}.png": None, "RUGD_annotations/{0}.png": COLORS},
        ("RUGD_frames-with-annotations/creek/creek_00001.png", "RUGD_annotations/creek/creek_00001.png"),
        frozenset({"train", "val"}),
    ),
    "ACDC": Folder(
        "https://acdc.vision.ee.ethz.ch",
        ("train/G5/G5_frame_000001", "train/G5/G5_frame_000002", "val/G6/G6_frame_000003"),
        {
            "rgb_anon/fog/{0}_rgb_anon.png": None,
            "gt/fog/{0}_gt_labelTrainIds.png": (0, 1),
            "gt/fog/{0}_gt_invIds.png": (0, 1),
            "gt/fog/{0}_gt_labelColor.png": COLORS,
        },
        (
            "rgb_anon/fog/train/G5/G5_frame_000001_rgb_anon.png",
            "gt/fog/train/G5/G5_frame_000001_gt_labelTrainIds.png",
        ),
        {"train": ["rgb_anon/fog/train"], "val": ["rgb_anon/fog/val"]},
        ("_gt_invIds.png", "_gt_labelColor.png"),
        images=("rgb_anon/fog/train_ref/G5/G5_frame_000001_rgb_ref_anon.png",),
    ),
    "COCO-Stuff": Folder(
        "https://github.com/nightrome/cocostuff",
        ("train2017/000000000009", "train2017/000000000025", "val2017/000000000139"),
        {"{0}.jpg": None, "stuffthingmaps_trainval2017/{0}.png": (90, 140)},
        ("train2017/000000000009.jpg", "stuffthingmaps_trainval2017/train2017/000000000009.png"),
        {"train": ["train2017"], "val": ["val2017"]},
    ),
    "Kvasir-SEG": Folder(
        "https://datasets.simula.no/kvasir-seg (with masks in PNG)",
        ("cju0", "cju1", "cju2"),
        {"data/Kvasir-SEG/images/{0}.jpg": None, "data/Kvasir-SEG/masks/{0}.png": (0, 255), "data/new/{0}.jpg": None},
        ("data/Kvasir-SEG/images/cju0.jpg", "data/Kvasir-SEG/masks/cju0.png"),
    ),
    "semantic and instance masks": Folder(
        "two kinds of masks side by side",
        ("1", "2", "3"),
        {"images/{0}.png": None, "instance_masks/{0}.png": (0, 1), "semantic_masks/{0}.png": (0, 1)},
        ("images/1.png", "semantic_masks/1.png"),
        others=("instance_masks/*.png",),
    ),
    "two formats": Folder(
        "https://www.cs.toronto.edu/~vmnih/data (Massachusetts buildings, with a copy in PNG)",
        ("train/22", "train/23", "val/24"),
        {
            "png/{0}.png": None,
            "png/{1}_labels/{2}.png": (0, 255),
            "tiff/{0}.tiff": None,
            "tiff/{1}_labels/{2}.tif": COLORS,
        },
        ("png/train/22.png", "png/train_labels/22.png"),
        {"train": ["png/train"], "val": ["png/val"]},
        ("tiff/*_labels/*.tif",),
    ),
    "CHASE_DB1": Folder(
        "https://researchdata.kingston.ac.uk/96 (CHASE_DB1, two observers)",
        ("01L", "01R", "02L", "02R"),
        {"Image_{0}.jpg": None, "Image_{0}_1stHO.png": (0, 255), "Image_{0}_2ndHO.png": (0, 255)},
        ("Image_01L.jpg", "Image_01L_1stHO.png"),
        others=("Image_*_2ndHO.png",),
    ),
    "CRACK500": Folder(
        "https://github.com/fyangneil/pavement-crack-detection",
        ("train/8_1", "train/9_1", "val/7_1", "val/6_1"),
        {"{1}crop/{1}crop/{2}.jpg": None, "{1}crop/{1}crop/{2}.png": (0, 255)},
        ("traincrop/traincrop/8_1.jpg", "traincrop/traincrop/8_1.png"),
        {"train": "train.txt", "val": "val.txt"},
        texts={
            "train.txt": "traincrop/8_1.jpg traincrop/8_1.png\ntraincrop/9_1.jpg traincrop/9_1.png\n",
            "val.txt": "valcrop/7_1.jpg\nvalcrop/6_1.jpg\n",
        },
    ),
    "MiniFrance": Folder(
        "https://ieee-dataport.org/open-access/minifrance",
        ("Nice/06-2014-0942", "Nice/06-2014-0943", "Caen/14-2012-0405"),
        {"labeled_train/{1}/BDORTHO/{2}.tif": None, "labeled_train/{1}/UrbanAtlas/{2}_UA2012.tif": (1, 2)},
        ("labeled_train/Nice/BDORTHO/06-2014-0942.tif", "labeled_train/Nice/UrbanAtlas/06-2014-0942_UA2012.tif"),
        frozenset({"train", "val"}),
        images=("unlabeled_train/Brest/BDORTHO/29-2012-0101.tif",),
    ),
}  # fmt: skip


def paint(root: Path, folder: Folder) -> None:
    for name in folder.names:
        for pattern, content in folder.files.items():
            path = root / pattern.format(name, *name.rsplit("/", 1))
            if content is None:
                image(path)
            elif content is GRAY:
                draw(path, np.random.default_rng(len(name)).integers(0, 255, (SIZE, SIZE), dtype=np.uint8))
            else:
                mask(path, content[:2])
    for path in folder.images:
        image(root / path)
    for path, text in folder.texts.items():
        (root / path).write_text(text)


@pytest.mark.parametrize("name", LAYOUTS)
def test_words_and_contents_tell_the_pairs(name: str, tmp_path: Path) -> None:
    folder, root = LAYOUTS[name], tmp_path / "data"
    paint(root, folder)
    made = segshrink.init(root, out=tmp_path / "out")
    description = load_dataset(made.data)
    dataset = open_dataset(description)
    found = {
        sample.image.relative_to(root).as_posix(): sample.mask.relative_to(root).as_posix()
        for sample in (*dataset.train, *dataset.val, *dataset.test)
        if sample.mask
    }
    assert len(found) == (folder.pairs or len(folder.names)), found
    assert found[folder.first[0]] == folder.first[1]
    split = description.split.model_dump(exclude_unset=True)
    assert (set(split) if isinstance(folder.split, frozenset) else split) == folder.split
    told = [text for text in made.unsure if text.startswith("masks are")]
    assert all(other in told[0] for other in folder.others)
    assert bool(told) == bool(folder.others)
    inspection = inspect_dataset(description)
    assert inspection.sound, [str(problem) for problem in inspection.problems]


def test_words_of_names() -> None:
    assert words_of("GroundTruth_img007 (Été)") == ("ground", "truth", "img", "7", "été")
    assert [may_name_a_class(name) for name in ("leftMask", "cloud_shadow", "1", "labelColor", "train", "mask")] == [
        *(True, True),
        *(False, False, False, False),
    ]
