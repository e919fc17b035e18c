/*
 * The coder of packed programs: what packs (pack.c) and what unpacks (unpack.c) do the same here, and so know the same before each
 * bit. There are no copies, as LZMA has them. Of each bit, nine contexts, the longest match and a value that an instruction
 * of this kind had lately each say how likely a one is; the sum of what they say, weighted by how well each did lately, is what an
 * arithmetic coder is told. That is the method of PAQ (Matt Mahoney, "Adaptive Weighing of Context Models for Lossless Data
 * Compression", 2005), in whole numbers and with contexts that know what an instruction is (known.h, which says what it wants to know).
 *
 * Who includes it defines `struct coder`, and
 *
 *   code(coder, chance, bit)  codes a bit that is 1 with a chance of `chance` in 65536, and returns it; what unpacks does not
 *                             look at the last argument
 *   PLAIN                     how many bytes the image has
 *   BEGIN, END                where those begin and end that are run, counted from its start
 *   UNIT                      how many bytes an instruction has at least, 4 or 2; its first byte says most about it
 *   LOGISTIC                  65536 / (1 + exp(-x)) for x from -8 to 8, but never certain
 */

#include "known.h"

/*
 * A slot is the state of one context, behind some bits of a byte: what followed there. Up to EXACT bits are kept as they were, behind a
 * one, and 0 is a slot where nothing was. Of more than these it is LEVELS and how likely a one is, in as many steps. From SOME on it saw
 * two bits or more. A line has the slots of two bits, and in place of the first, which no bits lead to, whose it is.
 * A group has four lines for two bits of a byte and four for the next two, so that these come with one access to memory.
 */
enum { MATCH = CONTEXTS, GUESS, BIAS, INPUTS, SOME = 4, EXACT = 6, LEVELS = 2 << EXACT, STATES = 256, WIDTH = 4096 / (STATES - LEVELS) };
enum { GROUPS = 17, LINE = 4, WAYS = 3, SEEN = 15, LONGEST = 31, MISSES = 8, STEP = 256, MEANT = 11 };
/* The bytes in front that are not coded, so that each that is has some before it. */
enum { BARE = 16 };

struct mixer {
	uint8_t groups[1 << GROUPS][2][4][LINE];
	/* Which state comes after each, and what each says, as a sum. */
	uint8_t next[2][STATES];
	int16_t says[STATES];
	/* Where it went on, the last time that what hashes to this was met; 0 is nowhere. */
	uint32_t seen[1 << SEEN];
	/* How often a match was right, in 65536ths, by how often it was not, lately, and its length. */
	uint16_t right[MISSES][LONGEST + 1];
	/* What is remembered of instructions. */
	struct history history;
	/* The last lower halves of each kind; and how often which of them was right of which bit. */
	uint16_t kept[KINDS][KEPT], guessed[KINDS][KEPT][16];
	/*
	 * The weights of the inputs, in 65536ths: by the bits of the byte, by its instruction's first one, and by which slots saw
	 * some bits, or what is guessed. They are added. The last input is the same at all times, and its weight what to say without the others.
	 */
	int32_t by_place[5 * 256][INPUTS];
	int32_t by_first[5 * 256 * 3][INPUTS];
	int32_t by_slots[(1 << CONTEXTS) + 2][INPUTS];
	/* What a sum meant lately, by the bits of the byte and the first one. Of those between two of them, both mean a part. */
	uint16_t meant[1 << MEANT][4096 / STEP + 1];
	/* From a sum, plus 2048, to a chance in 65536ths, and from a chance in 4096ths to a sum: 256 ln(p / (1 - p)). */
	uint16_t squashed[4096];
	int16_t stretched[4096];
};

/*
 * A match: which byte it says is next, and how many before it are the same. Where it was wrong it is asked again at the next instruction,
 * as if it were short; `missed` is how often that was, since it was right for some time. 0 where there is none.
 */
struct match {
	uint32_t next, length, missed;
};

/*
 * What is the same for all bits of a byte: its place in the instruction, and that one's first byte, or, as long as it has none, the
 * first one of the last instruction; what is not run has 4 and the last byte. What is known of a lower half that is guessed is what it has so
 * far, behind a one, its kind, and what must be taken from what is kept of that; else `half` is 0.
 */
struct byte {
	uint32_t place, first, half, kind, here;
};

/* The states, of which the first ones lead to two more each, and all others to a level. */
static void prepare_states(struct mixer *mixer)
{
	/* 65536 / (n + 1.2) */
	static const uint16_t rate[EXACT + 1] = { 54613, 29789, 20480, 15604, 12603, 10570, 9102 };
	uint16_t chances[STATES];
	unsigned state, bit, level;

	chances[1] = 32768;
	mixer->next[0][0] = 2;
	mixer->next[1][0] = 3;
	for (state = LEVELS; state < STATES; state++)
		chances[state] = mixer->squashed[(state - LEVELS) * WIDTH + WIDTH / 2];
	for (state = 1; state < STATES; state++) {
		unsigned chance = chances[state], count = 0;

		while (count < EXACT && state >> (count + 1))
			count++;
		mixer->says[state] = mixer->stretched[chance >> 4];
		for (bit = 0; bit < 2; bit++) {
			unsigned change = (bit ? 65535 - chance : chance) * rate[count] >> 16, to = state * 2 + bit;
			unsigned then = bit ? chance + change : chance - change;

			if (to < LEVELS) {
				chances[to] = (uint16_t)then;
			} else {
				to = LEVELS;
				for (level = WIDTH; level < 4096 && mixer->squashed[level] <= then; level += WIDTH)
					to++;
			}
			mixer->next[bit][state] = (uint8_t)to;
		}
	}
}

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
	prepare_states(mixer);
	for (at = 0; at < MISSES; at++)
		for (to = 0; to <= LONGEST; to++)
			mixer->right[at][to] = (uint16_t)(32768 + to * 400);
	for (at = 0; at < KINDS * KEPT; at++)
		for (to = 0; to < 16; to++)
			mixer->guessed[at / KEPT][at % KEPT][to] = 40000;
	for (at = 0; at < 5 * 256; at++)
		for (to = 0; to < INPUTS; to++)
			mixer->by_place[at][to] = 11000;
	for (at = 0; at < 1 << MEANT; at++)
		for (to = 0; to <= 4096 / STEP; to++)
			mixer->meant[at][to] = logistic[to];
}

/* The line of this hash: of those of its half of a group that it may be, the one that is, or the one that knows least, cleared. */
static uint8_t *line(uint8_t (*lines)[LINE], uint32_t hash)
{
	uint32_t at = hash >> 8 & 3, i;
	uint8_t *least = lines[at];

	for (i = 0; i < WAYS; i++)
		if (*lines[at ^ i] == (uint8_t)hash)
			return lines[at ^ i];
	/* Whatever a line knows, its first slot does, too. */
	for (i = 1; i < WAYS; i++)
		if (lines[at ^ i][1] < least[1])
			least = lines[at ^ i];
	least[0] = (uint8_t)hash;
	least[1] = least[2] = least[3] = 0;
	return least;
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
		uint32_t last = match->next;

		match->next = *seen;
		while (match->length < LONGEST && match->length < match->next &&
		       out[match->next - 1 - match->length] == out[at - 1 - match->length])
			match->length++;
		if (match->length >= 4) {
			match->missed = 0;
		} else {
			match->next = last;
			match->length = last != 0;
		}
	}
	*seen = at;
}

static uint16_t nearer(uint16_t chance, unsigned bit)
{
	return chance + (((bit ? 65535 : 0) - chance) >> 6);
}

/* One bit of a byte, of which `known` has those before, behind a one. `expected` is what the match says, and -1 where there is none. */
static unsigned mix_bit(struct mixer *mixer, struct coder *coder, struct match *match, const struct byte *byte, uint8_t **lines,
			unsigned known, unsigned bits, int expected, unsigned bit)
{
	unsigned kind = expected < 0 ? 0 : match->length < 16 ? 1 : 2, i, chance, part, some = 0, guess = 0;
	int32_t *by_place = mixer->by_place[byte->place << 8 | known];
	int32_t *by_first = mixer->by_first[(byte->place * 256 + byte->first) * 3 + kind], *by_slots;
	uint16_t *right = &mixer->right[match->missed][match->length], *guessed = 0, *meant;
	/* Which slot of each line it is. */
	unsigned slot = bits % 2 ? 2 | (known & 1) : 1;
	int inputs[INPUTS], sum = 0, error;

	for (i = 0; i < CONTEXTS; i++) {
		unsigned state = lines[i][slot];

		inputs[i] = mixer->says[state];
		some = some * 2 + (state >= SOME);
	}
	inputs[MATCH] = expected < 0 ? 0 : mixer->stretched[*right >> 4];
	if (!expected)
		inputs[MATCH] = -inputs[MATCH];
	inputs[GUESS] = 0;
	for (i = byte->half ? 0 : KEPT; i < KEPT; i++) {
		/* The first of them that has the bits that are known. */
		uint32_t value = (uint16_t)(mixer->kept[byte->kind][i] - byte->here) | 1 << 16, at = byte->place % 2 * 8 + bits;

		if (value >> (16 - at) != (byte->half << bits | (known ^ 1 << bits)))
			continue;
		guess = value >> (15 - at) & 1;
		guessed = &mixer->guessed[byte->kind][i][at];
		inputs[GUESS] = guess ? mixer->stretched[*guessed >> 4] : -mixer->stretched[*guessed >> 4];
		some = (1 << CONTEXTS) + (i > 0);
		break;
	}
	inputs[BIAS] = 512;
	by_slots = mixer->by_slots[some];
	for (i = 0; i < INPUTS; i++)
		sum += inputs[i] * ((by_place[i] + by_first[i] + by_slots[i]) >> 8);
	sum = (sum >> 8) + 2048;
	sum = sum > 4095 ? 4095 : sum < 0 ? 0 : sum;

	chance = mixer->squashed[sum];
	part = sum % STEP;
	meant = &mixer->meant[hash(byte->first << 3 | byte->place, known) >> (32 - MEANT)][sum / STEP];
	bit = code(coder, (chance + (meant[0] * (STEP - part) + meant[1] * part) / STEP) / 2, bit);

	error = (int)(bit << 12) - (int)(chance >> 4);
	/* Most are so small that they teach nothing. */
	for (i = error < -24 || error > 24 ? 0 : INPUTS; i < INPUTS; i++) {
		int change = (inputs[i] * error + 8192) >> 14;

		by_place[i] += change;
		by_first[i] += change;
		by_slots[i] += change;
	}
	meant += part >= STEP / 2;
	*meant = nearer(*meant, bit);
	for (i = 0; i < CONTEXTS; i++)
		lines[i][slot] = mixer->next[bit][lines[i][slot]];
	if (guessed)
		*guessed = nearer(*guessed, guess == bit);
	if (expected >= 0) {
		*right = nearer(*right, (unsigned)expected == bit);
		if ((unsigned)expected != bit) {
			match->length = 0;
			match->missed += match->missed < MISSES - 1;
		}
	}
	return bit;
}

/* Codes all of an image, of which the first BARE bytes are there. `mixer` is all zeros. */
static void mix(struct mixer *mixer, struct coder *coder, uint8_t *out)
{
	struct match match = { 0, 0, 0 };
	/* Where the instruction begins, or the last one did; and the letters since the last byte that is none. */
	uint32_t at, i, begin = BEGIN - UNIT, word = 0;

	prepare(mixer);
	for (at = BARE; at < PLAIN; at++) {
		uint32_t contexts[CONTEXTS], place = 4;
		struct byte byte = { 4, out[at - 1], 0, KINDS, 0 };
		uint8_t (*groups[CONTEXTS])[4][LINE], *lines[CONTEXTS];
		unsigned known = 1, bits;

		if (at >= BEGIN && at < END) {
			byte.first = out[begin];
			if (at == begin + length(byte.first))
				begin = at;
			byte.place = place = at - begin;
		}
		look(mixer, &match, out, at, place);
		if (place == 4) {
			uint32_t letter = out[at - 1] | 32u;

			word = letter - 'a' < 26 ? hash(word, letter) : 0;
			choose_plain(contexts, out + at, at, word, match.length ? (match.length > 7) << 8 | out[match.next] : 512);
		} else {
			choose(contexts, &mixer->history, out + at, place, byte.first);
		}
		if (UNIT == 4 && place / 2 == 1) {
			byte.kind = kind(number(out + at - place + 2, 2));
			byte.here = byte.kind == BRANCH ? at / 4 : 0;
			byte.half = byte.kind == KINDS ? 0 : place == 2 ? 1 : 256 | out[at - 1];
		}
		for (bits = 0; bits < 8; bits++) {
			unsigned left = 7 - bits, bit;
			int expected = -1;

			if (match.length && (out[match.next] | 256u) >> (left + 1) == known)
				expected = out[match.next] >> left & 1;
			for (i = bits % 2 ? CONTEXTS : 0; i < CONTEXTS; i++) {
				uint32_t sum = hash(contexts[i] + i, known);

				if (bits % 4 == 0)
					groups[i] = mixer->groups[sum >> (32 - GROUPS)];
				lines[i] = line(groups[i][bits / 2 % 2], sum);
			}
			bit = mix_bit(mixer, coder, &match, &byte, lines, known, bits, expected, out[at] >> left & 1);
			known = known << 1 | bit;
		}
		out[at] = (uint8_t)known;
		if (place + 1 == length(out[begin]))
			remember(&mixer->history, number(out + begin + UNIT, UNIT) << (32 - 8 * UNIT));
		if (byte.half > 1)
			keep(mixer->kept[byte.kind], (uint16_t)(number(out + at + 1, 2) + byte.here));
		match.next += match.next != 0;
		match.length += match.length && match.length < LONGEST;
		if (match.length >= 8)
			match.missed = 0;
	}
}
