/*
 * What the coder of packed programs (mix.h) knows before a byte: of its instruction, of those before, of the last ones that had its
 * registers or its form, and of what instructions of its kind had lately in their lower half.
 *
 * Who includes it defines, beside UNIT (see mix.h),
 *
 *   MIPS  1 where the program is for MIPS, else 0
 */
enum { CONTEXTS = 9 };

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

/* The bits of an instruction of ARM or MIPS that a number in it has, and the register that is the stack's pointer. */
enum { NUMBER = MIPS ? 0xffff : 0xfff, STACK_POINTER = MIPS ? 29 : 13 };

/*
 * Of the instructions so far: the last one that wrote each register, that counted an address from it, that had the same first byte,
 * and the same form; the last call, and the first bytes of the last four. Of thumb only these and `begun` are known, of which that has
 * the first two bytes.
 */
struct history {
	uint32_t wrote[32], based[32], begun[256], formed[256], call, firsts;
};

/* How many bytes an instruction with this first one has. */
static uint32_t length(uint32_t first)
{
	return UNIT == 4 || first >= 29 << 3 ? 4 : 2;
}

/* Which operation an instruction is; of those of MIPS between registers the packer has put that in front of the lower half. */
static uint32_t operation(uint32_t word)
{
	if (!MIPS)
		return word >> 20 & 255;
	return word >> 26 ? word >> 26 : 64 | (word >> 10 & 63);
}

/* What is known of it from its upper half: all, but for those of MIPS between registers. */
static uint32_t form(uint32_t upper)
{
	return MIPS ? upper >> 10 : upper >> 4 & 255;
}

/* The register that an address is counted from, by the upper half of an instruction, and the one that it writes. */
static uint32_t base(uint32_t upper)
{
	return MIPS ? upper >> 5 & 31 : upper & 15;
}

static uint32_t written(uint32_t word)
{
	if (!MIPS)
		return word >> 12 & 15;
	return word >> 26 ? word >> 16 & 31 : word & 31;
}

/* Remembers an instruction. */
static void remember(struct history *history, uint32_t word)
{
	uint32_t to = written(word), from = base(word >> 16), what = MIPS ? word >> 26 : word >> 24 & 15;

	history->begun[word >> 24] = word;
	history->firsts = history->firsts << 8 | word >> 24;
	if (UNIT == 2)
		return;
	history->formed[form(word >> 16)] = word;
	if (what == (MIPS ? 3 : 11)) {
		history->call = word;
		history->wrote[MIPS ? 2 : 0] = word;
	} else if (MIPS ? !what || what - 8 < 32 : what < 4 || (what < 8 && word >> 20 & 1)) {
		history->wrote[to] = word;
	}
	if (MIPS ? what >= 32 : what - 4 < 4)
		history->based[from] = word;
}

/* The contexts of a byte that is not run: the bytes before, the word, and what a match says is next, where there is one. */
static void choose_plain(uint32_t *contexts, const uint8_t *byte, uint32_t at, uint32_t word, uint32_t expected)
{
	contexts[0] = hash(number(byte, 2), 6);
	contexts[1] = hash(expected, 5);
	contexts[2] = hash(number(byte, 3), 7);
	contexts[3] = hash(byte[-1], 4);
	contexts[4] = hash(at % 4, 3);
	contexts[5] = hash(number(byte, 4), 8);
	contexts[6] = hash(word, 9);
	contexts[7] = hash(at % 4 << 24 | (uint32_t)byte[-1] << 16 | byte[-4] << 8 | byte[-5], 10);
	contexts[8] = 0;
}

/* The contexts of the byte that is this many bytes into its instruction, which begins with `first`, or will. */
static void choose(uint32_t *contexts, const struct history *history, const uint8_t *byte, uint32_t place, uint32_t first)
{
	const uint8_t *begin = byte - place;
	/* What this instruction has so far, and the bytes before it. */
	uint32_t now = place << 24 | number(byte, place), last = number(begin, 4), before = number(begin - 4, 4);
	uint32_t did, upper, from, alike;

	contexts[0] = hash(now, 1);
	if (UNIT == 2) {
		contexts[1] = hash(now, (last & 0xffff) * 4 + 2);
		contexts[2] = hash(now, history->firsts & 0xffffff);
		contexts[3] = hash(now, last * 4 + 3);
		contexts[4] = hash(now, (last >> 8 & 0xff) + 0x5550000);
		contexts[5] = hash(hash(now, last), before & 0xffff);
		contexts[6] = hash(now, (place % 2 ? history->begun[first] : last) >> 16);
		contexts[7] = hash(place << 8 | first, 0x98);
		contexts[8] = place;
		return;
	}
	contexts[1] = hash(hash(now, last >> 16), before >> 16);
	contexts[2] = hash(place << 8 | first, 0x98);
	/* The same byte of the last instruction, and the first of both. */
	contexts[3] = hash(place | byte[-4] << 8 | first << 16 | (uint32_t)byte[-1] << 24, begin[-4]);
	did = operation(last) << 8 | written(last);
	contexts[4] = hash(hash(now, did), operation(before));
	if (place < 2) {
		uint32_t third = number(begin - 8, 4), fourth = number(begin - 12, 4);

		contexts[5] = hash(hash(now, operation(last) << 8 | operation(before)), operation(third) << 8 | operation(fourth));
		contexts[6] = hash(hash(now, did), place ? 0 : history->call);
		contexts[7] = place ? hash(now, history->begun[first] >> 16)
				    : hash(hash(did, operation(before) << 8 | written(before)), operation(third));
		contexts[8] = hash(hash(now, 5), place ? written(last) << 8 | written(before) : before);
		return;
	}
	/* In the lower half the operation counts, and what was done with its registers, not which these are. */
	upper = number(begin + 2, 2);
	from = base(upper);
	alike = history->formed[form(upper)];
	now = place << 16 | form(upper) << 8 | (place > 2 ? begin[2] & NUMBER >> 8 : 0);
	contexts[5] = hash(hash(now, history->based[from] & NUMBER), from == STACK_POINTER);
	contexts[6] = hash(now, history->wrote[from]);
	contexts[7] = hash(hash(now, alike & NUMBER), from == base(alike >> 16));
	contexts[8] = hash(hash(now, alike & NUMBER), did);
}

/*
 * Kinds of instructions with a lower half that one of the last of its kind had, too: branches and jumps, of which it is where they
 * go; with MIPS what is counted from the stack, and other loads and stores. KEPT is how many of these are known.
 */
enum { BRANCH, STACK, MEMORY, KINDS, KEPT = 8 };

/* The kind of an instruction with this upper half; KINDS where it is of none. */
static uint32_t kind(uint32_t upper)
{
	uint32_t what = upper >> 10;

	if (!MIPS)
		return (upper >> 8 & 15) == 10 ? BRANCH : KINDS;
	/* Between `bltz` and `bgtz`, but a call. */
	if (what - 1 < 7 && what != 3)
		return BRANCH;
	if (what >= 8 && base(upper) == STACK_POINTER)
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
