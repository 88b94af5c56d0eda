/* AES-XTS over many sectors in place, and PBKDF2 with HMAC-SHA-256, with the processor's own instructions.
 *
 * Optional: built where a compiler is found, loaded through ctypes (so no headers of Python are needed), and used
 * only when brickyard_bulk() says that this processor can. Everything has a way without it. No table is looked up
 * by secret data, no branch depends on it, and what is left of keys on the stack is wiped.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define AES_XTS 1
#define SHA_256 2

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>

#define AES __attribute__((target("aes,sse4.1,ssse3")))
#define SHA __attribute__((target("sha,sse4.1,ssse3")))
#define LANES 8

static void wipe(void *at, size_t count)
{
    memset(at, 0, count);
    __asm__ __volatile__("" : : "r"(at) : "memory");
}

int brickyard_bulk(void)
{
    unsigned a, b, c, d;
    int found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    if (c & bit_AES)
        found |= AES_XTS;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA))
        found |= SHA_256;
    return found;
}

/* ---- AES ---- */

static inline AES __m128i mixed(__m128i key, __m128i assist)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, assist);
}

#define NEXT_128(i, rcon) \
    keys[i] = mixed(keys[i - 1], _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[i - 1], rcon), 0xff))
#define EVEN_256(i, rcon) \
    keys[i] = mixed(keys[i - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[i - 1], rcon), 0xff))
#define ODD_256(i) keys[i] = mixed(keys[i - 2], _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[i - 1], 0), 0xaa))

/* Fills the round keys; returns the number of rounds. */
static AES int expand(const uint8_t *key, size_t count, __m128i *keys)
{
    keys[0] = _mm_loadu_si128((const __m128i *)key);
    if (count == 16) {
        NEXT_128(1, 1), NEXT_128(2, 2), NEXT_128(3, 4), NEXT_128(4, 8), NEXT_128(5, 16);
        NEXT_128(6, 32), NEXT_128(7, 64), NEXT_128(8, 128), NEXT_128(9, 27), NEXT_128(10, 54);
        return 10;
    }
    keys[1] = _mm_loadu_si128((const __m128i *)(key + 16));
    EVEN_256(2, 1), ODD_256(3), EVEN_256(4, 2), ODD_256(5), EVEN_256(6, 4), ODD_256(7), EVEN_256(8, 8);
    ODD_256(9), EVEN_256(10, 16), ODD_256(11), EVEN_256(12, 32), ODD_256(13), EVEN_256(14, 64);
    return 14;
}

static AES void inverted(__m128i *keys, int rounds)
{
    for (int low = 0, high = rounds; low < high; low++, high--) {
        __m128i kept = keys[low];
        keys[low] = keys[high];
        keys[high] = kept;
    }
    for (int i = 1; i < rounds; i++)
        keys[i] = _mm_aesimc_si128(keys[i]);
}

static inline AES __m128i doubled(__m128i tweak)
{
    __m128i carry = _mm_and_si128(_mm_shuffle_epi32(_mm_srai_epi32(tweak, 31), 0x13), _mm_set_epi32(0, 1, 0, 0x87));
    return _mm_xor_si128(_mm_add_epi64(tweak, tweak), carry);
}

#define EACH for (int lane = 0; lane < LANES; lane++)

static AES void sector_encrypted(uint8_t *data, size_t blocks, __m128i tweak, const __m128i *keys, int rounds)
{
    __m128i state[LANES], tweaks[LANES];
    for (size_t at = 0; at < blocks; at += LANES, data += 16 * LANES) {
        EACH { tweaks[lane] = tweak; tweak = doubled(tweak); }
        EACH state[lane] = _mm_xor_si128(_mm_xor_si128(_mm_loadu_si128((__m128i *)data + lane), tweaks[lane]), keys[0]);
        for (int i = 1; i < rounds; i++)
            EACH state[lane] = _mm_aesenc_si128(state[lane], keys[i]);
        EACH state[lane] = _mm_aesenclast_si128(state[lane], keys[rounds]);
        EACH _mm_storeu_si128((__m128i *)data + lane, _mm_xor_si128(state[lane], tweaks[lane]));
    }
}

static AES void sector_decrypted(uint8_t *data, size_t blocks, __m128i tweak, const __m128i *keys, int rounds)
{
    __m128i state[LANES], tweaks[LANES];
    for (size_t at = 0; at < blocks; at += LANES, data += 16 * LANES) {
        EACH { tweaks[lane] = tweak; tweak = doubled(tweak); }
        EACH state[lane] = _mm_xor_si128(_mm_xor_si128(_mm_loadu_si128((__m128i *)data + lane), tweaks[lane]), keys[0]);
        for (int i = 1; i < rounds; i++)
            EACH state[lane] = _mm_aesdec_si128(state[lane], keys[i]);
        EACH state[lane] = _mm_aesdeclast_si128(state[lane], keys[rounds]);
        EACH _mm_storeu_si128((__m128i *)data + lane, _mm_xor_si128(state[lane], tweaks[lane]));
    }
}

/* `key_size` (32 or 64) counts both keys; `size` is a sector's, a multiple of 512; `first` counts 512 bytes. 0: done. */
AES int brickyard_xts(int encrypt, const uint8_t *key, size_t key_size, uint8_t *data, size_t sectors, size_t size,
                      uint64_t first, uint64_t mask)
{
    __m128i keys[15], tweaks[15];
    size_t half = key_size / 2;
    if ((half != 16 && half != 32) || size == 0 || size % 512)
        return -1;
    int rounds = expand(key, half, keys);
    expand(key + half, half, tweaks);
    if (!encrypt)
        inverted(keys, rounds);
    for (size_t i = 0; i < sectors; i++, data += size, first += size / 512) {
        __m128i tweak = _mm_xor_si128(_mm_set_epi64x(0, (long long)(first & mask)), tweaks[0]);
        for (int round = 1; round < rounds; round++)
            tweak = _mm_aesenc_si128(tweak, tweaks[round]);
        tweak = _mm_aesenclast_si128(tweak, tweaks[rounds]);
        if (encrypt)
            sector_encrypted(data, size / 16, tweak, keys, rounds);
        else
            sector_decrypted(data, size / 16, tweak, keys, rounds);
    }
    wipe(keys, sizeof keys);
    wipe(tweaks, sizeof tweaks);
    return 0;
}

/* ---- PBKDF2 with HMAC-SHA-256: two blocks side by side, which takes hardly longer than one ---- */

static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define PAIR for (int lane = 0; lane < 2; lane++)

/* A hash's state as the instructions want it: words A B E F and C D G H. */
typedef struct {
    __m128i abef, cdgh;
} state_t;

static inline SHA state_t state_of(__m128i abcd, __m128i efgh)
{
    state_t made;
    __m128i cdab = _mm_shuffle_epi32(abcd, 0xB1);
    efgh = _mm_shuffle_epi32(efgh, 0x1B);
    made.abef = _mm_alignr_epi8(cdab, efgh, 8);
    made.cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
    return made;
}

static inline SHA void words_of(state_t from, __m128i *abcd, __m128i *efgh)
{
    __m128i feba = _mm_shuffle_epi32(from.abef, 0x1B), dchg = _mm_shuffle_epi32(from.cdgh, 0xB1);
    *abcd = _mm_blend_epi16(feba, dchg, 0xF0);
    *efgh = _mm_alignr_epi8(dchg, feba, 8);
}

/* One block of 16 words for each of two states. */
static inline SHA void compressed(state_t *state, __m128i message[2][4])
{
    state_t before[2] = {state[0], state[1]};
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        __m128i round[2];
        PAIR round[lane] = _mm_add_epi32(message[lane][i & 3], _mm_load_si128((const __m128i *)K + i));
        PAIR state[lane].cdgh = _mm_sha256rnds2_epu32(state[lane].cdgh, state[lane].abef, round[lane]);
        PAIR state[lane].abef =
            _mm_sha256rnds2_epu32(state[lane].abef, state[lane].cdgh, _mm_shuffle_epi32(round[lane], 0x0E));
        if (i < 12)
            PAIR {
                __m128i *m = message[lane];
                __m128i older = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]);
                older = _mm_add_epi32(older, _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
                m[i & 3] = _mm_sha256msg2_epu32(older, m[(i + 3) & 3]);
            }
    }
    PAIR state[lane].abef = _mm_add_epi32(state[lane].abef, before[lane].abef);
    PAIR state[lane].cdgh = _mm_add_epi32(state[lane].cdgh, before[lane].cdgh);
}

static inline SHA state_t keyed(const uint8_t *key, uint8_t with)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    state_t state[2];
    __m128i message[2][4];
    state[0] = state[1] = state_of(_mm_set_epi32((int)0xa54ff53a, 0x3c6ef372, (int)0xbb67ae85, 0x6a09e667),
                                   _mm_set_epi32(0x5be0cd19, 0x1f83d9ab, (int)0x9b05688c, 0x510e527f));
    for (int i = 0; i < 4; i++) {
        __m128i part = _mm_xor_si128(_mm_loadu_si128((const __m128i *)key + i), _mm_set1_epi8((char)with));
        message[0][i] = message[1][i] = _mm_shuffle_epi8(part, swap);
    }
    compressed(state, message);
    wipe(message, sizeof message);
    return state[0];
}

/* `key` is the passphrase filled up with zeros to 64 bytes (or its hash, where it is longer), `blocks` are U_1 of two
 * blocks of output, 32 bytes each; on return they are the output of `iterations` iterations. */
SHA int brickyard_pbkdf2(const uint8_t *key, uint8_t *blocks, uint64_t iterations)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    const __m128i end = _mm_set_epi32(0, 0, 0, (int)0x80000000), length = _mm_set_epi32(768, 0, 0, 0);
    state_t inner = keyed(key, 0x36), outer = keyed(key, 0x5c);
    __m128i low[2], high[2], sum[2][2];
    PAIR low[lane] = sum[lane][0] = _mm_shuffle_epi8(_mm_loadu_si128((__m128i *)(blocks + 32 * lane)), swap);
    PAIR high[lane] = sum[lane][1] = _mm_shuffle_epi8(_mm_loadu_si128((__m128i *)(blocks + 32 * lane) + 1), swap);
    for (uint64_t i = 1; i < iterations; i++) {
        for (int pass = 0; pass < 2; pass++) {
            state_t state[2];
            __m128i message[2][4];
            PAIR state[lane] = pass ? outer : inner;
            PAIR message[lane][0] = low[lane], message[lane][1] = high[lane];
            PAIR message[lane][2] = end, message[lane][3] = length;
            compressed(state, message);
            PAIR words_of(state[lane], &low[lane], &high[lane]);
        }
        PAIR sum[lane][0] = _mm_xor_si128(sum[lane][0], low[lane]);
        PAIR sum[lane][1] = _mm_xor_si128(sum[lane][1], high[lane]);
    }
    PAIR _mm_storeu_si128((__m128i *)(blocks + 32 * lane), _mm_shuffle_epi8(sum[lane][0], swap));
    PAIR _mm_storeu_si128((__m128i *)(blocks + 32 * lane) + 1, _mm_shuffle_epi8(sum[lane][1], swap));
    wipe(&inner, sizeof inner), wipe(&outer, sizeof outer), wipe(low, sizeof low), wipe(high, sizeof high);
    wipe(sum, sizeof sum);
    return 0;
}

#else

int brickyard_bulk(void) { return 0; }

int brickyard_pbkdf2(const uint8_t *key, uint8_t *blocks, uint64_t iterations)
{
    (void)key, (void)blocks, (void)iterations;
    return -1;
}

int brickyard_xts(int encrypt, const uint8_t *key, size_t key_size, uint8_t *data, size_t sectors, size_t size,
                  uint64_t first, uint64_t mask)
{
    (void)encrypt, (void)key, (void)key_size, (void)data, (void)sectors, (void)size, (void)first, (void)mask;
    return -1;
}

#endif
