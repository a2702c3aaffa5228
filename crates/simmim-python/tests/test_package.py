"""The installed package: the command, features, masks, and errors."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest
import simmim
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = ROOT / "testdata" / "weights"
TINY = ["encoder.width=16", "encoder.depth=1", "encoder.heads=2", "train.batch_size=2"]


def command(*arguments, **options):
    """Runs the entry point that pip made."""
    script = Path(sys.executable).with_name("simmim")
    return subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six pictures of 16 to 40 pixels, as files; their paths in the order of the command."""
    folder = tmp_path_factory.mktemp("images")
    generator = numpy.random.default_rng(0)
    for i in range(6):
        pixels = generator.integers(0, 256, (16 + 4 * i, 40 - 3 * i, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder, sorted(folder.iterdir())


@pytest.fixture(scope="module")
def encoder():
    return simmim.load(WEIGHTS / "hf-vit", precision="f32", threads=2)


def test_the_command_trains_and_what_it_trained_is_loaded(images, tmp_path):
    run = tmp_path / "run"
    edits = [f"--set={edit}" for edit in [*TINY, "train.max_steps=2"]]
    ran = command("pretrain", "--recipe", "pretrain-vit-cifar", "--data", images[0], "--out", run, *edits)
    assert ran.returncode == 0, ran.stderr
    encoder = simmim.load(run)
    assert (encoder.width, encoder.depth, encoder.image_size, encoder.channels) == (16, 1, (32, 32), 3)
    features = encoder.embed(images[1])
    assert features.shape == (6, 16) and numpy.isfinite(features).all() and features.std() > 0


def test_exit_codes_and_hints_are_those_of_the_command(tmp_path):
    version = command("--version")
    assert (version.returncode, version.stdout) == (0, f"simmim {simmim.__version__}\n")
    assert command().returncode == 2
    assert command("no-such-command").returncode == 2
    wrong = command("embed", "--from", tmp_path / "none", "--data", tmp_path, "--out", tmp_path / "f.npy")
    assert wrong.returncode == 2 and "error: there is no" in wrong.stderr and "hint: " in wrong.stderr
    module = subprocess.run([sys.executable, "-m", "simmim", "recipes"], capture_output=True, text=True)
    assert module.returncode == 0 and "pretrain-vit-cifar" in module.stdout


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_saves_a_run_and_ends_what_saves_nothing(images, tmp_path):
    script, run = str(Path(sys.executable).with_name("simmim")), tmp_path / "run"
    edits = [f"--set={edit}" for edit in [*TINY, "train.max_steps=1000000", "train.log_every_steps=1"]]
    arguments = ["pretrain", "--recipe", "pretrain-vit-cifar", "--data", images[0], "--out", run, *edits]
    training = subprocess.Popen([script, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    log = run / "log.jsonl"
    wait_until(lambda: log.exists() and log.stat().st_size > 0)
    training.send_signal(signal.SIGINT)
    said = training.communicate(timeout=60)[1]
    assert training.returncode == 130 and "interrupted: saving" in said, said
    assert any((run / "checkpoints").iterdir())

    # a recipe that never arrives
    pipe = tmp_path / "recipe.toml"
    os.mkfifo(pipe)
    waiting = subprocess.Popen([script, "masks", "--recipe", pipe, "--out", tmp_path / "masks"])
    end = os.open(pipe, os.O_WRONLY)  # once the command opened it too
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=60) == -signal.SIGINT
    os.close(end)


def wait_until(holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def test_features_are_those_of_the_command_however_images_are_given(images, encoder, tmp_path):
    folder, paths = images
    for features, shape in (("mean", (6, 16)), ("class", (6, 16)), ("patches", (6, 16, 16))):
        out = tmp_path / f"{features}.npy"
        arguments = ["--from", WEIGHTS / "hf-vit", "--data", folder, "--out", out, "--features", features]
        ran = command("embed", *arguments, "--precision", "f32")
        assert ran.returncode == 0, ran.stderr
        expected = numpy.load(out)
        assert expected.shape == shape
        pictures = [Image.open(path) for path in paths]
        arrays = [numpy.asarray(picture) for picture in pictures]
        for given in (paths, [str(path) for path in paths], pictures, arrays, str(folder), iter(paths)):
            found = encoder.embed(given, features=features)
            assert found.dtype == numpy.float32
            numpy.testing.assert_array_equal(found, expected)
    numpy.testing.assert_array_equal(simmim.embed(paths, WEIGHTS / "hf-vit"), simmim.embed(paths, simmim.load(WEIGHTS / "hf-vit")))
    block = encoder.embed(paths, block=1)
    assert block.shape == (6, 16) and not numpy.array_equal(block, encoder.embed(paths))


def test_prepared_images_are_used_as_they_are(encoder):
    pixels = numpy.random.default_rng(1).integers(0, 256, (70, 16, 16, 3), dtype=numpy.uint8)
    prepared = ((pixels / 255 - encoder.mean) / encoder.std).transpose(0, 3, 1, 2)
    found, expected = encoder.embed(prepared), encoder.embed(pixels)
    numpy.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max(), rtol=0)  # normalized in f64
    numpy.testing.assert_array_equal(encoder.embed(prepared[3:4]), found[3:4])


def test_pictures_of_every_mode_are_read_as_their_files(encoder, tmp_path):
    pixels = numpy.random.default_rng(2).integers(0, 256, (20, 24, 4), dtype=numpy.uint8)
    color = Image.fromarray(pixels[:, :, :3])
    wide = Image.fromarray(pixels[:, :, 0].astype(numpy.uint16) * 257)
    for name, picture in {
        "gray": Image.fromarray(pixels[:, :, 0]),
        "alpha": Image.fromarray(pixels),
        "palette": color.quantize(16),
        "bits": color.convert("1"),
        "wide": wide,
    }.items():
        path = tmp_path / f"{name}.png"
        picture.save(path)
        numpy.testing.assert_array_equal(encoder.embed([picture]), encoder.embed([path]), err_msg=name)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    color.save(turned, exif=exif)
    numpy.testing.assert_array_equal(encoder.embed([Image.open(turned)]), encoder.embed([turned]))
    assert not numpy.array_equal(encoder.embed([turned]), encoder.embed([color]))


def test_errors_are_exceptions_with_a_hint(encoder, images, tmp_path):
    def refuses(call, *words):
        with pytest.raises(ValueError) as raised:
            call()
        text = str(raised.value)
        assert "\nhint: " in text and all(word in text for word in words), text

    refuses(lambda: simmim.load(tmp_path / "none"), "there is no", "none")
    refuses(lambda: simmim.load(images[1][0]))
    refuses(lambda: simmim.load(WEIGHTS / "hf-vit", precision="f16"), "f16")
    refuses(lambda: simmim.load(WEIGHTS / "hf-vit", threads=0), "threads")
    refuses(lambda: encoder.embed(images[1], features="all"), "all")
    refuses(lambda: encoder.embed(images[1], block=3), "no block `3`")
    refuses(lambda: encoder.embed([]), "no images")
    refuses(lambda: encoder.embed(numpy.zeros((2, 3, 16, 8), numpy.float32)), "[B, 3, 16, 16]")
    refuses(lambda: encoder.embed(numpy.zeros((3, 16, 16), numpy.float32)), "(3, 16, 16)")
    refuses(lambda: encoder.embed(numpy.zeros((16, 16, 3), numpy.uint8)), "(16, 16, 3)")
    refuses(lambda: encoder.embed([numpy.zeros((16, 16, 3))]), "images[0]", "float64")
    refuses(lambda: encoder.embed([numpy.zeros((16, 16, 5), numpy.uint8)]), "images[0]")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    refuses(lambda: encoder.embed([images[1][0], broken]), "broken.png")
    refuses(lambda: encoder.embed([images[1][0], tmp_path / "none.png"]), "none.png")
    refuses(lambda: simmim.mask(192, strategy="round"), "round", "random, square, blockwise")
    refuses(lambda: simmim.mask(192, unit_px=50), "mask unit of 50 px")
    refuses(lambda: simmim.mask(192, ratio=1.5), "mask.ratio")
    assert encoder.embed(images[1]).shape == (6, 16), "an error ends nothing"


def test_an_encoder_is_for_any_thread_and_ctrl_c_ends_the_wait(encoder, images, tmp_path):
    expected, found = encoder.embed(images[1]), []
    threads = [threading.Thread(target=lambda: found.append(encoder.embed(images[1]))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and all(numpy.array_equal(one, expected) for one in found)
    if os.name == "nt":
        return
    pipe = tmp_path / "never.png"
    os.mkfifo(pipe)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        encoder.embed([pipe])
    os.close(os.open(pipe, os.O_WRONLY))  # what reads it goes on
    numpy.testing.assert_array_equal(encoder.embed(images[1]), expected)


@pytest.mark.parametrize("strategy", ["random", "square", "blockwise"])
def test_masks_hide_their_share_in_whole_units(strategy):
    masks = simmim.mask((96, 192), unit_px=16, patch_px=4, ratio=0.5, strategy=strategy, count=3, seed=5)
    assert masks.shape == (3, 24, 48) and masks.dtype == bool
    units = masks.reshape(3, 6, 4, 12, 4)
    assert (units == units[:, :, :1, :, :1]).all()
    numpy.testing.assert_array_equal(masks, simmim.mask((96, 192), unit_px=16, patch_px=4, ratio=0.5, strategy=strategy, count=3, seed=5))
    assert not numpy.array_equal(masks[0], masks[1])
    assert not numpy.array_equal(masks, simmim.mask((96, 192), unit_px=16, patch_px=4, ratio=0.5, strategy=strategy, count=3, seed=6))
    if strategy == "random":
        assert (units[:, :, 0, :, 0].sum((1, 2)) == 36).all()


def test_the_package_is_typed():
    folder = Path(simmim.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_simmim.pyi").exists()
