"""What `encdec doctor` says of machines that we do not have, and of this one."""

import json

import jax.numpy as jnp
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
    assert doctor.expected(environment, lambda path: path in files) == kind


@pytest.mark.parametrize(
    ("used", "wanted", "environment", "verdict", "says"),
    [
        ("tpu", "tpu", {}, "ok", "tpu"),
        ("cpu", None, {}, "ok", "no TPU or GPU"),
        ("cpu", "tpu", {}, "FAIL", "Runtime > Change runtime type"),
        ("cpu", "gpu", {}, "FAIL", "JAX uses the CPU"),
        ("cpu", "gpu", {"JAX_PLATFORMS": "cpu"}, "warn", "as JAX_PLATFORMS says"),
    ],
)
def test_an_accelerator_that_is_not_used(used, wanted, environment, verdict, says) -> None:
    found = doctor.platform_finding(used, wanted, environment)
    assert found.verdict == verdict
    assert says in found.text


def test_all_is_said_as_text_and_json(encdec) -> None:
    lines = encdec("doctor").out.splitlines()
    told = json.loads(encdec("doctor", "--json").out)["findings"]
    subjects = [finding["subject"] for finding in told]
    assert [line.split()[1] for line in lines] == subjects
    assert subjects == [
        *("platform", "devices", "processes", "versions", "memory"),
        *("matmul", "matmul", "pmap"),
    ]
    assert {finding["verdict"] for finding in told} <= {"ok", "warn"}
    assert told[-1]["text"] == "a sum over 4 devices is right"


def test_a_rate_is_work_over_time() -> None:
    """A product of 64 x 64 matrices takes a microsecond at the very least, and under a second."""
    assert 64**3 * 2 < doctor.matmul_rate(64, jnp.float32, seconds=0.01) < 64**3 * 2e6


def test_a_broken_device_fails(encdec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.pmap.psum_works", lambda: False)
    monkeypatch.setattr(doctor, "LOOKS", (doctor._mapped,))
    found = encdec("doctor")
    assert found.code == 1
    assert "FAIL  pmap" in found.out
