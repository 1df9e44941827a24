"""Published combinations of terms, in this project's conventions.

A published weight means something only together with its loss's reduction. Here every loss is a mean over pixels (or
elements) with the factor T² on, so a weight that belonged to a sum over the batch or over the features is multiplied by
what the sum was over, and one that belonged to a mean over elements is divided by the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segshrink.config import Term
from segshrink.errors import ConfigError, nearest


@dataclass(frozen=True)
class Preset:
    """A published combination.

    Attributes:
        source: Paper, and the code or setting that the weights are from.
        terms: The distillation terms.
        labels: Factor of the student's own supervised terms, those that its control is trained with.
        note: What the published training had besides, or couldn't be converted exactly.
    """

    source: str
    terms: tuple[Term, ...]
    labels: float = 1.0
    note: str = ""


def preset_terms(name: str, supervised: Sequence[Term]) -> list[Term]:
    """Return the terms of a preset for a student with these supervised terms.

    Raises:
        ConfigError: Unknown name; the nearest is named.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise ConfigError(f"unknown preset '{name}'{nearest(name, PRESETS)}")
    hard = [term.model_copy(update={"weight": preset.labels * term.weight}) for term in supervised]
    return [*hard, *preset.terms]


def _term(name: str, weight: float = 1.0, **options: Any) -> Term:
    return Term(name=name, weight=weight, options=options)


_CIRKD = "winycg/CIRKD"
_NO_ADVERSARY = "The published training adds an adversarial loss, left out here."

PRESETS: Mapping[str, Preset] = {
    # CriterionKD is our mean with T² on.
    "hinton": Preset(
        f"Hinton et al. 2015, arXiv:1503.02531; per pixel as in {_CIRKD} train_kd.py (T = 1, weight 1)",
        (_term("pixel_kl", temperature=1.0),),
    ),
    # Logits: weight 3, T = 4. The reduction T² / (N·C) Σ is ours.
    "cwd": Preset(
        "Shu et al. 2021, arXiv:2011.13256",
        (_term("channel_kl", 3.0, temperature=4.0),),
        note="On features the published weight is 50; for transformers both are ten times lower. " + _NO_ADVERSARY,
    ),
    "dist": Preset(
        "Huang et al. 2022, arXiv:2205.10536, hunto/DIST_KD segmentation",
        (_term("dist", beta=1.0, gamma=1.0, temperature=1.0),),
    ),
    # configs/losses/jaccard_present_all.yaml and configs/labels/kd.yaml: 0.25 CE + 0.75 JML against the labels and
    # against the teacher, half of each, T = 1, smooth 1.
    "jml": Preset(
        "Wang et al. 2023, arXiv:2302.05666, zifuwanggg/JDTLosses",
        (
            _term("cross_entropy", 0.5 * 0.25),
            _term("jaccard", 0.5 * 0.75, smooth=1.0),
            _term("pixel_kl", 0.5 * 0.25, temperature=1.0),
            _term("soft_jaccard", 0.5 * 0.75, temperature=1.0, smooth=1.0),
        ),
        labels=0.0,
        note="Brings its own supervised terms. Not exact: against the labels the published loss is a mean over the "
        "classes present, ours counts absent ones as 0.",
    ),
    # A sum over C·H·W of 2048 × 64 × 64 features, divided by N: our mean is that many times smaller. The code adds
    # channel-wise distillation of the logits (T = 4, weight 3).
    "mgd": Preset(
        "Yang et al. 2022, arXiv:2205.01529, yzd-v/MGD seg/configs (PSPNet-R101 → R18, 512 × 512 crops)",
        (
            _term("masked_generation", 2e-5 * 2048 * 64 * 64, mask_ratio=0.75),
            _term("channel_kl", 3.0, temperature=4.0),
        ),
        note="Exact for the published teacher's 2048 channels of 64 × 64; the mean keeps its size for others.",
    ),
    "cirkd": Preset(
        f"Yang et al. 2022, arXiv:2204.06986, {_CIRKD} train_cirkd.py",
        (_term("pixel_kl", temperature=1.0), _term("cross_image_relation", 1.0, temperature=0.1)),
        note="The published training adds two memory-bank losses with weight 0.1 each, left out here.",
    ),
    # Pixel-wise: a soft cross-entropy (the divergence and a constant) summed over a batch of 8, averaged over pixels,
    # weight 10. Pair-wise: our convention, weight 0.5.
    "skd": Preset(
        "Liu et al. 2019, arXiv:1903.04197, irfanICMLL/structure_knowledge_distillation run_train_val.sh",
        (_term("pixel_kl", 10.0 * 8, temperature=1.0), _term("pairwise_similarity", 0.5, scale=0.5)),
        note=_NO_ADVERSARY,
    ),
    # KLDivLoss over elements is our mean over pixels divided by the 19 classes, weight 10.
    "ifvd": Preset(
        "Wang et al. 2020 (ECCV), YukangWang/IFVD options.py (Cityscapes)",
        (_term("pixel_kl", 10.0 / 19, temperature=1.0), _term("intra_class_variation", 200.0)),
        note="The weight of pixel_kl is exact for 19 classes. " + _NO_ADVERSARY,
    ),
    # Σ / (C·N) with weight 2.5; ours divides by N twice.
    "ickd": Preset(
        "Liu et al. 2021 (ICCV), ADLab-AutoDrive/ICKD run_cifar_distill.sh",
        (_term("channel_correlation", 2.5 * 8),),
        note="Exact for batches of 8: ours falls with the batch size, so multiply the weight with it. Published for "
        "classification, with batch normalization behind the 1×1 convolution.",
    ),
    "pkd": Preset(
        "Cao et al. 2022, arXiv:2207.02039, open-mmlab/mmrazor configs/distill/mmdet/pkd (Faster R-CNN R101 → R50)",
        (_term("pearson_hint", 6.0),),
        note="Published for detectors, at each of four levels of the neck.",
    ),
    "fitnet": Preset(
        f"Romero et al. 2015, arXiv:1412.6550; for segmentation {_CIRKD} scripts/train_kd/train_fitnet.sh",
        (_term("pixel_kl", temperature=1.0), _term("hint", 10.0)),
    ),
    # hidden_rep_loss_weight and ce_loss_weight of the tutorial.
    "cosine": Preset(
        "Chariton 2023, pytorch.org, Knowledge Distillation Tutorial (cosine loss minimization)",
        (_term("cosine_hint", 0.25),),
        labels=0.75,
        note="Published for classification: there one vector an image, here one at every place of the feature map.",
    ),
    "at": Preset(
        f"Zagoruyko and Komodakis 2017, arXiv:1612.03928; for segmentation {_CIRKD} train_scripts/train_kd/train_at.sh",
        (_term("pixel_kl", temperature=1.0), _term("attention_transfer", 10000.0, mode="code")),
    ),
    "nkd": Preset(
        "Yang et al. 2023, arXiv:2303.13005, yzd-v/cls_KD configs (ResNet-34 → 18, ImageNet)",
        (_term("normalized_kl", temperature=1.0, gamma=1.5),),
        note="Published for classification; here every pixel is a sample.",
    ),
    "dkd": Preset(
        "Zhao et al. 2022, arXiv:2203.08679, megvii-research/mdistiller cfg.py (CIFAR-100)",
        (_term("decoupled_kl", temperature=4.0, alpha=1.0, beta=8.0),),
        note="Published for classification; its weight rises from 0 over 20 epochs there, here it is whole from the "
        "first step.",
    ),
    # CE_WEIGHT 0.1 of the configuration, --kd-weight 9 --base-temp 2 of the command.
    "lskd": Preset(
        "Sun et al. 2024, arXiv:2403.01427, sunshangquan/logit-standardization-KD (CIFAR-100)",
        (_term("pixel_kl", 9.0, temperature=2.0, standardize=True),),
        labels=0.1,
        note="Published for classification; here every pixel is a sample.",
    ),
}
