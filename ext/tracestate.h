/*
 * W3C tracestate as far as sampling looks into it: members, and OpenTelemetry's `rv` and `th` in the member `ot`. The
 * twin of src/spanloom/core/sampling/threshold.py, which names the sources.
 */
#ifndef SPANLOOM_TRACESTATE_H
#define SPANLOOM_TRACESTATE_H

#include "wire.h"

#define SL_MEMBERS_MAX 32
#define SL_HEX_DIGITS 14 /* of R and of a threshold */

typedef struct {
    sl_slice key, value;
} sl_member;

typedef struct {
    sl_member items[SL_MEMBERS_MAX];
    uint32_t count;
} sl_members;

static inline bool sl_is_text(sl_slice slice, const char *text) {
    size_t size = strlen(text);
    return slice.size == size && !memcmp(slice.at, text, size);
}

static inline bool sl_same_slice(sl_slice a, sl_slice b) {
    return a.size == b.size && (!a.size || !memcmp(a.at, b.at, a.size));
}

/* Take what stands before the next *sign*, or all; *rest is what stands after it. Whether the sign was there. */
static inline bool sl_cut(sl_slice from, char sign, sl_slice *head, sl_slice *rest) {
    const uint8_t *found = from.size ? memchr(from.at, sign, from.size) : NULL;
    size_t size = found ? (size_t)(found - from.at) : from.size;
    *head = (sl_slice){from.at, size};
    *rest = found ? (sl_slice){found + 1, from.size - size - 1} : (sl_slice){NULL, 0};
    return found;
}

static inline bool sl_is_lower(uint8_t c) { return c >= 'a' && c <= 'z'; }

static inline bool sl_is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* Whether it is a key's word: up to *size_max* characters, the first a letter or, where *digit_first*, a digit. */
static inline bool sl_is_word(sl_slice word, size_t size_max, bool digit_first) {
    if (!word.size || word.size > size_max) return false;
    if (!sl_is_lower(word.at[0]) && !(digit_first && sl_is_digit(word.at[0]))) return false;
    for (size_t i = 1; i < word.size; i++) {
        uint8_t c = word.at[i];
        if (!sl_is_lower(c) && !sl_is_digit(c) && c != '_' && c != '-' && c != '*' && c != '/') return false;
    }
    return true;
}

static inline bool sl_is_member_key(sl_slice key) {
    sl_slice tenant, system;
    if (!sl_cut(key, '@', &tenant, &system)) return sl_is_word(key, 256, false);
    return sl_is_word(tenant, 241, true) && sl_is_word(system, 14, false);
}

static inline bool sl_is_member_value(sl_slice value) {
    if (!value.size || value.size > 256 || value.at[value.size - 1] == ' ') return false;
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.at[i];
        if (c < 0x20 || c > 0x7e || c == ',' || c == '=') return false;
    }
    return true;
}

static inline bool sl_is_blank(uint8_t c) { return c == ' ' || c == '\t'; }

/* The member of that key, or NULL. */
static inline const sl_member *sl_member_of(const sl_members *members, sl_slice key) {
    for (uint32_t i = 0; i < members->count; i++) {
        if (sl_same_slice(members->items[i].key, key)) return &members->items[i];
    }
    return NULL;
}

/* One `key=value`; false where it is not well-formed, stands twice or is one too many. */
static inline bool sl_add_member(sl_members *members, sl_slice text) {
    sl_member member;
    if (!sl_cut(text, '=', &member.key, &member.value)) return false;
    for (; member.key.size && sl_is_blank(member.key.at[0]); member.key.size--) member.key.at++;
    while (member.value.size && sl_is_blank(member.value.at[member.value.size - 1])) member.value.size--;
    if (!sl_is_member_key(member.key) || !sl_is_member_value(member.value)) return false;
    if (sl_member_of(members, member.key) || members->count == SL_MEMBERS_MAX) return false;
    members->items[members->count++] = member;
    return true;
}

/* The members, which borrow from *trace_state*; false, and none, where it is not well-formed. */
static inline bool sl_read_members(sl_slice trace_state, sl_members *members) {
    members->count = 0;
    while (trace_state.size) {
        sl_slice text;
        (void)sl_cut(trace_state, ',', &text, &trace_state);
        if (!text.size || sl_add_member(members, text)) continue;
        members->count = 0;
        return false;
    }
    return true;
}

/* The value of the member `ot`, empty if there is none. */
static inline sl_slice sl_ot_of(const sl_members *members) {
    const sl_member *ot = sl_member_of(members, (sl_slice){(const uint8_t *)"ot", 2});
    return ot ? ot->value : (sl_slice){NULL, 0};
}

/* The first field *name* of an `ot` value, empty if there is none. */
static inline sl_slice sl_ot_field(sl_slice ot, const char *name) {
    while (ot.size) {
        sl_slice field, key, value;
        (void)sl_cut(ot, ';', &field, &ot);
        if (sl_cut(field, ':', &key, &value) && sl_is_text(key, name)) return value;
    }
    return (sl_slice){NULL, 0};
}

/* Lower-case hex digits, *digits_min* to SL_HEX_DIGITS of them, as the high digits of a number of SL_HEX_DIGITS. */
static inline bool sl_read_hex(sl_slice text, size_t digits_min, uint64_t *value) {
    if (text.size < digits_min || text.size > SL_HEX_DIGITS) return false;
    *value = 0;
    for (size_t i = 0; i < SL_HEX_DIGITS; i++) {
        uint8_t c = i < text.size ? text.at[i] : '0';
        if (!sl_is_digit(c) && (c < 'a' || c > 'f')) return false;
        *value = *value << 4 | (uint64_t)(sl_is_digit(c) ? c - '0' : c - 'a' + 10);
    }
    return true;
}

/* The randomness that *members* tell, if they do. */
static inline bool sl_read_rv(const sl_members *members, uint64_t *rv) {
    return sl_read_hex(sl_ot_field(sl_ot_of(members), "rv"), SL_HEX_DIGITS, rv);
}

#endif
