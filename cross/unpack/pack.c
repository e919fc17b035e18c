/*
 * What packs an image, on the machine that builds: from standard input to standard output. cross/pack.py compiles it for each
 * program, with the same numbers as unpack.c, which reads what it writes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * A range coder, as LZMA has it: `low` and `range` are the part of all numbers that what was coded so far leaves. The first byte
 * of `low` waits, with `full` bytes of 0xff behind it, until it is certain that nothing is carried into it.
 */
struct coder {
	uint64_t low;
	uint32_t range, full;
	int waits;
};

static void shift(struct coder *coder)
{
	uint32_t carry = coder->low >> 32;

	if (carry || coder->low < 0xff000000) {
		if (coder->waits >= 0)
			putchar((coder->waits + carry) & 0xff);
		for (; coder->full; coder->full--)
			putchar((0xff + carry) & 0xff);
		coder->waits = coder->low >> 24 & 0xff;
	} else {
		coder->full++;
	}
	coder->low = (uint32_t)coder->low << 8;
}

static unsigned code(struct coder *coder, uint32_t chance, unsigned bit)
{
	uint32_t bound = (coder->range >> 16) * chance;

	if (!bit)
		coder->low += bound;
	coder->range = bit ? bound : coder->range - bound;
	for (; coder->range < 1 << 24; coder->range <<= 8)
		shift(coder);
	return bit;
}

#include "mix.h"

int main(void)
{
	struct mixer *mixer = calloc(1, sizeof(*mixer));
	struct coder coder = { 0, 0xffffffff, 0, -1 };
	uint8_t *image = malloc(PLAIN);
	int i;

	if (!mixer || !image || fread(image, 1, PLAIN, stdin) != PLAIN)
		return 1;
	fwrite(image, 1, BARE, stdout);
	mix(mixer, &coder, image);
	for (i = 0; i < 5; i++)
		shift(&coder);
	return fflush(stdout) || ferror(stdout);
}
