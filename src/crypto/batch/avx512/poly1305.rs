//! Poly1305 of several messages, each in a lane of its own, with AVX-512 IFMA. [RFC 8439 §2.5]
//!
//! The chain of one message is serial: each block waits for the product of the one before. Here
//! eight chains run side by side in one register, and two such octets by turns; no power of `r` is
//! needed, and a lane computes what the specification says, in the order in which it does.
//!
//! A number has three limbs of 44, 44 and 42 bits. Sizes: `r` is clamped, so that its limbs are below
//! 2^44, 2^44 and 2^36, and two of them times 20 below 2^48.4 and 2^40.4. Between blocks `h` has limbs
//! below 2^44 + 2^16, 2^44 and 2^42; with a block added below 2^45.1, 2^45 and 2^43: all within the 52
//! bits that the multiplication reads. Then the sums of three high halves are below 2^40, that of the
//! last limb below 2^38, so that 2^8 times the former and 20 times 2^8 times the latter are within 52
//! bits, too. The sums of low halves with these are below 2^54, and what is carried from the last limb
//! below 2^13.
//!
//! Constant time: additions, multiplications, shifts and shuffles by constants, and masks. What loops
//! and branches look at is lengths.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::memory::{load_four, store};

/// Lanes of one register.
pub(super) const OCTET: usize = 8;

/// Bytes of a block, and of a tag.
const BLOCK_BYTES: usize = 16;

const LIMB: i64 = (1 << 44) - 1;
const LAST_LIMB: i64 = (1 << 42) - 1;

/// The blocks of eight texts.
type Blocks<'a> = [&'a [[u8; BLOCK_BYTES]]; OCTET];

/// The state of eight messages. Wiped on drop.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(super) struct Octet {
    h: [__m512i; 3],
    r: [__m512i; 3],
    /// `r[1]` and `r[2]` times 20: a limb that is three too high comes back multiplied by that, since
    /// 2^132 is 4 times 2^130, and 2^130 is 5.
    r20: [__m512i; 2],
    /// `s`: its low and its high half.
    s: [__m512i; 2],
}

impl Octet {
    /// No state yet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn empty() -> Self {
        let zero = _mm512_setzero_si512();
        Self { h: [zero; 3], r: [zero; 3], r20: [zero; 2], s: [zero; 2] }
    }

    /// Begins with the halves of `r` and of `s`. In its place: a move would leave a copy behind.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    fn begin(&mut self, [low, high]: [__m512i; 2], s: [__m512i; 2]) {
        let low = _mm512_and_si512(low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff));
        let high = _mm512_and_si512(high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc));
        let r = limbs(low, high);
        let times_20 =
            |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        self.r = r;
        self.r20 = [times_20(r[1]), times_20(r[2])];
        self.s = s;
    }

    /// Adds a block to each lane and multiplies by `r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    fn block(&mut self, texts: &Blocks<'_>, at: usize) {
        let [low, high] = gather(texts, at);
        let [m0, m1, m2] = limbs(low, high);
        // Every block is followed by a one, at 2^128. [RFC 8439 §2.5.1]
        let m2 = _mm512_or_si512(m2, _mm512_set1_epi64(1 << (128 - 88)));
        let h0 = _mm512_add_epi64(self.h[0], m0);
        let h1 = _mm512_add_epi64(self.h[1], m1);
        let h2 = _mm512_add_epi64(self.h[2], m2);
        let ([r0, r1, r2], [s1, s2]) = (self.r, self.r20);
        let (low0, high0) = products([(h2, s1), (h1, s2), (h0, r0)]);
        let (low1, high1) = products([(h2, s2), (h1, r0), (h0, r1)]);
        let (low2, high2) = products([(h2, r0), (h1, r1), (h0, r2)]);
        // The high half of a product is 52 bits up, which is 8 bits above the next limb; that of the
        // last comes back to the first.
        let zero_up = _mm512_set1_epi64(20 << 8);
        let one_up = _mm512_set1_epi64(1 << 8);
        self.h = carry([
            _mm512_madd52lo_epu64(low0, high2, zero_up),
            _mm512_madd52lo_epu64(low1, high0, one_up),
            _mm512_madd52lo_epu64(low2, high1, one_up),
        ]);
    }

    /// As [`Self::block`], where `lanes` says so; the others stay as they are.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    fn block_where(&mut self, lanes: __mmask8, texts: &Blocks<'_>) {
        let before = self.h;
        self.block(texts, 0);
        for (limb, before) in self.h.iter_mut().zip(before) {
            *limb = _mm512_mask_mov_epi64(before, lanes, *limb);
        }
    }

    /// Adds the block at `at` of each text that has one, filled up with zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    fn rest(&mut self, texts: &[&[u8]; OCTET], at: usize) {
        let mut lanes = 0;
        let mut blocks = [[0; BLOCK_BYTES]; OCTET];
        let mut ends: Blocks<'_> = [&[]; OCTET];
        for (n, ((block, end), text)) in blocks.iter_mut().zip(&mut ends).zip(texts).enumerate() {
            let (whole, last) = text.as_chunks();
            let is_last = at == whole.len() && !last.is_empty();
            if is_last {
                block[..last.len()].copy_from_slice(last);
            }
            lanes |= u8::from(at < whole.len() || is_last) << n;
            *end = std::slice::from_ref(whole.get(at).unwrap_or(block));
        }
        self.block_where(lanes, &ends);
    }

    /// The tags: `h` modulo 2^130 - 5, plus `s`, modulo 2^128.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    pub(super) fn finish(&self) -> [[u8; BLOCK_BYTES]; OCTET] {
        // Only the first limb can have too much. Where it has, little of it is left, so that what comes
        // back to it from the last fits.
        let [h0, h1, h2] = carry(self.h);
        // One subtraction of 2^130 - 5 at most: done by adding 5, and kept if there is a 2^130 to drop.
        let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
        let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
        let is_larger = _mm512_cmpgt_epu64_mask(g2, _mm512_set1_epi64(LAST_LIMB));
        let limb = _mm512_set1_epi64(LIMB);
        let h0 = _mm512_mask_and_epi64(h0, is_larger, g0, limb);
        let h1 = _mm512_mask_and_epi64(h1, is_larger, g1, limb);
        let h2 = _mm512_mask_and_epi64(h2, is_larger, g2, _mm512_set1_epi64(LAST_LIMB));
        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let low = _mm512_add_epi64(low, self.s[0]);
        let carries = _mm512_cmplt_epu64_mask(low, self.s[0]);
        let high = _mm512_add_epi64(high, self.s[1]);
        let high = _mm512_mask_add_epi64(high, carries, high, _mm512_set1_epi64(1));
        scatter(low, high)
    }
}

/// Octets without a state.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn empty<const OCTETS: usize>() -> [Octet; OCTETS] {
    std::array::from_fn(|_| Octet::empty())
}

/// Begins with the four words of `r` and of `s`, each of sixteen messages, for the first of these.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
pub(super) fn begin(octets: &mut [Octet], r: &[__m512i; 4], s: &[__m512i; 4]) {
    for (n, octet) in octets.iter_mut().enumerate() {
        octet.begin(halves(r, n), halves(s, n));
    }
}

/// The low and the high half of the numbers of four words that belong to an octet.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(&[w0, w1, w2, w3]: &[__m512i; 4], octet: usize) -> [__m512i; 2] {
    let lanes = |words| match octet {
        0 => _mm512_cvtepu32_epi64(_mm512_castsi512_si256(words)),
        _ => _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(words)),
    };
    let half = |low, high| _mm512_or_si512(lanes(low), _mm512_slli_epi64::<32>(lanes(high)));
    [half(w0, w1), half(w2, w3)]
}

/// Takes in `texts`, one a lane, each filled up with zeros to whole blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
pub(super) fn absorb<const OCTETS: usize>(
    octets: &mut [Octet; OCTETS],
    texts: &[[&[u8]; OCTET]; OCTETS],
) {
    let mut whole: [Blocks<'_>; OCTETS] = [[&[]; OCTET]; OCTETS];
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for (blocks, text) in whole.as_flattened_mut().iter_mut().zip(texts.as_flattened()) {
        *blocks = text.as_chunks().0;
        shortest = shortest.min(blocks.len());
        longest = longest.max(text.len().div_ceil(BLOCK_BYTES));
    }
    for at in 0..shortest {
        for (octet, blocks) in octets.iter_mut().zip(&whole) {
            octet.block(blocks, at);
        }
    }
    for at in shortest..longest {
        for (octet, texts) in octets.iter_mut().zip(texts) {
            octet.rest(texts, at);
        }
    }
}

/// Sums of the low and the high halves, 52 bits each, of three products.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn products(factors: [(__m512i, __m512i); 3]) -> (__m512i, __m512i) {
    let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for (a, b) in factors {
        low = _mm512_madd52lo_epu64(low, a, b);
        high = _mm512_madd52hi_epu64(high, a, b);
    }
    (low, high)
}

/// Carries what each limb has too much to the next, and from the last to the first, times 5; the first
/// keeps that.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn carry([d0, d1, d2]: [__m512i; 3]) -> [__m512i; 3] {
    let limb = _mm512_set1_epi64(LIMB);
    let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
    let d2 = _mm512_add_epi64(d2, _mm512_srli_epi64::<44>(d1));
    let over = _mm512_srli_epi64::<42>(d2);
    [
        _mm512_madd52lo_epu64(_mm512_and_si512(d0, limb), over, _mm512_set1_epi64(5)),
        _mm512_and_si512(d1, limb),
        _mm512_and_si512(d2, _mm512_set1_epi64(LAST_LIMB)),
    ]
}

/// The three limbs of a number of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
fn limbs(low: __m512i, high: __m512i) -> [__m512i; 3] {
    let limb = _mm512_set1_epi64(LIMB);
    [
        _mm512_and_si512(low, limb),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), limb),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// The blocks at `at` of eight texts as the low and the high halves of eight numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather([a, b, c, d, e, f, g, h]: &Blocks<'_>, at: usize) -> [__m512i; 2] {
    let even = load_four(&a[at], &c[at], &e[at], &g[at]);
    let odd = load_four(&b[at], &d[at], &f[at], &h[at]);
    [_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd)]
}

/// The inverse of [`gather`].
#[inline]
#[target_feature(enable = "avx512f")]
fn scatter(low: __m512i, high: __m512i) -> [[u8; BLOCK_BYTES]; OCTET] {
    let mut tags = [[0; BLOCK_BYTES]; OCTET];
    let mut fours = [[0; 4 * BLOCK_BYTES]; 2];
    store(&mut fours[0], _mm512_unpacklo_epi64(low, high));
    store(&mut fours[1], _mm512_unpackhi_epi64(low, high));
    let [even, odd] = fours.each_ref().map(|four| four.as_chunks::<BLOCK_BYTES>().0);
    for (pair, (even, odd)) in tags.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(odd)) {
        *pair = [*even, *odd];
    }
    tags
}
