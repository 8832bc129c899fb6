//! Sequence numbers that do not wrap.
//!
//! Inside, a position of a stream is 64 bits wide and its low half is the number on the wire, so
//! that positions compare as numbers do. A stream starts one lap up: nothing is ever below zero.

/// The position of a SYN with this initial sequence number.
pub const fn first(initial: u32) -> u64 {
    (1 << 32) | initial as u64
}

/// The position nearest to `near` whose low half is `wire`. [RFC 9293 §3.4]
pub const fn extend(near: u64, wire: u32) -> u64 {
    near.wrapping_add_signed(wire.wrapping_sub(near as u32) as i32 as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_on_both_sides_of_a_lap() {
        let near = first(u32::MAX - 1);
        assert_eq!(extend(near, u32::MAX), near + 1);
        assert_eq!(extend(near, 3), near + 5);
        assert_eq!(extend(near + 5, u32::MAX), near + 1);
        assert_eq!(extend(near, u32::MAX - 1), near);
        assert_eq!(extend(first(0), u32::MAX), first(0) - 1, "nothing is below zero");
    }
}
