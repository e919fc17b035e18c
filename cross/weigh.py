"""cross/weigh.py LINKED TARGET...: prints what each file of src, and each part of the roadmap, takes of a packed program.

LINKED is a folder with a program that has line tables, its map and its object file, as cross/weigh makes it, where it is told how to
read what is printed; TARGET is zig's name of the processor, with its options, as for cross/pack.py.
"""

import array
import collections
import os
import re
import struct
import subprocess
import sys
import tempfile

import pack

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.join(os.path.dirname(HERE), "src", "")
# Of ELF: types of sections, their flags, and two of MIPS's ways to refer to something.
SYMBOLS, RELOCATIONS, ALLOC, MERGED, TEXT, HIGH, LOW = 2, 9, 2, 0x10, 0x20, 5, 6
# Whose a source is that is not ours.
LIBRARIES = (
    (re.compile(r"/library/(?:compiler-builtins/)?([\w-]+)/src/"), "(%s)"),
    (re.compile(r"/registry/src/[^/]+/([\w-]+?)-\d[^/]*/"), "(%s)"),
    (re.compile(r"/ziglang/()"), "(C library)%s"),
)
# Where lld's map has a section of an object file, and a symbol; in front are four numbers.
SECTION, SYMBOL = 41, 49


class Section:
    """A function or a constant: what the linker takes or leaves as one."""

    def __init__(self, name, address, size):
        self.name, self.address, self.size = name, address, size
        self.symbol = None
        # What `references` calls it.
        self.key = None
        # The sections that refer to it, each with the address where it does.
        self.referred = []
        # The files that it is for, and the first part of the roadmap that cannot do without it.
        self.files, self.part = set(), None


def sections_of(path, memory):
    """The sections of a program that lie there in memory, by lld's map, in their order."""
    sections, loaded = [], False
    with open(path, encoding="utf-8") as file:
        for line in file.readlines()[1:]:
            address, _, size, _, rest = line.rstrip("\n").split(None, 4)
            column = len(line.rstrip("\n")) - len(rest)
            address, size = int(address, 16), int(size, 16)
            if column >= SYMBOL:
                sections[-1].symbol = sections[-1].symbol or rest
            elif column >= SECTION:
                sections.append(Section(rest, address, size if loaded else 0))
            else:
                # Line tables and the like are at 0, what is thread's own or zeros lies behind or has no bytes.
                loaded = address in memory and rest not in (".tbss", ".bss")
    return [section for section in sections if section.size]


def references(path):
    """What an object file says: in which section, where in it, what is referred to: a section, a symbol of others, or a piece."""
    with open(path, "rb") as file:
        held = file.read()
    order = ">" if held[5] == 2 else "<"
    (table,) = struct.unpack_from(order + "I", held, 32)
    each, count, names = struct.unpack_from(order + "3H", held, 46)
    headers = [struct.unpack_from(order + "10I", held, table + each * number) for number in range(count)]

    def text(at):
        return held[at : held.index(b"\0", at)].decode()

    called = [text(headers[names][4] + header[0]) for header in headers]
    (symbols,) = [header for header in headers if header[1] == SYMBOLS]
    (machine,) = struct.unpack_from(order + "H", held, 18)
    for header in headers:
        if header[1] != RELOCATIONS or not headers[header[7]][2] & ALLOC:
            continue
        highs = {}
        for at in range(header[4], header[4] + header[5], 8):
            place, info = struct.unpack_from(order + "II", held, at)
            name, value, _, _, _, to = struct.unpack_from(order + "IIIBBH", held, symbols[4] + 16 * (info >> 8))
            if not 0 < to < 0xFF00:
                yield called[header[7]], place, (text(headers[symbols[6]][4] + name),)
                continue
            target = headers[to]
            if target[2] & MERGED and machine == pack.EM_MIPS:
                # Of what the linker merges the bytes are looked for. Where they are is what the instruction, or the word, holds.
                (word,) = struct.unpack_from(order + "I", held, headers[header[7]][4] + place)
                if info & 0xFF == HIGH:
                    highs[info >> 8] = (word & 0xFFFF) << 16
                    continue
                if info & 0xFF == LOW:
                    word = highs[info >> 8] + (word & 0xFFFF ^ 0x8000) - 0x8000
                yield called[header[7]], place, (called[to], piece(held, target[4] + value + word, target[9], target[2] & TEXT))
            else:
                yield called[header[7]], place, (called[to], None)


def piece(held, at, size, text):
    """A piece of a section of texts, or of numbers of a size, from there on."""
    return held[at : held.index(b"\0", at) + 1] if text else held[at : at + size]


def frames_of(program, addresses):
    """Of each address the functions that it is in, the innermost first: the name and the source of each."""
    asked = "".join("0x%x\n" % address for address in addresses)
    command = ["llvm-symbolizer", "--inlines", "--obj=" + program]
    told = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    for answer in told.split("\n\n")[: len(addresses)]:
        lines = answer.split("\n")
        yield [(name, place.rsplit(":", 2)[0]) for name, place in zip(lines[::2], lines[1::2])]


def file_of(name):
    """The file of ours that is named first in what a function is called."""
    for found in re.finditer(r"sliverfs((?:::\w+)+)", name):
        words = found.group(1).split("::")[1:]
        for count in range(len(words), 0, -1):
            for file in ("/".join(words[:count]) + end for end in (".rs", "/mod.rs")):
                if os.path.exists(SRC + file):
                    return file
    return None


def library_of(source):
    for pattern, shown in LIBRARIES:
        found = pattern.search(source)
        if found:
            return shown % found.group(1)
    return "(C library)"


class Parts:
    """Which part of the roadmap a function is for: cross/parts."""

    def __init__(self, path):
        self.lines, self.names, self.found = {}, {}, {}
        with open(path, encoding="utf-8") as file:
            for line in file:
                part, *whats = line.partition("#")[0].split() or [None]
                for what in whats:
                    if part == "part":
                        self.names[int(whats[0])] = " ".join(whats[1:])
                        break
                    self.lines[what] = int(part)
        self.unused = set(self.lines)

    def of(self, file, name):
        if (file, name) not in self.found:
            keys = ["%s:%s" % (file, word) for word in re.findall(r"\w+", name)]
            keys += [file[:end] for end in range(len(file), 0, -1) if end == len(file) or file[end - 1] == "/"]
            key = next((key for key in keys if key in self.lines), None)
            self.unused.discard(key)
            self.found[file, name] = self.lines.get(key, 1)
        return self.found[file, name]


class Program:
    """What there is of a program, each function and constant of it, and what it is for."""

    def __init__(self, folder, target):
        self.path = os.path.join(folder, "program")
        told, known = pack.prepared(self.path, target)
        self.start, self.unit = known["START"], known["UNIT"]
        self.run = range(self.start + known["BEGIN"], self.start + known["END"])
        with tempfile.TemporaryDirectory() as made:
            self.paid = array.array("I", pack.through(made, "weigh.c", told, known))
            self.payload = len(pack.through(made, "pack.c", told, known))
        self.parts = Parts(os.path.join(HERE, "parts"))
        mapped = sections_of(os.path.join(folder, "map"), range(self.start, self.start + len(told)))
        self.sections = [part for section in mapped for part in self.pieces(section, told)]
        self.read_frames()
        self.read_references(folder)
        self.find_files()
        self.find_parts()

    def pieces(self, section, told):
        """A section, or, of one that the linker merged, each of its pieces."""
        kind = re.fullmatch(r"<internal>:\((\.rodata\.(?:str\d+\.\d+|cst(\d+)))\)", section.name)
        at, end = section.address - self.start, section.address - self.start + section.size
        while kind and at < end:
            held = piece(told, at, int(kind.group(2) or 0), not kind.group(2))
            one = Section(section.name, self.start + at, len(held))
            one.key = (kind.group(1), held)
            yield one
            at += len(held)
        if not kind:
            yield section

    def packed(self, address, size):
        """What bytes take when they are packed."""
        at = address - self.start
        return sum(self.paid[at : at + size]) / 65536 / 8

    def is_run(self, section):
        return section.address in self.run

    def read_frames(self):
        """Of each instruction its file, that of the innermost function of ours, and the last part that it is inlined for."""
        self.file_at, self.part_at = {}, {}
        addresses = [at for section in self.sections if self.is_run(section) for at in self.units(section)]
        for address, frames in zip(addresses, frames_of(self.path, addresses)):
            # What is told to be of lib.rs has no line, and is its function's.
            ours = [(source[len(SRC) :], name) for name, source in frames if source.startswith(SRC) and source != SRC + "lib.rs"]
            outer = file_of(frames[-1][0])
            ours += [(outer, frames[-1][0])] if outer else []
            self.file_at[address] = ours[0][0] if ours else library_of(frames[0][1])
            self.part_at[address] = max((self.parts.of(*one) for one in ours), default=1)

    def units(self, section):
        return range(section.address, section.address + section.size, self.unit)

    def read_references(self, folder):
        (path,) = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".o")]
        inside = os.path.basename(path) + ":("
        # The C library's objects have no references here: of its functions only those that ours call are known to be called.
        for one in self.sections:
            one.key = one.key or ((one.name.partition(inside)[2][:-1], None) if inside in one.name else (one.symbol,))
        known = {one.key: one for one in self.sections}
        for section, place, to in references(path):
            section, to = known.get((section, None)), known.get(to)
            if section and to and section is not to:
                to.referred.append((section, section.address + place))

    def find_files(self):
        """The files that each constant is for: those of the code that refers to it, or to one that refers to it."""
        constants = [section for section in self.sections if not self.is_run(section)]
        changed = True
        while changed:
            changed = False
            for section in constants:
                files = set(section.files)
                for by, at in section.referred:
                    files |= {self.file_at[at // self.unit * self.unit]} if self.is_run(by) else by.files
                changed |= files != section.files
                section.files = files

    def find_parts(self):
        """The part that each section is for: its own, but none before the first one that refers to it."""
        for section in self.sections:
            outer = section.symbol and file_of(section.symbol)
            section.own = self.parts.of(outer, section.symbol) if outer else 1
            section.part = None if section.referred else section.own
        changed = True
        while changed:
            changed = False
            for section in self.sections:
                by = [max(by.part, self.part_at.get(at // self.unit * self.unit, 1)) for by, at in section.referred if by.part]
                part = max(section.own, min(by)) if by else section.part
                changed |= part != section.part
                section.part = part

    def weighed(self):
        """Of each file and part: how many bytes, and how many packed. What shares a constant takes an equal part of it."""
        sums = collections.defaultdict(lambda: [0, 0])

        def add(file, part, plain, packed):
            sums[file, part][0] += plain
            sums[file, part][1] += packed

        end = self.start
        for section in self.sections:
            add("(between)", 1, section.address - end, self.packed(end, max(section.address - end, 0)))
            end = section.address + section.size
            if self.is_run(section):
                for at in self.units(section):
                    add(self.file_at[at], max(section.part or section.own, self.part_at[at]), self.unit, self.packed(at, self.unit))
            else:
                files = section.files or {"(constants)"}
                for file in files:
                    add(file, section.part or section.own, section.size / len(files), self.packed(section.address, section.size) / len(files))
        last = self.start + len(self.paid)
        add("(between)", 1, last - end, self.packed(end, last - end))
        return sums


def main(folder, *target):
    program = Program(folder, target)
    sums, names = program.weighed(), program.parts.names
    files = sorted({file for file, _ in sums}, key=lambda file: -sum(sums[file, part][1] for part in names))
    titles = {part: "part %d: %s" % (part, name) for part, name in names.items()}
    width = max(map(len, [*files, *titles.values()]))
    row = "%-*s" + " %9s" * (2 + len(names))
    print(row % (width, "file", "bytes", "packed", *("part %d" % part for part in names)))
    for file in files:
        plain, packed = zip(*(sums[file, part] for part in names))
        print(row % (width, file, *("%.0f" % size for size in (sum(plain), sum(packed), *packed))))
    print()
    row = "%-*s %9.0f %9.0f"
    for part, title in titles.items():
        print(row % (width, title, *(sum(sums[file, part][i] for file in files) for i in (0, 1))))
    # The coder loses some bytes of its own where it rounds, and ends.
    print(row % (width, "the program, and its payload", len(program.paid), program.payload))
    if program.parts.unused:
        raise SystemExit("weigh.py: cross/parts names what is not there: " + " ".join(sorted(program.parts.unused)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__.split(": ")[0])
    main(*sys.argv[1:])
