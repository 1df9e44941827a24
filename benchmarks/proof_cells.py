"""The trainings that ``proof.py`` plans: what each learns from and how long, and in which order they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["teacher", "bank", "answers", "control", "student"]
# Optimization steps of an epoch: as many crops as recipes draw in one, in batches of 8.
STEPS_PER_EPOCH = 74
LITE2 = "smp:Unet/tu-tf_efficientnet_lite2"
LITE0 = "smp:Unet/tu-tf_efficientnet_lite0"
# The members of the Dubai bank; the first four leave one training tile out each.
BANK = (LITE2, LITE0, LITE2, LITE0, LITE2)
# A teacher's answers: mirror images and zooms, by OpenVINO. In int8 they would lose 0.4 points (teacher_precision.md).
VIEWS = ("distillation.flips=true", "distillation.scales=[0.75, 1.0, 1.5]", "distillation.precision=bf16")
# Those of the ten small banks.
FEWER_VIEWS = ("distillation.flips=left-right", *VIEWS[1:])
GROUPS = {"4-7-8": ("Tile 4", "Tile 7", "Tile 8"), "2": ("Tile 2",), "5": ("Tile 5",), "6": ("Tile 6",)}
# Steps of controls and students of the bank, and how many seeds.
LENGTHS = ((4000, 2), (1300, 2), (8000, 5))
# The recipe's own teacher, as long as the recipe trains it, and students of its answers.
ONE, ONE_STEPS, ONE_STUDENTS = "dubai/one", 1776, "dubai/one-pool-4000"
# Labeled tiles of a place, and how many seeds; 0: all. After three seeds with 25 tiles the gain's interval held 0.
PLACES = ("place-1", "place-5")
BUILDINGS = ((25, 5), (100, 3), (0, 2))
# Labeled images of Pascal VOC, and how many seeds; 0: all.
VOC = ((150, 3), (0, 2))
VOC_TEACHERS = "voc/teachers"
# Tried because all masks left no gain: what is said of it, and changes of the student's recipe.
VOC_LEVERS = {
    "half-labels": (
        "labels count as much as answers",
        (
            "distillation.terms=[{name: cross_entropy, weight: 0.5}, {name: jaccard, weight: 1.5}, "
            "{name: pixel_kl, weight: 0.5}, {name: soft_jaccard, weight: 1.5, options: {classes: present}}]",
        ),
    ),
    "answers-only": (
        "no labels",
        ("distillation.terms=[{name: pixel_kl}, {name: soft_jaccard, weight: 3.0, options: {classes: present}}]",),
    ),
    "confidence": ("pixels count by the teachers' confidence", ("distillation.confidence_weighting=true",)),
}
ESPNET_SEEDS = 2
# The published ESPNetv2 goes on at its own size, on the images as they are.
ESPNET = (
    "data.resize=null",
    "crops.size=384",
    "student.model={start: WEIGHTS/espnetv2_s_1.5_pascal_384x384.pth}",
    "student.training.learning_rate=0.0005",
)
# Labels only, with the pool by consistency.
CONSISTENCY = ("student.consistency={threshold: 0.95}", "augmentation.cutmix=0.5")
# Terms of configs/dubai.yaml on the labels, and on the teacher's answers.
_ON_LABELS = "{name: cross_entropy, weight: 0.25, options: {label_smoothing: 0.05}}, {name: jaccard, weight: 0.35}"
_ON_ANSWERS = "{name: pixel_kl, weight: 0.5}, {name: soft_jaccard, weight: 0.35}"
ANSWERS_ONLY = (f"distillation.terms=[{_ON_ANSWERS}]", "crops.unlabeled_share=1.0")
# The teacher is asked at each step about what the student sees: strong colors, crops blended with each other.
CONSISTENT = (
    "distillation.teacher_cache=false",
    "distillation.precision=bf16",
    "augmentation.mixup=0.5",
    "augmentation.brightness=0.5",
    "augmentation.contrast=0.5",
    "augmentation.band_gain=0.25",
)
# The encoder's features beside the logits, with the published weight, of a teacher that is asked at each step, too.
FEATURES = (
    f"distillation.terms=[{_ON_LABELS}, {_ON_ANSWERS}, {{name: channel_kl, weight: 50, student: encoder}}]",
    "distillation.teacher_cache=false",
)
# Students by size; ImageNet's weights fit the encoders of all.
SIZES = {
    "0.3M": (),
    "1.0M": ("student.model.options={blocks: 13, decoder_channels: [256, 192, 96, 48]}",),
    "2.3M": ("student.model.options={blocks: 13, decoder_channels: [512, 384, 192, 64]}",),
}


@dataclass(frozen=True)
class Cell:
    """One training, or what is computed once for several.

    Attributes:
        name: Its folder under ``$SEGSHRINK_RUNS``.
        role: What is made; "answers" are a teacher's answers about the training images and the pool.
        overrides: Changes of the recipe.
        steps: Optimization steps.
        seed: Random seed.
        teacher: The cell whose model teaches.
        member: The cell is this member of the recipe's bank.
        consensus: Judged where two label sets agree, too.
        keeps_weights: Whether its weights go beside the results.
        recipe: Name of the recipe in ``configs``; the teachers of "voc" are files of others.
    """

    name: str
    role: Role
    overrides: tuple[str, ...] = ()
    steps: int = 0
    seed: int = 0
    teacher: str | None = None
    member: int | None = None
    consensus: bool = False
    keeps_weights: bool = False
    recipe: Literal["dubai", "voc"] = "dubai"

    @property
    def answers(self) -> str | None:
        """The cell that holds its teacher's answers."""
        return self.teacher if self.teacher is None or self.recipe == "voc" else f"{self.teacher}-answers"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the cells that must be finished before."""
        if self.role == "bank":
            return tuple(f"{self.name}/member-{number}" for number in range(len(self.members)))
        if self.teacher is None or self.answers is None:
            return ()
        return (self.teacher,) if self.role == "answers" else tuple({self.teacher: None, self.answers: None})

    @property
    def members(self) -> tuple[str, ...]:
        """Networks of the bank that it is, or is a member of."""
        return BANK if self.name.startswith("dubai/") else (LITE2, LITE0)


def epochs(steps: int) -> int:
    """Return the epochs nearest to a number of steps."""
    return round(steps / STEPS_PER_EPOCH)


def cells(pool: Path) -> list[Cell]:
    """Return all cells in the order in which they should run.

    Args:
        pool: List of unlabeled images, which ``proof_data.py`` writes.
    """
    with_pool = (f"data.unlabeled={pool}",)
    return [
        *_pilots(with_pool),
        *_one(with_pool),
        *_bank("dubai/bank", 3000),
        *_dubai(with_pool),
        *_groups(with_pool),
        *_buildings(pool),
        *_voc(pool),
        *_voc_levers(pool),
    ]


def _pilots(with_pool: tuple[str, ...]) -> list[Cell]:
    """Return what is tried on tiles 4, 7, 8 and judged on tile 6."""
    forth = (_split(GROUPS["4-7-8"], GROUPS["6"]),)
    teacher = "pilot/teacher"
    pooled = (*forth, *VIEWS, *with_pool)
    planned = [
        Cell(teacher, "teacher", forth, 3000),
        Cell("pilot/control", "control", forth, 3000),
        Cell(f"{teacher}-answers", "answers", pooled, teacher=teacher),
        # (a) Can a network this small hold the teacher?
        Cell("pilot/answers-only", "student", (*pooled, *ANSWERS_ONLY), 3000, teacher=teacher),
        Cell("pilot/answers-only-8000", "student", (*pooled, *ANSWERS_ONLY), 8000, teacher=teacher),
        # (c) What carries the gain? (Patience: the students of LENGTHS.)
        Cell("pilot/pool", "student", pooled, 3000, teacher=teacher),
        Cell("pilot/labeled", "student", (*forth, *VIEWS), 3000, teacher=teacher),
        Cell("pilot/pool-cutmix", "student", (*pooled, "augmentation.cutmix=0.5"), 3000, teacher=teacher),
        Cell("pilot/consistent", "student", (*forth, *with_pool, *CONSISTENT), 3000, teacher=teacher),
        Cell("pilot/features", "student", (*forth, *with_pool, *FEATURES), 3000, teacher=teacher),
        Cell("pilot/control-cutmix", "control", (*forth, "augmentation.cutmix=0.5"), 3000),
        Cell("pilot/consistency", "control", (*forth, *with_pool, *CONSISTENCY), 3000),
    ]
    # (b) From which size on does it pay?
    for size, options in list(SIZES.items())[1:]:
        planned += [
            Cell(f"pilot/control-{size}", "control", (*forth, *options), 3000),
            Cell(f"pilot/pool-{size}", "student", (*pooled, *options), 3000, teacher=teacher),
        ]
    return planned


def _one(with_pool: tuple[str, ...]) -> list[Cell]:
    """Return the recipe as it stands with the pool: one teacher, asked for 8-bit answers, and its students."""
    pooled = (*VIEWS, *with_pool, "distillation.precision=int8")
    return [
        Cell(ONE, "teacher", (), ONE_STEPS),
        Cell(f"{ONE}-answers", "answers", pooled, teacher=ONE),
        *(Cell(f"{ONE_STUDENTS}-{seed}", "student", pooled, 4000, seed, ONE, keeps_weights=True) for seed in range(2)),
    ]


def _bank(name: str, steps: int, overrides: tuple[str, ...] = (), folds: int | None = 4) -> list[Cell]:
    """Return the members of a bank, one by one, and the whole."""
    members = ", ".join(_network(identity) for identity in (BANK if folds else (LITE2, LITE0)))
    as_folds = (f"teacher.folds={folds}", *VIEWS) if folds else FEWER_VIEWS
    changes = (*overrides, f"teacher.members=[{members}]", *as_folds)
    count = len(BANK) if folds else 2
    trained = [
        Cell(f"{name}/member-{number}", "teacher", changes, steps, member=number)
        # The last one has seen all training images: the best single teacher that can be had this way.
        for number in sorted(range(count), reverse=True)
    ]
    return [*trained, Cell(name, "bank", changes)]


def _dubai(with_pool: tuple[str, ...]) -> list[Cell]:
    """Return controls and students of the bank on the training tiles, judged on tiles 2 and 5."""
    bank, pooled = "dubai/bank", (*VIEWS, *with_pool)
    planned = []
    for steps, seeds in LENGTHS:
        if steps == 4000:
            planned += [Cell(f"dubai/control-{steps}-{seed}", "control", (), steps, seed) for seed in range(seeds)]
            planned += [
                Cell(f"dubai/consistency-{steps}-{seed}", "control", (*with_pool, *CONSISTENCY), steps, seed)
                for seed in range(seeds)
            ]
            planned.append(Cell(f"{bank}-answers", "answers", pooled, teacher=bank))
            planned += [
                Cell(f"dubai/labeled-{steps}-{seed}", "student", VIEWS, steps, seed, bank) for seed in range(seeds)
            ]
        for seed in range(seeds):
            if steps != 4000:
                planned.append(Cell(f"dubai/control-{steps}-{seed}", "control", (), steps, seed))
            name = f"dubai/pool-{steps}-{seed}"
            planned.append(Cell(name, "student", pooled, steps, seed, bank, keeps_weights=steps == 8000))
    return planned


def _groups(with_pool: tuple[str, ...]) -> list[Cell]:
    """Return the trainings that leave one group out, with banks of two."""
    planned = []
    for name, held_out in GROUPS.items():
        others = tuple(tile for group, tiles in GROUPS.items() if group != name for tile in tiles)
        split, bank, judged = (_split(others, held_out),), f"groups/{name}/bank", name == "4-7-8"
        pooled = (*split, *FEWER_VIEWS, *with_pool)
        planned += [
            *_bank(bank, 1500, split, folds=None),
            Cell(f"{bank}-answers", "answers", pooled, teacher=bank),
            Cell(f"groups/{name}/control", "control", split, 3000, consensus=judged),
            Cell(f"groups/{name}/pool", "student", pooled, 3000, teacher=bank, consensus=judged),
        ]
    return planned


def _buildings(pool: Path) -> list[Cell]:
    """Return the trainings on few labeled tiles of one place, judged on the other, with the rest as the pool."""
    planned = []
    for count, seeds in BUILDINGS:
        for here, there in (PLACES, PLACES[::-1]):
            name = f"buildings/{here}-{count}"
            listed = pool.with_name(f"{here}-{count}")
            data = (
                "data=CONFIGS/data/buildings.yaml",
                "data.root=DATA/hot-buildings",
                f"data.split={{train: {listed}.txt, val: [{there}]}}",
            )
            pooled = (*data, *FEWER_VIEWS, f"data.unlabeled={listed}-pool.txt")
            planned += [*_bank(f"{name}/bank", 1000, data, folds=None)]
            planned.append(Cell(f"{name}/bank-answers", "answers", pooled, teacher=f"{name}/bank"))
            for seed in range(seeds):
                planned.append(Cell(f"{name}/control-{seed}", "control", data, 2000, seed))
                planned.append(Cell(f"{name}/pool-{seed}", "student", pooled, 2000, seed, f"{name}/bank"))
    return planned


def _voc(pool: Path) -> list[Cell]:
    """Return the trainings on Pascal VOC, with the images that aren't labeled as the pool."""

    def cell(name: str, role: Role, overrides: tuple[str, ...], steps: int = 0, seed: int = 0) -> Cell:
        teacher = VOC_TEACHERS if role == "student" else None
        keeps = role == "student" and name.startswith("voc/espnet")
        return Cell(name, role, overrides, steps, seed, teacher, keeps_weights=keeps, recipe="voc")

    planned = [cell(VOC_TEACHERS, "answers", ())]
    for count, seeds in VOC:
        listed = pool.with_name(f"voc-{count}")
        data = (f"data.split.train={listed}.txt",) if count else ()
        pooled = (*data, f"data.unlabeled={listed}-pool.txt") if count else ()
        for seed in range(seeds):
            planned.append(cell(f"voc/control-{count}-{seed}", "control", data, 6000, seed))
            planned.append(cell(f"voc/student-{count}-{seed}", "student", pooled, 6000, seed))
    for seed in range(ESPNET_SEEDS):
        planned.append(cell(f"voc/espnet-control-{seed}", "control", ESPNET, 2000, seed))
        planned.append(cell(f"voc/espnet-student-{seed}", "student", ESPNET, 2000, seed))
    return planned


def _voc_levers(pool: Path) -> list[Cell]:
    """Return a control, a student and those of each lever, on all labeled images but 150, which judge."""
    rest, judged = (pool.with_name(f"voc-150{end}.txt") for end in ("-pool", ""))
    data, home = (f"data.split={{train: {rest}, val: {judged}}}",), "voc/levers"
    teachers = f"{home}/teachers"
    students = {"student": (), **{name: overrides for name, (_, overrides) in VOC_LEVERS.items()}}
    return [
        Cell(teachers, "answers", data, recipe="voc"),
        Cell(f"{home}/control", "control", data, 3000, recipe="voc"),
        *(
            Cell(f"{home}/{name}", "student", (*data, *overrides), 3000, teacher=teachers, recipe="voc")
            for name, overrides in students.items()
        ),
    ]


def _split(train: tuple[str, ...], val: tuple[str, ...]) -> str:
    quoted = [", ".join(f'"{tile}"' for tile in tiles) for tiles in (train, val)]
    return f"data.split={{train: [{quoted[0]}], val: [{quoted[1]}]}}"


def _network(identity: str) -> str:
    """Return a network of a bank as YAML; its ImageNet weights are put in where they are known to lie."""
    weights = f"WEIGHTS/{identity.rpartition('tf_')[2]}_imagenet.safetensors"
    return f"{{id: '{identity}', encoder_weights: {weights}, normalization: half}}"
