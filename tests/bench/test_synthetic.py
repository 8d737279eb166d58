"""Images made on the spot: JPEG files have the bytes of photographs, and shards hold every sample."""

from mvssl.bench.synthetic import RandomImages, make_photograph, write_jpeg_shards
from mvssl.data import open_shards
from mvssl.recipe import Column


def test_shards_hold_jpeg_files_about_as_large_as_photographs(tmp_path):
    write_jpeg_shards(tmp_path, samples=10, per_shard=4)
    source = open_shards(str(tmp_path / "*.tar"), tmp_path, {"image": Column(field="jpg")}, progress=False)
    assert len(source) == 10
    assert source[3]["image"].shape == (3, 256, 341)
    sizes = [file.stat().st_size for file in tmp_path.glob("*.tar")]
    assert len(sizes) == 3
    assert 20_000 < sum(sizes) / 10 < 45_000


def test_a_photograph_depends_on_its_seed_alone():
    first, again, other = (make_photograph(seed, 16, 20) for seed in (1, 1, 2))
    assert first.shape == (16, 20, 3)
    assert (first == again).all()
    assert (first != other).any()


def test_random_images_repeat_and_have_the_given_number():
    images = RandomImages(8, 12, samples=100)
    assert len(images) == 100
    assert images[99]["image"].shape == (3, 8, 12)
    assert (images[0]["image"] == images[64]["image"]).all()
