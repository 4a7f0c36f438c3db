/* Predicates made by dice, and a matcher for their patterns: what the fuzzers of everything that asks spans share. */
#ifndef SPANLOOM_ASKING_H
#define SPANLOOM_ASKING_H

#include "mutation.h"
#include "predicates.h"

static inline int match_by_letter(void *context, uint32_t group, const uint8_t *text, size_t size, sl_bits *matches) {
    (void)context;
    *matches = (sl_bits){0};
    if (size && text[0] == 's') sl_bits_set(matches, group);
    return SL_OK;
}

static inline sl_slice text_of(const char *text) { return (sl_slice){(const uint8_t *)text, strlen(text)}; }

/* Any predicates, on what the corpus and damage to it hold. */
static inline int put_predicates(sl_dice *dice, sl_predicates *to) {
    static const char *const keys[] = {"service.name", "k", "error", "k2", "", "host", "ot"};
    static const char *const texts[] = {"a", "ab", "", "true", "shop", "404"};
    for (size_t count = sl_choose(dice, 12); count; count--) {
        sl_predicate_kind kind = (sl_predicate_kind)sl_choose(dice, SL_PREDICATE_ERROR + 1);
        sl_slice key = text_of(keys[sl_choose(dice, 7)]);
        uint32_t group;
        if (sl_put_predicate(to, kind, key, (int64_t)sl_choose(dice, 8) - 2, (int64_t)sl_choose(dice, 9), &group)) {
            return SL_NO_MEMORY;
        }
        if (kind != SL_PREDICATE_TEXT && kind != SL_PREDICATE_STATE) continue;
        for (size_t more = sl_choose(dice, 4); more; more--) {
            if (sl_put_text(to, kind, key, text_of(texts[sl_choose(dice, 6)]))) return SL_NO_MEMORY;
        }
    }
    to->asks_rv = sl_choose(dice, 2);
    return SL_OK;
}

#endif
