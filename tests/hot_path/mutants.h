/*
 * Faults put into the hot path on purpose: a test that finds none of them proves nothing. Two
 * functions of the path are wrapped by the linker; between them they lie on every way of a message
 * through clients and agents.
 */
#ifndef RSI_TESTS_HOT_PATH_MUTANTS_H
#define RSI_TESTS_HOT_PATH_MUTANTS_H

#include <stdbool.h>

enum mutant {
    MUTANT_NONE,
    MUTANT_MALLOC,  /* one in ten calls */
    MUTANT_MUTEX,   /* one in ten calls, without contention */
    MUTANT_GETPID,  /* one in ten calls */
    MUTANT_FUTEX,   /* one in ten calls */
    MUTANT_CLOCK,   /* a second reading */
    MUTANT_VDSO,    /* the same by clock_gettime */
    MUTANT_EPOLL,   /* of a call that is allowed, more than is allowed */
    MUTANT_SENDMSG, /* the same */
    MUTANT_RECVMSG, /* the same */
};

enum mutant_place {
    MUTANT_AT_FRAME_READ, /* admission, delivery */
    MUTANT_AT_PLACE,      /* publish, fan-out */
};

extern enum mutant mutant;
extern enum mutant_place mutant_place;

#endif
