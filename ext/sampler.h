/*
 * The tail sampler of one partition: policies as a table, asked in order. The twin of core/_pure/sampler.py.
 */
#ifndef SPANLOOM_SAMPLER_H
#define SPANLOOM_SAMPLER_H

#include "services.h"
#include "sketch.h"

#define SL_POLICIES_MAX 64
#define SL_RANDOMNESS_MASK (((uint64_t)1 << 56) - 1)

typedef enum {
    SL_POLICY_ERROR,
    SL_POLICY_LATENCY,       /* threshold: the least duration in ns */
    SL_POLICY_PERCENTILE,    /* percentiles */
    SL_POLICY_SERVICE,       /* its bit among the matches of a service */
    SL_POLICY_PROBABILITY,   /* threshold: keep iff the trace id's low 56 bits are not below it */
} sl_policy_kind;

typedef struct {
    sl_policy_kind kind;
    uint64_t threshold;
    sl_percentiles *percentiles; /* owned; NULL in the other kinds */
} sl_policy;

typedef struct {
    sl_policy policies[SL_POLICIES_MAX];
    uint32_t count, version;
    uint32_t configuration; /* how often it was configured */
    bool asks_services;
    sl_services services;
} sl_sampler;

static inline void sl_sampler_free(sl_sampler *sampler) {
    for (uint32_t i = 0; i < sampler->count; i++) {
        if (!sampler->policies[i].percentiles) continue;
        sl_percentiles_free(sampler->policies[i].percentiles);
        free(sampler->policies[i].percentiles);
    }
    sampler->count = 0;
    sl_services_free(&sampler->services);
}

/* Whether one policy keeps the trace; *services* are the policies that match one of its services. */
static inline int sl_votes(const sl_policy *policy, uint32_t index, const sl_key *key, const sl_decision *decision,
                           uint64_t services, bool *keep) {
    switch (policy->kind) {
    case SL_POLICY_ERROR:
        *keep = decision->flags & SL_FLAG_ERROR;
        return SL_OK;
    case SL_POLICY_LATENCY:
        *keep = decision->duration_ns >= policy->threshold;
        return SL_OK;
    case SL_POLICY_PERCENTILE:
        return sl_is_slow(policy->percentiles, key, decision, keep);
    case SL_POLICY_SERVICE:
        *keep = services >> index & 1;
        return SL_OK;
    case SL_POLICY_PROBABILITY:
        *keep = (decision->trace_id.low & SL_RANDOMNESS_MASK) >= policy->threshold;
        return SL_OK;
    }
    return SL_OK;
}

/* The policies that match a service of the trace, as they are configured now. */
static inline int sl_ask_services(sl_sampler *sampler, const sl_key *key, const sl_gathering *gathering,
                                  uint64_t *matches) {
    if (!sampler->asks_services) return SL_OK;
    *matches = gathering->services;
    if (gathering->services_asked == sampler->configuration) return SL_OK;
    *matches = 0;
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        const sl_chunk *chunk = gathering->pieces[i].chunk;
        sl_slice bytes = {chunk->bytes, chunk->size};
        if (sl_services_in(&sampler->services, key, bytes, matches)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* A record's spans joined the trace: ask of their services while they are at hand. */
static inline int sl_note_services(sl_sampler *sampler, const sl_key *key, sl_gathering *gathering, const sl_scan *scan,
                                   uint32_t first) {
    if (!sampler->asks_services) return SL_OK;
    if (gathering->piece_count == 1) gathering->services_asked = sampler->configuration;
    if (gathering->services_asked != sampler->configuration) {
        gathering->services_asked = 0; /* it has spans from before: ask of all when it is decided */
        return SL_OK;
    }
    uint32_t last = SL_NONE;
    for (uint32_t at = first; at != SL_NONE; at = scan->spans.items[at].next) {
        uint64_t more;
        if (scan->spans.items[at].resource == last) continue;
        last = scan->spans.items[at].resource;
        if (sl_service_matches(&sampler->services, key, scan->resources.items[last].service, &more)) {
            return SL_NO_MEMORY;
        }
        gathering->services |= more;
    }
    return SL_OK;
}

/* Ask every policy, in order: sets verdict, votes, deciding policy, threshold and version. */
static inline int sl_judge(sl_sampler *sampler, const sl_key *key, const sl_gathering *gathering,
                           sl_decision *decision) {
    uint64_t services = 0;
    if (sl_ask_services(sampler, key, gathering, &services)) return SL_NO_MEMORY;
    decision->policy = SL_NO_POLICY;
    decision->threshold = SL_THRESHOLD_UNKNOWN;
    decision->version = sampler->version;
    for (uint32_t i = 0; i < sampler->count; i++) {
        const sl_policy *policy = &sampler->policies[i];
        bool keep = false;
        if (sl_votes(policy, i, key, decision, services, &keep)) return SL_NO_MEMORY;
        if (!keep) continue;
        uint64_t threshold = policy->kind == SL_POLICY_PROBABILITY ? policy->threshold : 0;
        if (!decision->votes) decision->policy = (uint8_t)i;
        if (threshold < decision->threshold) decision->threshold = threshold;
        decision->votes |= (uint64_t)1 << i;
    }
    decision->verdict = decision->votes ? SL_KEEP : SL_DROP;
    return SL_OK;
}

/* Count a decided trace. Once for each first fragment, in ledger order. */
static inline int sl_fold(sl_sampler *sampler, const sl_key *key, const sl_decision *decision) {
    for (uint32_t i = 0; i < sampler->count; i++) {
        if (sampler->policies[i].kind != SL_POLICY_PERCENTILE) continue;
        if (sl_percentiles_fold(sampler->policies[i].percentiles, key, decision)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

#endif
