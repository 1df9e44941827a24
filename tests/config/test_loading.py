from __future__ import annotations

import os
from pathlib import Path

import pytest

from segshrink.config import (
    absolute_recipe,
    dump_yaml,
    load_dataset,
    load_recipe,
    read_yaml,
)
from segshrink.errors import ConfigError, FileError, UsageError


def refused(path: Path, text: str, *overrides: str) -> str:
    """Return the one-sentence error that a description gets."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_dataset(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_description_is_read_and_its_root_is_its_folder(data: Path) -> None:
    description = load_dataset(data)
    assert description.root == data.parent
    assert [entry.value for entry in description.classes] == [1, 2]
    assert description.split.val == ["c"]


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_a_recipe_must_hold_it(data: Path) -> None:
    folder = data.parent / os.fsdecode(b"Gel\xe4nde")
    folder.mkdir()
    with pytest.raises(ConfigError, match="nde has a name that isn't UTF-8"):
        load_dataset(data.rename(folder / data.name))


def test_root_is_relative_to_the_description(data: Path) -> None:
    data.write_text(data.read_text() + "root: ../images\n")
    assert load_dataset(data).root == data.parent.parent / "images"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("images:", "imges:", "unknown key 'imges'; did you mean 'images'?"),
        ("train:", "trian:", "unknown key 'split.trian'; did you mean 'train'?"),
        ("value: 1", "valeu: 1", "unknown key 'classes.0.valeu'; did you mean 'value'?"),
        ("name: fields\n", "", "'name' is missing; add it"),
        ("[a, b]", "5", "'split.train' is wrong: expected a valid list or a valid string, found 5"),
        ("[c]", "[001]", "'split.val.0' is wrong: expected a valid string, found 1; put texts such as"),
        (", {name: crop, value: 2}", "", "'classes' is wrong: expected at least 2 entries, found [{"),
        ("value: 2", "value: 1", "the mask value 1 is given twice"),
        ("value: 2", "color: rde", "'classes.1.color' is wrong: a color must look like '#3C1098', black or [0, 0, 0]"),
        (", val: [c]", "", "'split' is wrong: train is given but val is missing"),
        (
            "[c]}",
            "[c], random: 0.2}",
            "'split' is wrong: give exactly one of train/val, groups with held_out, random, patches",
        ),
        ("name: fields", "name: fields\nname: again", "line 2 is not valid YAML: the key 'name' is given twice"),
        ("name: fields", "name: fields\nignore:\n - #FF0000", "'ignore.0' is wrong: expected a valid string or"),
        ("name: fields", "name: 2024-99-99", "is not valid YAML: month must be"),
        ("name: fields", "1: 2", "the key 1 is not a text; put it in quotes"),
        ("name: fields", "name: fields\nroot: ~nobody-has-this-name/x", "can't be followed"),
        ("name: fields", "name: [fields", "is not valid YAML"),
    ],
)
def test_mistakes_get_one_sentence(data: Path, old: str, new: str, expected: str) -> None:
    text = data.read_text()
    assert old in text
    assert expected in refused(data, text.replace(old, new, 1))


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a", "a list"), ("just text", "a str")])
def test_yaml_that_is_no_mapping(data: Path, text: str, found: str) -> None:
    assert refused(data, text).endswith(f"must hold 'key: value' lines, found {found}")


def test_yaml_tags_that_run_code_are_refused(data: Path, tmp_path: Path) -> None:
    text = data.read_text()
    trap = tmp_path / "trap"
    command = f"!!python/object/apply:os.system ['touch {trap}']"
    assert "could not determine a constructor" in refused(data, text + f"unlabeled: {command}\n")
    assert "could not determine a constructor" in refused(data, text, f"name={command}")
    assert not trap.exists()


def test_yaml_bombs_are_refused(data: Path) -> None:
    text = data.read_text()
    assert "nested too deep" in refused(data, "[" * 50_000)
    # A billion x's, if somebody wrote them out.
    steps = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    steps += [f"&a{step} [{', '.join([f'*a{step - 1}'] * 10)}]" for step in range(1, 9)]
    bomb = f"[{', '.join(steps)}]"
    message = refused(data, text + f"bands: {bomb}\n")
    assert "aliases" in message
    assert len(message) < 1000
    assert "aliases" in refused(data, text, f"bands={bomb}")
    merged = "\n".join(
        ["m0: &m0 {a: 1, b: 2}"] + [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    )
    assert "aliases" in refused(data, f"{text}{merged}\n")
    assert "alias" in refused(data, text + "bands: &a [*a]\n")


@pytest.mark.parametrize("field", ["student.model.options", "student.terms", "distillation.terms", "teacher.terms"])
def test_yaml_bombs_among_options_are_refused(recipe: Path, field: str) -> None:
    steps = ["&a0 {x: 1, y: 2}"] + [f"&a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}" for n in range(1, 9)]
    options = f"{{all: [{', '.join(steps)}]}}"
    value = options if field.endswith("options") else f"[{{name: cross_entropy, options: {options}}}]"
    with pytest.raises(ConfigError, match="aliases"):
        load_recipe(recipe, [f"{field}={value}"])
    nested = "[" * 60 + "]" * 60
    with pytest.raises(ConfigError, match="nested too deep"):
        load_recipe(recipe, [f"{field}={value.replace(options, f'{{deep: {nested}}}')}"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: 010", "010"),
        ("name: -017", "-017"),
        ("name: 12:30", "12:30"),
        ("name: 12:30.5", "12:30.5"),
        ("name: " + "9" * 10_000, "999"),
        ("name: !!int ''", "tag"),
        ("name: !!timestamp x", "tag"),
        ("name: !!bool x", "tag"),
        ('name: "a\\0b"', "NUL"),
        ('name: "\\uD800"', "character"),
        ("name: *FF0000", "FF0000"),
        ("name: !FF0000", "FF0000"),
        ("name: &FF0000", "'name' is wrong"),
    ],
)
def test_values_that_nobody_means_so_are_refused(data: Path, text: str, expected: str) -> None:
    description = data.read_text()
    message = refused(data, description.replace("name: fields", text))
    assert expected in message
    assert len(message) < 400
    assert expected in refused(data, description, text.replace(": ", "=", 1))


def test_numbers_that_mean_one_thing_stay(data: Path) -> None:
    data.write_text(data.read_text().replace("value: 1}", "value: 0x1F}").replace("value: 2", "value: 007"))
    assert [entry.value for entry in load_dataset(data).classes] == [31, 7]


def test_a_file_without_end_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="/dev/zero is longer than"):
        load_dataset(Path("/dev/zero"))
    with pytest.raises(FileError, match="can't read"):
        load_dataset(Path("a\0b.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=4294967296",
        "seed=202611281530",
        "seed=true",
        "data.split.seed=-1",
        "crops.size=65536",
        "crops.size=yes",
        "crops.batch_size=1000000",
        "crops.per_epoch=1e20",
        "crops.workers=100000",
        "augmentation.scale=[1e-6, 1e6]",
        "augmentation.scale=[1, .inf]",
        "augmentation.scale=[true, 2]",
        "augmentation.noise=.nan",
        "student.training.epochs=yes",
        "student.training.epochs=1000000000000",
        "student.training.learning_rate=true",
        "student.training.learning_rate=.inf",
        "student.training.learning_rate=1e999",
        "student.training.threads=1000000",
        "student.training.ema_decay=on",
        "student.model.options={width: .inf}",
        "student.terms=[{name: cross_entropy, weight: .inf}]",
        "student.terms=[{name: cross_entropy, options: {class_weights: [1, .nan]}}]",
        "distillation.temperature=.inf",
        "distillation.scales=[yes]",
        "distillation.teachers=[{source: x, adapter: {mean: [true, 0, 0]}}]",
        "distillation.teachers=[{source: x, options: {a: {b: -.inf}}}]",
        "distillation.teacher_cache='true'",
        "distillation.teacher_cache='No'",
        "data.bands=true",
        "data.classes=[{name: a, value: yes}, {name: b, value: 2}]",
        "data.resolution=.inf",
    ],
)
def test_numbers_out_of_bounds_are_blamed_on_the_override_that_gave_them(recipe: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, ["name=other", override, "student.training.patience=3"])
    message = str(caught.value)
    assert message.startswith(f"override '{override}': '{override.partition('=')[0].rpartition('.')[0]}")
    assert "\n" not in message
    assert len(message) < 400


def test_what_is_wrong_in_the_file_is_blamed_on_the_file(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "crops: {size: 65536}\n")
    with pytest.raises(ConfigError, match=rf"^{recipe}: 'crops\.size' is wrong"):
        load_recipe(recipe, ["crops.batch_size=2", "name=x"])
    assert load_recipe(recipe, ["crops.size=64"]).crops.size == 64
    with pytest.raises(ConfigError, match=r"^override 'teacher\.training\.epochs=3': 'teacher\.model' is missing"):
        load_recipe(recipe, ["crops.size=64", "teacher.training.epochs=3"])


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"can't read .*absent\.yaml: No such file.*; give the path of a YAML file"):
        load_dataset(tmp_path / "absent.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(FileError, match=r"can't read .*image\.yaml"):
        read_yaml(tmp_path / "image.yaml")
    with pytest.raises(FileError, match="can't read"):
        load_recipe(tmp_path)


def test_overrides_reach_into_sections(data: Path) -> None:
    description = load_dataset(data, ["name=other", "split.train=[x]", "bands=4", "ignore=[9]"])
    assert (description.name, description.split.train, description.bands) == ("other", ["x"], 4)
    assert description.ignore == [9]


def test_override_of_a_root_is_seen_from_the_working_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_dataset(data, ["root=here"]).root == tmp_path / "here"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name", "override 'name' must look like key=value"),
        ("=3", "must look like key=value"),
        ("split..train=3", "must look like key=value"),
        ("classes.0.name=z", "'classes' is a list; give it whole, classes=[...]"),
        ("name.x=1", "'name' is a single value, it has no 'x'"),
        ("split.sede=1", "unknown key 'split.sede'; did you mean 'seed'?"),
        ("bands=many", "'bands' is wrong: expected a valid integer"),
        ("bands=[1", "override 'bands=[1', line 1 is not valid YAML"),
    ],
)
def test_wrong_overrides(data: Path, override: str, expected: str) -> None:
    assert expected in refused(data, data.read_text(), override)


def test_a_recipe_finds_its_data_and_weights_beside_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    loaded = load_recipe(recipe)
    assert loaded.data.name == "fields"
    assert loaded.data.root == recipe.parent
    assert loaded.student is not None
    assert loaded.student.model.encoder_weights == recipe.parent.parent / "w.safetensors"
    assert loaded.teacher is None


MEMBERS = "[nets/a, {id: nets/a}, {start: b.pth}, {id: unet, encoder_weights: w.pth}]"


@pytest.mark.parametrize(
    ("text", "overrides", "folder"),
    [
        (f"teacher: {{members: {MEMBERS}}}", [], "sets"),
        ("", [f"teacher.members={MEMBERS}"], "."),
        ("", [f"teacher={{members: {MEMBERS}}}"], "."),
    ],
)
def test_members_of_a_bank_are_found_as_any_network(
    text: str, overrides: list[str], folder: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe.write_text(f"data: data.yaml\n{text}\n")
    home = tmp_path / folder
    loaded = load_recipe(recipe, overrides)
    for bank in (loaded.teacher, absolute_recipe(loaded).teacher):
        assert bank is not None
        ids = [str(home / "nets/a"), str(home / "nets/a"), str(home / "b.pth"), "unet"]
        assert [member.id for member in bank.members] == ids
        assert [member.start for member in bank.members] == [None, None, str(home / "b.pth"), None]
        assert bank.members[3].encoder_weights == home / "w.pth"


@pytest.mark.parametrize("override", ["start=b.pth", "student={model: {start: b.pth}}", "student.model={start: b.pth}"])
def test_a_start_in_an_override_is_seen_from_the_working_folder(
    override: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe.write_text("data: data.yaml\nstudent: {training: {epochs: 1}}\n")
    student = absolute_recipe(load_recipe(recipe, [override])).student
    assert student is not None
    assert (student.model.id, student.model.start) == (str(tmp_path / "b.pth"),) * 2


def test_data_inside_a_recipe_starts_from_the_recipe(recipe: Path) -> None:
    inner = "".join(f"  {line}\n" for line in recipe.with_name("data.yaml").read_text().splitlines())
    recipe.write_text("data:\n" + inner)
    assert load_recipe(recipe).data.root == recipe.parent


def test_imagenet_is_no_path(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["student.model.encoder_weights=imagenet"])
    assert loaded.student.model.encoder_weights == "imagenet"
    assert load_recipe(recipe, ["student.model.encoder_weights=./imagenet"]).student.model.encoder_weights == (
        Path.cwd() / "imagenet"
    )


def test_data_can_be_replaced(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(recipe.with_name("data.yaml").read_text().replace("fields", "woods"))
    assert load_recipe(recipe, data=other).data.name == "woods"
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe(recipe, ["data=other.yaml", "data.bands=5", "student.model.encoder_weights=w.pth"])
    assert (loaded.data.name, loaded.data.bands, loaded.data.root) == ("woods", 5, tmp_path)
    assert loaded.student is not None
    assert loaded.student.model.encoder_weights == tmp_path / "w.pth"


def test_a_teacher_cache_may_be_a_folder_beside_the_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_recipe(recipe).distillation.teacher_cache is False
    assert load_recipe(recipe, ["distillation.teacher_cache=true"]).distillation.teacher_cache is True
    recipe.write_text(recipe.read_text() + "distillation: {teacher_cache: answers}\n")
    loaded = load_recipe(recipe)
    assert loaded.distillation.teacher_cache == recipe.parent / "answers"
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_yaml(loaded))
    assert load_recipe(copy) == loaded
    monkeypatch.chdir(tmp_path)
    override = load_recipe(recipe, ["distillation.teacher_cache=here"])
    assert override.distillation.teacher_cache == tmp_path / "here"
    with pytest.raises(ConfigError, match=r"distillation\.teacher_cache.*true, false or a folder, found \[1\]"):
        load_recipe(recipe, ["distillation.teacher_cache=[1]"])


def test_unknown_keys_deep_in_a_recipe_name_the_nearest(recipe: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'student\.training\.learning_rat'; did you mean 'learning_rate"
    ):
        load_recipe(recipe, ["student.training.learning_rat=0.1"])
    with pytest.raises(ConfigError, match=r"unknown key 'data\.split\.trainn'; did you mean 'train'"):
        load_recipe(recipe, ["data.split.trainn=[a]"])
    for far, known in (("student.training.speed", "learning_rate"), ("augmentation.rotate", "quarter_turns")):
        with pytest.raises(ConfigError, match=rf"unknown key '{far}'; known are: .*{known}"):
            load_recipe(recipe, [f"{far}=1"])
    with pytest.raises(ConfigError, match=r"'teacher\.model' is missing"):
        load_recipe(recipe, ["teacher.training.epochs=3"])
    with pytest.raises(ConfigError, match=r"scale must be two positive numbers, the smaller first"):
        load_recipe(recipe, ["augmentation.scale=[2, 1]"])


def test_numbers_in_scientific_form_are_numbers_also_among_options(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["student.model.options={rate: 1e-3}", "student.training.learning_rate=5E-4"])
    assert loaded.student is not None
    assert loaded.student.model.options == {"rate": 0.001}
    assert loaded.student.training.learning_rate == 0.0005


@pytest.mark.parametrize("name", ["1e3", "no", "001", "2024-01-01", "#fff", "a: b", "größer", "null", "'quoted'"])
def test_what_is_dumped_is_read_back_the_same(recipe: Path, tmp_path: Path, name: str) -> None:
    loaded = load_recipe(recipe)
    loaded = loaded.model_copy(update={"name": name})
    copy = tmp_path / "elsewhere" / "config.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_yaml(loaded), encoding="utf-8")
    assert load_recipe(copy) == loaded


def test_merge_keys_and_anchors_stay_possible(data: Path) -> None:
    data.write_text(
        data.read_text().replace(
            "[{name: soil, value: 1}, {name: crop, value: 2}]",
            "\n  - &first {name: soil, value: 1}\n  - &second {<<: *first, name: crop, value: 2}\n"
            "  - {<<: *second, name: wood, value: 3}",
        )
    )
    assert [(entry.name, entry.value) for entry in load_dataset(data).classes] == [
        ("soil", 1),
        ("crop", 2),
        ("wood", 3),
    ]


def test_a_recipe_changes_keys_of_its_description(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "d.yaml").write_text("{name: d, images: '*.png', classes: [a, b], root: images}")
    (tmp_path / "r.yaml").write_text("data: {file: data/d.yaml, resize: [256, 128], name: small}")
    data = load_recipe(tmp_path / "r.yaml", ["data.resolution=0.5"]).data
    assert (data.name, data.resize, data.resolution) == ("small", (256, 128), 0.5)
    assert data.root == tmp_path / "data" / "images"
    again = load_recipe(tmp_path / "r.yaml", ["data.resize={longest: 500}"])
    (tmp_path / "again.yaml").write_text(dump_yaml(again))
    assert load_recipe(tmp_path / "again.yaml") == again
    for wrong in ("0", "half", "[256]", "{shortest: 5}", "{}"):
        with pytest.raises(UsageError, match=r"data\.resize"):
            load_recipe(tmp_path / "r.yaml", [f"data.resize={wrong}"])
