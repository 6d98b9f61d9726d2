"""ICC profiles that tests make: a screen's or a grey one of version 2, and one of printing inks."""

import struct

import numpy as np

P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def screen(primaries: tuple[tuple[float, float], ...], gamma: float | None) -> bytes:
    """gamma: None for sRGB's curve."""
    matrix = to_d50(primaries)
    curve = _curve(gamma)
    columns = {name: _xyz(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"mntr", b"RGB ", b"XYZ ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def inks(lab: np.ndarray) -> bytes:
    """lab: (2, 2, 2, 2, 3) L*, a*, b* for each ink, C M Y K, left out or full."""
    coded = np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], axis=-1).round().astype(np.uint8)
    ramp = bytes(range(256))
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3).ravel() * 65536).astype(int))
    table = head + ramp * 4 + coded.tobytes() + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"A2B1": table})


def to_d50(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(3, 3) linear RGB -> XYZ as seen at D50, from a white of D65."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, (0.3127, 0.3290))]).T
    matrix = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    scale = (_BRADFORD @ D50) / (_BRADFORD @ xyz[:, 3])
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    signal = np.linspace(0, 1, 1024)
    light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + (light * 65535).round().astype(">u2").tobytes()


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"test\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(79)
    said = {b"desc": described + bytes(-len(described) % 4), b"cprt": b"text" + bytes(4) + b"CC0\0"}
    all_tags = said | {b"wtpt": _xyz(D50)} | tags
    table, body = struct.pack(">I", len(all_tags)), b""
    start = 128 + 4 + 12 * len(all_tags)
    for name, data in all_tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in D50))
    return head + bytes(128 - len(head)) + table + body
