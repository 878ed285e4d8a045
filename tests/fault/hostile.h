/*
 * What the attacks of hostile_test.c share, and their names. Each takes a siege under way, loses
 * the links of its own peers, and returns.
 */
#ifndef RSI_TESTS_FAULT_HOSTILE_H
#define RSI_TESTS_FAULT_HOSTILE_H

#include "tests/fault/raw_peer.h"

/* A broker, and its bystanders. */
struct siege {
    struct broker broker;
    struct raw_broker at;
    struct actor reader;
    struct actor writer;
    uint64_t random;
    unsigned caught_count; /* peers of the last round that were caught rewriting frames */
};

void siege_fill_randomly(struct siege *siege, uint8_t *bytes, size_t count);
/* Messages that the bystander has received. */
uint64_t siege_position(const struct siege *siege);
/* The bystanders have gone on since `position`. */
void siege_expect_traffic(const struct siege *siege, uint64_t position);
/* Waits until the bystanders have made so many more messages of progress. */
void siege_let_pass(const struct siege *siege, uint64_t message_count);

/* The broker ends the link for this reason; closes the peer. */
void expect_end(struct raw_peer *peer, Ringside__Control__Reason reason);
/* It ends without being told why: it broke the transport's protocol, or is past words. */
void expect_any_end(struct raw_peer *peer);

/* The link is there: what the peer publishes comes back to it. */
void expect_alive(struct raw_peer *peer);

/* hostile_handshake.c: before there is a session, and sessions of others. */
void attack_garbage(struct siege *siege);
void attack_control_garbage(struct siege *siege);
void attack_endless_message(struct siege *siege);
void attack_out_of_turn(struct siege *siege);
void attack_wrong_version(struct siege *siege);
void attack_proofs(struct siege *siege);
void attack_slow_loris(struct siege *siege);
void attack_crowd(struct siege *siege);
void attack_comings_and_goings(struct siege *siege);
void attack_sessions(struct siege *siege);
void attack_positions_of_resume(struct siege *siege);
void attack_restlessness(struct siege *siege);

/* hostile_data.c: records, frames, positions, and too much of what is allowed. */
void attack_huge_records(struct siege *siege);
void attack_unknown_records(struct siege *siege);
void attack_batches(struct siege *siege);
void attack_frames(struct siege *siege);
void attack_commit_words(struct siege *siege);
void attack_positions(struct siege *siege);
void attack_request_flood(struct siege *siege);
void attack_control_flood(struct siege *siege);
void attack_hello_flood(struct siege *siege);
void attack_deafness(struct siege *siege);
void attack_blocking(struct siege *siege);

/* hostile_memory.c: memory and descriptors that are shared; shm only. */
void attack_rewriting(struct siege *siege);
void attack_memory_files(struct siege *siege);
void attack_descriptors(struct siege *siege);
void attack_sleep_requests(struct siege *siege);

/* hostile_datagrams.c: frames and datagrams; dpdk only. */
void attack_forged_hellos(struct siege *siege);
void attack_cookies(struct siege *siege);
void attack_repeated_opens(struct siege *siege);
void attack_spoilt_frames(struct siege *siege);
void attack_data(struct siege *siege);
void attack_overlaps(struct siege *siege);
void attack_crumbs(struct siege *siege);
void attack_states(struct siege *siege);
void attack_ranges(struct siege *siege);
void attack_asking_again(struct siege *siege);
void attack_probes(struct siege *siege);
void attack_names(struct siege *siege);
void attack_arp(struct siege *siege);
/* Peers that stop at each stage and say nothing from then on; the broker ends each by itself. */
void silence_begin(struct siege *siege);
void silence_end(void);

#endif
