"""The few calls of the CUDA driver that running an engine takes.

They go to the driver's own library through ctypes: it is there wherever a GPU works, Jetson or
PC, and these functions are the same in CUDA 11.4 to 13. A Python package of bindings would have
to match the driver's major version, which differs from device to device.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.engines.builder import EngineError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

#: Argument types as in cuda.h. A CUdeviceptr is an unsigned 64-bit number, handles are pointers.
#: Names with _v2 are what cuda.h's macros make of those without.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (POINTER(c_char), c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_ulonglong), c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class Gpu:
    """The first GPU that CUDA shows (``CUDA_VISIBLE_DEVICES``), and one stream on it.

    Everything allocated here is freed with the object. Not safe for use by several threads at
    once, but by one after another: see ``enter``.

    Attributes:
        name: such as ``Orin``.
        capability: compute capability, such as (8, 7).
        stream: handle of the stream that copies and engines share.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise EngineError(
                f"no NVIDIA driver here ({LIBRARY} isn't found), so no GPU for TensorRT: install "
                "the driver, or use a bundle for onnx or openvino"
            ) from error
        self._functions = {name: _bind(library, name, types) for name, types in _PROTOTYPES.items()}
        try:
            self._call("cuInit", 0)
            device = c_int()
            self._call("cuDeviceGet", byref(device), 0)
            context = c_void_p()
            # TensorRT's own CUDA runtime works in the device's primary context.
            self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        except EngineError as error:
            raise EngineError(
                f"the NVIDIA driver finds no GPU that works ({error}): see what nvidia-smi says, "
                "or use a bundle for onnx or openvino"
            ) from error
        self._context = context
        self.enter()
        self.name = self._read_name(device)
        self.capability = (
            self._read_attribute(device, _CAPABILITY_MAJOR),
            self._read_attribute(device, _CAPABILITY_MINOR),
        )
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _STREAM_NON_BLOCKING)
        self.stream = int(stream.value or 0)
        #: Function and handle of each thing to give back.
        self._owned: list[tuple[str, int]] = [("cuStreamDestroy_v2", self.stream)]
        weakref.finalize(self, _release, self._functions, context, self._owned)

    def enter(self) -> None:
        """Make the GPU current in this thread: needed before the other methods."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes on the GPU."""
        address = c_ulonglong()
        self._call("cuMemAlloc_v2", byref(address), size)
        self._owned.append(("cuMemFree_v2", address.value))
        return address.value

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """(size,) uint8 of page-locked memory, which is copied without the driver's detour."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), size, 0)
        self._owned.append(("cuMemFreeHost", int(address.value or 0)))
        memory = (ctypes.c_uint8 * size).from_address(int(address.value or 0))
        return np.ctypeslib.as_array(memory)

    def upload(self, address: int, source: NDArray[np.uint8]) -> None:
        """Queue a copy from page-locked memory to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", address, source.ctypes.data, source.nbytes, self.stream)

    def download(self, target: NDArray[np.uint8], address: int) -> None:
        """Queue a copy from the GPU to page-locked memory."""
        self._call("cuMemcpyDtoHAsync_v2", target.ctypes.data, address, target.nbytes, self.stream)

    def synchronise(self) -> None:
        """Wait for all that was queued."""
        self._call("cuStreamSynchronize", self.stream)

    def capture(self, queue: Callable[[], None]) -> int:
        """Record what ``queue`` queues, without running it, as a CUDA graph.

        Returns:
            Handle for ``launch``.

        Raises:
            EngineError: something in it can't be recorded.
        """
        self._call("cuStreamBeginCapture_v2", self.stream, _CAPTURE_THREAD_LOCAL)
        graph = c_void_p()
        try:
            queue()
        finally:  # or the stream would stay in capture
            ended = self._functions["cuStreamEndCapture"](self.stream, byref(graph))
        self._check("cuStreamEndCapture", ended)
        executable = c_void_p()
        try:
            self._call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        self._owned.append(("cuGraphExecDestroy", int(executable.value or 0)))
        return int(executable.value or 0)

    def launch(self, graph: int) -> None:
        """Queue a captured graph."""
        self._call("cuGraphLaunch", graph, self.stream)

    def _read_name(self, device: c_int) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), device)
        return text.value.decode(errors="replace")

    def _read_attribute(self, device: c_int, attribute: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), attribute, device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, self._functions[name](*arguments))

    def _check(self, name: str, status: int) -> None:
        if status == 0:
            return
        text = c_char_p()
        self._functions["cuGetErrorString"](status, byref(text))
        reason = text.value.decode(errors="replace") if text.value else "unknown error"
        raise EngineError(f"{name} failed with CUDA error {status}, {reason}")


def _bind(library: ctypes.CDLL, name: str, types: tuple[Any, ...]) -> Any:
    try:
        function = getattr(library, name)
    except AttributeError as error:
        raise EngineError(
            f"the NVIDIA driver is too old (it has no {name}): CUDA 11.4's or later is needed"
        ) from error
    function.argtypes, function.restype = types, c_int
    return function


def _release(
    functions: dict[str, Any], context: c_void_p, owned: Sequence[tuple[str, int]]
) -> None:
    """Give everything back, last first. A driver that is shutting down says no: no matter."""
    functions["cuCtxSetCurrent"](context)
    for name, handle in reversed(owned):
        functions[name](handle)
