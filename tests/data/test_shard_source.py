import pickle

import numpy as np
import pytest
from shard_making import image_bytes, npy, pixels, replace_field, write_digits, write_tar

from mvssl.data import SampleError, open_shards
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column


def columns(**fields) -> dict[str, Column]:
    return {
        name: Column.model_validate({"field": field} if isinstance(field, str) else field)
        for name, field in fields.items()
    }


DIGITS = columns(image="png", label="cls")


def test_samples_of_all_shards_in_order_with_keys_shapes_and_types(tmp_path):
    write_digits(tmp_path, [3, 1, 4])
    source = open_shards("*.tar", tmp_path, DIGITS)
    assert (len(source), source.dropped, source.optional) == (8, 0, set())
    assert source.shapes == {"image": (1, 4, 4), "label": ()}
    for i in range(8):
        assert source.key(i) == f"{i:04d}"
        assert source[i]["label"] == i
        assert np.array_equal(source[i]["image"][0], pixels(i, 4, 4))
    assert source.shard(3).endswith("000001.tar")
    with pytest.raises(IndexError):
        source[8]


def test_many_processes_can_read_one_shard(tmp_path):
    write_digits(tmp_path, [16])
    assert len(open_shards("*.tar", tmp_path, DIGITS)) == 16


def test_equal_keys_of_neighbouring_shards_are_never_merged(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [("0.a.cls", b"1"), ("9.a.cls", b"2"), ("9.b.cls", b"3"), ("8.a.cls", b"4"), ("8.b.cls", b"5")],
    )
    write_tar(tmp_path / "b.tar", [("8.b.cls", b"6"), ("7.a.cls", b"7"), ("7.b.cls", b"8")])
    source = open_shards(["a.tar", "b.tar"], tmp_path, columns(a="a.cls", b="b.cls"))
    pairs = [(int(source[i]["a"]), int(source[i]["b"])) for i in range(len(source))]
    assert pairs == [(2, 3), (4, 5), (7, 8)]
    assert source.dropped == 2


@pytest.fixture
def sensors(tmp_path):
    """Ten scenes; 2, 3 and 7 lack depth, 7 lacks rgb too."""
    members = []
    for i in range(10):
        members += [] if i == 7 else [(f"{i}.rgb.png", image_bytes(pixels(i)))]
        members += [] if i in (2, 3, 7) else [(f"{i}.depth.npy", npy(np.full((1, 4, 4), i, np.float32)))]
        members += [(f"{i}.cls", str(i).encode())]
    write_tar(tmp_path / "x.tar", members)
    return tmp_path


SENSORS = columns(rgb="rgb.png", depth="depth.npy")


def test_drop_counts_samples_that_lack_a_column(sensors):
    source = open_shards("x.tar", sensors, SENSORS)
    assert (len(source), source.dropped, source.optional) == (7, 3, set())
    assert [source.key(i) for i in range(7)] == ["0", "1", "4", "5", "6", "8", "9"]


def test_mask_keeps_what_has_any_column(sensors):
    source = open_shards("x.tar", sensors, SENSORS, missing="mask")
    assert (len(source), source.dropped, source.optional) == (9, 1, {"depth"})
    assert sorted(source[2]) == ["rgb"]


def test_an_extra_column_filters_no_sample(sensors):
    given = {"rgb": SENSORS["rgb"], "depth": SENSORS["depth"]}
    for missing in ("drop", "mask"):
        source = open_shards("x.tar", sensors, given, missing=missing, extra=("depth",))
        assert [source.key(i) for i in range(len(source))] == ["0", "1", "2", "3", "4", "5", "6", "8", "9"]
        assert (source.dropped, source.optional) == (1, {"depth"})
        assert np.flatnonzero(~source.has("depth")).tolist() == [2, 3]
        assert source.has("rgb").all()


def test_an_extra_column_that_no_sample_has_is_dropped(sensors):
    source = open_shards("x.tar", sensors, columns(x="txt", rgb="rgb.png", y="wav.npy"), extra=("x", "y"))
    assert (list(source.columns), list(source.shapes)) == (["rgb"], ["rgb"])
    assert (sorted(source[0]), len(source), source.has("x").any()) == (["rgb"], 9, np.False_)
    assert np.array_equal(source[0]["rgb"], open_shards("x.tar", sensors, columns(rgb="rgb.png"))[0]["rgb"])


def labelled(tmp_path, texts):
    """Pictures with the given json, and the column inside it."""
    members = []
    for i, text in enumerate(texts):
        members += [(f"{i:04d}.png", image_bytes(pixels(i)))] + ([(f"{i:04d}.json", text.encode())] if text else [])
    write_tar(tmp_path / "x.tar", members)
    return columns(rgb="png") | {"label": Column(field="json", path="of.digit")}


def test_a_sample_whose_json_lacks_the_path_lacks_an_extra_column(tmp_path):
    texts = ['{"of": {"digit": 3}}', '{"of": {}}', "{}", '{"of": {"digit": null}}', "", "{", '{"of": {"digit": 5}}']
    given = labelled(tmp_path, texts)
    source = open_shards("x.tar", tmp_path, given, extra=("label",))
    assert (len(source), source.dropped, source.optional) == (7, 0, {"label"})
    found = {i: source[i].get("label") for i in range(7) if i != 5}
    assert {i: label if label is None else label.item() for i, label in found.items()} == {
        0: 3, 1: None, 2: None, 3: None, 4: None, 6: 5,
    }  # fmt: skip
    with pytest.raises(SampleError, match=r"0005: label: no readable json"):
        source[5]
    asked = open_shards("x.tar", tmp_path, given)  # where the column is asked for, such a sample is bad
    assert (len(asked), asked.optional) == (6, set())
    for i, message in ((1, "nothing at 'digit'"), (2, "nothing at 'of'"), (3, "null")):
        with pytest.raises(SampleError, match=rf"label: path of\.digit: {message}"):
            asked[i]


def test_an_extra_column_in_few_jsons_is_found_and_in_none_is_dropped(tmp_path):
    few = labelled(tmp_path, ['{"of": {}}'] * 150 + ['{"of": {"digit": 1}}'] + ['{"of": {}}'] * 60)
    assert open_shards("x.tar", tmp_path, few, extra=("label",)).shapes["label"] == ()
    none = labelled(tmp_path, ['{"of": {}}'] * 12)
    assert list(open_shards("x.tar", tmp_path, none, extra=("label",)).shapes) == ["rgb"]
    with pytest.raises(DataError, match=r"columns\.label: of 12 samples tried none"):
        open_shards("x.tar", tmp_path, none)


def test_error_names_the_first_sample_and_the_other_policies(sensors):
    with pytest.raises(DataError, match=r"4 of 10|3 of 10.*first is 2.*drop.*mask"):
        open_shards("x.tar", sensors, columns(depth="depth.npy"), missing="error")


def test_a_field_that_no_sample_has_lists_the_fields_there_are(sensors):
    with pytest.raises(DataError, match=r"did you mean 'depth.npy'.*cls in 10.*rgb.png in 9"):
        open_shards("x.tar", sensors, columns(depth="depht.npy"))


def test_a_field_without_a_decoder_is_a_fault_of_the_recipe(sensors):
    with pytest.raises(RecipeError, match=r"columns\.x\.field.*'pkl'.*jpg"):
        open_shards("x.tar", sensors, columns(x="pkl"))


def test_columns_without_a_common_sample_are_an_error(tmp_path):
    write_tar(tmp_path / "x.tar", [("0.a.cls", b"1"), ("1.b.cls", b"1")])
    with pytest.raises(DataError, match=r"none of 2 samples"):
        open_shards("x.tar", tmp_path, columns(a="a.cls", b="b.cls"))


def test_a_field_may_have_alternatives(tmp_path):
    write_tar(
        tmp_path / "x.tar",
        [("0.png", image_bytes(pixels(0))), ("1.webp", image_bytes(pixels(1), "WEBP")), ("2.cls", b"1")],
    )
    source = open_shards("x.tar", tmp_path, columns(image="png;webp"))
    assert (len(source), source[0]["image"].shape, source[1]["image"].shape) == (2, (3, 8, 8), (3, 8, 8))


def test_shapes_that_all_differ_ask_for_a_size_and_a_size_settles_it(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", image_bytes(pixels(i, 8 + i, 9, 3))) for i in range(6)])
    with pytest.raises(DataError, match=r"columns\.image.*size: N"):
        open_shards("x.tar", tmp_path, columns(image="png"))
    assert open_shards("x.tar", tmp_path, columns(image={"field": "png", "size": 8})).shapes == {"image": (3, 8, 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (image_bytes(pixels(1, 8, 8)), r"\[1, 8, 8\].*\[3, 8, 8\].*mode: rgb"),
        (image_bytes(pixels(1, 9, 8, 3)), r"\[3, 9, 8\].*size: N"),
        (b"garbage", "png"),
        (b"", "it is empty"),
    ],
)
def test_a_sample_unlike_the_others_is_bad_and_not_converted(tmp_path, content, message):
    members = [(f"{i}.png", content if i == 5 else image_bytes(pixels(i))) for i in range(12)]
    write_tar(tmp_path / "x.tar", members)
    source = open_shards("x.tar", tmp_path, columns(image="png"))
    with pytest.raises(SampleError, match=message) as error:
        source[5]
    assert (error.value.column, source.shapes["image"]) == ("image", (3, 8, 8))
    assert "x.tar: 5: image" in str(error.value)
    assert len(source[4]["image"]) == 3


def test_eight_and_sixteen_bits_in_one_column_do_not_mix(tmp_path):
    wide = image_bytes(np.full((8, 8), 300, np.uint16))
    write_tar(tmp_path / "x.tar", [(f"{i}.png", wide if i == 3 else image_bytes(pixels(i, 8, 8))) for i in range(9)])
    with pytest.raises(SampleError, match=r"float32.*uint8.*bits"):
        open_shards("x.tar", tmp_path, columns(image="png"))[3]


def test_bad_first_samples_do_not_prevent_opening(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", b"" if i < 3 else image_bytes(pixels(i))) for i in range(5)])
    assert open_shards("x.tar", tmp_path, columns(image="png")).shapes == {"image": (3, 8, 8)}


def test_the_error_of_an_undecodable_column_has_the_reason(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.png", b"no") for i in range(5)])
    with pytest.raises(DataError, match=r"columns\.image: of 5 samples tried none could be decoded.*x\.tar"):
        open_shards("x.tar", tmp_path, columns(image="png"))


@pytest.mark.parametrize("members", [[], [("README", b"no field"), ("__info__", b"{}")]])
def test_a_shard_without_samples_is_named(tmp_path, members):
    write_digits(tmp_path, [3])
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=r"x\.tar holds no samples" + (", and 2 members" if members else "$")):
        open_shards("*.tar", tmp_path, DIGITS)


@pytest.mark.parametrize("loss", ["gone", "changed", "shorter"])
def test_a_shard_lost_after_indexing_makes_bad_samples_and_no_crash(tmp_path, loss):
    paths = write_digits(tmp_path, [9, 4])
    source = open_shards("*.tar", tmp_path, DIGITS)
    source = pickle.loads(pickle.dumps(source))  # with no shard open
    if loss == "gone":
        paths[1].unlink()
    elif loss == "changed":
        replace_field(paths[1], "0010.cls", b"987")
    else:
        paths[1].write_bytes(b"")
    with pytest.raises(SampleError, match="shard"):
        source[10]
    assert source[3]["label"] == 3


def test_a_source_can_be_pickled_and_opens_its_own_files(tmp_path):
    write_digits(tmp_path, [3, 3])
    source = open_shards("*.tar", tmp_path, DIGITS)
    copy = pickle.loads(pickle.dumps(source))
    assert copy[4]["label"] == 4
    assert copy.fingerprint == source.fingerprint


def test_more_shards_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr("mvssl.data.shards.field_reader.MOST_OPEN", 2)
    write_digits(tmp_path, [1] * 6)
    source = open_shards("*.tar", tmp_path, DIGITS)
    assert [int(source[i]["label"]) for i in (0, 5, 1, 4, 2, 3, 0)] == [0, 5, 1, 4, 2, 3, 0]
    assert len(source._reader._open) == 2


def test_the_fingerprint_is_the_data_and_not_its_place(tmp_path):
    for folder, counts in [("a", [3, 3]), ("b", [3, 3]), ("c", [3, 4])]:
        write_digits(tmp_path / folder, counts)
    a, b, c = (open_shards("*.tar", tmp_path / name, DIGITS).fingerprint for name in "abc")
    assert a == b != c
    replace_field(tmp_path / "b/000001.tar", "0004.cls", b"12345")
    assert open_shards("*.tar", tmp_path / "b", DIGITS).fingerprint != a


@pytest.mark.parametrize("shape", [(2,), (1, 64, 64)])
def test_the_fingerprint_depends_on_values_of_equal_shape(tmp_path, shape):
    for folder, value in [("a", 1.0), ("b", 1.0), ("c", 2.0)]:
        arrays = [np.zeros(shape, np.float32) for _ in range(40)]
        for array in arrays:
            array.flat[array.size // 2] = value  # in the middle, as the subject of a picture with a blank margin
        write_tar(tmp_path / folder / "x.tar", [(f"{i:04d}.npy", npy(array)) for i, array in enumerate(arrays)])
    a, b, c = (open_shards("*.tar", tmp_path / name, columns(x="npy")).fingerprint for name in "abc")
    again = open_shards("*.tar", tmp_path / "a", columns(x="npy")).fingerprint  # from the cached index
    assert a == b == again != c


@pytest.mark.parametrize("size", [8193, (8193, 8192)])
def test_a_size_beyond_the_pixel_limit_is_refused(tmp_path, size):
    write_digits(tmp_path, [3])
    with pytest.raises(RecipeError, match=r"columns\.image\.size: .* the limit is 67,108,864"):
        open_shards("*.tar", tmp_path, columns(image={"field": "png", "size": size}))


def test_the_error_of_text_labels_without_names_lists_the_texts(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i:02d}.json", b'{"kind": "%s"}' % [b"dog", b"cat"][i % 2]) for i in range(9)])
    label = {"label": Column(field="json", path="kind")}
    with pytest.raises(DataError, match=r"columns\.label.*names: \[cat, dog\]"):
        open_shards("x.tar", tmp_path, label)
    source = open_shards("x.tar", tmp_path, {"label": Column(field="json", path="kind", names=["cat", "dog"])})
    assert [int(source[i]["label"]) for i in range(3)] == [1, 0, 1]


def test_control_characters_of_keys_reach_no_message(tmp_path):
    members = [(f"a\x1b[31m{i}.cls", b"x" if i == 7 else b"1") for i in range(9)]
    write_tar(tmp_path / "x.tar", members)
    source = open_shards("x.tar", tmp_path, columns(label="cls"))
    with pytest.raises(SampleError) as error:
        source[7]
    assert r"a\x1b[31m7" in str(error.value)
    assert str(error.value).isprintable()
