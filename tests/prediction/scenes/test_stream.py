from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segshrink.errors import FileError
from segshrink.prediction import Predictor
from segshrink.prediction.scenes import SceneOptions
from segshrink.prediction.scenes.stream import Streams, predict_pieces
from segshrink.prediction.tiled import Tiling

quick = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def noise(height, width, *, bands=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


def predicted(backend, scene, *, tile, overlap, batch=1, **options):
    """Put all pieces together; each pixel must come once, in row order."""
    classes = np.full((scene.height, scene.width), 77, np.uint8)
    layers = {"probabilities": np.full((backend.num_classes, scene.height, scene.width), 77, np.uint8)}
    layers["confidence"] = np.full((scene.height, scene.width), 77, np.uint8)
    row = 0
    with Streams(backend) as streams:
        for piece in predict_pieces(scene, streams, Tiling(tile, overlap, 1, batch), SceneOptions(**options)):
            assert piece.window.row >= row
            row = piece.window.row
            assert (classes[piece.window.slices] == 77).all()
            classes[piece.window.slices] = piece.classes
            np.testing.assert_array_equal(piece.pixels, scene.pixels[piece.window.slices])
            for name, layer in layers.items():
                values = getattr(piece, name)
                assert (values is not None) == bool(options.get(name))
                if values is not None:
                    layer[..., *piece.window.slices] = values
    assert (classes != 77).all()
    return classes, layers


@quick
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    step=st.integers(6, 30),
    reach=st.integers(0, 3),
    batch=st.integers(1, 4),
    blend=st.sampled_from(("center", "cosine")),
)
def test_tiled_equals_one_shot(box_backend, array_scene, height, width, step, reach, batch, blend):
    # Zeros around the image are part of what the whole image gives, so its border is compared, too, with center.
    backend = box_backend(reach=reach)
    overlap = 2 * reach + 2
    image = noise(height, width)
    found, _ = predicted(backend, array_scene(image), tile=overlap + step, overlap=overlap, batch=batch, blend=blend)
    if blend == "center":
        np.testing.assert_array_equal(found, backend.classify(image[None])[0])
        return
    reference = Predictor(backend, tile=overlap + step, overlap=overlap, blend=blend).predict_logits(image)
    best = np.sort(reference, axis=0)
    sure = best[-1] - best[-2] > 1e-3
    np.testing.assert_array_equal(found[sure], reference.argmax(axis=0)[sure])


@pytest.mark.parametrize("blend", ["center", "cosine"])
def test_moving_the_tiles_changes_no_class(box_backend, array_scene, blend):
    image = np.kron(noise(30, 34, seed=3), np.ones((8, 8, 1), np.uint8))
    backend = box_backend(reach=4, padding="edge")
    maps = []
    for shift in (0, 5, 13, 29):
        moved = array_scene(image[shift:, shift:])
        found, _ = predicted(backend, moved, tile=64, overlap=24, blend=blend)
        maps.append(found[29 - shift + 4 : -4, 29 - shift + 4 : -4])
    assert np.unique(maps[0]).size == 3
    for other in maps[1:]:
        assert (other == maps[0]).mean() >= (1 if blend == "center" else 0.995)


@quick
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(12, 40),
    value=st.integers(0, 255),
    blend=st.sampled_from(("center", "cosine")),
)
def test_a_constant_image_gives_a_constant_map(box_backend, array_scene, height, width, tile, value, blend):
    scene = array_scene(np.full((height, width, 2), value, np.uint8))
    found, layers = predicted(
        box_backend(reach=2, padding="edge"), scene, tile=tile, overlap=7, blend=blend, confidence=True
    )
    assert np.unique(found).size == 1
    assert np.ptp(layers["confidence"]) <= 1


@pytest.mark.parametrize("blend", ["center", "cosine"])
def test_probabilities_are_those_of_the_predictor(box_backend, array_scene, blend):
    backend = box_backend(reach=1)
    image = noise(50, 61)
    found, layers = predicted(
        backend, array_scene(image), tile=24, overlap=6, blend=blend, probabilities=True, confidence=True
    )
    expected = Predictor(backend, tile=24 if blend == "cosine" else 99, overlap=6, blend=blend).predict_array(image)
    assert np.abs(layers["probabilities"] / 254 - expected.probabilities).max() <= 0.5 / 254 + 1e-4
    np.testing.assert_array_equal(layers["confidence"], layers["probabilities"].max(axis=0))
    assert (found == expected.index).mean() > 0.999


@pytest.mark.parametrize("blend", ["center", "cosine"])
def test_pixels_without_data_stay_so_and_empty_tiles_are_not_run(box_backend, array_scene, blend):
    backend = box_backend(reach=0)
    valid = np.zeros((64, 96), bool)
    valid[5:20, 7:30] = True
    found, layers = predicted(
        backend, array_scene(noise(64, 96), valid), tile=32, overlap=8, blend=blend, confidence=True
    )
    np.testing.assert_array_equal(found == 255, ~valid)
    np.testing.assert_array_equal(layers["confidence"] == 255, ~valid)
    np.testing.assert_array_equal(found[valid], backend.classify(noise(64, 96)[None])[0][valid])
    assert sum(shape[0] for shape in backend.shapes[:-1]) == 2  # of 3 × 4 tiles


def test_a_scene_without_any_data_never_meets_the_model(box_backend, array_scene):
    backend = box_backend(reach=0)
    found, layers = predicted(
        backend, array_scene(noise(40, 40), np.zeros((40, 40), bool)), tile=16, overlap=4, probabilities=True
    )
    assert (found == 255).all()
    assert (layers["probabilities"] == 255).all()
    assert backend.shapes == []


def test_reads_once_for_a_row_of_tiles_and_only_a_few_rows_ahead(box_backend, array_scene):
    scene = array_scene(noise(400, 64))
    with Streams(box_backend(reach=0)) as streams:
        pieces = predict_pieces(scene, streams, Tiling(40, 0, 1, 1), SceneOptions())
        ahead = [len(scene.reads) - piece.window.row // 40 for piece in pieces]
    assert len(scene.reads) == 10
    assert max(ahead) <= 6


def test_an_error_while_reading_reaches_the_caller_and_ends_the_threads(box_backend, array_scene):
    class Damaged(array_scene):
        def read(self, window):
            if window.row > 100:
                raise FileError("can't read row 101")
            return super().read(window)

    before = threading.active_count()
    with pytest.raises(FileError, match="row 101"), Streams(box_backend(reach=0)) as streams:
        list(predict_pieces(Damaged(noise(400, 64)), streams, Tiling(40, 0, 1, 1), SceneOptions()))
    assert threading.active_count() == before


def test_closing_early_ends_the_reading(box_backend, array_scene):
    scene = array_scene(noise(400, 64))
    with Streams(box_backend(reach=0)) as streams:
        pieces = predict_pieces(scene, streams, Tiling(40, 0, 1, 1), SceneOptions())
        next(pieces)
        pieces.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]
        read = len(scene.reads)
    assert len(scene.reads) == read < 10
