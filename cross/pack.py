"""cross/pack.py PROGRAM PACKED COMPILER...: makes of a static ELF program for MIPS or ARM one that unpacks itself.

An opkg package is a gzip, and the programs of these processors are long and regular: LZMA makes them a quarter smaller than
gzip does. What is compressed is the program as it lies in memory; cross/unpack says how it gets back there. COMPILER is a C
compiler for the program's processor, with its arguments.
"""

import lzma
import os
import struct
import subprocess
import sys
import tempfile
import zlib

UNPACK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "unpack")
# Where unpack.ld puts the packed file; cross/unpack knows it, too.
ABOVE = 0x00800000
PAGE = 4096
EM_MIPS, EM_ARM = 8, 40
PT_LOAD, PT_INTERP, ET_EXEC, PF_X = 1, 3, 2, 1
# The filter that xz does not have, and what it looks for: opcodes, `addiu sp, sp, -…` and its opposite, `jr ra`, and `sw` and
# `lw` of the registers that a function saves, of which there are ten; and BEGINS of cross/unpack.
REGULAR, JUMP, CALL = 1, 2, 3
ENTER, LEAVE, RETURN, SAVED = 0x27BD << 1 | 1, 0x27BD, 0x03E00008, 40
SAVING = {code | register for code in (0xAFA0, 0x8FA0) for register in (*range(16, 24), 30, 31)}
MOST = 0x4000
FLAGS = """-std=c99 -Wall -Wextra -Werror -Os -ffreestanding -fno-builtin -fomit-frame-pointer -fno-stack-protector
-fno-unwind-tables -fno-asynchronous-unwind-tables -fno-sanitize=all -fno-pie -static -nostdlib -s
-Wl,--build-id=none""".split()


def image(program):
    """Where in memory a program begins, its bytes there, those of them that are run, how much room it takes, its processor."""
    if program[:5] != b"\x7fELF\x01":
        raise SystemExit("pack.py: not an ELF program of 32 bits")
    order = ">" if program[5] == 2 else "<"
    kind, machine = struct.unpack_from(order + "HH", program, 16)
    (first,) = struct.unpack_from(order + "I", program, 28)
    (count,) = struct.unpack_from(order + "H", program, 44)
    headers = [struct.unpack_from(order + "8I", program, first + 32 * number) for number in range(count)]
    loads = [header for header in headers if header[0] == PT_LOAD]
    if kind != ET_EXEC or any(header[0] == PT_INTERP for header in headers) or not loads:
        raise SystemExit("pack.py: not a static program with a fixed address")
    start, room = loads[0][2], 0
    for _, offset, address, _, in_file, in_memory, _, _ in loads:
        # Each page has the rights of one segment.
        if address // PAGE * PAGE < start + room:
            raise SystemExit("pack.py: two segments share a page, or are not in order")
        room = -(-(address + in_memory) // PAGE) * PAGE - start
    # The first segment has to begin with the headers, which are read again there.
    if loads[0][1] != 0 or start % PAGE or start + room > ABOVE or any(l[3 + 1] < l[5] for l in loads[:-1]):
        raise SystemExit("pack.py: the program's segments lie where the unpacker does not expect them")
    plain = bytearray(loads[-1][2] + loads[-1][4] - start)
    for _, offset, address, _, in_file, _, _, _ in loads:
        plain[address - start : address - start + in_file] = program[offset : offset + in_file]
    code = [(address - start, address - start + in_file) for _, _, address, _, in_file, _, flags, _ in loads if flags & PF_X]
    if len(code) != 1:
        raise SystemExit("pack.py: not one segment that is run")
    return start, bytes(plain), code[0], room, machine


def regular(plain, start, code):
    """The image with what is the same in many functions of MIPS told the same way: see `branches` in cross/unpack."""
    order = ">" if plain[5] == 2 else "<"
    first, end = code[0] // 4, code[1] // 4
    words = struct.unpack_from("%s%dI" % (order, end - first), plain, 4 * first)
    begins = [at for at, word in enumerate(words) if word >> 15 == ENTER or at > 1 and words[at - 2] == RETURN]
    if len(begins) > MOST:
        raise SystemExit("pack.py: more functions than the unpacker has room for")
    numbers = {start // 4 + first + at: ABOVE // 4 + number for number, at in enumerate(begins)}
    frame, told = 0, []
    for at, word in enumerate(words):
        high, low = word >> 16, word & 0xFFFF
        if word >> 26 == 0:
            word = high << 16 | (low & 0x3F) << 10 | (low >> 6 & 0x1F) << 5 | low >> 11
        elif word >> 26 == JUMP:
            word = JUMP << 26 | word - at & 0x3FFFFFF
        elif word >> 26 == CALL:
            # Where no function can be; a weak one that nobody has is called at 0.
            if 0 <= (word & 0x3FFFFFF) - ABOVE // 4 < len(begins):
                raise SystemExit("pack.py: a call goes where no program is")
            word = CALL << 26 | numbers.get(word & 0x3FFFFFF, word & 0x3FFFFFF)
        elif word >> 15 == ENTER:
            frame = -low & 0xFFFF
            if frame > 0x7F00:
                raise SystemExit("pack.py: a function takes too much of the stack")
        elif high == LEAVE:
            word ^= frame
        elif high in SAVING and low - frame + SAVED & 0xFFFF < SAVED:
            word = high << 16 | low - frame + 0x8000 & 0xFFFF
        elif high in SAVING and low - 0x8000 + SAVED & 0xFFFF < SAVED:
            raise SystemExit("pack.py: a function reaches too far into the stack")
        told.append(word)
    return plain[: 4 * first] + struct.pack("%s%dI" % (order, end - first), *told) + plain[4 * end :]


def compressed(plain, start, code, machine):
    """The smallest of many ways to write the image down: LZMA's bytes, the number of a filter, and the settings."""
    best = None
    if machine == EM_MIPS:
        plain = regular(plain, start, code)

    def attempt(branches, lc, lp, nice, finder):
        nonlocal best
        chain = [{"id": branches}] if branches != REGULAR else []
        settings = {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 23, "nice_len": nice, "mf": finder}
        chain.append({"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": 2, **settings})
        data = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=chain)
        if best is None or len(data) < len(best[0]):
            best = data, branches, lc, lp

    for branches in (lzma.FILTER_ARM, lzma.FILTER_ARMTHUMB) if machine == EM_ARM else (REGULAR,):
        for lc, lp in ((0, 2), (1, 2), (2, 2), (2, 1), (3, 1)):
            attempt(branches, lc, lp, 273, lzma.MF_BT4)
    _, branches, lc, lp = best
    for nice in (64, 128, 273):
        for finder in (lzma.MF_BT2, lzma.MF_BT3, lzma.MF_BT4):
            attempt(branches, lc, lp, nice, finder)
    return best


def fnv1a(data):
    total = 0x811C9DC5
    for byte in data:
        total = (total ^ byte) * 0x01000193 & 0xFFFFFFFF
    return total


def main(program, packed, *compiler):
    with open(program, "rb") as file:
        start, plain, code, room, machine = image(file.read())
    if machine not in (EM_MIPS, EM_ARM):
        raise SystemExit("pack.py: %s is not for MIPS or ARM" % program)
    data, branches, lc, lp = compressed(plain, start, code, machine)
    known = {"START": start, "ROOM": room, "PLAIN": len(plain), "SUM": fnv1a(plain), "LC": lc, "LP": lp, "PB": 2}
    known.update(CODE=code[0] // 4, CODE_END=code[1] // 4, FILTER=branches, PAYLOAD=zlib.crc32(data))
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "payload"), "wb") as file:
            file.write(data)
        command = [*compiler, *FLAGS, *("-D%s=%d" % pair for pair in known.items())]
        command += ["-Wl,-T," + os.path.join(UNPACK, "unpack.ld"), os.path.join(UNPACK, "unpack.c"), "-o", "packed"]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit("pack.py: %s: %s" % (" ".join(command), made.stderr))
        with open(os.path.join(folder, "packed"), "rb") as file:
            result = file.read()
    # Not a word of the payload may have been lost between the compiler's caches.
    if data not in result:
        raise SystemExit("pack.py: the compiler left the payload out")
    with open(packed, "wb") as file:
        file.write(result)
    os.chmod(packed, 0o755)


if len(sys.argv) < 4:
    raise SystemExit(__doc__.split(": ")[0])
main(*sys.argv[1:])
