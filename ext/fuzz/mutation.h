/*
 * A seeded source of choices, and damage to bytes: what the fuzzers share. The same seed gives the same run anywhere.
 */
#ifndef SPANLOOM_MUTATION_H
#define SPANLOOM_MUTATION_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_BYTES_MAX 4096
#define CORPUS_MAX 256

typedef struct {
    uint64_t state; /* never 0 */
} sl_dice;

/* xorshift64* (Vigna). */
static inline uint64_t sl_roll(sl_dice *dice) {
    dice->state ^= dice->state >> 12;
    dice->state ^= dice->state << 25;
    dice->state ^= dice->state >> 27;
    return dice->state * 0x2545f4914f6cdd1du;
}

/* 0 <= result < sides */
static inline size_t sl_choose(sl_dice *dice, size_t sides) { return (size_t)(sl_roll(dice) >> 33) % sides; }

/* A copy in a block of its own, of its very size: a byte too far is seen. The caller frees it. */
static inline uint8_t *sl_exact(const void *bytes, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, bytes, size);
    return copy;
}

typedef struct {
    uint8_t bytes[RECORD_BYTES_MAX];
    size_t size;
} sl_sample;

static inline void sl_insert(sl_sample *sample, size_t at, const uint8_t *bytes, size_t size) {
    if (sample->size + size > RECORD_BYTES_MAX) return;
    memmove(sample->bytes + at + size, sample->bytes + at, sample->size - at);
    memcpy(sample->bytes + at, bytes, size);
    sample->size += size;
}

static inline void sl_remove(sl_sample *sample, size_t at, size_t size) {
    if (size > sample->size - at) size = sample->size - at;
    memmove(sample->bytes + at, sample->bytes + at + size, sample->size - at - size);
    sample->size -= size;
}

/* Insert what means something in a tracestate. */
static inline void sl_insert_word(sl_sample *sample, size_t at, sl_dice *dice) {
    static const char *const words[] = {"ot=", "rv:", "th:", "@", ",", ";", "=", " ", "\t", "ffffffffffffff", "k"};
    const char *word = words[sl_choose(dice, sizeof words / sizeof *words)];
    sl_insert(sample, at, (const uint8_t *)word, strlen(word));
}

/* Change, lose, repeat or insert a few bytes. */
static inline void sl_damage(sl_sample *sample, sl_dice *dice) {
    uint8_t noise[16];
    size_t at = sl_choose(dice, sample->size + 1), size = 1 + sl_choose(dice, sizeof noise);
    for (size_t i = 0; i < size; i++) noise[i] = sl_choose(dice, 3) ? (uint8_t)sl_roll(dice) : 0xff;
    switch (sl_choose(dice, 7)) {
    case 0:
        if (at < sample->size) sample->bytes[at] ^= (uint8_t)(1u << sl_choose(dice, 8));
        break;
    case 1:
        if (at < sample->size) sample->bytes[at] = noise[0];
        break;
    case 2:
        sl_remove(sample, at, sl_choose(dice, 4) ? size : sample->size);
        break;
    case 3:
        sl_insert(sample, at, noise, size);
        break;
    case 4:
        if (at + size <= sample->size) {
            memcpy(noise, sample->bytes + at, size);
            sl_insert(sample, sl_choose(dice, sample->size + 1), noise, size);
        }
        break;
    case 5:
        sl_insert_word(sample, at, dice);
        break;
    default: /* a length, larger or smaller by a little */
        if (at < sample->size) sample->bytes[at] = (uint8_t)(sample->bytes[at] + sl_choose(dice, 5) - 2);
    }
}

typedef struct {
    sl_sample *samples; /* owned */
    size_t count;
} sl_corpus;

/* Read every file named in arguments[0 .. count). */
static inline sl_corpus sl_read_corpus(char **arguments, int count) {
    sl_corpus corpus = {calloc(CORPUS_MAX, sizeof(sl_sample)), 0};
    for (int i = 0; corpus.samples && i < count && corpus.count < CORPUS_MAX; i++) {
        FILE *file = fopen(arguments[i], "rb");
        if (!file) continue;
        sl_sample *sample = &corpus.samples[corpus.count++];
        sample->size = fread(sample->bytes, 1, RECORD_BYTES_MAX, file);
        fclose(file);
    }
    return corpus;
}

#endif
