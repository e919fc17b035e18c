/*
 * What a packed program runs first: it puts the program where it was linked, and starts it as the kernel would have.
 *
 * cross/pack.py compiles this for each program, with what it must know of it:
 *
 *   START, ROOM  where the image goes, and how many bytes of memory it has there, in whole pages
 *   PLAIN, SUM   how many bytes of them the file "payload" holds, compressed, and the FNV-1a of its words
 *   BEGIN, END, UNIT, MIPS, LOGISTIC  what mix.h wants to know
 *   PAYLOAD      something that tells one payload from another, for compilers that remember what they made
 *
 * Unpacking takes a router some seconds, so who starts first after a boot leaves the image in memory's file system, and
 * the others map it: they start at once, and share what they do not write to. That is done where the folder for it is there, which
 * the init script makes at each boot; whatever is wrong with the file or its disk, the program is unpacked as without it.
 *
 * It has no C library and no memory of its own but the stack, and lies above the program, so that the heap, which the kernel
 * begins behind the last segment of the file, is free.
 */
#include <stdint.h>

enum { READ = 1, RIGHT_TO_WRITE = 2, RUN = 4, MAP_PRIVATE = 2, MAP_FIXED = 0x10, O_WRONLY = 1, PAGE = 4096 };

#if defined(__mips__)
enum { EXIT = 4001, WRITE = 4004, OPEN = 4005, CLOSE = 4006, UNLINK = 4010, RENAME = 4038, MUNMAP = 4091, MPROTECT = 4125 };
enum { CACHEFLUSH = 4147, SIGACTION = 4194, MMAP = 4210, FSTAT = 4215 };
enum { MAP_ANONYMOUS = 0x800, SIGBUS = 10, SIGSET = 16, O_CREAT = 0x100, O_EXCL = 0x400, O_NOFOLLOW = 0x20000 };
enum { STAT_MODE = 6 };

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

/* A system call. `file` is the fifth argument of mmap, whose sixth, the offset, is 0; no other call looks at them. */
static long call(long number, long a, long b, long c, long d, long file)
{
	register long v0 __asm__("$2") = number;
	register long a0 __asm__("$4") = a;
	register long a1 __asm__("$5") = b;
	register long a2 __asm__("$6") = c;
	register long a3 __asm__("$7") = d;

	/* These two lie on the stack. */
	__asm__ volatile(
		"addiu	$29, $29, -32\n"
		"sw	%5, 16($29)\n"
		"sw	$0, 20($29)\n"
		"syscall\n"
		"addiu	$29, $29, 32\n"
		: "+r"(v0), "+r"(a3)
		: "r"(a0), "r"(a1), "r"(a2), "r"(file)
		: "$1", "$3", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25", "hi", "lo", "memory");
	return v0 | -a3;
}

static void flush(uint32_t from, uint32_t to)
{
	call(CACHEFLUSH, from, to - from, 3, 0, 0);
}
#elif defined(__arm__)
enum { EXIT = 1, WRITE = 4, OPEN = 5, CLOSE = 6, UNLINK = 10, RENAME = 38, MUNMAP = 91, MPROTECT = 125, SIGACTION = 174 };
enum { MMAP = 192, FSTAT = 197, CACHEFLUSH = 0xf0002 };
enum { MAP_ANONYMOUS = 0x20, SIGBUS = 7, SIGSET = 8, O_CREAT = 0x40, O_EXCL = 0x80, O_NOFOLLOW = 0x8000 };
enum { STAT_MODE = 4 };

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

static long call(long number, long a, long b, long c, long d, long file)
{
	register long r7 __asm__("r7") = number;
	register long r0 __asm__("r0") = a;
	register long r1 __asm__("r1") = b;
	register long r2 __asm__("r2") = c;
	register long r3 __asm__("r3") = d;
	register long r4 __asm__("r4") = file;
	register long r5 __asm__("r5") = 0;

	__asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
	return r0;
}

static void flush(uint32_t from, uint32_t to)
{
	call(CACHEFLUSH, from, to, 0, 0, 0);
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
	call(WRITE, 2, (long)text, length, 0, 0);
	for (;;)
		call(EXIT, status, 0, 0, 0, 0);
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

/* The part of all numbers that what was read so far leaves, and where in it the payload is. */
struct coder {
	const uint8_t *in;
	uint32_t range;
	uint32_t at;
};

static unsigned code(struct coder *coder, uint32_t chance, unsigned unknown)
{
	uint32_t bound = (coder->range >> 16) * chance;
	unsigned bit = coder->at < bound;

	(void)unknown;
	coder->range = bit ? bound : coder->range - bound;
	coder->at -= bit ? 0 : bound;
	for (; !(coder->range >> 24); coder->range <<= 8) {
		if (coder->in == payload_end)
			damaged();
		coder->at = coder->at << 8 | *coder->in++;
	}
	return bit;
}

#include "mix.h"

static void decode(uint8_t *out)
{
	struct coder coder = { payload, 0xffffffff, 0 };
	struct mixer *mixer = (struct mixer *)call(MMAP, 0, sizeof(*mixer), READ | RIGHT_TO_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uint32_t i;

	if ((uintptr_t)mixer > (uintptr_t)-PAGE)
		no_memory();
	for (i = 0; i < BARE; i++)
		out[i] = *coder.in++;
	for (i = 0; i < 4; i++)
		coder.at = coder.at << 8 | *coder.in++;
	mix(mixer, &coder, out);
	call(MUNMAP, (long)mixer, sizeof(*mixer), 0, 0, 0);
}

/*
 * Instructions lie in the payload with their first byte in front, whatever the processor's order is.
 *
 * A call of ARM holds how far away the function is; the packer made that where the function is, counted from BEGIN, which
 * repeats more often. With MIPS it did more:
 *
 *   An instruction between registers says what it does in its last bits: these went to the front of its second half.
 *   A jump goes to a place within its function, and holds where that is: it got how far away that is, as a branch has it.
 *   A call holds where a function is: it got that function's number, counted from ABOVE, where it is one of those that begin
 *   where the stack grows or behind a `jr ra`.
 *   A function gives back in the end what it took of the stack: it got 0 there, where that is the same.
 *   It saves registers in the uppermost SAVED bytes of that: their places are counted as if these ended at 0x8000.
 */
#if UNIT == 2
static void branches(uint16_t *half, uint32_t count)
{
	uint32_t at;

	for (at = 0; at + 1 < count; at++, half++) {
		uint32_t to;

		if ((half[0] & 0xf800) != 0xf000 || (half[1] & 0xf800) != 0xf800)
			continue;
		to = ((half[0] & 0x7ffu) << 11 | (half[1] & 0x7ffu)) - at;
		half[0] = 0xf000 | (to >> 11 & 0x7ff);
		half[1] = 0xf800 | (to & 0x7ff);
		at++;
		half++;
	}
}
#elif defined(__arm__)
static void branches(uint32_t *word, uint32_t count)
{
	uint32_t at;

	for (at = 0; at < count; at++, word++)
		if (*word >> 24 == 0xeb)
			*word = 0xeb000000 | ((*word - at) & 0xffffff);
}
#else
/* `addiu sp, sp, -…` without its last 15 bits, `jr ra` as the packer left it, `sw` and `lw` in the stack of s0 to s7, fp, ra. */
enum { ENTER = 0x4f7b, RETURN = 0x03e02000, SW = 0xafa0, LW = 0x8fa0, SAVED = 40, BEGINS = 0x4000, ABOVE = 0x800000 };
#define SAVING 0xc0ff0000u

static void branches(uint32_t *word, uint32_t words)
{
	uint32_t begins[BEGINS], count = 0, at, frame = 0;

	for (at = 0; at < words; at++)
		/* A damaged file may hold anything, until its sum is looked at. */
		if (count < BEGINS && (word[at] >> 15 == ENTER || (at > 1 && word[at - 2] == RETURN)))
			begins[count++] = (START + BEGIN) / 4 + at;
	for (at = 0; at < words; at++, word++) {
		uint32_t high = *word >> 16, low = *word & 0xffff, to = *word & 0x3ffffff;

		if (high >> 10 == 0)
			*word = high << 16 | low >> 10 | (low >> 5 & 31) << 6 | (low & 31) << 11;
		else if (high >> 10 == 2)
			*word = 2u << 26 | ((START + BEGIN) / 4 + at + 1 + (uint32_t)(int16_t)low);
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
#endif

static void instructions(void *begin, uint32_t count)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	uint8_t *byte = begin, *end = byte + count * UNIT;

	for (; byte != end; byte += UNIT) {
		uint8_t i, swapped;

		for (i = 0; i < UNIT / 2; i++) {
			swapped = byte[i];
			byte[i] = byte[UNIT - 1 - i];
			byte[UNIT - 1 - i] = swapped;
		}
	}
#endif
	branches(begin, count);
}

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
enum { PT_LOAD = 1, PF_X = 1, PF_W = 2, PF_R = 4, AT_PHDR = 3, AT_PHNUM = 5, AT_ENTRY = 9 };

/* Puts memory, or the file, where the program goes; true where that could not be done. */
static __attribute__((noinline)) int map(long length, long rights, long flags, long file)
{
	return call(MMAP, START, length, rights, MAP_PRIVATE | flags, file) != START;
}

/* Whether what lies at START is the program. What is behind its end in the last word is zero. */
static __attribute__((noinline)) int is_whole(void)
{
	const uint32_t *word;
	uint32_t sum = 0x811c9dc5;

	for (word = (const uint32_t *)START; word != (const uint32_t *)START + (PLAIN + 3) / 4; word++)
		sum = (sum ^ *word) * 0x01000193;
	return sum == SUM;
}

/* The kernel's struct stat64 (asm/stat.h), which has the device and the inode before the mode, and padding. */
struct stat {
	uint32_t before[STAT_MODE], mode, links, uid, gid, device[4];
	int64_t size;
	uint32_t after[12];
};
#define FOLDER "/var/run/sliverfs-unpacked/"
static const char kept[] = FOLDER "program", unfinished[] = FOLDER "unfinished";
/* In its mode: what kind of file it is, a regular one, and who but its owner may write to it. */
enum { S_IFMT = 0170000, S_IFREG = 0100000, OTHERS_WRITE = 0022 };

/* Maps the image that an earlier start has left, if it is root's alone and the one of this program; true where that is done. */
static int take(void)
{
	struct stat stat;
	long file = call(OPEN, (long)kept, O_NOFOLLOW, 0, 0, 0);
	int taken;

	/* With the right to run it, which a file system may refuse. What the file's last page has behind its end is zero. */
	taken = call(FSTAT, file, (long)&stat, 0, 0, 0) == 0 && (stat.mode & (S_IFMT | OTHERS_WRITE)) == S_IFREG &&
		stat.uid == 0 && stat.size == PLAIN && !map(PLAIN, READ | RUN, MAP_FIXED, file) && is_whole();
	call(CLOSE, file, 0, 0, 0, 0);
	return taken;
}

/*
 * Leaves the image for the next one, whole or not at all. Where two do it at the same time, or one was killed while it did it,
 * the name is given back, and a later start does it: so a file without its end may get the name, and `take` looks at the sum.
 */
static void leave(void)
{
	long file = call(OPEN, (long)unfinished, O_WRONLY | O_CREAT | O_EXCL, 0444, 0, 0);

	if (call(WRITE, file, START, PLAIN, 0, 0) != PLAIN || call(RENAME, (long)unfinished, (long)kept, 0, 0, 0))
		call(UNLINK, (long)unfinished, 0, 0, 0, 0);
	call(CLOSE, file, 0, 0, 0, 0);
}

/* `stack` is what the kernel made. Returns where the program begins. */
__attribute__((used)) uint32_t unpack(uintptr_t *stack)
{
	const struct header *header = (const struct header *)START;
	const struct segment *segment;
	uint32_t i;

	/* Without MAP_FIXED: what is there already is not replaced, on any kernel. */
	if (map(ROOM, READ | RIGHT_TO_WRITE, MAP_ANONYMOUS, -1))
		no_memory();
	if (!take()) {
		/* Once more, in the place of a file that was wrong. */
		if (map(ROOM, READ | RIGHT_TO_WRITE, MAP_ANONYMOUS | MAP_FIXED, -1))
			no_memory();
		call(SIGACTION, SIGBUS, (long)on_bus_error, 0, SIGSET, 0);
		decode((uint8_t *)START);
		instructions((uint8_t *)START + BEGIN, (END - BEGIN) / UNIT);
		if (!is_whole())
			damaged();
		call(SIGACTION, SIGBUS, (long)by_default, 0, SIGSET, 0);
		leave();
	}

	segment = (const struct segment *)(START + header->phoff);
	for (i = 0; i < header->phnum; i++, segment++) {
		uint32_t from = segment->address & -PAGE, to = segment->address + segment->in_memory, flags = segment->flags;

		if (segment->type != PT_LOAD)
			continue;
		/* ELF's bits are those of mprotect, the other way round. */
		if (call(MPROTECT, from, to - from, (flags & PF_R) >> 2 | (flags & PF_W) | (flags & PF_X) << 2, 0, 0))
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
