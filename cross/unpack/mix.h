/*
 * The coder of packed programs: what packs (pack.c) and what unpacks (unpack.c) do the same here, and so know the same before each
 * bit. There are no copies, as LZMA has them. Of each bit, five contexts and the longest match each say how likely a one is;
 * the sum of what they say, weighted by how well each did lately, is what an arithmetic coder is told. That is the method of
 * PAQ (Matt Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005), in whole numbers and with
 * contexts that know what an instruction is.
 *
 * Who includes it defines `struct coder`, and
 *
 *   code(coder, chance, bit)  codes a bit that is 1 with a chance of `chance` in 65536, and returns it; what unpacks does not
 *                             look at the last argument
 *   PLAIN                     how many bytes the image has
 *   BEGIN, END                where those begin and end that are run, counted from its start
 *   UNIT                      how many bytes an instruction has, 4 or 2; its first byte says most about it
 *   LOGISTIC                  65536 / (1 + exp(-x)) for x from -8 to 8 by halves, but never certain
 */

/*
 * A slot holds what followed in one context and the bits that are known of half a byte: in the upper 12 bits the chance of a
 * one, less a half, in the others how often it learned, at most MOST times. A line has the slots of half a byte, and in place of
 * the first, which no bits lead to, whose it is.
 */
enum { CONTEXTS = 5, INPUTS = CONTEXTS + 1, LINES = 14, LINE = 16, MOST = 5, SEEN = 16, LONGEST = 31, STEP = 128 };
/* The bytes in front that are not coded, so that each that is has some before it. */
enum { BARE = 16 };

struct mixer {
	int16_t slots[CONTEXTS][1 << LINES][LINE];
	/* Where it went on, the last time that what hashes to this was met; 0 is nowhere. */
	uint32_t seen[1 << SEEN];
	/* How often a match of this length was right, in 65536ths. */
	uint16_t right[LONGEST + 1];
	/* The weights of the inputs, in 65536ths: by the place of the bit, and by `struct byte`. They are added. */
	int32_t by_place[5 * 3 * 8][INPUTS];
	int32_t by_first[5 * 256 * 3][INPUTS];
	/* What a sum meant lately, by the bits of the byte. Of those between two of them, both mean a part. */
	uint16_t meant[5 * 256][4096 / STEP + 1];
	/* From a sum, plus 2048, to a chance in 65536ths, and from a chance in 4096ths to a sum: 256 ln(p / (1 - p)). */
	uint16_t squashed[4096];
	int16_t stretched[4096];
};

/* A match: which byte it says is next, and how many before it are the same; 0 where there is none. */
struct match {
	uint32_t next, length;
};

/*
 * What is the same for all bits of a byte: its place in the instruction, and that one's first byte, or, as long as it has none, the
 * first one of the last instruction; what is not run has 4 and the last byte.
 */
struct byte {
	uint32_t place, first;
};

static void prepare(struct mixer *mixer)
{
	static const uint16_t logistic[4096 / STEP + 1] = { LOGISTIC };
	unsigned at, to, filled = 0;

	for (at = 0; at < 4096; at++) {
		unsigned part = at % STEP;
		unsigned chance = (logistic[at / STEP] * (STEP - part) + logistic[at / STEP + 1] * part) / STEP;

		mixer->squashed[at] = (uint16_t)chance;
		while (filled <= chance >> 4)
			mixer->stretched[filled++] = (int16_t)((int)at - 2048);
	}
	while (filled < 4096)
		mixer->stretched[filled++] = 2047;
	for (at = 0; at <= LONGEST; at++)
		mixer->right[at] = (uint16_t)(32768 + at * 400);
	for (at = 0; at < 5 * 3 * 8; at++)
		for (to = 0; to < INPUTS; to++)
			mixer->by_place[at][to] = 22938;
	for (at = 0; at < 5 * 256; at++)
		for (to = 0; to <= 4096 / STEP; to++)
			mixer->meant[at][to] = logistic[to];
}

static uint32_t hash(uint32_t a, uint32_t b)
{
	a = a * 0x9e3779b1 ^ b * 0x85ebca77;
	return (a ^ a >> 15) * 0x2c1b3c6d;
}

/* The line of this hash: of the two that it may be, the one that is, or the one that learned less, cleared. */
static int16_t *line(int16_t (*lines)[LINE], uint32_t hash)
{
	uint32_t at = hash >> (32 - LINES), i;
	int16_t whose = (int16_t)(hash | 1), *one = lines[at], *other = lines[at ^ 1];

	if (*one == whose)
		return one;
	if (*other == whose)
		return other;
	/* Whatever a line learned, its first slot did, too. */
	if ((one[1] & 15) > (other[1] & 15))
		one = other;
	for (i = 1; i < LINE; i++)
		one[i] = 0;
	*one = whose;
	return one;
}

/* The `count` bytes before `end`, as a number. */
static uint32_t number(const uint8_t *end, uint32_t count)
{
	uint32_t value = 0;

	for (; count; count--)
		value = value << 8 | end[-(int)count];
	return value;
}

/* What is known before this byte: of its instruction and of those before; or the bytes before. */
static void choose(uint32_t *contexts, const uint8_t *byte, uint32_t at, uint32_t place, uint32_t first)
{
	const uint8_t *begin = byte - place;
	/* The last instruction, and what this one has so far. */
	uint32_t last = number(begin, UNIT), now = place << 24 | number(byte, place);

	if (place == 4) {
		contexts[0] = hash(number(byte, 2), 6);
		contexts[1] = hash(number(byte, 4), 8);
		contexts[2] = hash(number(byte, 3), 7);
		contexts[3] = hash(at % 4, byte[-1] * 8 + 5);
		contexts[4] = hash(at % 4, byte[-4]);
		return;
	}
	contexts[0] = hash(now, 1);
	contexts[1] = hash(now, (last >> (UNIT == 4 ? 16 : 0)) * 4 + 2);
	contexts[2] = hash(now, (begin[-UNIT] << 16 | begin[-2 * UNIT] << 8 | begin[-3 * UNIT]) + 0x1234567);
	if (UNIT == 4) {
		contexts[3] = hash(place | byte[-4] << 8 | first << 16 | (uint32_t)byte[-1] << 24, begin[-4]);
		contexts[4] = hash(place << 8 | first, 0x98);
	} else {
		contexts[3] = hash(now, number(begin, 4) * 4 + 3);
		contexts[4] = hash(now, (last >> 8) + 0x5550000);
	}
}

/* Looks for what the bytes before `at` were followed by, when there were these before. Of instructions whole ones are looked for. */
static void look(struct mixer *mixer, struct match *match, const uint8_t *out, uint32_t at, uint32_t place)
{
	uint32_t sum = 0, i, *seen;

	if (place % 4)
		return;
	for (i = 1; i <= (place ? 5 : 2 * UNIT); i++)
		sum = (sum + out[at - i] + 1) * 0x2f0b4c47;
	seen = &mixer->seen[sum >> (32 - SEEN)];
	if (!match->length) {
		match->next = *seen;
		while (match->length < LONGEST && match->length < match->next &&
		       out[match->next - 1 - match->length] == out[at - 1 - match->length])
			match->length++;
		if (match->length < 4)
			match->length = 0;
	}
	*seen = at;
}

static uint16_t nearer(uint16_t chance, unsigned bit)
{
	return chance + (((bit ? 65535 : 0) - chance) >> 6);
}

/* One bit of a byte, of which `known` has those before, behind a one. `expected` is what the match says, and -1 where there is none. */
static unsigned mix_bit(struct mixer *mixer, struct coder *coder, struct match *match, const struct byte *byte, int16_t **slots,
			unsigned known, unsigned bits, int expected, unsigned bit)
{
	/* 65536 / (n + 1.5) */
	static const uint16_t rate[MOST + 1] = { 43690, 26214, 18724, 14563, 11915, 10082 };
	unsigned kind = expected < 0 ? 0 : match->length < 16 ? 1 : 2, i, chance, part;
	int32_t *by_place = mixer->by_place[(byte->place * 3 + kind) * 8 + bits];
	int32_t *by_first = mixer->by_first[(byte->place * 256 + byte->first) * 3 + kind];
	uint16_t *right = &mixer->right[match->length], *meant;
	int inputs[INPUTS], sum = 0, error;

	for (i = 0; i < CONTEXTS; i++)
		inputs[i] = mixer->stretched[(*slots[i] >> 4) + 2048];
	inputs[CONTEXTS] = expected < 0 ? 0 : mixer->stretched[*right >> 4];
	if (!expected)
		inputs[CONTEXTS] = -inputs[CONTEXTS];
	for (i = 0; i < INPUTS; i++)
		sum += inputs[i] * ((by_place[i] + by_first[i]) >> 8);
	sum = (sum >> 8) + 2048;
	sum = sum > 4095 ? 4095 : sum < 0 ? 0 : sum;

	chance = mixer->squashed[sum];
	part = sum % STEP;
	meant = &mixer->meant[byte->place << 8 | known][sum / STEP];
	bit = code(coder, (chance + (meant[0] * (STEP - part) + meant[1] * part) / STEP) / 2, bit);

	error = (int)(bit << 12) - (int)(chance >> 4);
	for (i = 0; i < INPUTS; i++) {
		int change = (inputs[i] * error + 4096) >> 13;

		by_place[i] += change;
		by_first[i] += change;
	}
	meant += part >= STEP / 2;
	*meant = nearer(*meant, bit);
	for (i = 0; i < CONTEXTS; i++) {
		/* The count is in the way of nothing but the lowest chance. */
		int value = *slots[i], count = value & 15, change = (((bit ? 32767 : 15 - 32768) - value) * rate[count]) >> 16;

		*slots[i] = (int16_t)(value + (change & ~15) + (count < MOST));
	}
	if (expected >= 0) {
		*right = nearer(*right, (unsigned)expected == bit);
		if ((unsigned)expected != bit)
			match->length = 0;
	}
	return bit;
}

/* Codes all of an image, of which the first BARE bytes are there. `mixer` is all zeros. */
static void mix(struct mixer *mixer, struct coder *coder, uint8_t *out)
{
	struct match match = { 0, 0 };
	uint32_t at, i;

	prepare(mixer);
	for (at = BARE; at < PLAIN; at++) {
		uint32_t contexts[CONTEXTS], place = at >= BEGIN && at < END ? at % UNIT : 4;
		struct byte byte = { place, out[place == 4 ? at - 1 : place ? at - place : at - UNIT] };
		int16_t *lines[CONTEXTS], *slots[CONTEXTS];
		unsigned known = 1, low = 1, bits;

		choose(contexts, out + at, at, place, byte.first);
		look(mixer, &match, out, at, place);
		for (bits = 0; bits < 8; bits++) {
			unsigned left = 7 - bits, bit;
			int expected = -1;

			if (match.length && (out[match.next] | 256u) >> (left + 1) == known)
				expected = out[match.next] >> left & 1;
			if (bits == 4)
				low = 1;
			for (i = 0; i < CONTEXTS; i++) {
				if (low == 1)
					lines[i] = line(mixer->slots[i], bits ? hash(contexts[i], known) : contexts[i]);
				slots[i] = lines[i] + low;
			}
			bit = mix_bit(mixer, coder, &match, &byte, slots, known, bits, expected, out[at] >> left & 1);
			known = known << 1 | bit;
			low = low << 1 | bit;
		}
		out[at] = (uint8_t)known;
		if (match.length) {
			match.next++;
			match.length += match.length < LONGEST;
		}
	}
}
