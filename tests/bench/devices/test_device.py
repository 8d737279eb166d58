"""The command for a GPU, rehearsed on a CPU: every part is measured, and one that fails loses no other."""

import json

from mvssl.bench.devices import device
from mvssl.bench.devices.host_waits import Call, Trace


def test_every_part_is_measured(tmp_path, monkeypatch, capsys):
    only = device.REHEARSAL._replace(encoders={"test_resnet": {}}, blocks=1, steps=1)
    monkeypatch.setattr(device, "REHEARSAL", only)
    file = tmp_path / "device.json"
    result = device.bench_device(json_file=file)
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    assert result["missing"] == {}
    assert [row["beside"] for row in result["rows"]] == ["bare model", "bare model"]
    assert set(result["traces"]) == {"test_resnet"}
    assert result["traces"]["test_resnet"]["kernels"]


def test_a_part_that_fails_or_comes_too_late_is_named_and_the_others_stay(tmp_path, monkeypatch, capsys):
    def list_parts(sizes, on, folder, found):
        return {
            "slow": lambda: found.traces.update(net=Trace({}, [], [Call("mm", 1, 0.5)])),
            "broken": lambda: 1 / 0,
            "late": lambda: None,
        }

    moments = iter([0.0, 1.0, 2.0, 1000.0])
    monkeypatch.setattr(device, "list_parts", list_parts)
    monkeypatch.setattr(device.time, "monotonic", lambda: next(moments))
    result = device.bench_device(minutes=1, json_file=tmp_path / "device.json")
    assert result["traces"]["net"]["kernels"] == [{"name": "mm", "count": 1, "seconds": 0.5}]
    assert "ZeroDivisionError" in result["missing"]["broken"]
    assert set(result["missing"]) == {"broken", "late"}
    assert "mm takes longest" in result["bottleneck"]
