import errno
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from capsnet_jax.data import DataError, frame_of, load
from capsnet_jax.data.picture import SystemFaultError, read, read_whole
from capsnet_jax.data.registry import MNIST, Frame

GREY = (28, 28, 1)
TURNS = {  # how a picture is stored whose EXIF says so
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.fixture(scope="module")
def digits():
    return load("mnist_5k").test.images[::25, :, :, 0]


@pytest.fixture
def save(tmp_path):
    """Write an array or an image, and return the path."""

    def write(picture, name="a.png", **options):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


def grey(path, **options):
    return read(path, GREY, **options).pixels[:, :, 0]


def on_page(digit, times, size, ground=0.85, contrast=0.75, noise=0.03, gradient=0.0, seed=0):
    """Draw a digit as dark ink, anywhere on a large page that is lit unevenly."""
    rng = np.random.default_rng(seed)
    side = 28 * times
    ink = np.zeros(size)
    top, left = rng.integers(0, size[0] - side), rng.integers(0, size[1] - side)
    scaled = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink[top : top + side, left : left + side] = np.asarray(scaled) / 255
    light = ground * (1 - gradient * np.linspace(0, 1, size[1]))
    page = light * (1 - contrast * ink) + rng.normal(0, noise, size)
    return (255 * page.clip(0, 1)).astype(np.uint8)


def difference(got, digit):
    return np.abs(got.astype(int) - digit).mean()


# Upright, in its full range.


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_exif_says(orientation, suffix, save):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 8:16], upright[8:, :8] = 240, 160, 80
    exif = Image.Exif()
    exif[274] = orientation
    path = save(TURNS[orientation](upright), f"a.{suffix}", exif=exif)
    picture = read(path, (16, 24, 1))
    np.testing.assert_allclose(picture.pixels[:, :, 0].astype(int), upright, atol=3)
    assert picture.changes == ("as it is" if orientation == 1 else "turned by its EXIF")


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (lambda a: a.astype(np.uint16) * 257, "a.png"),
        (lambda a: a.astype(np.uint16) * 257, "a.tif"),
        (lambda a: a.astype(np.int32) * 257, "a.tif"),
        (lambda a: a.astype(np.int32), "a.tif"),
        (lambda a: a.astype(np.int32) * 300_000 - 10**7, "a.tif"),
        (lambda a: a.astype(np.float32) / 255, "a.tif"),
        (lambda a: a.astype(np.float32) * 7 - 300, "a.tif"),
        (lambda a: (a.astype(np.float64) * 1e36 - 1e38).astype(np.float32), "a.tif"),
    ],
)
def test_more_than_8_bits_keep_their_range(stored, name, save):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = read(save(stored(pixels), name), (16, 16, 1))
    np.testing.assert_allclose(picture.pixels[:, :, 0].astype(int), pixels, atol=1)
    assert "scaled to 0…255" in picture.changes


def test_a_dark_picture_of_16_bits_stays_dark(save):
    """What the format declares counts, not what occurs."""
    dark = np.linspace(0, 6000, 784).reshape(28, 28).astype(np.uint16)
    np.testing.assert_allclose(grey(save(dark)), dark / 257, atol=0.51)


def test_a_big_endian_tiff_of_16_bits(tmp_path, save):
    values = np.linspace(0, 200, 64).round().astype(np.uint16).reshape(8, 8) * 300
    for dark in (1, 300):
        Image.frombytes("I;16B", (8, 8), (values // dark).astype(">u2").tobytes()).save(tmp_path / "b.tif")
        little = read(save(values // dark, "l.tif"), (8, 8, 1)).pixels
        np.testing.assert_array_equal(read(tmp_path / "b.tif", (8, 8, 1)).pixels, little)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_not_finite(wrong, save):
    values = np.full((28, 28), 0.5, np.float32)
    values[3, 4] = wrong
    with pytest.raises(DataError, match="not finite"):
        read(save(values, "a.tif"), GREY)


def test_grey_and_colour_files_of_one_picture_are_the_same(digits, save):
    pixels = digits[3]
    np.testing.assert_array_equal(grey(save(pixels)), pixels)
    np.testing.assert_array_equal(read(save(pixels), (28, 28, 3)).pixels, np.stack([pixels] * 3, axis=2))
    for mode in ("RGB", "RGBA", "LA", "P"):
        np.testing.assert_array_equal(grey(save(Image.fromarray(pixels).convert(mode))), pixels)
    for mode in ("CMYK", "YCbCr", "LAB"):
        file = save(Image.fromarray(pixels).convert("RGB").convert(mode) if mode != "LAB" else lab(pixels), "a.tif")
        np.testing.assert_allclose(grey(file).astype(int), pixels, atol=3)
    bits = Image.fromarray(pixels > 127)
    np.testing.assert_array_equal(grey(save(bits)), np.where(pixels > 127, 255, 0))


def lab(pixels):
    from PIL import ImageCms

    change = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return ImageCms.applyTransform(Image.fromarray(pixels).convert("RGB"), change)


def test_colours_are_kept_or_weighed(save):
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:2, :, 0], colours[2:, :, 2] = 200, 100
    path = save(colours)
    np.testing.assert_array_equal(read(path, (4, 4, 3)).pixels, colours)
    np.testing.assert_allclose(read(path, (4, 4, 1)).pixels[:, 0, 0], [59.8, 59.8, 11.4, 11.4], atol=1)  # ITU-R 601-2


@pytest.mark.parametrize("ink", [0, 255])
def test_behind_what_is_transparent_is_what_contrasts(ink, digits, save):
    rgba = np.full((28, 28, 4), ink, np.uint8)
    rgba[:, :, 3] = digits[3]
    picture = read(save(rgba), GREY)
    np.testing.assert_array_equal(picture.pixels[:, :, 0], digits[3] if ink else 255 - digits[3])
    assert picture.changes == f"transparent parts made {'black' if ink else 'white'}"


def test_transparent_corners_of_a_page_are_like_the_page(save):
    rgba = np.full((28, 28, 4), 255, np.uint8)
    rgba[8:20, 12:16, :3] = 0
    rgba[:3, :3, 3] = 0
    assert grey(save(rgba))[0, 0] == 255


def test_the_first_frame(digits, save):
    frames = [Image.fromarray(digit) for digit in digits[:2]]
    picture = read(save(frames[0], "a.gif", save_all=True, append_images=frames[1:]), GREY)
    np.testing.assert_array_equal(picture.pixels[:, :, 0], digits[0])
    assert picture.changes == "the first of several frames"


def test_another_shape_is_cropped_or_squeezed(save):
    pixels = np.zeros((40, 100), np.uint8)
    pixels[:, :30], pixels[:, 50:] = 100, 200
    cropped = read(save(pixels), GREY)
    assert cropped.changes == "cropped to its middle 40×40 of 100×40"
    assert (cropped.pixels[:, :12, 0] == 0).all()
    assert (cropped.pixels[:, 16:, 0] == 200).all()
    squeezed = read(save(pixels), GREY, as_is=True)
    assert squeezed.changes == "squeezed from 100×40"
    assert (squeezed.pixels[:, :6, 0] == 100).all()
    assert read(save(pixels), (20, 50, 1)).changes == "as it is"


@pytest.mark.parametrize("most", [100, 40, 1])
def test_a_whole_photograph_keeps_its_proportions_upright(most, save):
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, :50] = 200, 100, 0
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90° clockwise
    whole = read_whole(save(np.rot90(pixels), exif=exif), most).pixels
    width, height = max(most, 1), max(round(0.4 * most), 1)
    assert whole.shape == (height, width, 3)
    if most > 1:
        np.testing.assert_array_equal(whole[:, : width // 2 - 1], np.tile([200, 100, 0], (height, width // 2 - 1, 1)))


# Digits as MNIST has them.


@pytest.mark.slow
def test_digits_of_the_set_stay_what_they_are(digits, save):
    """Also inverted, of 16 bits, enlarged, in colour."""
    for digit in digits:
        for picture in (digit, 255 - digit, digit.astype(np.uint16) * 257):
            assert difference(grey(save(picture), frame=MNIST), digit) < 1.5
        large = np.kron(255 - digit, np.ones((10, 10), np.uint8))
        assert difference(grey(save(large), frame=MNIST), digit) < 9


@pytest.mark.parametrize("options", [{}, {"noise": 0.08}, {"gradient": 0.6}, {"contrast": 0.3, "noise": 0.02}])
def test_ink_is_found_on_a_page(options, digits, save):
    """Within what a shift by a pixel makes, on average."""
    shifted = np.mean([difference(np.roll(digit, 1, axis=1), digit) for digit in digits])
    found = []
    for seed, digit in enumerate(digits[:12]):
        picture = read(save(on_page(digit, 4, (300, 400), seed=seed, **options)), GREY, frame=MNIST)
        assert picture.changes == "dark ink on light: inverted, cropped to the ink, centred"
        found.append(difference(picture.pixels[:, :, 0], digit))
    assert np.mean(found) < 0.85 * shifted


def test_chalk_on_a_board(digits, save):
    picture = read(save(255 - on_page(digits[3], 4, (300, 400))), GREY, frame=MNIST)
    assert picture.changes == "light ink on dark, cropped to the ink, centred"
    assert difference(picture.pixels[:, :, 0], digits[3]) < 12


def test_a_table_beside_the_page_and_dirt_are_no_ink(digits, save):
    page = on_page(digits[3], 6, (300, 400), gradient=0.3)
    page[:, :30] = 60
    page[5:8, 200:203] = 0
    assert difference(grey(save(page), frame=MNIST), digits[3]) < 15


def test_thin_lines_are_thickened(save):
    """A circle drawn with a fine pen: as thick as MNIST's thinnest lines, and as strong."""
    y, x = np.mgrid[:600, :600]
    circle = np.abs(np.hypot(y - 300, x - 250) - 200) < 2
    got = grey(save(np.where(circle, 40, 230).astype(np.uint8)), frame=MNIST)
    assert got.max() > 240
    rows, columns = np.nonzero(got > 40)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 20)
    assert 1.5 < got.sum() / 255 / (np.pi * 18) < 3


def test_invert_says_that_ink_is_dark(digits, save):
    """A page on a table: which of them is the ground is not known."""
    table = np.random.default_rng(0).normal(90, 6, (400, 400)).astype(np.uint8)
    table[60:280, 80:300] = on_page(digits[3], 4, (220, 220), seed=1)
    assert "light ink" in read(save(table), GREY, frame=MNIST).changes
    picture = read(save(table), GREY, frame=MNIST, invert=True)
    assert picture.changes.startswith("dark ink on light: inverted")
    assert difference(picture.pixels[:, :, 0], digits[3]) < 15


def test_as_is_leaves_all_this_out(digits, save):
    path = save(np.kron(digits[3], np.ones((2, 2), np.uint8)))
    np.testing.assert_array_equal(grey(path, frame=MNIST, as_is=True), grey(path))
    np.testing.assert_array_equal(grey(path, frame=MNIST, as_is=True, invert=True), 255 - grey(path))
    assert read(save(np.full((9, 9), 7, np.uint8)), GREY, frame=MNIST, as_is=True).pixels.max() == 7


def stored_turned(digit, seed, save):
    exif = Image.Exif()
    exif[274] = 2 + seed % 7
    return save(TURNS[2 + seed % 7](digit), exif=exif)


def enlarged(digit, seed, save):
    return save(Image.fromarray(255 - digit).resize((280, 280), Image.Resampling.BICUBIC), "a.jpg", quality=75)


WAYS = {
    "file": lambda digit, seed, save: save(digit),
    "turned": stored_turned,
    "16 bits": lambda digit, seed, save: save(digit.astype(np.uint16) * 257),
    "inverted": lambda digit, seed, save: save(255 - digit),
    "enlarged": enlarged,
    "page": lambda digit, seed, save: save(on_page(digit, 1, (200, 300), seed=seed)),
    "noisy page": lambda digit, seed, save: save(on_page(digit, 4, (400, 300), noise=0.08, seed=seed)),
    "gradient": lambda digit, seed, save: save(on_page(digit, 8, (800, 600), gradient=0.6, seed=seed), "a.jpg"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_digit_is_classified_as_well_from_a_picture(way, save):
    """By its nearest neighbour: 400 digits, those of each class equally often."""
    data = load("mnist_5k")
    train = data.train.images.reshape(-1, 784) / 255
    chosen = np.concatenate([np.flatnonzero(data.test.labels == k)[:40] for k in range(10)])
    images, labels = data.test.images[chosen], data.test.labels[chosen]

    def percent_wrong(pixels):
        flat = pixels.reshape(-1, 784) / 255
        nearest = np.argmin((train**2).sum(axis=1) - 2 * flat @ train.T, axis=1)
        return 100 * np.mean(data.train.labels[nearest] != labels)

    pictures = [read(WAYS[way](image[:, :, 0], seed, save), GREY, frame=MNIST) for seed, image in enumerate(images)]
    wrong, expected = percent_wrong(np.stack([picture.pixels for picture in pictures])), percent_wrong(images)
    print(f"{way}: {wrong:.2f} % wrong, the arrays {expected:.2f}")
    assert abs(wrong - expected) < 1.6


def test_other_frames(save):
    drawing = np.zeros((60, 60), np.uint8)
    drawing[10:50, 20:30] = drawing[10:20, 20:50] = 255  # Γ: 40 high, 30 wide
    box = grey(save(drawing), frame=Frame(24))
    rows, columns = np.nonzero(box > 40)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 25, 5, 22)
    np.testing.assert_array_equal(grey(save(drawing), frame=Frame(24, transposed=True)), box.T)
    mass = grey(save(drawing), frame=MNIST)
    rows, columns = np.nonzero(mass > 40)
    assert (np.ptp(rows), np.ptp(columns)) == (19, 14)
    for axis in range(2):
        middle = np.average(np.arange(28), weights=mass.sum(axis=1 - axis))
        assert middle == pytest.approx(14, abs=0.5)


def test_which_sets_frame_their_drawings():
    assert frame_of("mnist") == frame_of("mnist_5k") == frame_of("mnist:3.0.1") == MNIST
    assert frame_of("emnist/letters").transposed
    assert frame_of("fashion_mnist") is frame_of("cifar10") is frame_of("some_set_of_tfds") is None


# What cannot be read.


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side, *more, bits=1):
    row = bytes(1 + side * bits // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(min(side, 14_000))) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def whole_jpeg(tmp_path, digit):
    Image.fromarray(digit).resize((280, 280)).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


BROKEN = {
    "empty": lambda *_: b"",
    "text": lambda *_: b"no picture\n" * 100,
    "cut": lambda *made: whole_jpeg(*made)[:-500],
    "cut in its head": lambda *made: whole_jpeg(*made)[:100],
    "zTXt": lambda *_: png(8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7)))),
    "iTXt": lambda *_: png(8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**7)))),
    "EPS": lambda *_: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_file_is_one_line(kind, tmp_path, digits):
    path = tmp_path / "a.png"
    path.write_bytes(BROKEN[kind](tmp_path, digits[3]))
    with pytest.raises(
        DataError, match=r"^.*a\.png is not a picture that can be read \(.*\); give a PNG or JPEG file$"
    ) as raised:
        read(path, GREY, frame=MNIST)
    assert "<" not in str(raised.value)  # no object of Python's


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (MemoryError(), "Cannot allocate memory"),
        (OSError(errno.EINVAL, "Invalid argument"), ""),  # a damaged file: Pillow seeks to before its begin
        (OSError("image file is truncated"), ""),
    ],
)
def test_what_the_system_refuses_may_be_a_picture(fault, reason, save, digits, monkeypatch):
    def refuse(self):
        raise fault

    path = save(digits[0], "a.bmp")
    monkeypatch.setattr(Image.Image, "getexif", refuse)
    for function in (lambda: read(path, GREY), lambda: read_whole(path, 28)):
        with pytest.raises(DataError, match=r"^/.*a\.bmp (is not|cannot be) [^\n]*$") as raised:
            function()
        assert isinstance(raised.value, SystemFaultError) == bool(reason)
        assert reason in str(raised.value)


@pytest.mark.parametrize("side", [13_300, 50_000])
def test_a_bomb_is_not_decoded(side, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(side))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"a\.png is too large: scale it to at most 36 million pixels$"):
            read(path, GREY, frame=MNIST)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("missing.png", "no such file"), (".", "it is a folder"), ("pipe.png", "no such file")):
        with pytest.raises(DataError, match=reason):
            read(tmp_path / name, GREY)
    with pytest.raises(DataError, match="name too long"):
        read(tmp_path / ("n" * 300), GREY)


@pytest.mark.parametrize("frame", [None, MNIST])
def test_a_blank_picture(frame, save):
    for picture in (np.full((50, 50), 200, np.uint8), np.zeros((50, 50, 4), np.uint8)):
        with pytest.raises(DataError, match=r"blank.*--as_is"):
            read(save(picture), GREY, frame=frame)


def test_noise_is_no_ink(save):
    noise = np.random.default_rng(0).normal(200, 5, (300, 300)).astype(np.uint8)
    for name in ("a.png", "a.jpg"):
        with pytest.raises(DataError, match="shows no ink"):
            read(save(noise, name), GREY, frame=MNIST)


def test_a_model_of_other_channels_cannot_be_asked(digits, save):
    with pytest.raises(DataError, match="trained on 4 channels"):
        read(save(digits[3]), (28, 28, 4))


def test_a_tiff_of_12_bits_keeps_its_range(save):
    """Pillow writes none: two values in three bytes, and the tag of 16 bits changed to 12."""
    values = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(-1, 2)
    first, second = values.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
    file = save(np.frombuffer(packed.ljust(512, b"\0"), "<u2").reshape(16, 16), "a.tif")
    tag = bytes([2, 1, 3, 0, 1, 0, 0, 0])
    file.write_bytes(file.read_bytes().replace(tag + bytes([16]), tag + bytes([12])))
    pixels = read(file, (16, 16, 1)).pixels[:, :, 0]
    np.testing.assert_allclose(pixels, values.reshape(16, 16) / 4095 * 255, atol=0.51)
