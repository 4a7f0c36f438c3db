/*
 * The predicates of a program, asked of spans while these join their trace, and only what the program asks for. The
 * twin of src/spanloom/core/_pure/predicates.py.
 *
 *   status, flag   a set of predicates by status code, and one for the flag: or-ed to what has matched
 *   latency        bounds of whole milliseconds
 *   attributes     a question a key, found by the key's length and then its bytes, with all predicates that ask for it
 *   states         the same, by key in the tracestate
 *   patterns       in groups, asked of Python once a text (matches.h): a group a key, and one for all service globs
 *
 * What a Resource answers is asked once a record. A predicate that has matched is not asked again.
 */
#ifndef SPANLOOM_PREDICATES_H
#define SPANLOOM_PREDICATES_H

#include "attributes.h"
#include "matches.h"
#include "scan.h"
#include "tracestate.h"

/* As in PredicateKind of src/spanloom/core/sampling/program.py. */
typedef enum {
    SL_PREDICATE_TEXT,
    SL_PREDICATE_PATTERN,
    SL_PREDICATE_INTEGER,
    SL_PREDICATE_BOOLEAN,
    SL_PREDICATE_STATUS,
    SL_PREDICATE_STATE,
    SL_PREDICATE_SAMPLED_FLAG,
    SL_PREDICATE_LATENCY,
    SL_PREDICATE_SERVICE,
    SL_PREDICATE_ERROR,
} sl_predicate_kind;

/* An exact text, and the predicates that list it. */
typedef struct {
    sl_slice text; /* owned */
    sl_bits bits;
} sl_text;

typedef struct {
    int64_t low, high;
    uint32_t bit;
} sl_bounds;

SL_VECTOR(sl_texts, sl_text)
SL_VECTOR(sl_bounds_list, sl_bounds)

/* All that is asked of one key. */
typedef struct {
    sl_slice key;    /* owned */
    sl_texts texts;  /* in order of length, then of bytes */
    sl_bounds_list integers;
    sl_bits truths[2]; /* those that ask for false, for true */
    sl_bits patterns;  /* those of its group */
    sl_bits errors;    /* of spans alone */
    sl_bits all, of_resource;
    uint32_t group;
    uint32_t next;   /* the next one of that length, or SL_NONE */
    uint64_t answered; /* the message that answered last: a key that stands twice counts as it stands first */
} sl_question;

SL_VECTOR(sl_questions, sl_question)

/* Questions, found by their key. */
typedef struct {
    sl_questions list;
    uint32_t by_size[256]; /* the first of this length, longer ones with the last; SL_NONE */
} sl_catalogue;

#define SL_RESOURCE 1 /* field numbers: in ResourceSpans, in Resource, in Span */
#define SL_RESOURCE_ATTRIBUTES 1
#define SL_SPAN_ATTRIBUTES 9

#define SL_SERVICE_GROUP 0

typedef struct {
    uint32_t count;
    sl_bits statuses[SL_STATUS_CODES + 1]; /* by code; the last for all beyond */
    sl_bits flagged;
    sl_bits services;
    sl_bounds_list latencies;
    sl_catalogue attributes, states;
    sl_bits latency_bits, resource_bits, span_bits, state_bits; /* who looks at what; span_bits: at its attributes */
    bool asks_resource_attributes, asks_rv;
    uint32_t groups;   /* given out */
    uint64_t messages; /* looked at */
} sl_predicates;

/* Making them. */

static inline void sl_predicates_start(sl_predicates *predicates) {
    *predicates = (sl_predicates){.groups = SL_SERVICE_GROUP + 1};
    for (int i = 0; i < 256; i++) predicates->attributes.by_size[i] = predicates->states.by_size[i] = SL_NONE;
}

static inline void sl_catalogue_free(sl_catalogue *catalogue) {
    for (size_t i = 0; i < catalogue->list.count; i++) {
        sl_question *question = &catalogue->list.items[i];
        for (size_t j = 0; j < question->texts.count; j++) free((void *)question->texts.items[j].text.at);
        sl_texts_free(&question->texts);
        sl_bounds_list_free(&question->integers);
        free((void *)question->key.at);
    }
    sl_questions_free(&catalogue->list);
}

static inline void sl_predicates_free(sl_predicates *predicates) {
    sl_catalogue_free(&predicates->attributes);
    sl_catalogue_free(&predicates->states);
    sl_bounds_list_free(&predicates->latencies);
}

/* A copy of one's own, of one byte at least; NULL: no memory. */
static inline const uint8_t *sl_copy_slice(sl_slice from) {
    uint8_t *copy = sl_alloc(from.size + 1);
    if (copy && from.size) memcpy(copy, from.at, from.size);
    return copy;
}

static inline uint32_t *sl_catalogue_slot(sl_catalogue *catalogue, size_t key_size) {
    return &catalogue->by_size[key_size < 255 ? key_size : 255];
}

/* The question about the key, or NULL. */
static inline sl_question *sl_question_of(sl_catalogue *catalogue, sl_slice key) {
    for (uint32_t at = *sl_catalogue_slot(catalogue, key.size); at != SL_NONE; at = catalogue->list.items[at].next) {
        if (sl_same_slice(catalogue->list.items[at].key, key)) return &catalogue->list.items[at];
    }
    return NULL;
}

/* The same, made where it was not there; NULL: no memory. */
static inline sl_question *sl_question_make(sl_catalogue *catalogue, sl_slice key) {
    sl_question *question = sl_question_of(catalogue, key);
    if (question) return question;
    const uint8_t *copy = sl_copy_slice(key);
    question = copy ? sl_questions_add(&catalogue->list) : NULL;
    if (!question) {
        free((void *)copy);
        return NULL;
    }
    uint32_t *slot = sl_catalogue_slot(catalogue, key.size);
    *question = (sl_question){.key = {copy, key.size}, .group = SL_NONE, .next = *slot};
    *slot = (uint32_t)catalogue->list.count - 1;
    return question;
}

static inline int sl_compare_texts(sl_slice a, sl_slice b) {
    if (a.size != b.size) return a.size < b.size ? -1 : 1;
    return a.size ? memcmp(a.at, b.at, a.size) : 0;
}

/* Where the text stands, or would. */
static inline size_t sl_text_place(const sl_texts *texts, sl_slice text, bool *found) {
    size_t low = 0, high = texts->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = sl_compare_texts(texts->items[middle].text, text);
        if (!order) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = false;
    return low;
}

static inline int sl_texts_put(sl_texts *texts, sl_slice text, uint32_t bit) {
    bool found;
    size_t place = sl_text_place(texts, text, &found);
    if (!found) {
        const uint8_t *copy = sl_copy_slice(text);
        if (!copy || !sl_texts_add(texts)) {
            free((void *)copy);
            return SL_NO_MEMORY;
        }
        sl_text *at = &texts->items[place];
        memmove(at + 1, at, (texts->count - 1 - place) * sizeof *at);
        *at = (sl_text){.text = {copy, text.size}};
    }
    sl_bits_set(&texts->items[place].bits, bit);
    return SL_OK;
}

static inline int sl_bounds_put(sl_bounds_list *list, int64_t low, int64_t high, uint32_t bit) {
    sl_bounds *bounds = sl_bounds_list_add(list);
    if (!bounds) return SL_NO_MEMORY;
    *bounds = (sl_bounds){low, high, bit};
    return SL_OK;
}

/* A predicate on an attribute, of resource or span. */
static inline int sl_put_attribute(sl_predicates *predicates, sl_predicate_kind kind, sl_slice key, int64_t low,
                                   int64_t high, uint32_t bit) {
    sl_question *question = sl_question_make(&predicates->attributes, key);
    if (!question) return SL_NO_MEMORY;
    sl_bits_set(&question->all, bit);
    sl_bits_set(&question->of_resource, bit);
    sl_bits_set(&predicates->span_bits, bit);
    sl_bits_set(&predicates->resource_bits, bit);
    predicates->asks_resource_attributes = true;
    if (kind == SL_PREDICATE_INTEGER) return sl_bounds_put(&question->integers, low, high, bit);
    if (kind == SL_PREDICATE_BOOLEAN) sl_bits_set(&question->truths[low != 0], bit);
    if (kind == SL_PREDICATE_PATTERN) {
        if (question->group == SL_NONE) question->group = predicates->groups++;
        sl_bits_set(&question->patterns, bit);
    }
    return SL_OK;
}

static inline int sl_put_error(sl_predicates *predicates, uint32_t bit) {
    sl_question *question = sl_question_make(&predicates->attributes, (sl_slice){(const uint8_t *)"error", 5});
    if (!question) return SL_NO_MEMORY;
    sl_bits_set(&predicates->statuses[SL_STATUS_ERROR], bit);
    sl_bits_set(&predicates->span_bits, bit);
    sl_bits_set(&question->errors, bit);
    sl_bits_set(&question->all, bit);
    return SL_OK;
}

/*
 * Add the next predicate, its bit the number of those before it; its texts follow by sl_put_text. *group is that of its
 * patterns, SL_NONE where it has none.
 */
static inline int sl_put_predicate(sl_predicates *predicates, sl_predicate_kind kind, sl_slice key, int64_t low,
                                   int64_t high, uint32_t *group) {
    uint32_t bit = predicates->count++;
    *group = SL_NONE;
    switch (kind) {
    case SL_PREDICATE_STATUS:
        for (int code = 0; code < SL_STATUS_CODES; code++) {
            if (low >> code & 1) sl_bits_set(&predicates->statuses[code], bit);
        }
        return SL_OK;
    case SL_PREDICATE_SAMPLED_FLAG:
        sl_bits_set(&predicates->flagged, bit);
        return SL_OK;
    case SL_PREDICATE_LATENCY:
        sl_bits_set(&predicates->latency_bits, bit);
        return sl_bounds_put(&predicates->latencies, low, high, bit);
    case SL_PREDICATE_SERVICE:
        sl_bits_set(&predicates->services, bit);
        sl_bits_set(&predicates->resource_bits, bit);
        *group = SL_SERVICE_GROUP;
        return SL_OK;
    case SL_PREDICATE_ERROR:
        return sl_put_error(predicates, bit);
    case SL_PREDICATE_STATE:
        sl_bits_set(&predicates->state_bits, bit);
        return sl_question_make(&predicates->states, key) ? SL_OK : SL_NO_MEMORY;
    default:
        if (sl_put_attribute(predicates, kind, key, low, high, bit)) return SL_NO_MEMORY;
        if (kind == SL_PREDICATE_PATTERN) *group = sl_question_of(&predicates->attributes, key)->group;
        return SL_OK;
    }
}

/* An exact text of the predicate added last, which is of *kind* and *key*. */
static inline int sl_put_text(sl_predicates *predicates, sl_predicate_kind kind, sl_slice key, sl_slice text) {
    sl_catalogue *catalogue = kind == SL_PREDICATE_STATE ? &predicates->states : &predicates->attributes;
    return sl_texts_put(&sl_question_of(catalogue, key)->texts, text, predicates->count - 1);
}

/* Asking them. */

typedef struct {
    sl_predicates *predicates;
    sl_matches *matches;
    const sl_key *key;
} sl_asker;

static inline void sl_add_text(const sl_texts *texts, sl_slice text, sl_bits *matched) {
    bool found;
    size_t place = sl_text_place(texts, text, &found);
    if (found) sl_bits_add(matched, &texts->items[place].bits);
}

/* Ask a group of patterns of which *all* are wanted. */
static inline int sl_ask_patterns(const sl_asker *asker, uint32_t group, const sl_bits *all, sl_slice text,
                                  sl_bits *matched) {
    sl_bits found;
    if (sl_bits_within(all, matched)) return SL_OK;
    if (sl_matches_of(asker->matches, asker->key, group, text, &found)) return SL_NO_MEMORY;
    sl_bits_add(matched, &found);
    return SL_OK;
}

/* Put a question to the value of an attribute. */
static inline int sl_ask_value(const sl_asker *asker, const sl_question *question, const sl_value *value, bool of_span,
                               sl_bits *matched) {
    int64_t number = value->kind == SL_VALUE_INTEGER ? value->number : 0;
    bool truth = value->kind == SL_VALUE_TRUTH && value->number;
    sl_slice text = value->kind == SL_VALUE_TEXT ? value->text : (sl_slice){NULL, 0};
    if (question->texts.count && text.size) sl_add_text(&question->texts, text, matched);
    for (size_t i = 0; i < question->integers.count; i++) {
        const sl_bounds *bounds = &question->integers.items[i];
        if (bounds->low <= number && number <= bounds->high) sl_bits_set(matched, bounds->bit);
    }
    sl_bits_add(matched, &question->truths[truth]);
    if (of_span && (truth || sl_is_text(text, "true"))) sl_bits_add(matched, &question->errors);
    if (question->group == SL_NONE || (of_span && !text.size)) return SL_OK;
    return sl_ask_patterns(asker, question->group, &question->patterns, text, matched);
}

/* Put the questions about one attribute of message number *message*. */
static inline int sl_ask_attribute(const sl_asker *asker, sl_slice attribute, bool of_span, uint64_t message,
                                   sl_bits *matched) {
    sl_attribute read;
    sl_value value;
    if (!sl_read_attribute(attribute, &read)) return SL_OK;
    sl_question *question = sl_question_of(&asker->predicates->attributes, read.key);
    if (!question || question->answered == message) return SL_OK;
    if (sl_bits_within(of_span ? &question->all : &question->of_resource, matched)) return SL_OK;
    if (!sl_read_attribute_value(&read, &value)) return SL_OK;
    question->answered = message;
    return sl_ask_value(asker, question, &value, of_span, matched);
}

/* Step over short attributes of a key that nobody asks for: field tag, length, 0a, length, key, 12, length, value. */
static inline const uint8_t *sl_pass_attributes(const sl_catalogue *attributes, sl_reader reader, uint8_t tag) {
    const uint8_t *at = reader.at;
    while (reader.end - at >= 6 && at[0] == tag && at[2] == 0x0a) {
        ptrdiff_t size = at[1], key = at[3];
        if (size >= 0x80 || size > reader.end - at - 2 || key + 4 > size) break;
        if (at[4 + key] != 0x12 || key + 4 + at[5 + key] != size || attributes->by_size[key] != SL_NONE) break;
        at += 2 + size;
    }
    return at;
}

/* Ask of the attributes, field *number* of a Resource or a Span whose framing is whole. */
static inline int sl_ask_attributes(const sl_asker *asker, sl_reader reader, uint32_t number, uint64_t message,
                                    sl_bits *matched) {
    bool of_span = number == SL_SPAN_ATTRIBUTES;
    uint8_t tag = (uint8_t)(number << 3 | SL_LENGTH);
    sl_field field;
    sl_fault unused;
    while ((reader.at = sl_pass_attributes(&asker->predicates->attributes, reader, tag)) < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        if (field.number != number || field.type != SL_LENGTH) continue;
        if (sl_ask_attribute(asker, sl_payload(&field), of_span, message, matched)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* What a ResourceSpans answers; where its Resource stands in parts, a malformed one counts for nothing. */
static inline int sl_ask_resource(const sl_asker *asker, sl_resource *resource) {
    sl_predicates *predicates = asker->predicates;
    sl_reader reader = sl_reader_of(resource->message);
    sl_field field;
    sl_fault unused;
    uint64_t message = ++predicates->messages;
    resource->is_asked = true;
    while (predicates->asks_resource_attributes && reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        sl_reader inside = sl_inside(&reader, &field);
        if (field.number != SL_RESOURCE || sl_check_framing(inside, &unused)) continue;
        if (sl_ask_attributes(asker, inside, SL_RESOURCE_ATTRIBUTES, message, &resource->answers)) return SL_NO_MEMORY;
    }
    return sl_ask_patterns(asker, SL_SERVICE_GROUP, &predicates->services, resource->service, &resource->answers);
}

/* Ask of the tracestate: its members, and `rv`. */
static inline void sl_ask_state(const sl_asker *asker, sl_slice trace_state, sl_answers *answers) {
    const sl_catalogue *states = &asker->predicates->states;
    sl_members members;
    if (!sl_read_members(trace_state, &members)) return;
    for (size_t i = 0; i < states->list.count; i++) {
        const sl_member *member = sl_member_of(&members, states->list.items[i].key);
        if (member) sl_add_text(&states->list.items[i].texts, member->value, &answers->matched);
    }
    if (asker->predicates->asks_rv && !answers->has_rv) answers->has_rv = sl_read_rv(&members, &answers->rv);
}

/* Times are compared without a sign and subtracted with one, as 64 bits; a difference beyond those is the limit. */
static inline void sl_ask_latency(const sl_asker *asker, const sl_span *span, sl_answers *answers) {
    const sl_bounds_list *latencies = &asker->predicates->latencies;
    if (!answers->start_ns || span->start_unix_ns < answers->start_ns) answers->start_ns = span->start_unix_ns;
    if (!answers->end_ns || span->end_unix_ns > answers->end_ns) answers->end_ns = span->end_unix_ns;
    int64_t lasting_ns;
    if (__builtin_sub_overflow((int64_t)answers->end_ns, (int64_t)answers->start_ns, &lasting_ns)) {
        lasting_ns = (int64_t)answers->end_ns < 0 ? INT64_MIN : INT64_MAX;
    }
    int64_t whole_ms = lasting_ns / SL_NS_PER_MS;
    for (size_t i = 0; i < latencies->count; i++) {
        const sl_bounds *bounds = &latencies->items[i];
        if (whole_ms <= bounds->low || (bounds->high && whole_ms > bounds->high)) continue;
        sl_bits_set(&answers->matched, bounds->bit);
    }
}

/* Ask of one span; *resource* is that of its ResourceSpans. */
static inline int sl_ask_span(const sl_asker *asker, const sl_span *span, sl_resource *resource, sl_answers *answers) {
    sl_predicates *predicates = asker->predicates;
    sl_bits *matched = &answers->matched;
    sl_bits_add(matched, &predicates->statuses[span->status]);
    if (span->is_flagged) sl_bits_add(matched, &predicates->flagged);
    if (predicates->latencies.count && !sl_bits_within(&predicates->latency_bits, matched)) {
        sl_ask_latency(asker, span, answers);
    }
    if (span->trace_state.size) {
        bool asks_rv = predicates->asks_rv && !answers->has_rv;
        if (asks_rv || !sl_bits_within(&predicates->state_bits, matched)) {
            sl_ask_state(asker, span->trace_state, answers);
        }
    }
    if (!sl_bits_within(&predicates->resource_bits, matched)) {
        if (!resource->is_asked && sl_ask_resource(asker, resource)) return SL_NO_MEMORY;
        sl_bits_add(matched, &resource->answers);
    }
    if (!span->attributes || sl_bits_within(&predicates->span_bits, matched)) return SL_OK;
    sl_reader reader = {span->attributes, span->attributes, span->body.at + span->body.size};
    return sl_ask_attributes(asker, reader, SL_SPAN_ATTRIBUTES, ++predicates->messages, matched);
}

#endif
