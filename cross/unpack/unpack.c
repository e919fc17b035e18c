/*
 * What a packed program runs first: it puts the program where it was linked, and starts it as the kernel would have.
 *
 * cross/pack.py compiles this for each program, with what it must know of it:
 *
 *   START, ROOM  where the image goes, and how many bytes of memory it has there, in whole pages
 *   PLAIN, SUM   how many bytes of them the file "payload" holds, compressed, and their FNV-1a
 *   LC, LP, PB   the settings of LZMA
 *   CODE, CODE_END  the words of them that are run, counted from START
 *   PAYLOAD      something that tells one payload from another, for compilers that remember what they made
 *   FILTER       which calls or jumps are to be put back: see `branches`
 *
 * It has no C library and no memory of its own but the stack, and lies above the program, so that the heap, which the kernel
 * begins behind the last segment of the file, is free.
 */
#include <stdint.h>

#if defined(__mips__)
enum { EXIT = 4001, WRITE = 4004, MPROTECT = 4125, CACHEFLUSH = 4147, SIGACTION = 4194, MMAP = 4210 };
enum { MAP_ANONYMOUS = 0x800, SIGBUS = 10, SIGSET = 16 };

__asm__(
	".globl __start\n"
	".set noreorder\n"
	"__start:\n"
	"	move	$4, $29\n"
	"	addiu	$29, $29, -32\n"
	"	jal	unpack\n"
	"	nop\n"
	"	addiu	$29, $29, 32\n"
	"	jr	$2\n"
	"	move	$25, $2\n"
	".set reorder\n");

static long call(long number, long a, long b, long c, long d)
{
	register long v0 __asm__("$2") = number;
	register long a0 __asm__("$4") = a;
	register long a1 __asm__("$5") = b;
	register long a2 __asm__("$6") = c;
	register long a3 __asm__("$7") = d;

	/* Two more arguments lie on the stack: the descriptor and the offset of mmap. */
	__asm__ volatile(
		"addiu	$29, $29, -32\n"
		"sw	%4, 16($29)\n"
		"sw	$0, 20($29)\n"
		"syscall\n"
		"addiu	$29, $29, 32\n"
		: "+r"(v0), "+r"(a3)
		: "r"(a0), "r"(a1), "r"(-1L), "r"(a2)
		: "$1", "$3", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "hi", "lo", "memory");
	return a3 ? -1 : v0;
}

static void flush(uint32_t from, uint32_t to)
{
	call(CACHEFLUSH, from, to - from, 3, 0);
}
#elif defined(__arm__)
enum { EXIT = 1, WRITE = 4, MPROTECT = 125, SIGACTION = 174, MMAP = 192, CACHEFLUSH = 0xf0002 };
enum { MAP_ANONYMOUS = 0x20, SIGBUS = 7, SIGSET = 8 };

__asm__(
	".globl _start\n"
	".arm\n"
	".type _start, %function\n"
	"_start:\n"
	"	mov	r0, sp\n"
	"	mov	r4, sp\n"
	"	bl	unpack\n"
	"	mov	sp, r4\n"
	"	bx	r0\n");

static long call(long number, long a, long b, long c, long d)
{
	register long r7 __asm__("r7") = number;
	register long r0 __asm__("r0") = a;
	register long r1 __asm__("r1") = b;
	register long r2 __asm__("r2") = c;
	register long r3 __asm__("r3") = d;
	register long r4 __asm__("r4") = -1;
	register long r5 __asm__("r5") = 0;

	__asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
	return r0;
}

static void flush(uint32_t from, uint32_t to)
{
	call(CACHEFLUSH, from, to, 0, 0);
}
#else
#error "no router of this kind gets a packed program"
#endif

__asm__(
	".section .payload, \"a\"\n"
	".globl payload, payload_end\n"
	"payload: .incbin \"payload\"\n"
	"payload_end:\n"
	".text\n");
extern const uint8_t payload[], payload_end[];

static _Noreturn void end(int status, const char *text, long length)
{
	call(WRITE, 2, (long)text, length, 0);
	for (;;)
		call(EXIT, status, 0, 0, 0);
}

/* The exit codes are those of the program: 1 failed, 5 damaged. */
static _Noreturn void no_memory(void)
{
	static const char text[] = "sliverfs: no memory to unpack itself\n";

	end(1, text, sizeof(text) - 1);
}

static _Noreturn void damaged(void)
{
	static const char text[] = "sliverfs: its own file is damaged: install the package again\n";

	end(5, text, sizeof(text) - 1);
}

/*
 * Where a file ends too early its pages are there, but reading them is a SIGBUS. As the kernel takes a struct sigaction: MIPS
 * has the flags first.
 */
#if defined(__mips__)
static const uintptr_t on_bus_error[2 + 4] = { 0, (uintptr_t)damaged };
#else
static const uintptr_t on_bus_error[3 + 2] = { (uintptr_t)damaged };
#endif
static const uintptr_t by_default[2 + 4];

/*
 * LZMA, as Igor Pavlov's specification has it: a range coder of bits, each with a probability of its own that learns.
 */
enum { STATES = 12, POSITIONS = 1 << PB, LITERALS = 1 << (LC + LP) };

struct lengths {
	uint16_t choice[2];
	uint16_t low[POSITIONS][8];
	uint16_t mid[POSITIONS][8];
	uint16_t high[256];
};

struct chances {
	uint16_t match[STATES][POSITIONS];
	uint16_t again[STATES];
	uint16_t again_first[STATES];
	uint16_t again_longer[STATES][POSITIONS];
	uint16_t again_second[STATES];
	uint16_t again_third[STATES];
	struct lengths length;
	struct lengths again_length;
	uint16_t slot[4][64];
	uint16_t near[128];
	uint16_t align[16];
	uint16_t literal[LITERALS][0x300];
};

struct coder {
	const uint8_t *in;
	uint32_t range;
	uint32_t code;
};

static void refill(struct coder *coder)
{
	if (coder->range >> 24)
		return;
	if (coder->in == payload_end)
		damaged();
	coder->range <<= 8;
	coder->code = coder->code << 8 | *coder->in++;
}

static __attribute__((noinline)) unsigned bit(struct coder *coder, uint16_t *chance)
{
	uint32_t bound;

	refill(coder);
	bound = (coder->range >> 11) * *chance;
	if (coder->code < bound) {
		coder->range = bound;
		*chance += (2048 - *chance) >> 5;
		return 0;
	}
	coder->range -= bound;
	coder->code -= bound;
	*chance -= *chance >> 5;
	return 1;
}

/* Bits from the highest to the lowest, each with the chance that those before it choose; with a one in front. */
static __attribute__((noinline)) unsigned tree(struct coder *coder, uint16_t *chances, unsigned limit)
{
	unsigned symbol = 1;

	while (symbol < limit)
		symbol = symbol << 1 | bit(coder, chances + symbol);
	return symbol;
}

/* The same from the lowest to the highest. */
static __attribute__((noinline)) unsigned reverse(struct coder *coder, uint16_t *chances, unsigned bits)
{
	unsigned symbol = 1, value = 0, at;

	for (at = 0; at < bits; at++) {
		unsigned is = bit(coder, chances + symbol);

		symbol = symbol << 1 | is;
		value |= is << at;
	}
	return value;
}

static __attribute__((noinline)) unsigned length(struct coder *coder, struct lengths *lengths, unsigned position)
{
	if (!bit(coder, &lengths->choice[0]))
		return tree(coder, lengths->low[position], 8) - 8 + 2;
	if (!bit(coder, &lengths->choice[1]))
		return tree(coder, lengths->mid[position], 8) - 8 + 2 + 8;
	return tree(coder, lengths->high, 256) - 256 + 2 + 16;
}

static unsigned distance(struct coder *coder, struct chances *chances, unsigned length)
{
	unsigned slot = tree(coder, chances->slot[length < 6 ? length - 2 : 3], 64) - 64;
	unsigned bits = (slot >> 1) - 1, distance;

	if (slot < 4)
		return slot;
	distance = (2 | (slot & 1)) << bits;
	if (slot < 14)
		return distance + reverse(coder, chances->near + distance - slot, bits);
	while (bits-- > 4) {
		refill(coder);
		coder->range >>= 1;
		if (coder->code >= coder->range) {
			coder->code -= coder->range;
			distance |= 1u << bits;
		}
		if (bits == 4)
			break;
	}
	return distance + reverse(coder, chances->align, 4);
}

static void decode(uint8_t *out)
{
	struct chances chances;
	struct coder coder = { payload + 5, 0xffffffff, 0 };
	unsigned state = 0, at = 0, rep0 = 0, rep1 = 0, rep2 = 0, rep3 = 0, i;
	uint16_t *chance = (uint16_t *)&chances;

	for (i = 0; i < sizeof(chances) / 2; i++)
		chance[i] = 1024;
	for (i = 1; i < 5; i++)
		coder.code = coder.code << 8 | payload[i];
	while (at < PLAIN) {
		unsigned position = at & (POSITIONS - 1), count;

		if (!bit(&coder, &chances.match[state][position])) {
			unsigned before = at ? out[at - 1] : 0, symbol = 1;
			uint16_t *literal = chances.literal[(at & ((1 << LP) - 1)) << LC | before >> (8 - LC)];

			if (state >= 7) {
				unsigned match = out[at - rep0 - 1], offset = 0x100;

				while (symbol < 0x100) {
					unsigned is;

					match <<= 1;
					is = bit(&coder, literal + offset + (match & offset) + symbol);
					symbol = symbol << 1 | is;
					offset &= is ? match : ~match;
				}
			} else {
				symbol = tree(&coder, literal, 0x100);
			}
			out[at++] = (uint8_t)symbol;
			state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
			continue;
		}
		if (!bit(&coder, &chances.again[state])) {
			rep3 = rep2;
			rep2 = rep1;
			rep1 = rep0;
			count = length(&coder, &chances.length, position);
			state = state < 7 ? 7 : 10;
			rep0 = distance(&coder, &chances, count);
		} else {
			count = 0;
			if (!bit(&coder, &chances.again_first[state])) {
				if (!bit(&coder, &chances.again_longer[state][position]))
					count = 1;
			} else {
				unsigned chosen = rep1;

				if (bit(&coder, &chances.again_second[state])) {
					chosen = rep2;
					if (bit(&coder, &chances.again_third[state])) {
						chosen = rep3;
						rep3 = rep2;
					}
					rep2 = rep1;
				}
				rep1 = rep0;
				rep0 = chosen;
			}
			if (count) {
				state = state < 7 ? 9 : 11;
			} else {
				count = length(&coder, &chances.again_length, position);
				state = state < 7 ? 8 : 11;
			}
		}
		if (rep0 >= at || count > PLAIN - at)
			damaged();
		for (; count; count--, at++)
			out[at] = out[at - rep0 - 1];
	}
}

/*
 * A call of ARM holds how far away the function is; the packer made that where the function is, counted from START, which
 * repeats more often. FILTER has the numbers of xz, "arm" and "armthumb", and 1 for MIPS, where the packer did this:
 *
 *   An instruction between registers says what it does in its last bits: these went to the front of its second half.
 *   A jump goes to a place within its function, and holds where that is: it got how far away that is.
 *   A call holds where a function is: it got that function's number, counted from ABOVE, where it is one of those that begin
 *   where the stack grows or behind a `jr ra`.
 *   A function gives back in the end what it took of the stack: it got 0 there, where that is the same.
 *   It saves registers in the uppermost SAVED bytes of that: their places are counted as if these ended at 0x8000.
 */
#if FILTER == 8
static void branches(uint16_t *half)
{
	uint32_t at;

	for (at = 0; at + 4 <= PLAIN; at += 2, half++) {
		uint32_t to;

		if ((half[0] & 0xf800) != 0xf000 || (half[1] & 0xf800) != 0xf800)
			continue;
		to = ((half[0] & 0x7ffu) << 11 | (half[1] & 0x7ffu)) - ((at + 4) >> 1);
		half[0] = 0xf000 | (to >> 11 & 0x7ff);
		half[1] = 0xf800 | (to & 0x7ff);
		at += 2;
		half++;
	}
}
#elif FILTER == 7
static void branches(uint32_t *word)
{
	uint32_t at;

	for (at = 0; at + 4 <= PLAIN; at += 4, word++)
		if (*word >> 24 == 0xeb)
			*word = 0xeb000000 | ((*word - ((at + 8) >> 2)) & 0xffffff);
}
#elif FILTER == 1
/* `addiu sp, sp, -…` without its last 15 bits, `jr ra` as the packer left it, `sw` and `lw` in the stack of s0 to s7, fp, ra. */
enum { ENTER = 0x4f7b, RETURN = 0x03e02000, SW = 0xafa0, LW = 0x8fa0, SAVED = 40, BEGINS = 0x4000, ABOVE = 0x800000 };
#define SAVING 0xc0ff0000u

static void branches(uint32_t *word)
{
	uint32_t begins[BEGINS], count = 0, at, frame = 0;

	word += CODE;
	for (at = 0; at < CODE_END - CODE; at++)
		/* A damaged file may hold anything, until its sum is looked at. */
		if (count < BEGINS && (word[at] >> 15 == ENTER || (at > 1 && word[at - 2] == RETURN)))
			begins[count++] = START / 4 + CODE + at;
	for (at = 0; at < CODE_END - CODE; at++, word++) {
		uint32_t high = *word >> 16, low = *word & 0xffff, to = *word & 0x3ffffff;

		if (high >> 10 == 0)
			*word = high << 16 | low >> 10 | (low >> 5 & 31) << 6 | (low & 31) << 11;
		else if (high >> 10 == 2)
			*word = 2u << 26 | ((to + at) & 0x3ffffff);
		else if (high >> 10 == 3 && to - ABOVE / 4 < count)
			*word = 3u << 26 | begins[to - ABOVE / 4];
		else if (*word >> 15 == ENTER)
			frame = -low & 0xffff;
		else if (high == 0x27bd)
			*word ^= frame;
		else if (((high & 0xffe0) == SW || (high & 0xffe0) == LW) && SAVING >> (high & 31) & 1 &&
			 ((low - 0x8000 + SAVED) & 0xffff) < SAVED)
			*word = high << 16 | ((low + frame - 0x8000) & 0xffff);
	}
}
#else
#error "no such filter"
#endif

/* The parts of an ELF file that are read here. */
struct header {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version, entry, phoff, shoff, flags;
	uint16_t ehsize, phentsize, phnum;
};
struct segment {
	uint32_t type, offset, address, physical, in_file, in_memory, flags;
	uint32_t align;
};
enum { PT_LOAD = 1, PF_X = 1, PF_W = 2, PF_R = 4, AT_PHDR = 3, AT_PHNUM = 5, AT_ENTRY = 9, PAGE = 4096 };

/* `stack` is what the kernel made. Returns where the program begins. */
__attribute__((used)) uint32_t unpack(uintptr_t *stack)
{
	const struct header *header = (const struct header *)START;
	const struct segment *segment;
	const uint8_t *byte;
	uint32_t sum = 0x811c9dc5, i;

	/* Without MAP_FIXED: what is there already is not replaced, on any kernel. */
	if (call(MMAP, START, ROOM, 3, 2 | MAP_ANONYMOUS) != START)
		no_memory();
	call(SIGACTION, SIGBUS, (long)on_bus_error, 0, SIGSET);
	decode((uint8_t *)START);
	branches((void *)START);
	for (byte = (const uint8_t *)START; byte != (const uint8_t *)START + PLAIN; byte++)
		sum = (sum ^ *byte) * 0x01000193;
	if (sum != SUM)
		damaged();
	call(SIGACTION, SIGBUS, (long)by_default, 0, SIGSET);

	segment = (const struct segment *)(START + header->phoff);
	for (i = 0; i < header->phnum; i++, segment++) {
		uint32_t from = segment->address & -PAGE, to = segment->address + segment->in_memory, flags = segment->flags;

		if (segment->type != PT_LOAD)
			continue;
		/* ELF's bits are those of mprotect, the other way round. */
		if (call(MPROTECT, from, to - from, (flags & PF_R) >> 2 | (flags & PF_W) | (flags & PF_X) << 2, 0))
			no_memory();
		if (flags & PF_X)
			flush(from, to);
	}

	/* Arguments, environment, then pairs of what the kernel tells. */
	stack += *stack + 2;
	while (*stack++)
		;
	for (; *stack; stack += 2) {
		if (*stack == AT_PHDR)
			stack[1] = START + header->phoff;
		if (*stack == AT_PHNUM)
			stack[1] = header->phnum;
		if (*stack == AT_ENTRY)
			stack[1] = header->entry;
	}
	return header->entry;
}
