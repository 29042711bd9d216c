"""`encdec doctor`: checks devices, versions and speed of this machine."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from encdec.cli.parsing import parse
from encdec.types import Precision

if TYPE_CHECKING:
    from jax import Array

# Each function imports JAX itself, so that `encdec doctor --help` does not import it.

Verdict = Literal["ok", "warn", "FAIL"]

PACKAGES = ("encdec", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
SIGNS: dict[str, tuple[str, ...]] = {
    "tpu": ("COLAB_TPU_ADDR", "TPU_NAME", "TPU_WORKER_ID", "/dev/accel0", "/dev/vfio/0"),
    "gpu": ("COLAB_GPU", "/dev/nvidia0"),
}
"""Environment variables and files that only a machine with such an accelerator has.

NVIDIA_VISIBLE_DEVICES is not one of them: container images set it on any machine.
"""
INSTALL = {"tpu": 'pip install "jax[tpu]"', "gpu": 'pip install "jax[cuda13]"'}
_MATMUL_SIZE = {"cpu": 1024}
_ACCELERATOR_MATMUL_SIZE = 8192


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
      subject: the part of the machine that was checked.
      verdict: `ok`, `warn` for what works but deserves attention, `FAIL` for what is broken.
      text: the result, and what to do about a failure.
    """

    subject: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class _Options:
    json: Annotated[bool, arg(help="Print one JSON object on stdout.")] = False


def run(arguments: list[str]) -> None:
    """Runs all checks and prints a line for each; exits with 1 if something is broken.

    Raises:
      InputError: an option is unknown.
    """
    options = parse(_Options, arguments, "encdec doctor", "Checks devices, versions and speed.")
    findings = []
    for check in CHECKS:
        finding = check()
        findings.append(finding)
        if not options.json:
            print(f"{finding.verdict:<4}  {finding.subject:<10}  {finding.text}", flush=True)
    if options.json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    if any(finding.verdict == "FAIL" for finding in findings):
        sys.exit(1)


def detect_accelerator(environment: dict[str, str], exists: Callable[[str], bool]) -> str | None:
    """Returns the accelerator that this machine seems to have, `tpu` or `gpu`, or None.

    Args:
      environment: the environment variables.
      exists: whether a file exists.
    """
    for accelerator, signs in SIGNS.items():
        for sign in signs:
            value = environment.get(sign, "")
            if exists(sign) if sign.startswith("/") else value not in ("", "0"):
                return accelerator
    return None


def platform_finding(backend: str, accelerator: str | None, environment: dict[str, str]) -> Finding:
    """Checks whether JAX uses the accelerator of this machine.

    Args:
      backend: the backend that JAX uses.
      accelerator: as `detect_accelerator` returns it.
      environment: the environment variables.
    """
    if backend != "cpu":
        return Finding("platform", "ok", backend)
    if accelerator is None:
        return Finding("platform", "ok", "cpu (this machine shows no TPU or GPU)")
    if "cpu" in environment.get("JAX_PLATFORMS", ""):
        text = f"cpu, as JAX_PLATFORMS says, although there is a {accelerator}"
        return Finding("platform", "warn", text)
    return Finding(
        "platform",
        "FAIL",
        f"there is a {accelerator.upper()}, but JAX uses the CPU: {INSTALL[accelerator]}, then "
        "restart; in Colab choose Runtime > Change runtime type and run all cells again",
    )


def _platform() -> Finding:
    import jax

    environment = dict(os.environ)
    accelerator = detect_accelerator(environment, lambda path: Path(path).exists())
    return platform_finding(jax.default_backend(), accelerator, environment)


def _devices() -> Finding:
    import jax

    devices = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    text = f"{len(devices)} x {kinds}"
    if "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return Finding("devices", "warn", f"{text}, simulated by XLA_FLAGS: no faster than one")
    return Finding("devices", "ok", text)


def _processes() -> Finding:
    import jax

    text = f"{jax.process_count()}, this is number {jax.process_index()}"
    return Finding("processes", "ok", text)


def _versions() -> Finding:
    from importlib.metadata import version

    names = " ".join(f"{name} {version(name)}" for name in PACKAGES)
    return Finding("versions", "ok", f"python {platform.python_version()} {names}")


def _memory() -> Finding:
    from encdec.parallel.devices import device_memory

    return Finding("memory", "ok", f"{device_memory() / 2**30:.1f} GiB per device")


def _matmul(precision: Precision) -> Finding:
    import jax

    size = _MATMUL_SIZE.get(jax.default_backend(), _ACCELERATOR_MATMUL_SIZE)
    rate = matmul_rate(size, precision) / 1e12
    text = f"{rate:.3g} TFLOP/s, {size} x {size} x {size} {precision}, one device"
    return Finding("matmul", "ok", text)


def matmul_rate(size: int, precision: Precision, seconds: float = 0.5) -> float:
    """Measures the speed of a product of two square matrices on one device.

    Args:
      size: rows and columns of the matrices.
      precision: of the product; sums are float32.
      seconds: the duration of the measurement.

    Returns:
      Floating-point operations per second of the fastest product.
    """
    import jax
    import jax.numpy as jnp

    from encdec.ops.products import input_dtype, matmul

    x = jnp.ones((size, size), input_dtype(precision))

    @jax.jit
    def product(x: "Array") -> "Array":
        return matmul(x, x, precision).astype(x.dtype)

    jax.block_until_ready(product(x))  # compiles
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def _pmap() -> Finding:
    import jax

    from encdec.parallel import pmap

    count = jax.device_count()
    try:
        ok = pmap.psum_works()
    except Exception as error:  # a broken driver raises errors of any type
        return Finding("pmap", "FAIL", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    if not ok:
        return Finding("pmap", "FAIL", f"a sum over {count} devices came out wrong")
    return Finding("pmap", "ok", f"a sum over {count} device{'s' * (count > 1)} is right")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _platform,
    _devices,
    _processes,
    _versions,
    _memory,
    lambda: _matmul("float32"),
    lambda: _matmul("bfloat16"),
    _pmap,
)
