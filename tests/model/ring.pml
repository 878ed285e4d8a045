/*
 * Ring and commit words on shm.
 *
 *     writer()   rsi_frame_claim, rsi_frame_commit (transport/frame.h), rsi_shm_place
 *     walk       walk, frame_at (transport/shm/datapath.c), rsi_commit_frame_bytes (proto/layout.h)
 *     consume    rsi_frame_read, rsi_link_consume, publish_consumed
 *
 * What must hold: the reader walks exactly the writer's frames, whole; what it has not given back
 * does not change.
 *
 * The unit is a word of 8 bytes; a frame has one or two, the first is its commit word. Payload is the
 * worst there is: each word looks like the commit word of a frame one lap later.
 *
 * Memory: the writer's stores wait in a buffer and reach memory in any order, but for two rules: one
 * word's stores keep their order, and a release store comes after all older ones. This is weaker than
 * x86 and what C11 promises. Loads of an acquiring reader keep their order.
 *
 * Must be refuted: NO_ZERO, ZERO_LATE, NO_RELEASE_HEAD, NO_GUARD, NO_ACQUIRE, NO_RELEASE_CONSUMED.
 */
#define CAPACITY 6  /* words of the ring */
#define LAST_POS 12 /* two laps */
#define STORES   5  /* that wait in the writer's buffer */

#ifdef NO_GUARD
#define GUARD 0
#else
#define GUARD 1 /* RSI_RING_GUARD_BYTES */
#endif

#ifdef NO_RELEASE_HEAD
#define HEAD_IS_RELEASE 0
#else
#define HEAD_IS_RELEASE 1
#endif

#define COMMIT(position, words) ((position) * 4 + (words))
#define PAYLOAD(position)       COMMIT((position) + CAPACITY, 1)
#define AT(position)            ((position) % CAPACITY)

byte ring[CAPACITY];
byte consumed_pos; /* the words page */

/* Known to the model only. */
byte placed_pos;
byte frame_words[LAST_POS + 1]; /* by the position of a frame's first word */

/* The writer's store buffer, oldest first. */
byte store_at[STORES];
byte store_value[STORES];
bit store_is_release[STORES];
byte store_count;

inline store(position, value, is_release)
{
    atomic {
        store_count < STORES ->
        store_at[store_count] = AT(position);
        store_value[store_count] = value;
        store_is_release[store_count] = is_release;
        store_count++;
    }
}

active proctype memory()
{
    byte i;
    byte j;
    bit may_go;
end:
    do
    :: atomic {
           store_count > 0 ->
           i = 0;
           do
           :: i + 1 < store_count -> i++
           :: break
           od;
           d_step {
               may_go = !(store_is_release[i] && i > 0);
               j = 0;
               do
               :: j < i -> may_go = may_go && store_at[j] != store_at[i]; j++
               :: else -> break
               od;
               if
               :: may_go ->
                   ring[store_at[i]] = store_value[i];
                   store_count--;
                   do
                   :: i < store_count ->
                       store_at[i] = store_at[i + 1];
                       store_value[i] = store_value[i + 1];
                       store_is_release[i] = store_is_release[i + 1];
                       i++
                   :: else -> break
                   od;
                   store_at[store_count] = 0;
                   store_value[store_count] = 0;
                   store_is_release[store_count] = 0
               :: else
               fi;
               i = 0;
               j = 0;
               may_go = 0
           }
       }
    od
}

#define HAS_ROOM(words) \
    (staged_pos + (words) <= LAST_POS && staged_pos + (words) + GUARD <= consumed_pos + CAPACITY)

active proctype writer()
{
    byte staged_pos;
    byte head_word;
    byte words;

    do
    :: placed_pos == LAST_POS -> break
    :: else ->
        do /* a batch: one or two frames */
        :: staged_pos < placed_pos + 3 ->
            atomic {
                if
                :: HAS_ROOM(1) -> words = 1
                :: HAS_ROOM(2) -> words = 2
                :: !HAS_ROOM(1) && staged_pos > placed_pos -> words = 0
                fi
            }
            if
            :: words == 0 -> break
            :: words == 2 -> store(staged_pos + 1, PAYLOAD(staged_pos + 1), 0)
            :: else
            fi;
            frame_words[staged_pos] = words;
            if
            :: staged_pos == placed_pos -> head_word = COMMIT(staged_pos, words)
            :: else -> store(staged_pos, COMMIT(staged_pos, words), 0)
            fi;
            staged_pos = staged_pos + words
        :: staged_pos > placed_pos -> break
        od;
#if !defined(NO_ZERO) && !defined(ZERO_LATE)
        store(staged_pos, 0, 0);
#endif
        atomic {
            words = placed_pos; /* of the head; the model counts it as placed from here on */
            placed_pos = staged_pos
        }
        store(words, head_word, HEAD_IS_RELEASE);
#ifdef ZERO_LATE
        store(staged_pos, 0, 0);
#endif
        head_word = 0
    od
}

#define WORD_AT(position) ring[AT(position)]
#define IS_FRAME_AT(position) \
    (WORD_AT(position) / 4 == (position) && WORD_AT(position) % 4 != 0)

active proctype reader()
{
    byte arrived_pos;
    byte read_pos; /* consumed_pos as the reader knows it */
    byte words;
    byte early;

    do
    :: read_pos == LAST_POS -> break
#ifdef NO_ACQUIRE
    :: arrived_pos == read_pos && arrived_pos + 1 < LAST_POS ->
        early = WORD_AT(arrived_pos + 1);
        atomic {
            IS_FRAME_AT(arrived_pos);
            words = WORD_AT(arrived_pos) % 4;
            assert(words == 1 || early == PAYLOAD(arrived_pos + 1));
            arrived_pos = arrived_pos + words
        }
#endif
    :: atomic {
           IS_FRAME_AT(arrived_pos) ->
           words = WORD_AT(arrived_pos) % 4;
           assert(arrived_pos < placed_pos);
           assert(words == frame_words[arrived_pos]);
           arrived_pos = arrived_pos + words;
           words = 0
       }
    :: read_pos < arrived_pos ->
        words = frame_words[read_pos];
#ifdef NO_RELEASE_CONSUMED
        consumed_pos = read_pos + words;
#endif
        assert(WORD_AT(read_pos) == COMMIT(read_pos, words));
        assert(words == 1 || WORD_AT(read_pos + 1) == PAYLOAD(read_pos + 1));
        read_pos = read_pos + words;
        words = 0;
        consumed_pos = read_pos
    od
}
