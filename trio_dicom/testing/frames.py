"""Frames of pixels, native and compressed, made without a codec."""

from __future__ import annotations

import struct


def gradient(pixels: int, bytes_per_pixel: int, start: int = 0, *, big_endian: bool = False) -> bytes:
    """As many values, each one more than the last, of 12 bits in two bytes or of 8 bits in one."""
    if bytes_per_pixel == 1:
        period = bytes((start + value) % 256 for value in range(256))
    else:
        values = [(start + value) % 4096 for value in range(4096)]
        period = struct.pack((">" if big_endian else "<") + "4096H", *values)
    size = pixels * bytes_per_pixel
    return (period * (size // len(period) + 1))[:size]


def rle_frame(pixels: bytes, bytes_per_pixel: int) -> bytes:
    """A frame of RLE Lossless (PS3.5 annex G) of little-endian values: a segment for each byte, the highest first."""
    segments = []
    for byte in reversed(range(bytes_per_pixel)):
        segment = _pack_bits(pixels[byte::bytes_per_pixel])
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    header = struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(offsets)))
    return header + b"".join(segments)


def _pack_bits(data: bytes) -> bytes:
    """Runs of three and more as a count and a byte, what is between them as it is (PS3.5 G.3.1)."""
    out = bytearray()
    literal = bytearray()
    at = 0
    while at < len(data):
        run = 1
        while run < 128 and data[at : at + run + 1] == data[at : at + 1] * (run + 1):
            run += 1
        if run < 3:
            literal += data[at : at + run]
        if literal and (run >= 3 or len(literal) >= 126 or at + run == len(data)):
            out += bytes((len(literal) - 1,)) + literal
            literal.clear()
        if run >= 3:
            out += bytes((257 - run, data[at]))
        at += run
    return bytes(out)


# Baseline JPEG (ISO 10918-1) of one component. Its Huffman tables have one code, of one bit, for "no difference to the
# block before" (DC) and for "no more coefficients" (AC): so a block of medium grey is two bits, 00.
_QUANTIZATION = b"\xff\xdb\0\x43\0" + b"\1" * 64
_HUFFMAN = b"".join(b"\xff\xc4\0\x14" + bytes((kind, 1, *[0] * 15, 0)) for kind in (0x00, 0x10))
_SCAN = b"\xff\xda\0\x08\1\1\0\0\x3f\0"


def flat_jpeg_frame(rows: int, columns: int) -> bytes:
    """A frame of JPEG Baseline, 8 bits, MONOCHROME2, in which every pixel is 128; even in length."""
    start_of_frame = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", rows, columns) + b"\1\1\x11\0"
    bits = 2 * -(-rows // 8) * -(-columns // 8)
    blocks = bytes(bits // 8)
    if bits % 8:
        blocks += bytes((0xFF >> bits % 8,))  # filled up with ones
    frame = b"\xff\xd8" + _QUANTIZATION + start_of_frame + _HUFFMAN + _SCAN + blocks + b"\xff\xd9"
    return frame + b"\0" * (len(frame) % 2)
