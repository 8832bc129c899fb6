//! Bytes to registers and back: all the `unsafe` that the lanes need.

use core::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: 64 bytes may be written, which need no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// Four quarters of a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_four(a: &[u8; 16], b: &[u8; 16], c: &[u8; 16], d: &[u8; 16]) -> __m512i {
    let first = _mm512_castsi128_si512(load_quarter(a));
    let two = _mm512_inserti32x4::<1>(first, load_quarter(b));
    let three = _mm512_inserti32x4::<2>(two, load_quarter(c));
    _mm512_inserti32x4::<3>(three, load_quarter(d))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_quarter(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes may be read, which need no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Combines `bytes`, at most 64, with the front of `value` by exclusive or.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor_front(bytes: &mut [u8], value: __m512i) {
    assert!(bytes.len() <= 64, "a register has 64 bytes");
    let front: __mmask64 = if bytes.len() == 64 { u64::MAX } else { (1 << bytes.len()) - 1 };
    // SAFETY: only the bytes of the mask are read, which are those of the slice.
    let text = unsafe { _mm512_maskz_loadu_epi8(front, bytes.as_ptr().cast()) };
    let text = _mm512_xor_si512(text, value);
    // SAFETY: only the bytes of the mask are written, which are those of the slice.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), front, text) }
}
