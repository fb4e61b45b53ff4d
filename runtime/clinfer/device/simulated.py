"""Intel GPUs that are not in the machine, through Intel's own driver (NEO).

The driver can present a simulated GPU: its compiler, linker, limits and binaries are the real ones
of that product, but kernels do not execute. So a cache can be filled for a GPU of a machine
elsewhere. The result fits the same driver version there, and a device of the same name: the driver
names a simulated GPU by its number, 'Intel(R) Graphics [0x1902]', and many real ones otherwise, so
the name can be given. The settings are read when the driver is loaded, so they are given to a new
process. Needs the driver package (Debian: intel-opencl-icd).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clinfer.errors import DeviceError

PREFIX = "intel:"
PLATFORM = "Intel(R) OpenCL HD Graphics"
_SWITCHES = {
    "NEOReadDebugKeys": "1",
    "SetCommandStreamReceiver": "1",
    "AUBDumpCaptureFileName": "/dev/null",
    "NEO_CACHE_PERSISTENT": "0",
}
# What a product needs beyond its name: DG2 (Arc) has several configurations; PVC (Data Center Max)
# without one reports that it takes no work-items at all.
_DETAILS: Mapping[str, Mapping[str, str]] = {
    "dg2": {"ForceDeviceId": "56a0", "HardwareInfoOverride": "8x4x16"},
    "pvc": {"HardwareInfoOverride": "8x4x16"},
}
PRODUCTS = (
    "skl kbl cfl glk icllp ehl tgllp rkl adls adlp dg1 dg2 pvc".split()  # noqa: SIM905
)
_VENDOR_FILES = Path("/etc/OpenCL/vendors")


def product_of(device: str) -> str | None:
    """'intel:dg2' -> 'dg2'; None for the name of a real device. Raises `DeviceError`."""
    if not device.lower().startswith(PREFIX):
        return None
    product = device[len(PREFIX) :].lower()
    if product not in PRODUCTS:
        raise DeviceError(
            f"no simulated GPU {device!r}; products: {', '.join(PRODUCTS)}. Others are compiled "
            "for by ocloc: install it (Debian: intel-ocloc), or name it with CLINFER_OCLOC"
        )
    return product


def simulates(product: str) -> bool:
    """Whether a driver is installed here, and one that can simulate may present the product."""
    return product in PRODUCTS and driver_library() is not None


def driver_library() -> Path | None:
    """The driver's library as its installed .icd file names it; None where it is not installed."""
    for file in sorted(_VENDOR_FILES.glob("*.icd")):
        library = Path(file.read_text(encoding="utf-8").strip())
        if library.name.startswith("libigdrcl"):
            return library
    return None


def environment(product: str, folder: Path, name: str | None = None) -> dict[str, str]:
    """Variables for a process that sees the simulated GPU as 'GPU'; `folder` gets an .icd file.

    `name` is what the driver is to call it; None: by its number. Raises `DeviceError` where the
    driver is not installed.
    """
    library = driver_library()
    if library is None:
        raise DeviceError(
            f"a simulated Intel GPU needs Intel's driver: no .icd file in {_VENDOR_FILES} names "
            "libigdrcl.so; install it (Debian: intel-opencl-icd)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "intel.icd").write_text(f"{library}\n", encoding="utf-8")
    return {
        **_SWITCHES,
        **_DETAILS.get(product, {}),
        **({} if name is None else {"OverrideDeviceName": name}),
        "ProductFamilyOverride": product,
        "OCL_ICD_VENDORS": str(folder),
        "CLINFER_GPU_PLATFORM": PLATFORM,
    }
