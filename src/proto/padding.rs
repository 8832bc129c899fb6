//! How much an inner packet grows before it is sealed.

/// The zeros to append to an inner packet of `inner_len` bytes, so that its length tells an
/// eavesdropper less, without making the datagram longer than one for a packet of `mtu` bytes.
///
/// The packet grows to a multiple of 16 bytes, but not past `mtu`, which need not be one. Of a
/// packet longer than `mtu` only what is left over after whole `mtu`s counts. Zero means no limit.
/// [WG §5.4.6] [LNX send.c:calculate_skb_padding]
pub const fn padding(inner_len: usize, mtu: usize) -> usize {
    if mtu == 0 {
        return inner_len.next_multiple_of(PADDING_MULTIPLE) - inner_len;
    }
    let last = if inner_len > mtu { inner_len % mtu } else { inner_len };
    let padded = last.next_multiple_of(PADDING_MULTIPLE);
    if padded > mtu { mtu - last } else { padded - last }
}

/// [WG §5.4.6]
const PADDING_MULTIPLE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_the_kernels() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/padding.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() > 50);
        for case in cases {
            let number = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
            assert_eq!(padding(number("inner_length"), number("mtu")), number("padding"), "{case}");
        }
    }

    #[test]
    fn every_length_is_padded_to_16_but_never_past_the_mtu() {
        for mtu in [1280, 1299, 1420, 1500, 65_535] {
            for len in 0..=mtu {
                let padded = len + padding(len, mtu);
                assert!(padded <= mtu && (padded.is_multiple_of(16) || padded == mtu));
            }
        }
    }
}
