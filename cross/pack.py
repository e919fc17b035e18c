"""cross/pack.py PROGRAM PACKED TARGET...: makes of a static ELF program for MIPS or ARM one that unpacks itself.

An opkg package is a gzip, and the programs of these processors are long and regular: a coder that knows what an instruction is
makes them a third smaller than gzip does. What is compressed is the program as it lies in memory; cross/unpack says how, and how
it gets back there. TARGET is zig's name of the program's processor, with its options; zig compiles for this machine, too.
"""

import math
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
FLAGS = """-Os -ffreestanding -fno-builtin -fomit-frame-pointer -fno-stack-protector -fno-unwind-tables
-fno-asynchronous-unwind-tables -fno-sanitize=all -fno-pie -static -nostdlib -s -Wl,--build-id=none""".split()
FLAGS.append("-Wl,-T," + os.path.join(UNPACK, "unpack.ld"))
ZIG = [sys.executable, "-m", "ziglang", "cc"]
# A part of 65536, never none and never all.
LOGISTIC = [min(max(round(65536 / (1 + math.exp(8 - x))), 16), 65520) for x in range(17)]


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
            far = (word & 0x3FFFFFF) - (start // 4 + first + at + 1)
            if not -0x8000 <= far < 0x8000:
                raise SystemExit("pack.py: a jump goes further than a branch could")
            word = JUMP << 26 | far & 0xFFFF
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


def calls(plain, code, unit):
    """The image with the calls of ARM as where they go, counted from the first instruction: see `branches` in cross/unpack."""
    plain = bytearray(plain)
    for at in range(code[0], code[1] - unit + 1, unit):
        place = (at - code[0]) // unit
        if unit == 4:
            (word,) = struct.unpack_from("<I", plain, at)
            if word >> 24 == 0xEB:
                struct.pack_into("<I", plain, at, 0xEB << 24 | word + place & 0xFFFFFF)
        elif at + 4 <= code[1]:
            first, second = struct.unpack_from("<HH", plain, at)
            # Two halves that were told already do not look like the beginning of a call from the second one on.
            if first & 0xF800 == 0xF000 and second & 0xF800 == 0xF800:
                to = ((first & 0x7FF) << 11 | second & 0x7FF) + place
                struct.pack_into("<HH", plain, at, 0xF000 | to >> 11 & 0x7FF, 0xF800 | to & 0x7FF)
    return bytes(plain)


def ordered(plain, code, unit):
    """The image with each instruction's first byte in front."""
    if plain[5] == 2:
        return plain
    run = bytearray(plain[code[0] : code[1]])
    for at in range(0, len(run), unit):
        run[at : at + unit] = run[at : at + unit][::-1]
    return plain[: code[0]] + bytes(run) + plain[code[1] :]


def compile_in(folder, command, known):
    """What a compiler makes of a file of cross/unpack and these numbers."""
    command = [*command, "-std=c99", "-Wall", "-Wextra", "-Werror", *("-D%s=%s" % pair for pair in known.items()), "-o", "made"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit("pack.py: %s: %s" % (" ".join(command), made.stderr))


def through(folder, what, plain, known):
    """What this program of cross/unpack, pack.c or weigh.c, makes of an image."""
    # No C library of this machine's is asked for.
    compile_in(folder, [*ZIG, "-target", os.uname().machine + "-linux-musl", "-O2", os.path.join(UNPACK, what)], known)
    return subprocess.run([os.path.join(folder, "made")], input=plain, stdout=subprocess.PIPE, check=True).stdout


def fnv1a(plain):
    """The sum of an image by which the unpacker knows it: FNV-1a, but of words as the processor reads them."""
    total, words = 0x811C9DC5, -(-len(plain) // 4)
    for word in struct.unpack("%s%dI" % (">" if plain[5] == 2 else "<", words), plain.ljust(4 * words, b"\0")):
        total = (total ^ word) * 0x01000193 & 0xFFFFFFFF
    return total


def prepared(program, target):
    """A program's image as it is packed, and what the C of cross/unpack must know of it."""
    with open(program, "rb") as file:
        start, plain, code, room, machine = image(file.read())
    if machine not in (EM_MIPS, EM_ARM):
        raise SystemExit("pack.py: %s is not for MIPS or ARM" % program)
    unit = 2 if "-mthumb" in target else 4
    known = {"START": start, "ROOM": room, "PLAIN": len(plain), "SUM": fnv1a(plain)}
    known.update(BEGIN=code[0], END=code[1], UNIT=unit, MIPS=int(machine == EM_MIPS), LOGISTIC=",".join(map(str, LOGISTIC)))
    told = regular(plain, start, code) if machine == EM_MIPS else calls(plain, code, unit)
    return ordered(told, code, unit), known


def main(program, packed, *target):
    told, known = prepared(program, target)
    with tempfile.TemporaryDirectory() as folder:
        # See cross/unpack/mix.h.
        data = through(folder, "pack.c", told, known)
        with open(os.path.join(folder, "payload"), "wb") as file:
            file.write(data)
        known["PAYLOAD"] = zlib.crc32(data)
        compile_in(folder, [*ZIG, "-target", *target, *FLAGS, os.path.join(UNPACK, "unpack.c")], known)
        with open(os.path.join(folder, "made"), "rb") as file:
            result = file.read()
    # Not a word of the payload may have been lost between the compiler's caches.
    if data not in result:
        raise SystemExit("pack.py: the compiler left the payload out")
    with open(packed, "wb") as file:
        file.write(result)
    os.chmod(packed, 0o755)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__.split(": ")[0])
    main(*sys.argv[1:])
