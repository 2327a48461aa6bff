"""Ways to damage a file: bytes, text, JSON, NIfTI headers, and small files that claim to be huge."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Rng = np.random.Generator
ODD = [
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), "", " ",
    "x" * 5000, "\0", "a\nb", "\ud800", "../../etc/passwd", "/etc/passwd", "C:\\x", "$(touch x)", [], {}, [[]], [None],
    {"": ""}, [1, [2, [3, {"a": [4]}]]],
]  # fmt: skip
"""Values that some reader somewhere did not expect."""


def damaged(content: bytes, rng: Rng, first: int = 0, last: int | None = None) -> bytes:
    """`content` after one accident between bytes `first` and `last`."""
    last = min(len(content) if last is None else last, len(content))
    if last <= first:
        return content + rng.bytes(3)
    at = int(rng.integers(first, last))
    size = int(min(rng.choice([1, 2, 8, 40]), last - at))
    some = bytearray(content)
    match rng.choice(
        ["bit", "bits", "bytes", "zeros", "cut", "left out", "twice", "inserted", "empty"], p=_SHARES
    ):
        case "bit":
            some[at] ^= 1 << int(rng.integers(8))
        case "bits":
            for place in rng.integers(first, last, int(rng.integers(2, 9))):
                some[place] ^= 1 << int(rng.integers(8))
        case "bytes":
            some[at : at + size] = rng.bytes(size)
        case "zeros":
            some[at : at + size] = bytes([rng.choice([0, 255])]) * size
        case "cut":
            del some[at:]
        case "left out":
            del some[at : at + size]
        case "twice":
            some[at:at] = some[at : at + size]
        case "inserted":
            some[at:at] = rng.bytes(size)
        case "empty":
            some.clear()
    return bytes(some)


_SHARES = [0.3, 0.15, 0.15, 0.08, 0.1, 0.08, 0.06, 0.06, 0.02]


def damaged_text(content: bytes, rng: Rng) -> bytes:
    """Text with a field, a line or single characters changed."""
    lines = content.decode(errors="surrogateescape").split("\n")
    at, other = (int(i) for i in rng.integers(len(lines), size=2))
    match rng.choice(["characters", "number", "lines", "line twice", "field", "encoding"]):
        case "characters":
            return damaged(content, rng)
        case "number":
            digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
            place = int(rng.choice(digits)) if digits else 0
            new = rng.choice(
                ["-1", "0", "7", "11", "12", "99", "1e9", "nan", "9" * 5000, "1.5", "", "\u0663", "\u00b2"]
            )
            return content[:place] + str(new).encode() + content[place + 1 :]
        case "lines":
            lines[at], lines[other] = lines[other], lines[at]
        case "line twice":
            lines.insert(other, lines[at])
        case "field":
            fields = lines[at].split(",")
            fields[int(rng.integers(len(fields)))] = str(ODD[int(rng.integers(len(ODD)))])
            lines[at] = ",".join(fields)
        case "encoding":
            return content.decode(errors="replace").encode(str(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    text = "\n".join(lines)
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, from ODD
        return text.encode(errors="replace")


def damaged_tree(
    content: bytes, rng: Rng, write: Callable[[Any], str] = json.dumps, read=json.loads
) -> bytes:
    """JSON or YAML with one value, key or branch of the tree changed, or with its characters damaged."""
    if rng.random() < 0.4:
        return damaged_text(content, rng)
    tree = read(content)
    places = list(_places(tree))
    node, key = places[int(rng.integers(len(places)))]
    odd = ODD[int(rng.integers(len(ODD)))]
    match rng.choice(["value", "gone", "renamed", "swapped", "root"], p=[0.6, 0.15, 0.1, 0.1, 0.05]):
        case "gone":
            del node[key]
        case "renamed" if isinstance(node, dict):
            node[f"{key}{rng.integers(9)}"] = node.pop(key)
        case "swapped":
            there, other = places[int(rng.integers(len(places)))]
            node[key], there[other] = there[other], node[key]
        case "root":
            tree = odd
        case _:
            node[key] = odd
    try:
        return write(tree).encode(errors="surrogatepass")
    except (RecursionError, ValueError):  # a branch swapped into itself
        return damaged(content, rng)


def _places(tree: Any):
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


FIELDS = {
    "sizeof_hdr": (0, "i", [0, 540, 1543569408, -1]),
    "dim": (40, "8h", [0, 1, 2, 3, 5, 7, 8, -1, 6, 24, 32767]),
    "datatype": (70, "h", [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304, 99]),
    "bitpix": (72, "h", [0, 1, 8, 32, 64, -16]),
    "pixdim": (76, "8f", [0, -1, 0.5, 2, 1e-9, 1e6, 1e38, np.nan, np.inf]),
    "vox_offset": (108, "f", [0, 348, 336, 353, 368, 1e9, -1, np.nan, np.inf]),
    "scl": (112, "2f", [0, -1, 0.5, 1e-30, 1e38, np.nan, np.inf]),
    "xyzt_units": (123, "b", [0, 1, 2, 3, 4, 10, 8, 63, -1]),
    "codes": (252, "2h", [0, 1, 2, 3, 4, 5, -1, 99]),
    "quaternion": (256, "6f", [0, 1, -1, 0.5, 30, 1e38, np.nan]),
    "sform": (280, "12f", [0, 1, -1, 0.5, 2, 30, 1e-6, 1e6, 1e38, np.nan, np.inf]),
    "magic": (344, "4b", [0, 49, 50, 105]),
}
"""Field of the NIfTI-1 header -> (offset, format, values to try)."""


def damaged_header(content: bytes, rng: Rng) -> bytes:
    """An unpacked NIfTI file whose header says something else."""
    if rng.random() < 0.35:
        return damaged(content, rng, 0, 352)
    some = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        offset, code, values = FIELDS[list(FIELDS)[int(rng.integers(len(FIELDS)))]]
        fields = list(struct.unpack_from(f"<{code}", some, offset))
        fields[int(rng.integers(len(fields)))] = values[int(rng.integers(len(values)))]
        with np.errstate(all="ignore"):
            struct.pack_into(f"<{code}", some, offset, *fields)
    return bytes(some)


def huge_nifti(content: bytes, rng: Rng) -> bytes:
    """A small .nii.gz that claims, or unpacks to, gigabytes."""
    dims = [(3, 32767, 32767, 32767), (3, 1024, 1024, 1024), (4, 32767, 32767, 4, 4), (3, 2048, 1024, 512)]
    head = bytearray(content[:352])
    chosen = dims[int(rng.integers(len(dims)))]
    struct.pack_into(f"<{len(chosen)}h", head, 40, *chosen)
    if rng.random() < 0.3:
        struct.pack_into("<f", head, 108, 1e9)
    stream = gzip.compress(bytes(head), 1)
    return stream + _zeros_gzip() * int(rng.choice([0, 2, 64, 128]))  # members of 2**24 zeros each


@cache
def _zeros_gzip() -> bytes:
    return gzip.compress(bytes(2**24), 1)


def huge_npy(shape: tuple[int, ...], dtype: str = "<f2", *, nested: int = 0) -> bytes:
    """The header of an npy file that claims `shape`, and nothing behind it; or one nested too deeply to parse."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text = "(" * nested if nested else text
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def huge_npz(rng: Rng) -> bytes:
    """An archive whose arrays claim, or unpack to, gigabytes."""
    zeros = _zeros_deflated() if rng.random() < 0.5 else None
    archive, directory = b"", b""
    for name in ("image", "truth", "prediction", "patient", "z"):
        file, header = f"{name}.npy".encode(), huge_npy((2**12, 2**10, 2**10))
        stored = zeros is None or name != "image"
        packed, size = (header, len(header)) if stored else (zeros, ZEROS)
        fields = (
            20,
            0,
            0 if stored else 8,
            0,
            33,
            zlib.crc32(header) if stored else 0,
            len(packed),
            size,
            len(file),
        )
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, *fields[:5], *fields[5:], 0, 0, 0, 0, 0, len(archive)
        )
        directory += file
        archive += struct.pack("<4s5H3I2H", b"PK\3\4", *fields, 0) + file + packed
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 5, 5, len(directory), len(archive), 0)
    return archive + directory + end


ZEROS = 80 * 2**24


@cache
def _zeros_deflated() -> bytes:
    """1.3 GB of zeros as a raw deflate stream: the same block over and over."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (ZEROS // 2**24) + packer.flush()


def huge_tiff(rng: Rng) -> bytes:
    """A small TIFF of 178 million pixels and more: zeros that unpack, in one strip."""
    side = int(rng.choice([13000, 30000, 60000]))
    packer = zlib.compressobj(1)
    rows = packer.compress(bytes(2**20)) + packer.flush()
    tags = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 0x00080008), (259, 3, 1, 8), (262, 3, 1, 2),
        (273, 4, 1, 200), (277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, len(rows)), (284, 3, 1, 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + rows
