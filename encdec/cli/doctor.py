"""`encdec doctor`: what this machine computes with, one verdict a line."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from tyro.conf import arg

from encdec.cli.parsing import parse
from encdec.parallel import pmap
from encdec.parallel.devices import device_memory
from encdec.types import Array

Verdict = Literal["ok", "warn", "FAIL"]

PACKAGES = ("encdec", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
SIGNS: dict[str, tuple[str, ...]] = {
    "tpu": ("COLAB_TPU_ADDR", "TPU_NAME", "TPU_WORKER_ID", "/dev/accel0", "/dev/vfio/0"),
    "gpu": ("COLAB_GPU", "/dev/nvidia0"),
}
"""Variables and files that only a machine with such a device has. NVIDIA_VISIBLE_DEVICES is none of
them: images for its containers set it anywhere."""
INSTALL = {"tpu": 'pip install "jax[tpu]"', "gpu": 'pip install "jax[cuda13]"'}


@dataclass(frozen=True)
class Finding:
    """One line: a subject, what was found, and whether that is well."""

    subject: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class _Options:
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False


def run(arguments: list[str]) -> None:
    """Prints what was found; exits with 1 if something is broken.

    Raises:
      InputError: an option is unknown.
    """
    options = parse(_Options, arguments, "encdec doctor", "Looks at devices and versions.")
    found = []
    for finding in examined():
        found.append(finding)
        if not options.json:
            print(f"{finding.verdict:<4}  {finding.subject:<10}  {finding.text}", flush=True)
    if options.json:
        print(json.dumps({"findings": [asdict(finding) for finding in found]}))
    if any(finding.verdict == "FAIL" for finding in found):
        sys.exit(1)


def examined() -> Iterator[Finding]:
    """What is found, a subject at a time."""
    return (look() for look in LOOKS)


def expected(environment: dict[str, str], exists: Callable[[str], bool]) -> str | None:
    """The kind of accelerator that this machine shows signs of, `tpu` or `gpu`.

    Args:
      environment: variables.
      exists: whether there is a file.
    """
    for kind, signs in SIGNS.items():
        for sign in signs:
            value = environment.get(sign, "")
            if exists(sign) if sign.startswith("/") else value not in ("", "0"):
                return kind
    return None


def platform_finding(used: str, wanted: str | None, environment: dict[str, str]) -> Finding:
    """Whether JAX uses the accelerator that the machine has.

    Args:
      used: JAX's backend.
      wanted: what the machine shows signs of.
      environment: variables.
    """
    if used != "cpu":
        return Finding("platform", "ok", used)
    if wanted is None:
        return Finding("platform", "ok", "cpu (this machine shows no TPU or GPU)")
    if "cpu" in environment.get("JAX_PLATFORMS", ""):
        return Finding("platform", "warn", f"cpu, as JAX_PLATFORMS says; there is a {wanted}")
    return Finding(
        "platform",
        "FAIL",
        f"a {wanted.upper()} is here, but JAX uses the CPU: {INSTALL[wanted]}, then restart; in "
        "Colab choose Runtime > Change runtime type and run all cells anew",
    )


def _platform() -> Finding:
    environment = dict(os.environ)
    wanted = expected(environment, lambda path: Path(path).exists())
    return platform_finding(jax.default_backend(), wanted, environment)


def _devices() -> Finding:
    devices = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    text = f"{len(devices)} x {kinds}"
    if "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return Finding("devices", "warn", f"{text}, pretended by XLA_FLAGS: no faster than one")
    return Finding("devices", "ok", text)


def _processes() -> Finding:
    return Finding("processes", "ok", f"{jax.process_count()}, this one is {jax.process_index()}")


def _versions() -> Finding:
    names = " ".join(f"{name} {version(name)}" for name in PACKAGES)
    return Finding("versions", "ok", f"python {platform.python_version()} {names}")


def _memory() -> Finding:
    return Finding("memory", "ok", f"{device_memory() / 2**30:.1f} GiB a device")


def _rate(dtype: str) -> Finding:
    size = 1024 if jax.default_backend() == "cpu" else 8192
    rate = matmul_rate(size, jnp.dtype(dtype))
    return Finding(
        "matmul", "ok", f"{rate / 1e12:.3g} TFLOP/s, {size} x {size} x {size} {dtype}, one device"
    )


def matmul_rate(size: int, dtype: Any, seconds: float = 0.5) -> float:
    """FLOPs a second of products of square matrices: the fastest of those in some seconds."""
    x = jnp.ones((size, size), dtype)

    @jax.jit
    def product(x: Array) -> Array:
        return jnp.matmul(x, x, preferred_element_type=jnp.float32).astype(x.dtype)

    jax.block_until_ready(product(x))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def _mapped() -> Finding:
    count = jax.device_count()
    try:
        ok = pmap.psum_works()
    except Exception as error:  # whatever a broken driver raises
        return Finding("pmap", "FAIL", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    if not ok:
        return Finding("pmap", "FAIL", f"a sum over {count} devices came out wrong")
    return Finding("pmap", "ok", f"a sum over {count} device{'s' * (count > 1)} is right")


LOOKS: tuple[Callable[[], Finding], ...] = (
    _platform,
    _devices,
    _processes,
    _versions,
    _memory,
    lambda: _rate("float32"),
    lambda: _rate("bfloat16"),
    _mapped,
)
