"""cross/order.py ARGUMENT...: prints a script for the linker that lays functions and constants which are alike beside each other.

What packs them (cross/unpack/mix.h) remembers what it met lately better than what is long ago. The arguments are the linker's: of the object
files among them each function and each constant has a section of its own. Which comes first follows from their bytes alone, so
that the same program is laid out in the same way.
"""

import re
import struct
import sys

EM_MIPS = 8
CONTENTS, ALLOC, RUN, MERGED = 1, 2, 4, 0x30
# Of MIPS: `addiu sp, sp, -…` without its last 15 bits, and `sw` of the registers s0 to ra in the stack without the register.
ENTER, SAVE = 0x27BD << 1 | 1, 0xAFB0
# The rest is as lld has it; and without what no program reads and strip leaves in place: 72 to 92 KB of procedure descriptors on
# MIPS, and unwind tables of the C library on all of them, which nothing walks where a panic aborts.
SCRIPT = """SECTIONS
{
  .rodata : { %s*(.rodata .rodata.*) }
  .text : { %s*(.text .text.*) }
  .tdata : { *(.tdata .tdata.*) }
  .tbss : { *(.tbss .tbss.*) }
  /DISCARD/ : { *(.pdr) *(.mdebug*) *(.comment) *(.eh_frame) *(.eh_frame_hdr) }
}
INSERT BEFORE .data;"""


def sections(file):
    """The name, the flags, the processor and the bytes of each section of an object file that lands in memory."""
    if file[:4] != b"\x7fELF":
        return
    order = ">" if file[5] == 2 else "<"
    wide = file[4] == 2
    (machine,) = struct.unpack_from(order + "H", file, 18)
    (table,) = struct.unpack_from(order + "Q" if wide else order + "I", file, 40 if wide else 32)
    each, count, names = struct.unpack_from(order + "3H", file, 58 if wide else 46)
    kind = order + ("IIQQQQ" if wide else "IIIIII")
    headers = [struct.unpack_from(kind, file, table + each * number) for number in range(count)]
    for name, is_a, flags, _, offset, size in headers:
        name = headers[names][4] + name
        name = file[name : file.index(b"\0", name)].decode()
        if is_a == CONTENTS and flags & ALLOC and re.fullmatch(r"[\w.$]+", name):
            yield name, flags, machine, order, file[offset : offset + size]


def shape(machine, order, code):
    """What a function sorts by: how many registers it saves, how large its frame is, then its instructions."""
    words = struct.unpack("%s%dI" % (order, len(code) // 4), code[: len(code) // 4 * 4])
    if machine != EM_MIPS:
        return words
    frame = next((-word & 0xFFFF for word in words[:4] if word >> 15 == ENTER), 0)
    return sum(word >> 20 == SAVE >> 4 for word in words[:14]), frame, words


def main(arguments):
    functions, constants = [], []
    for argument in arguments:
        if not argument.endswith(".o"):
            continue
        with open(argument, "rb") as file:
            for name, flags, machine, order, held in sections(file.read()):
                if flags & RUN and name.startswith(".text."):
                    functions.append((shape(machine, order, held), name))
                elif not flags & MERGED and name.startswith(".rodata."):
                    constants.append((held, name))
    if not functions:
        raise SystemExit("order.py: there is no function among the arguments")
    print(SCRIPT % tuple("".join("*(%s)\n" % name for _, name in sorted(all_)) for all_ in (constants, functions)))


main(sys.argv[1:])
