"""`encdec doctor` on machines that the tests imitate, and on this one."""

import json

import pytest

from encdec.cli import doctor


@pytest.mark.parametrize(
    ("environment", "files", "kind"),
    [
        ({}, (), None),
        ({"COLAB_TPU_ADDR": "10.0.0.2:8470"}, (), "tpu"),
        ({"COLAB_GPU": "0", "NVIDIA_VISIBLE_DEVICES": "all"}, (), None),
        ({"COLAB_GPU": "1"}, (), "gpu"),
        ({}, ("/dev/accel0",), "tpu"),
        ({}, ("/dev/nvidia0",), "gpu"),
    ],
)
def test_signs_of_an_accelerator(environment, files, kind) -> None:
    assert doctor.detect_accelerator(environment, lambda path: path in files) == kind


@pytest.mark.parametrize(
    ("backend", "accelerator", "environment", "verdict", "says"),
    [
        ("tpu", "tpu", {}, "ok", "tpu"),
        ("cpu", None, {}, "ok", "no TPU or GPU"),
        ("cpu", "tpu", {}, "FAIL", "Runtime > Change runtime type"),
        ("cpu", "gpu", {}, "FAIL", "JAX uses the CPU"),
        ("cpu", "gpu", {"JAX_PLATFORMS": "cpu"}, "warn", "as JAX_PLATFORMS says"),
    ],
)
def test_an_accelerator_that_is_not_used(backend, accelerator, environment, verdict, says) -> None:
    finding = doctor.platform_finding(backend, accelerator, environment)
    assert finding.verdict == verdict
    assert says in finding.text


def test_text_and_json_say_the_same(encdec) -> None:
    lines = encdec("doctor").out.splitlines()
    findings = json.loads(encdec("doctor", "--json").out)["findings"]
    subjects = [finding["subject"] for finding in findings]
    assert [line.split()[1] for line in lines] == subjects
    assert subjects == [
        *("platform", "devices", "processes", "versions", "memory"),
        *("matmul", "matmul", "pmap"),
    ]
    assert {finding["verdict"] for finding in findings} <= {"ok", "warn"}
    assert findings[-1]["text"] == "a sum over 4 devices is right"


def test_a_rate_is_work_over_time() -> None:
    """A product of 64 x 64 matrices takes a microsecond at the very least, and under a second."""
    assert 64**3 * 2 < doctor.matmul_rate(64, "float32", seconds=0.01) < 64**3 * 2e6


def test_a_broken_device_fails(encdec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.pmap.psum_works", lambda: False)
    monkeypatch.setattr(doctor, "CHECKS", (doctor._pmap,))
    outcome = encdec("doctor")
    assert outcome.code == 1
    assert "FAIL  pmap" in outcome.out
