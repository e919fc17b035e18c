/*
 * What the coder of packed programs (mix.h) knows before a byte: of its instruction, of those before, and, with MIPS, of what
 * instructions of its kind had lately in their lower half.
 *
 * Who includes it defines, beside UNIT (see mix.h),
 *
 *   MIPS  1 where the program is for MIPS, else 0
 */
enum { CONTEXTS = 6 };

static uint32_t hash(uint32_t a, uint32_t b)
{
	a = a * 0x9e3779b1 ^ b * 0x85ebca77;
	return (a ^ a >> 15) * 0x2c1b3c6d;
}

/* The `count` bytes before `end`, as a number. */
static uint32_t number(const uint8_t *end, uint32_t count)
{
	uint32_t value = 0;

	for (; count; count--)
		value = value << 8 | end[-(int)count];
	return value;
}

/* Which operation an instruction of MIPS is; of those between registers the packer has put that in front of the lower half. */
static uint32_t operation(uint32_t word)
{
	return word >> 26 ? word >> 26 : 64 | (word >> 10 & 63);
}

/* The contexts of a byte that is not run: the bytes before. */
static void choose_plain(uint32_t *contexts, const uint8_t *byte, uint32_t at)
{
	contexts[0] = hash(number(byte, 2), 6);
	contexts[1] = hash(number(byte, 4), 8);
	contexts[2] = hash(number(byte, 3), 7);
	contexts[3] = hash(at % 4, byte[-1] * 8 + 5);
	contexts[4] = hash(at % 4, byte[-4]);
	contexts[5] = hash(number(byte, 4), byte[-5]);
}

/* The contexts of the byte that is this many bytes into its instruction, which begins with `first`, or will. */
static void choose(uint32_t *contexts, const uint8_t *byte, uint32_t place, uint32_t first)
{
	const uint8_t *begin = byte - place;
	/* What this instruction has so far, and the one before it; 4 bytes of thumb are two of these. */
	uint32_t now = place << 24 | number(byte, place), last = number(begin, 4);
	uint32_t firsts = begin[-UNIT] << 16 | begin[-2 * UNIT] << 8 | begin[-3 * UNIT];

	contexts[0] = hash(now, 1);
	if (UNIT == 2) {
		contexts[1] = hash(now, (last & 0xffff) * 4 + 2);
		contexts[2] = hash(now, firsts + 0x1234567);
		contexts[3] = hash(now, last * 4 + 3);
		contexts[4] = hash(now, (last >> 8 & 0xff) + 0x5550000);
		contexts[5] = hash(hash(now, last), number(begin - 4, 2));
		return;
	}
	contexts[1] = hash(hash(now, last >> 16), number(begin - 6, 2));
	contexts[2] = hash(place << 8 | first, 0x98);
	/* The same byte of the last instruction, and the first of both. */
	contexts[3] = hash(place | byte[-4] << 8 | first << 16 | (uint32_t)byte[-1] << 24, begin[-4]);
	contexts[4] = hash(now, firsts + 0x1234567);
	contexts[5] = hash(now, (last >> 16) * 4 + 2);
	if (MIPS) {
		uint32_t did = operation(last) << 8, before = operation(number(begin - 4, 4));
		/* The register that the last one wrote. */
		uint32_t wrote = last >> 26 ? last >> 16 & 31 : last & 31;

		contexts[4] = hash(hash(now, did | wrote), before);
		/* In its lower half: the operation and the register that an address is counted from, not the one that is read or written. */
		contexts[5] = place < 2 ? hash(hash(now, did | before), operation(number(begin - 8, 4)))
					: hash(place << 4, begin[0] << 16 | begin[1] >> 5 << 8 | (place > 2 ? begin[2] : 0));
	}
}

/*
 * Kinds of instructions of MIPS with a lower half that one of the last of its kind had, too: branches and jumps, of which it is where they
 * go; what is counted from the stack; other loads and stores. KEPT is how many of these are known.
 */
enum { BRANCH, STACK, MEMORY, KINDS, KEPT = 8 };

/* The kind of an instruction with this upper half; KINDS where it is of none. */
static uint32_t kind(uint32_t upper)
{
	uint32_t what = upper >> 10, base = upper >> 5 & 31;

	/* Between `bltz` and `bgtz`, but a call. */
	if (what - 1 < 7 && what != 3)
		return BRANCH;
	if (what >= 8 && base == 29)
		return STACK;
	return what >= 32 ? MEMORY : KINDS;
}

/* Keeps a value in front, and of the others the last ones. */
static void keep(uint16_t *kept, uint16_t value)
{
	uint32_t at = 0;

	while (at < KEPT - 1 && kept[at] != value)
		at++;
	for (; at; at--)
		kept[at] = kept[at - 1];
	*kept = value;
}
