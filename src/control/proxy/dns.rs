//! Questions to a name server and what it answers, as bytes. [RFC 1035 §4]

use std::net::IpAddr;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

/// Aliases that are followed in an answer, and addresses that are taken from it.
const ALIASES: usize = 16;
const ADDRESSES: usize = 16;

/// Which addresses of a name are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    const fn kind(self) -> TYPE {
        match self {
            Self::V4 => TYPE::A,
            Self::V6 => TYPE::AAAA,
        }
    }
}

/// What a name server has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None: the name has no address of this family.
    Addresses { addresses: Vec<IpAddr>, for_how_long: Duration },
    /// It did not fit: ask over TCP.
    Truncated,
    /// It would not or could not say.
    Refused,
}

/// The question for the addresses of `host`; `None` if that is no name.
pub fn question(id: u16, host: &str, family: Family) -> Option<Vec<u8>> {
    let name = Name::new(host).ok()?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = QTYPE::TYPE(family.kind());
    packet.questions.push(Question::new(name, kind, QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// What `message` answers to that question; `None` if it is no answer to it.
pub fn answer(message: &[u8], id: u16, host: &str, family: Family) -> Option<Answer> {
    let packet = Packet::parse(message).ok()?;
    let [question] = &*packet.questions else { return None };
    let is_same = |name: &Name<'_>, other: &str| name.to_string().eq_ignore_ascii_case(other);
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && is_same(&question.qname, host)
        && question.qtype == QTYPE::TYPE(family.kind());
    if !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Answer::Truncated);
    }
    if !matches!(packet.rcode(), RCODE::NoError | RCODE::NameError) {
        return Some(Answer::Refused);
    }
    let (mut name, mut seconds) = (host.to_owned(), u32::MAX);
    for _ in 0..ALIASES {
        let alias = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(alias) if is_same(&record.name, &name) => {
                Some((alias.0.to_string(), record.ttl))
            }
            _ => None,
        });
        let Some((alias, ttl)) = alias else { break };
        (name, seconds) = (alias, seconds.min(ttl));
    }
    let mut addresses = Vec::new();
    for record in packet.answers.iter().filter(|record| is_same(&record.name, &name)) {
        let address = match (&record.rdata, family) {
            (RData::A(a), Family::V4) => IpAddr::V4(a.address.into()),
            (RData::AAAA(aaaa), Family::V6) => IpAddr::V6(aaaa.address.into()),
            _ => continue,
        };
        addresses.push(address);
        seconds = seconds.min(record.ttl);
        if addresses.len() == ADDRESSES {
            break;
        }
    }
    let for_how_long = Duration::from_secs(if addresses.is_empty() { 0 } else { seconds.into() });
    Some(Answer::Addresses { addresses, for_how_long })
}

#[cfg(test)]
pub(super) mod testing {
    //! A name server's side.

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};

    use super::*;

    /// The answer to `question`: each record is a name, its TTL and an address or an alias.
    pub fn reply(question: &[u8], records: &[(&str, u32, &str)], code: RCODE) -> Vec<u8> {
        let mut packet = Packet::parse(question).unwrap().into_reply();
        *packet.rcode_mut() = code;
        for (name, ttl, value) in records {
            let data = match value.parse() {
                Ok(IpAddr::V4(v4)) => RData::A(A { address: v4.into() }),
                Ok(IpAddr::V6(v6)) => RData::AAAA(AAAA { address: v6.into() }),
                Err(_) => RData::CNAME(CNAME(Name::new(value).unwrap())),
            };
            let record = ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, *ttl, data);
            packet.answers.push(record);
        }
        packet.build_bytes_vec().unwrap()
    }

    /// That there is more than fits.
    pub fn truncated(question: &[u8]) -> Vec<u8> {
        let mut packet = Packet::parse(question).unwrap().into_reply();
        packet.set_flags(PacketFlag::TRUNCATION);
        packet.build_bytes_vec().unwrap()
    }

    pub fn is_for(question: &[u8], family: Family) -> bool {
        let packet = Packet::parse(question).unwrap();
        packet.questions[0].qtype == QTYPE::TYPE(family.kind())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{reply, truncated};
    use super::*;

    fn heard(message: &[u8]) -> Option<Answer> {
        answer(message, 7, "db.example", Family::V4)
    }

    #[test]
    fn addresses_are_those_of_the_name_or_of_what_it_is_an_alias_of() {
        let asked = question(7, "db.example", Family::V4).unwrap();
        let records = [
            ("DB.example", 60, "a.example"),
            ("a.example", 30, "b.example"),
            ("b.example", 90, "10.0.0.1"),
            ("b.example", 90, "10.0.0.2"),
            ("b.example", 90, "fd00::1"),
            ("stray.example", 1, "10.9.9.9"),
        ];
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap()).to_vec();
        let for_how_long = Duration::from_secs(30);
        let heard_all = heard(&reply(&asked, &records, RCODE::NoError));
        assert_eq!(heard_all, Some(Answer::Addresses { addresses, for_how_long }));
        let none = Answer::Addresses { addresses: vec![], for_how_long: Duration::ZERO };
        assert_eq!(heard(&reply(&asked, &[], RCODE::NameError)), Some(none.clone()));
        let many = [("db.example", 60, "10.0.0.1"); 17];
        let Some(Answer::Addresses { addresses, .. }) =
            heard(&reply(&asked, &many, RCODE::NoError))
        else {
            panic!("no addresses");
        };
        assert_eq!(addresses.len(), 16);
        let circle = [("db.example", 1, "a.example"), ("a.example", 1, "db.example")];
        assert_eq!(heard(&reply(&asked, &circle, RCODE::NoError)), Some(none));
        assert_eq!(heard(&truncated(&asked)), Some(Answer::Truncated));
        assert_eq!(heard(&reply(&asked, &[], RCODE::ServerFailure)), Some(Answer::Refused));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let records = [("db.example", 60, "10.0.0.1")];
        for (id, host, family) in [
            (8, "db.example", Family::V4),
            (7, "dc.example", Family::V4),
            (7, "db.example", Family::V6),
        ] {
            let asked = question(id, host, family).unwrap();
            assert_eq!(heard(&reply(&asked, &records, RCODE::NoError)), None, "{id} {host}");
        }
        assert_eq!(heard(&question(7, "db.example", Family::V4).unwrap()), None, "a question");
        assert_eq!(heard(b""), None);
        assert_eq!(question(1, &"x".repeat(64), Family::V4), None);
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0..60_usize) {
            heard(&bytes);
            let asked = question(7, "db.example", Family::V4).unwrap();
            let mut answered = reply(&asked, &[("db.example", 1, "10.0.0.1")], RCODE::NoError);
            let at = cut.min(answered.len() - 1);
            answered[at] ^= bytes.first().copied().unwrap_or(1);
            heard(&answered);
            heard(&answered[..at]);
        }
    }
}
