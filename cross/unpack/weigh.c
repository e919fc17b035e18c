/*
 * Says what each byte of an image costs in the payload, in 65536ths of a bit: from standard input to standard output, as numbers of
 * 32 bits. What the coder is told of a bit is all that it takes: one with a chance of p takes -log2(p) bits. cross/weigh.py
 * compiles it as cross/pack.py does pack.c.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* What was paid for each byte; the next bit is the one after `bits` of the first byte that is coded. */
struct coder {
	uint32_t *paid;
	uint32_t bits;
};

static unsigned code(struct coder *coder, uint32_t chance, unsigned bit)
{
	coder->paid[coder->bits++ / 8] += (uint32_t)(0.5 - 65536 * log2((bit ? chance : 65536 - chance) / 65536.0));
	return bit;
}

#include "mix.h"

int main(void)
{
	struct mixer *mixer = calloc(1, sizeof(*mixer));
	uint32_t *paid = calloc(PLAIN, sizeof(*paid)), i;
	uint8_t *image = malloc(PLAIN);
	struct coder coder = { paid + BARE, 0 };

	if (!mixer || !paid || !image || fread(image, 1, PLAIN, stdin) != PLAIN)
		return 1;
	for (i = 0; i < BARE; i++)
		paid[i] = 8 << 16;
	mix(mixer, &coder, image);
	fwrite(paid, sizeof(*paid), PLAIN, stdout);
	return fflush(stdout) || ferror(stdout);
}
