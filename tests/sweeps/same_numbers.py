"""Records the numbers that mvssl computes, and compares another version with them. Not a part of `pytest`.

    MVSSL_DATA=data python tests/sweeps/same_numbers.py record FOLDER     # with the old version
    MVSSL_DATA=data python tests/sweeps/same_numbers.py compare FOLDER NEW    # with the new one, same machine

For every recipe: the losses of 20 steps in float32, to the last digit, with one process and with two. For the recipes
in WHOLE also a resumed run, an evaluation and an export. `compare` resumes, evaluates, exports and reports the old run.
Batches are small, so that all of it takes about ten minutes on two cores.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS, HALF, BATCH = 20, 10, 16
WHOLE = {
    "quickstart": ["--probe", "knn", "--probe", "linear", "--probe", "spectrum", "--probe", "fewlabel"],
    "mib_mnist": ["--probe", "knn", "--probe", "information"],
    "cmc_imu_dsads": ["--probe", "knn", "--probe", "sensors", "--probe", "retrieval"],
}
TIMED = {"samples_per_second", "data_wait", "val/seconds"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("new", type=Path, nargs="?", help="folder for what compare makes")
    parser.add_argument("--recipes", nargs="*", default=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    given = parser.parse_args()
    old = given.folder.absolute() / "old"
    if given.action == "record":
        for name in given.recipes:
            record(name, old)
        return 0
    new = (given.new or given.folder / "new").absolute()
    shutil.rmtree(new, ignore_errors=True)
    differences = [line for name in given.recipes for line in compare(name, old, new)]
    print("\n".join(differences) or "every number is the same")
    return int(bool(differences))


def record(name: str, folder: Path) -> None:
    """Train on one process and on two; evaluate and export where that is wanted."""
    for world in (1, 2):
        train(name, folder / f"{name}-{world}", world)
    if name in WHOLE:
        evaluate(name, folder / f"{name}-1", folder / f"{name}.json")
        mvssl("export", str(folder / f"{name}-1"), str(folder / f"{name}-export"))


def compare(name: str, old: Path, new: Path) -> list[str]:
    """What differs, one line each."""
    differences = []
    for world in (1, 2):
        folder = new / f"{name}-{world}"
        train(name, folder, world)
        here, there = losses(folder), losses(old / f"{name}-{world}")
        same = here == there
        ends = [[line["loss"] for line in lines if "loss" in line][-1] for lines in (there, here)]
        print(
            f"{name:24} {world} process{'es' * (world > 1):3} loss {ends[0]} {'=' if same else '!='} {ends[1]}",
            flush=True,
        )
        differences += [] if same else [f"{name}: losses with {world} processes"]
    if name not in WHOLE:
        return differences
    resumed = new / f"{name}-resumed"
    shutil.copytree(old / f"{name}-1", resumed)
    shutil.rmtree(next(resumed.glob(f"checkpoints/step-*{STEPS}")))
    train(name, resumed, 1)
    weights = f"checkpoints/step-*{STEPS}/model.safetensors"
    if digest(next(resumed.glob(weights))) != digest(next((old / f"{name}-1").glob(weights))):
        differences.append(f"{name}: weights of the resumed run")
    evaluate(name, old / f"{name}-1", new / f"{name}.json")
    if values(new / f"{name}.json") != values(old / f"{name}.json"):
        differences.append(f"{name}: records")
    mvssl("export", str(old / f"{name}-1"), str(new / f"{name}-export"))
    for file in sorted((old / f"{name}-export").rglob("*")):
        other = new / f"{name}-export" / file.relative_to(old / f"{name}-export")
        if file.suffix in (".safetensors", ".json") and (not other.is_file() or digest(file) != digest(other)):
            differences.append(f"{name}: {other.name} of the export")
    mvssl("report", str(old / f"{name}-1"), "--out", str(new / f"{name}.html"))
    return differences


def train(name: str, out: Path, world: int) -> None:
    """Train 20 steps, checks and logs at every tenth and first step; `MVSSL_DATA` names the data."""
    overrides = [
        f"train.out={out}", f"train.steps={STEPS}", f"train.save_every={HALF}", f"train.check_every={HALF}",
        "train.log_every=1", "train.precision=fp32", "train.trackers=[]", "train.then=[]", "train.keep=3",
        f"data.batch_size={BATCH}", "data.workers=0",
    ]  # fmt: skip
    if name == "quickstart":
        overrides.append(f"data.root={out.parent}/quickstart-data")
    mvssl("train", str(RECIPES / f"{name}.yaml"), *overrides, world=world)


def evaluate(name: str, run: Path, file: Path) -> None:
    mvssl("evaluate", str(run), *WHOLE[name], "--json", str(file))


def mvssl(*words: str, world: int = 1) -> None:
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(RECIPES.parent / "launch" / "cpu_2.yaml")]
    command = [sys.executable, *(launcher if world == 2 else []), "-m", "mvssl", *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in lines]


def values(file: Path) -> list[Any]:
    """The records without the versions of libraries."""
    return [
        {key: value for key, value in record.items() if key != "versions"} for record in json.loads(file.read_text())
    ]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
