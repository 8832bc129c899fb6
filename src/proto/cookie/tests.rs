use super::*;
use crate::crypto::entropy::SeededEntropy;
use crate::wire::message::INITIATION_BYTES;

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(1000 + secs)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn responder() -> PublicKey {
    PublicKey::from_bytes([0x42; 32])
}

/// Two ends that know each other's role, and what travels between them.
struct Pair {
    checker: CookieChecker,
    jar: CookieJar,
    entropy: SeededEntropy,
}

impl Pair {
    fn new() -> Self {
        Self {
            checker: CookieChecker::new(&responder()),
            jar: CookieJar::new(&responder()),
            entropy: SeededEntropy::new(7),
        }
    }

    fn stamped(&mut self, now: Instant) -> [u8; INITIATION_BYTES] {
        let mut message = [0x17; INITIATION_BYTES];
        self.jar.stamp(now, &mut message);
        message
    }

    fn reply(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &[u8],
    ) -> [u8; COOKIE_REPLY_BYTES] {
        self.checker.create_reply(now, &mut self.entropy, message, Index(5), from)
    }

    /// Brings a cookie into the jar.
    fn exchange(&mut self, now: Instant, from: SocketAddr) {
        let message = self.stamped(now);
        let reply = self.reply(now, from, &message);
        assert_eq!(self.jar.consume_reply(now, &reply), Ok(()));
    }
}

fn mac2(message: &[u8]) -> [u8; MAC_BYTES] {
    *message.last_chunk().unwrap()
}

#[test]
fn the_first_mac_alone_is_valid_and_any_changed_bit_under_it_is_not() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    let message = pair.stamped(at(0));
    assert_eq!(mac2(&message), NO_MAC);
    assert_eq!(pair.checker.check(at(0), from, &message), MacVerdict::ValidMac1);
    for place in 0..INITIATION_BYTES - MAC_BYTES {
        let mut forged = message;
        forged[place] ^= 0x80;
        assert_eq!(pair.checker.check(at(0), from, &forged), MacVerdict::Invalid, "byte {place}");
    }
    let other = CookieChecker::new(&PublicKey::from_bytes([0x43; 32]));
    assert_eq!(other.check(at(0), from, &message), MacVerdict::Invalid, "made for another key");
}

#[test]
fn what_is_too_short_for_macs_is_invalid() {
    let pair = Pair::new();
    for len in [0, 1, 31] {
        let message = vec![0; len];
        assert_eq!(pair.checker.check(at(0), address("[::1]:1"), &message), MacVerdict::Invalid);
    }
}

#[test]
fn a_cookie_makes_the_next_message_valid_in_both_macs() {
    for from in ["192.0.2.1:51820", "[2001:db8::1]:51820"].map(address) {
        let mut pair = Pair::new();
        pair.exchange(at(0), from);
        let mut message = pair.stamped(at(5));
        assert_eq!(pair.checker.check(at(5), from, &message), MacVerdict::ValidBoth);
        message[INITIATION_BYTES - 1] ^= 1;
        assert_eq!(pair.checker.check(at(5), from, &message), MacVerdict::ValidMac1);
    }
}

#[test]
fn trap_12_a_cookie_is_bound_to_the_address_and_to_the_port() {
    let mut pair = Pair::new();
    pair.exchange(at(0), address("192.0.2.1:51820"));
    let message = pair.stamped(at(1));
    let verdict = |from| pair.checker.check(at(1), address(from), &message);
    assert_eq!(verdict("192.0.2.1:51820"), MacVerdict::ValidBoth);
    assert_eq!(verdict("192.0.2.1:51821"), MacVerdict::ValidMac1, "a neighbour behind one NAT");
    assert_eq!(verdict("192.0.2.2:51820"), MacVerdict::ValidMac1);
    assert_eq!(verdict("[::ffff:192.0.2.1]:51820"), MacVerdict::ValidMac1);
}

#[test]
fn a_cookie_is_used_for_115_seconds() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    pair.exchange(at(0), from);
    let just_before = at(115) - Duration::from_nanos(1);
    let message = pair.stamped(just_before);
    assert_eq!(pair.checker.check(just_before, from, &message), MacVerdict::ValidBoth);
    assert_eq!(mac2(&pair.stamped(at(115))), NO_MAC);
}

#[test]
fn the_secret_lives_120_seconds_and_its_cookies_with_it() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    pair.exchange(at(0), from);
    pair.exchange(at(119), from);
    let message = pair.stamped(at(119));
    assert_eq!(pair.checker.check(at(119), from, &message), MacVerdict::ValidBoth);
    assert_eq!(pair.checker.check(at(120), from, &message), MacVerdict::ValidMac1);
    let reply = pair.reply(at(120), from, &message);
    assert_eq!(pair.checker.check(at(120), from, &message), MacVerdict::ValidMac1, "a new secret");
    assert_eq!(pair.jar.consume_reply(at(120), &reply), Ok(()));
    let message = pair.stamped(at(125));
    assert_eq!(pair.checker.check(at(125), from, &message), MacVerdict::ValidBoth);
}

#[test]
fn a_checker_that_gave_no_cookie_accepts_none() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    pair.exchange(at(0), from);
    let message = pair.stamped(at(1));
    let restarted = CookieChecker::new(&responder());
    assert_eq!(restarted.check(at(1), from, &message), MacVerdict::ValidMac1);
}

#[test]
fn a_cookie_reply_is_taken_once_and_only_for_the_last_message() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    let unasked = pair.reply(at(0), from, &[0x17; INITIATION_BYTES]);
    assert_eq!(pair.jar.consume_reply(at(0), &unasked), Err(DropReason::UnexpectedCookie));

    let first = pair.stamped(at(0));
    let reply_to_first = pair.reply(at(0), from, &first);
    let mut second = [0x18; INITIATION_BYTES];
    pair.jar.stamp(at(5), &mut second);
    assert_eq!(pair.jar.consume_reply(at(5), &reply_to_first), Err(DropReason::InvalidCookie));

    let reply = pair.reply(at(5), from, &second);
    assert_eq!(pair.jar.consume_reply(at(5), &reply), Ok(()), "a bad reply does no harm");
    assert_eq!(pair.jar.consume_reply(at(5), &reply), Err(DropReason::UnexpectedCookie));
}

#[test]
fn a_forged_cookie_reply_is_refused_and_the_cookie_we_have_stays() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    pair.exchange(at(0), from);
    let message = pair.stamped(at(1));
    let reply = pair.reply(at(1), from, &message);
    for place in 8..COOKIE_REPLY_BYTES {
        let mut forged = reply;
        forged[place] ^= 1;
        assert_eq!(pair.jar.consume_reply(at(1), &forged), Err(DropReason::InvalidCookie));
    }
    let message = pair.stamped(at(2));
    assert_eq!(pair.checker.check(at(2), from, &message), MacVerdict::ValidBoth);
}

#[test]
fn no_two_cookie_replies_share_a_nonce() {
    let mut pair = Pair::new();
    let from = address("192.0.2.1:51820");
    let message = pair.stamped(at(0));
    let (a, b) = (pair.reply(at(0), from, &message), pair.reply(at(0), from, &message));
    assert_ne!(a[8..32], b[8..32]);
}

#[test]
fn the_published_exchanges_have_these_macs_and_cookies() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/cookies.json")).unwrap();
    let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let key = |value: &serde_json::Value| PublicKey::from_hex(value.as_str().unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let mut with_mac2 = 0;
    for case in cases {
        let (initiation, response) = (bytes(&case["initiation"]), bytes(&case["response"]));
        for (receiver, message) in
            [("initiator_public", &response), ("responder_public", &initiation)]
        {
            let keys = MacKeys::new(&key(&case[receiver]));
            let (covered, mac1, _) = split_macs(message).unwrap();
            assert_eq!(keys.mac1(covered), *mac1, "to {receiver}");
        }

        let mut jar = CookieJar::new(&key(&case["responder_public"]));
        if !case["cookie_for_mac2_of_initiation"].is_null() {
            let cookie = bytes(&case["cookie_for_mac2_of_initiation"]).try_into().unwrap();
            jar.cookie = Some((Zeroizing::new(cookie), at(0)));
            with_mac2 += 1;
        }
        let mut stamped = initiation.clone();
        stamped[INITIATION_BYTES - 2 * MAC_BYTES..].fill(0xee);
        jar.stamp(at(0), &mut stamped);
        assert_eq!(stamped, initiation);

        let reply = &case["cookie_reply"];
        let message: [u8; COOKIE_REPLY_BYTES] = bytes(&reply["message"]).try_into().unwrap();
        let cookie: [u8; MAC_BYTES] = bytes(&reply["cookie"]).try_into().unwrap();
        let nonce = bytes(&reply["nonce"]).try_into().unwrap();
        let (_, mac1, _) = split_macs(&initiation).unwrap();
        let receiver = u32::try_from(case["initiator_index"].as_u64().unwrap()).unwrap();
        let made = jar.keys.seal(&nonce, mac1, &Zeroizing::new(cookie), Index(receiver));
        assert_eq!(made, message);
        assert_eq!(jar.consume_reply(at(0), &message), Ok(()));
        assert_eq!(**jar.cookie.as_ref().map(|(cookie, _)| cookie).unwrap(), cookie);
    }
    assert_eq!((cases.len(), with_mac2), (6, 3));
}

#[test]
fn debug_output_hides_secrets() {
    let mut pair = Pair::new();
    pair.exchange(at(0), address("192.0.2.1:51820"));
    let secret = format!("{:?}", &pair.checker.secret[..4]);
    let shown = format!("{:?} {:?}", pair.checker, pair.jar);
    assert!(!shown.contains(secret.trim_matches(['[', ']'])), "{shown}");
    assert!(shown.contains("born"));
}
