"""What is in the file is what the encoder makes of every sample, once, in order, with its key and label."""

import io
import json
import tarfile

import numpy as np
import paired_runs
import pytest
import small_runs
from pyarrow import parquet

from mvssl.cli.main import main
from mvssl.data import open_shards, summarize_shards, verify_shards
from mvssl.embedding import embed
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.evaluation import evaluate
from mvssl.recipe import Column
from mvssl.runs import load
from mvssl.views import build_views

NAMES = "a.npz", "a.parquet", "a"
KEYS = [f"{number:08d}" for number in range(paired_runs.SAMPLES)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path / "data"


def read(out):
    """key, label and each view of a file, as lists of what each sample has: None where it has nothing."""
    if out.suffix == ".npz":
        with np.load(out) as file:
            found = {name: file[name] for name in file.files if name not in ("shard", "shards", "about")}
        lacks = {name: x == -1 if name == "label" else np.isnan(x).all(1) for name, x in found.items() if name != "key"}
        return {
            n: [None if n != "key" and lacks[n][i] else v.tolist() for i, v in enumerate(x)] for n, x in found.items()
        }
    if out.suffix == ".parquet":
        return {name: column for name, column in parquet.read_table(out).to_pydict().items() if name != "shard"}
    columns = {"rgb": "rgb.npy", "Depth": "Depth.npy", "label": "cls"}
    given = {name: Column(field=field) for name, field in columns.items()}
    source = open_shards(str(out), out, given, missing="mask", extra=list(columns)[1:], progress=False)
    samples = [source[i] for i in range(len(source))]
    found = {n: [s[n].tolist() if n in s else None for s in samples] for n in columns if any(n in s for s in samples)}
    return {"key": [source.key(i) for i in range(len(source))], **found}


@pytest.mark.parametrize("name", NAMES)
def test_the_file_holds_the_features_of_every_sample_in_order(root, tmp_path, name):
    loaded = paired_runs.make_run(root, tmp_path / "run")
    made = embed(loaded, tmp_path / name)
    found = read(tmp_path / name)
    assert found["key"] == KEYS
    assert found["label"] == [i % 4 for i in range(paired_runs.SAMPLES)]
    for view, vectors in paired_runs.features(loaded).items():
        assert np.array_equal(np.array(found[view], np.float32), vectors)
    assert (made.samples, made.widths, made.label) == (paired_runs.SAMPLES, {"rgb": 8, "Depth": 8}, ())


def test_features_of_an_evaluation_are_not_computed_again(root, tmp_path):
    loaded = paired_runs.make_run(root, tmp_path / "run")
    evaluate(loaded, probes=["knn"], show=False, baselines=False)
    assert embed(loaded, tmp_path / "a.npz").computed == 0
    assert embed(loaded, tmp_path / "b.npz", layer="head").computed == 1


def embedded(folder, out):
    """For `processes`: all three formats, with a cache of this call's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVSSL_CACHE", str(out / "cache"))
        return [embed(load.load_run(folder), out / name, batch_size=8) for name in NAMES]


def test_two_processes_write_the_same_bytes_as_one(root, tmp_path, processes):
    paired_runs.make_run(root, tmp_path / "run")
    one = embedded(tmp_path / "run", tmp_path / "one")
    main, other = processes(embedded, tmp_path / "run", tmp_path / "two")
    assert [made.about for made in main] == [made.about for made in one]
    assert other == [None, None, None]
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").glob("a*/**/*") if path.is_file()]
    for name in ["a.npz", "a.parquet", *files]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert len(files) == 4  # a tar for each of the source's, and about.json


def test_shards_of_features_are_read_as_columns_of_a_recipe(root, tmp_path):
    loaded = paired_runs.make_run(root, tmp_path / "run")
    embed(loaded, tmp_path / "a")
    checked = verify_shards(str(tmp_path / "a"), progress=False)
    assert (checked.samples, checked.decoded, checked.faults, checked.lacking) == (40, 3 * 40, [], {})
    data = {"root": str(tmp_path), "train": "a", "columns": {"d": {"field": "Depth.npy"}}, "label": {"field": "cls"}}
    recipe = small_runs.recipe(
        tmp_path, tmp_path / "next", data=data, views={"d": {"from": "d", "name": "vector"}},
        encoder={"name": "mlp", "options": {"widths": [8]}},
    )  # fmt: skip
    source = open_shards(recipe.data.train, recipe.data.folder, recipe.data.columns, progress=False)
    assert build_views({"d": recipe.views["d"].model_copy(update={"normalize": "none"})}, source.shapes).shapes
    assert np.array_equal(np.stack([source[i]["d"] for i in range(40)]), paired_runs.features(loaded)["Depth"])
    shards = summarize_shards(str(tmp_path / "a"), progress=False).shards
    assert [(path.rpartition("/")[2], count) for path, count, _ in shards] == [
        ("000000.tar", 20), ("000001.tar", 13), ("000002.tar", 7),
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_lacks_a_sensor_is_left_out_or_masked(tmp_path, name):
    small_runs.write_shards(tmp_path / "data" / "train", without_depth=3)
    loaded = paired_runs.make_run(tmp_path / "data", tmp_path / "run")
    dropped = embed(loaded, tmp_path / name)
    assert read(tmp_path / name)["key"] == KEYS[3:]
    assert dropped.about["left_out"]["without_view"] == 3

    masked = paired_runs.make_run(tmp_path / "data", tmp_path / "run2", missing="mask")
    made = embed(masked, tmp_path / f"masked_{name}")
    found = read(tmp_path / f"masked_{name}")
    assert found["key"] == KEYS
    assert [i for i, vector in enumerate(found["Depth"]) if vector is None] == [0, 1, 2]
    assert None not in found["rgb"]
    assert (made.about["absent"], made.about["left_out"]["without_view"]) == ({"Depth": 3}, 0)

    embed(loaded, tmp_path / f"one_{name}", views=["rgb"])  # nothing that this view needs is missing
    found = read(tmp_path / f"one_{name}")
    assert (found["key"], "Depth" in found) == (KEYS, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_without_a_label_is_kept(root, tmp_path, name):
    shard = root / "train" / "000001.tar"
    rewrite(shard, lambda member, data: None if member == "00000021.cls" else data)
    loaded = paired_runs.make_run(root, tmp_path / "run")
    assert embed(loaded, tmp_path / name).about["absent"] == {"label": 1}
    found = read(tmp_path / name)
    assert found["key"] == KEYS
    assert [i for i, label in enumerate(found["label"]) if label is None] == [21]


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_whose_json_lacks_the_label_is_not_bad(root, tmp_path, name):
    others = {"00000021": "{}", "00000022": '{"digit": null}'}
    for shard in (root / "train").glob("*.tar"):
        rewrite_as_json(shard, others)
    loaded = paired_runs.make_run(root, tmp_path / "run", label={"field": "json", "path": "digit"})
    evaluate(loaded, probes=["knn"], show=False, baselines=False)  # which leaves these samples out of its own entries
    about = embed(loaded, tmp_path / name).about
    assert (about["absent"], about["left_out"]["undecodable"]) == ({"label": 2}, 0)
    found = read(tmp_path / name)
    assert found["key"] == KEYS
    assert found["label"] == [None if i in (21, 22) else i % 4 for i in range(paired_runs.SAMPLES)]


def rewrite_as_json(shard, others):
    """Labels as json in place of cls: {"digit": 3}, or what `others` says of a key."""
    with tarfile.open(shard) as old:
        members = {one.name: old.extractfile(one).read() for one in old.getmembers()}
    with tarfile.open(shard, "w") as new:
        for name, data in members.items():
            key, _, field = name.partition(".")
            if field == "cls":
                name, data = f"{key}.json", others.get(key, f'{{"digit": {data.decode()}}}').encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_of_a_sample_are_a_vector(root, tmp_path, name):
    rewrite(root / "train" / "000001.tar", lambda member, data: None if member == "00000021.cls" else data)
    loaded = paired_runs.make_run(root, tmp_path / "run", label={"field": "cls", "classes": 4})
    assert embed(loaded, tmp_path / name).label == (4,)
    expected = [None if i == 21 else np.eye(4)[i % 4].tolist() for i in range(paired_runs.SAMPLES)]
    if name == "a.npz":
        with np.load(tmp_path / name) as file:
            assert [None if np.isnan(x).all() else x.tolist() for x in file["label"]] == expected
    elif name == "a.parquet":
        assert parquet.read_table(tmp_path / name)["label"].to_pylist() == expected
    else:
        given = {"rgb": Column(field="rgb.npy"), "label": Column(field="label.npy")}
        source = open_shards("a", tmp_path, given, extra=("label",), progress=False)
        assert [source[i]["label"].tolist() if "label" in source[i] else None for i in range(40)] == expected


def test_labels_that_are_pictures_are_refused(root, tmp_path):
    loaded = paired_runs.make_run(root, tmp_path / "run", label={"field": "depth.png"})
    with pytest.raises(RecipeError, match=r"data.label: .*\[1, 8, 8\]"):
        embed(loaded, tmp_path / "a.npz")


@pytest.mark.parametrize("name", NAMES)
def test_without_any_label_there_is_no_label_column(root, tmp_path, name):
    for shard in (root / "train").glob("*.tar"):
        rewrite(shard, lambda member, data: None if member.endswith("cls") else data)
    loaded = paired_runs.make_run(root, tmp_path / "run")
    assert embed(loaded, tmp_path / name).label is None
    assert read(tmp_path / name).keys() == {"key", "rgb", "Depth"}


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_sample_is_left_out_and_named(root, tmp_path, name):
    rewrite(root / "train" / "000001.tar", lambda member, data: b"not an image" if member == "00000025.png" else data)
    made = embed(paired_runs.make_run(root, tmp_path / "run"), tmp_path / name)
    assert read(tmp_path / name)["key"] == KEYS[:25] + KEYS[26:]
    left_out = made.about["left_out"]
    assert left_out["undecodable"] == 1
    assert left_out["first_undecodable"].startswith("00000025 of ")


def rewrite(shard, change):
    """A tar with the bodies that `change(name, bytes)` gives; a member for which it gives None goes."""
    with tarfile.open(shard) as old:
        members = {one.name: old.extractfile(one).read() for one in old.getmembers()}
    with tarfile.open(shard, "w") as new:
        for name, data in members.items():
            data, member = change(name, data), tarfile.TarInfo(name)
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))


def test_shards_with_the_same_keys_are_told_apart_by_shard(tmp_path):
    for half in "ab":
        small_runs.write_shards(tmp_path / "data" / half, (5,))
    loaded = paired_runs.make_run(tmp_path / "data", tmp_path / "run")
    embed(loaded, tmp_path / "x.npz", data=["a", "b"])
    with np.load(tmp_path / "x.npz") as file:
        assert file["key"].tolist() == KEYS[:5] * 2
        assert file["shards"][file["shard"]].tolist() == ["a/000000.tar"] * 5 + ["b/000000.tar"] * 5
        assert json.loads(str(file["about"]))["subject"]["step"] == 7
    embed(loaded, tmp_path / "x", data=["a", "b"])
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["000000.tar", "000001.tar", "about.json"]
    assert verify_shards(str(tmp_path / "x"), progress=False).faults == []


def test_images_of_another_size_are_refused_with_a_hint(root, tmp_path):
    small_runs.write_shards(root / "large", (5,), size=12)
    loaded = paired_runs.make_run(root, tmp_path / "run")
    with pytest.raises(
        DataError, match=r"view rgb is \[3, 12, 12\] in these shards, but \[3, 8, 8\].*data.columns.image.size"
    ):
        embed(loaded, tmp_path / "x.npz", data="large")
    run_ = str(tmp_path / "run")
    sizes = "data.columns.image.size=8", "data.columns.depth.size=8"
    main(["embed", run_, "large", *sizes, "--out", str(tmp_path / "x.npz")])
    assert (tmp_path / "x.npz").is_file()


def test_the_command_reports_contents_missing_samples_and_loading(tmp_path, capsys):
    small_runs.write_shards(tmp_path / "data" / "train", without_depth=3)
    paired_runs.make_run(tmp_path / "data", tmp_path / "run")
    out = tmp_path / "new" / "a.npz"
    main(["embed", str(tmp_path / "run"), "train/000000.tar", "--half", "--layer", "head", "--out", str(out)])
    said = capsys.readouterr().out
    assert f"wrote {out}: 17 samples of train/000000.tar" in said
    assert "rgb [17, 8], Depth [17, 8] float16; label [17]; layer head of" in said
    assert "left out: 3 samples that lack a view; data.missing=mask keeps" in said
    assert f'numpy.load("{out}")["rgb"]' in said
    with np.load(out) as file:
        norms = np.linalg.norm(file["rgb"].astype(np.float64), axis=1)
        assert (file["rgb"].dtype, file["rgb"].shape) == (np.float16, (17, 8))
    assert np.allclose(norms, 1, atol=1e-2)  # cmc compares unit vectors
    main(["embed", str(tmp_path / "run"), "data.missing=mask", "--view", "Depth", "--out", str(tmp_path / "b")])
    assert "37 samples of train/*.tar" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_never_overwritten(root, tmp_path, name, capsys):
    paired_runs.make_run(root, tmp_path / "run")
    out = tmp_path / name
    if out.suffix:
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["embed", str(tmp_path / "run"), "--out", str(out)])
    assert stopped.value.code == OutputError.code == 73
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine" if out.suffix else [path.name for path in out.iterdir()] == ["mine"]


def test_a_word_with_an_equals_sign_is_an_override_and_no_shard(root, tmp_path, capsys):
    paired_runs.make_run(root, tmp_path / "run")
    small_runs.write_shards(root / "split=new", (5,))
    for word, said in (("foo=bar", "foo"), ("split=new/*.tar", "split"), ("a.b=c", "a")):
        with pytest.raises(SystemExit, match="64"):
            main(["embed", str(tmp_path / "run"), word, "--out", str(tmp_path / "x.npz")])
        assert f"{word}: unknown key {said} (accepted: data, " in capsys.readouterr().err
    main(["embed", str(tmp_path / "run"), "./split=new/*.tar", "--out", str(tmp_path / "x.npz")])
    assert "5 samples of ./split=new" in capsys.readouterr().out


def test_a_key_too_long_for_shards_is_kept_in_other_formats(root, tmp_path):
    loaded = paired_runs.make_run(root, tmp_path / "run")
    small_runs.write_shards(root / "short", (3,), without_depth=3)
    for length in (247, 248):  # with .rgb.npy 255 and 256 bytes; .png is shorter
        (root / str(length)).mkdir()
        small_runs.rename_samples(root / "short" / "000000.tar", root / str(length) / "0.tar", "k" * (length - 8))
    embed(loaded, tmp_path / "a", data="247", views=["rgb"])
    assert verify_shards(str(tmp_path / "a"), progress=False).faults == []
    with pytest.raises(DataError, match=r"at most 255 bytes, and kkk.* has 256; \.npz and \.parquet keep"):
        embed(loaded, tmp_path / "b", data="248", views=["rgb"])
    assert not (tmp_path / "b").exists()
    embed(loaded, tmp_path / "b.npz", data="248", views=["rgb"])
    with np.load(tmp_path / "b.npz") as file:
        assert file["key"].tolist() == ["k" * 240 + f"{number:08d}" for number in range(3)]


def test_unknown_suffixes_views_and_layers_are_refused_first(root, tmp_path, monkeypatch):
    loaded = paired_runs.make_run(root, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"\.csv is not accepted.*FILE\.npz, FILE\.parquet, or a folder"):
        embed(loaded, tmp_path / "a.csv")
    with pytest.raises(RecipeError, match=r"no view 'depth'.*Depth"):
        embed(loaded, tmp_path / "a.npz", views=["depth"])
    with pytest.raises(RecipeError, match=r"no layer 'neck' .*vector, head"):
        embed(loaded, tmp_path / "a.npz", layer="neck")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install pyarrow"):
        embed(loaded, tmp_path / "a.parquet")
    assert not list(tmp_path.glob("a*"))
