//! From tables to messages: each part of a rule becomes the expressions that nft(8) makes of it.
//!
//! An expression works on a register: it loads it, compares it, changes it, stores it. One register
//! is enough for us. Values are in host byte order but for addresses; the bindings turn attributes.

use std::net::IpAddr;

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::nftables::{
    BitwiseOps, Chained, CmpOps, CtKeys, FibFlags, MetaKeys, Nfgenmsg, PayloadBase,
    PushExprListAttrs, Registers, RejectTypes, VerdictCode,
};
use netlink_bindings::traits::Pusher;

use super::{Chain, Hook, Kind, Mark, Part, Table};
use crate::control::netlink::Family;
use crate::wire::ip;

/// What the attribute "name" of an interface is compared as. [LNX if.h:IFNAMSIZ]
const INTERFACE_NAME_BYTES: usize = 16;

const REGISTER: u32 = Registers::Reg1 as u32;

/// The batch after which there is this table and nothing else of its name. One that is there must
/// have the same `flags`, and the same owner if they say that there is one.
pub fn replace(table: &Table, flags: u32) -> Vec<u8> {
    batch(|batch| {
        // So that the deletion finds something, in any case.
        add_table(batch, table, flags);
        delete_table(batch, table);
        add_all(batch, table, flags);
    })
}

/// As [`replace`], of a table that is there, whatever flags it has.
pub fn replace_present(table: &Table, flags: u32) -> Vec<u8> {
    batch(|batch| {
        delete_table(batch, table);
        add_all(batch, table, flags);
    })
}

/// The batch that deletes the table.
pub fn delete(table: &Table) -> Vec<u8> {
    batch(|batch| delete_table(batch, table))
}

/// The batch of [`replace`] without its end: the kernel checks all of it, and then takes it back.
/// [LNX nfnetlink.c:nfnetlink_rcv_batch]
pub fn rehearse(table: &Table, flags: u32) -> Vec<u8> {
    let mut whole = replace(table, flags);
    let end = Nlmsghdr::len() + Nfgenmsg::len();
    whole.truncate(whole.len() - end);
    whole
}

fn batch(fill: impl FnOnce(&mut Chained<'static>)) -> Vec<u8> {
    // [LNX nfnetlink.h:NFNL_SUBSYS_NFTABLES]
    const NFTABLES: u16 = 10;
    /// Every exchange is over before the next begins: no answer can be taken for another's.
    const FIRST_NUMBER: u32 = 1;
    let mut header = Nfgenmsg::new();
    header.set_res_id(NFTABLES);
    let mut batch = Chained::new(FIRST_NUMBER);
    batch.request().op_batch_begin_do(&header);
    fill(&mut batch);
    batch.request().op_batch_end_do(&header);
    without_acknowledgements(batch.finalize().into_chained().into_buf())
}

/// Asks for refusals alone: acknowledgements of a long batch are more than a socket takes.
fn without_acknowledgements(mut batch: Vec<u8>) -> Vec<u8> {
    const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
    let mut at = 0;
    while let Some(header) = batch.get(at..at + Nlmsghdr::len()).and_then(Nlmsghdr::new_from_slice)
    {
        let header = Nlmsghdr { flags: header.flags & !ACKNOWLEDGE, ..header };
        batch[at..at + Nlmsghdr::len()].copy_from_slice(header.as_slice());
        at += (header.len as usize).next_multiple_of(4);
    }
    batch
}

/// The error numbers in the answers of one datagram; acknowledgements have none.
pub fn refusals(mut datagram: &[u8]) -> Vec<i32> {
    let mut found = Vec::new();
    while let Some(header) = datagram.get(..Nlmsghdr::len()).and_then(Nlmsghdr::new_from_slice) {
        let code = datagram.get(Nlmsghdr::len()..).and_then(|rest| rest.first_chunk::<4>());
        if let Some(code) = code
            && i32::from(header.r#type) == libc::NLMSG_ERROR
        {
            found.extend(Some(-i32::from_ne_bytes(*code)).filter(|errno| *errno != 0));
        }
        let length = (header.len as usize).max(Nlmsghdr::len()).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    found
}

fn header(table: &Table) -> Nfgenmsg {
    Nfgenmsg { nfgen_family: table.family.number(), ..Nfgenmsg::new() }
}

fn add_all(batch: &mut Chained<'static>, table: &Table, flags: u32) {
    add_table(batch, table, flags);
    for chain in &table.chains {
        add_chain(batch, table, chain);
        for rule in &chain.rules {
            add_rule(batch, table, chain, rule);
        }
    }
}

fn add_table(batch: &mut Chained<'static>, table: &Table, flags: u32) {
    let mut request = batch.request().set_create().op_newtable_do(&header(table));
    request.encode().push_name_bytes(table.name.as_bytes()).push_flags(flags).end_nested();
}

fn delete_table(batch: &mut Chained<'static>, table: &Table) {
    let mut request = batch.request().op_deltable_do(&header(table));
    request.encode().push_name_bytes(table.name.as_bytes()).end_nested();
}

fn add_chain(batch: &mut Chained<'static>, table: &Table, chain: &Chain) {
    // [LNX netfilter.h:nf_inet_hooks]
    let hook = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Forward => 2,
        Hook::Postrouting => 4,
    };
    let mut request = batch.request().set_create().op_newchain_do(&header(table));
    let attributes = request
        .encode()
        .push_table_bytes(table.name.as_bytes())
        .push_name_bytes(chain.name.as_bytes())
        .push_type(match chain.kind {
            Kind::Filter => c"filter",
            Kind::Nat => c"nat",
        });
    attributes.nested_hook().push_num(hook).push_priority(chain.priority).end_nested().end_nested();
}

fn add_rule(batch: &mut Chained<'static>, table: &Table, chain: &Chain, rule: &[Part]) {
    let mut request = batch.request().set_create().set_append().op_newrule_do(&header(table));
    let attributes = request
        .encode()
        .push_table_bytes(table.name.as_bytes())
        .push_chain_bytes(chain.name.as_bytes());
    let mut expressions = attributes.nested_expressions();
    for part in rule {
        expressions = push(expressions, table.family, part);
    }
    expressions.end_nested().end_nested();
}

type List<P> = PushExprListAttrs<P>;

fn push<P: Pusher>(list: List<P>, family: Family, part: &Part) -> List<P> {
    match part {
        Part::NotByInterface(name) => {
            compare(load_meta(list, MetaKeys::Iifname), CmpOps::Neq, &interface(name))
        }
        Part::ToInterface(name) => {
            compare(load_meta(list, MetaKeys::Oifname), CmpOps::Eq, &interface(name))
        }
        Part::NotToInterface(name) => {
            compare(load_meta(list, MetaKeys::Oifname), CmpOps::Neq, &interface(name))
        }
        Part::SourceBits { value, mask } => {
            compare_bits(load_address(list, Address::Source, family), *value, *mask)
        }
        Part::Destination(address) => {
            compare(load_address(list, Address::Destination, family), CmpOps::Eq, &octets(*address))
        }
        Part::DestinationBits { value, mask } => {
            compare_bits(load_address(list, Address::Destination, family), *value, *mask)
        }
        Part::SourceNotOurs => {
            let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
            compare(load_source_type(list), CmpOps::Neq, &local)
        }
        Part::Tcp => compare_protocol(list, ip::PROTOCOL_TCP),
        Part::Udp => compare_protocol(list, ip::PROTOCOL_UDP),
        Part::Icmp => compare_protocol(
            list,
            match family {
                Family::V4 => ip::PROTOCOL_ICMP,
                Family::V6 => ip::PROTOCOL_ICMPV6,
            },
        ),
        Part::DestinationPorts(first, last) => {
            // [RFC 768], [RFC 9293 §3.1]
            let port = load_header(list, PayloadBase::TransportHeader, 2, 2);
            let from = compare(port, CmpOps::Gte, &first.to_be_bytes());
            compare(from, CmpOps::Lte, &last.to_be_bytes())
        }
        Part::Established => {
            // [LNX nf_conntrack_common.h:NF_CT_STATE_BIT]
            const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
            let state = load_connection(list, CtKeys::State);
            let bits = bitwise(state, &ESTABLISHED_OR_RELATED.to_ne_bytes(), &[0; 4]);
            compare(bits, CmpOps::Neq, &[0; 4])
        }
        Part::Marked(mark) => compare_mark(load_meta(list, MetaKeys::Mark), *mark),
        Part::ConnectionMarked(mark) => compare_mark(load_connection(list, CtKeys::Mark), *mark),
        Part::SetMark(mark) => {
            store_meta_mark(with_mark(list, *mark, |list| load_meta(list, MetaKeys::Mark)))
        }
        Part::SetConnectionMark(mark) => store_connection_mark(with_mark(list, *mark, |list| {
            load_connection(list, CtKeys::Mark)
        })),
        Part::Accept => verdict(list, VerdictCode::Accept),
        Part::Drop => verdict(list, VerdictCode::Drop),
        Part::Reject => reject(list, family),
        Part::Masquerade => list.nested_elem().push_name(c"masq").end_nested(),
    }
}

/// As the kernel compares names of interfaces.
fn interface(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_NAME_BYTES, 0);
    padded
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn load_meta<P: Pusher>(list: List<P>, key: MetaKeys) -> List<P> {
    let expression = list.nested_elem().nested_data_meta();
    expression.push_key(key as u32).push_dreg(REGISTER).end_nested().end_nested()
}

fn store_meta_mark<P: Pusher>(list: List<P>) -> List<P> {
    let expression = list.nested_elem().nested_data_meta();
    expression.push_key(MetaKeys::Mark as u32).push_sreg(REGISTER).end_nested().end_nested()
}

fn load_connection<P: Pusher>(list: List<P>, key: CtKeys) -> List<P> {
    let expression = list.nested_elem().nested_data_ct();
    expression.push_key(key as u32).push_dreg(REGISTER).end_nested().end_nested()
}

fn store_connection_mark<P: Pusher>(list: List<P>) -> List<P> {
    let expression = list.nested_elem().nested_data_ct();
    expression.push_key(CtKeys::Mark as u32).push_sreg(REGISTER).end_nested().end_nested()
}

enum Address {
    Source,
    Destination,
}

/// [RFC 791 §3.1], [RFC 8200 §3]
fn load_address<P: Pusher>(list: List<P>, which: Address, family: Family) -> List<P> {
    let (offset, length) = match (family, which) {
        (Family::V4, Address::Source) => (12, 4),
        (Family::V4, Address::Destination) => (16, 4),
        (Family::V6, Address::Source) => (8, 16),
        (Family::V6, Address::Destination) => (24, 16),
    };
    load_header(list, PayloadBase::NetworkHeader, offset, length)
}

/// Bytes of a header.
fn load_header<P: Pusher>(list: List<P>, header: PayloadBase, offset: u32, length: u32) -> List<P> {
    let expression = list.nested_elem().nested_data_payload();
    expression
        .push_dreg(REGISTER)
        .push_base(header as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

/// What kind of address the source is to this host.
fn load_source_type<P: Pusher>(list: List<P>) -> List<P> {
    /// The bindings have 2, which is the name of the outgoing interface.
    /// [LNX nf_tables.h:NFT_FIB_RESULT_ADDRTYPE]
    const ADDRESS_TYPE: u32 = 3;
    let expression = list.nested_elem().nested_data_fib();
    expression
        .push_dreg(REGISTER)
        .push_result(ADDRESS_TYPE)
        .push_flags(FibFlags::Saddr as u32)
        .end_nested()
        .end_nested()
}

fn compare<P: Pusher>(list: List<P>, how: CmpOps, value: &[u8]) -> List<P> {
    let expression = list.nested_elem().nested_data_cmp();
    expression
        .push_sreg(REGISTER)
        .push_op(how as u32)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn compare_protocol<P: Pusher>(list: List<P>, protocol: u8) -> List<P> {
    compare(load_meta(list, MetaKeys::L4Proto), CmpOps::Eq, &[protocol])
}

fn compare_bits<P: Pusher>(list: List<P>, value: IpAddr, mask: IpAddr) -> List<P> {
    let (value, mask) = (octets(value), octets(mask));
    let list = if mask.iter().all(|byte| *byte == u8::MAX) {
        list
    } else {
        bitwise(list, &mask, &vec![0; mask.len()])
    };
    compare(list, CmpOps::Eq, &value)
}

fn compare_mark<P: Pusher>(list: List<P>, Mark { value, mask }: Mark) -> List<P> {
    let list = if mask == u32::MAX { list } else { bitwise(list, &mask.to_ne_bytes(), &[0; 4]) };
    compare(list, CmpOps::Eq, &(value & mask).to_ne_bytes())
}

/// The mark in the register, together with the bits outside of its mask that `load` finds.
fn with_mark<P: Pusher>(
    list: List<P>,
    Mark { value, mask }: Mark,
    load: impl FnOnce(List<P>) -> List<P>,
) -> List<P> {
    if mask != u32::MAX {
        let (kept, set) = (!mask, value & mask);
        return bitwise(load(list), &kept.to_ne_bytes(), &set.to_ne_bytes());
    }
    let expression = list.nested_elem().nested_data_immediate();
    expression
        .push_dreg(REGISTER)
        .nested_data()
        .push_value(&value.to_ne_bytes())
        .end_nested()
        .end_nested()
        .end_nested()
}

/// `(register & mask) ^ flipped`; both have the length of what is in the register.
fn bitwise<P: Pusher>(list: List<P>, mask: &[u8], flipped: &[u8]) -> List<P> {
    let expression = list.nested_elem().nested_data_bitwise();
    expression
        .push_sreg(REGISTER)
        .push_dreg(REGISTER)
        .push_len(u32::try_from(mask.len()).expect("an address is no longer"))
        .push_op(BitwiseOps::MaskXor as u32)
        .nested_mask()
        .push_value(mask)
        .end_nested()
        .nested_xor()
        .push_value(flipped)
        .end_nested()
        .end_nested()
        .end_nested()
}

/// [RFC 1812 §5.2.7.1], [RFC 4443 §3.1]
fn reject<P: Pusher>(list: List<P>, family: Family) -> List<P> {
    const COMMUNICATION_PROHIBITED: u8 = 13;
    const ADMINISTRATIVELY_PROHIBITED: u8 = 1;
    let prohibited = match family {
        Family::V4 => COMMUNICATION_PROHIBITED,
        Family::V6 => ADMINISTRATIVELY_PROHIBITED,
    };
    let expression = list.nested_elem().nested_data_reject();
    expression
        .push_type(RejectTypes::IcmpUnreach as u32)
        .push_icmp_code(prohibited)
        .end_nested()
        .end_nested()
}

fn verdict<P: Pusher>(list: List<P>, code: VerdictCode) -> List<P> {
    let expression = list.nested_elem().nested_data_immediate();
    expression
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code as u32)
        .end_nested()
        .end_nested()
        .end_nested()
        .end_nested()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: i32, code: i32) -> Vec<u8> {
        let header = Nlmsghdr { len: 36, r#type: kind as u16, ..Nlmsghdr::new() };
        [header.as_slice(), &code.to_ne_bytes(), &[0; 16]].concat()
    }

    #[test]
    fn refusals_are_found_among_acknowledgements_and_no_answer_makes_the_search_go_on_for_ever() {
        let ok = answer(libc::NLMSG_ERROR, 0);
        let refused = answer(libc::NLMSG_ERROR, -libc::EEXIST);
        assert_eq!(refusals(&[ok.clone(), refused, ok.clone()].concat()), [libc::EEXIST]);
        assert_eq!(refusals(&answer(libc::NLMSG_NOOP, -1)), [0; 0]);
        for length in 0..36 {
            assert_eq!(refusals(&ok[..length]), [0; 0]);
        }
        assert_eq!(refusals(&[0; 40]), [0; 0]);
    }
}
