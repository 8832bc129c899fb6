//! ChaCha20 in sixteen lanes of AVX-512: sixteen blocks of one key at once. [RFC 8439 §2.3]
//!
//! A register holds one word of the state of all sixteen blocks, so that a quarter round is the
//! one of the specification, sixteen times. Which block of which message is in a lane makes no
//! difference to the others: counters and nonces are the lane's own.
//!
//! Constant time: additions, exclusive ors, rotations by constants and shuffles by constants are all
//! there is; no branch and no address depends on key or stream. The one loop counts to ten.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use crate::crypto::batch::{LANES, NONCE_BYTES};
use crate::crypto::key::KEY_BYTES;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;

/// Sixteen blocks of key stream, a register each, in the order of their lanes. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(super) struct Stream([__m512i; LANES]);

impl Stream {
    /// Nothing yet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        Self([_mm512_setzero_si512(); LANES])
    }

    pub(super) const fn blocks(&self) -> &[__m512i; LANES] {
        &self.0
    }
}

/// A key as the words of a state. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(super) struct Key([u32; KEY_BYTES / 4]);

impl Key {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks();
        Self(std::array::from_fn(|at| u32::from_le_bytes(words[at])))
    }
}

/// Which block each lane is to make. Public: counters and nonces are no secrets.
#[derive(Clone, Copy)]
pub(super) struct Places {
    counter: __m512i,
    nonce: [__m512i; NONCE_BYTES / 4],
}

impl Places {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        Self { counter: _mm512_setzero_si512(), nonce: [_mm512_setzero_si512(); 3] }
    }

    /// Gives the lanes from `lane` on to `nonce`: the first to its block `counter`, the others to those
    /// after it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(clippy::cast_possible_wrap, reason = "the instructions do not know a sign")]
    pub(super) fn assign(&mut self, lane: usize, nonce: &[u8; NONCE_BYTES], counter: u32) {
        let lanes: __mmask16 = u16::MAX << lane;
        let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let first = _mm512_set1_epi32((counter as i32).wrapping_sub(lane as i32));
        self.counter = _mm512_mask_add_epi32(self.counter, lanes, first, numbers);
        let (words, _) = nonce.as_chunks();
        for (vector, &word) in self.nonce.iter_mut().zip(words) {
            *vector = _mm512_mask_set1_epi32(*vector, lanes, i32::from_le_bytes(word));
        }
    }
}

/// A state, a row of four words an element; each word that of sixteen blocks.
pub(super) type Rows = [[__m512i; 4]; 4];

/// Makes the blocks at `places` into `stream`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn make(key: &Key, places: &Places, stream: &mut Stream) {
    let mut rows = words(key, places);
    stream.0 = transpose(rows);
    rows.zeroize();
}

/// The words of the blocks at `places`.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(clippy::cast_possible_wrap, reason = "the instructions do not know a sign")]
pub(super) fn words(key: &Key, places: &Places) -> Rows {
    // "expand 32-byte k"
    const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    let mut initial = [[_mm512_setzero_si512(); 4]; 4];
    let words = CONSTANTS.iter().chain(&key.0);
    for (vector, &word) in initial.as_flattened_mut().iter_mut().zip(words) {
        *vector = _mm512_set1_epi32(word as i32);
    }
    let [n0, n1, n2] = places.nonce;
    initial[3] = [places.counter, n0, n1, n2];
    let mut rows = initial;
    for _ in 0..10 {
        rows = quarter_rounds(rows);
        rows = diagonals(rows, [1, 2, 3]);
        rows = quarter_rounds(rows);
        rows = diagonals(rows, [3, 2, 1]);
    }
    for (row, start) in rows.iter_mut().zip(initial) {
        for (word, start) in row.iter_mut().zip(start) {
            *word = _mm512_add_epi32(*word, start);
        }
    }
    rows
}

/// A quarter round of each column, step by step together: the latency of one hides behind the others.
/// [RFC 8439 §2.1]
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds([mut a, mut b, mut c, mut d]: Rows) -> Rows {
    for i in 0..4 {
        a[i] = _mm512_add_epi32(a[i], b[i]);
        d[i] = _mm512_rol_epi32::<16>(_mm512_xor_si512(d[i], a[i]));
    }
    for i in 0..4 {
        c[i] = _mm512_add_epi32(c[i], d[i]);
        b[i] = _mm512_rol_epi32::<12>(_mm512_xor_si512(b[i], c[i]));
    }
    for i in 0..4 {
        a[i] = _mm512_add_epi32(a[i], b[i]);
        d[i] = _mm512_rol_epi32::<8>(_mm512_xor_si512(d[i], a[i]));
    }
    for i in 0..4 {
        c[i] = _mm512_add_epi32(c[i], d[i]);
        b[i] = _mm512_rol_epi32::<7>(_mm512_xor_si512(b[i], c[i]));
    }
    [a, b, c, d]
}

/// Turns the second to fourth row by so many words: diagonals become columns, or columns diagonals.
/// No instruction comes of it: the words change their names.
#[inline]
#[target_feature(enable = "avx512f")]
fn diagonals([a, b, c, d]: Rows, by: [usize; 3]) -> Rows {
    let turned = |row: [__m512i; 4], by: usize| {
        [row[by % 4], row[(by + 1) % 4], row[(by + 2) % 4], row[(by + 3) % 4]]
    };
    [a, turned(b, by[0]), turned(c, by[1]), turned(d, by[2])]
}

/// From a register a word to a register a block: the transpose of a matrix of 16 times 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut rows: Rows) -> [__m512i; 16] {
    // Within each quarter of a register: four words of one block together.
    for row in &mut rows {
        let [a, b, c, d] = *row;
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        *row = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    // Between the quarters: now rows[i][j] has the words 4 i to 4 i + 3 of the blocks j, j + 4, j + 8 and
    // j + 12.
    let mut blocks = [_mm512_setzero_si512(); 16];
    for j in 0..4 {
        let [a, b, c, d] = [rows[0][j], rows[1][j], rows[2][j], rows[3][j]];
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let even_end = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
        let odd_end = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
        blocks[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, even_end);
        blocks[j + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, odd_end);
        blocks[j + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, even_end);
        blocks[j + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, odd_end);
    }
    blocks
}
