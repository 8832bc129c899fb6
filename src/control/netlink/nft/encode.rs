//! From tables to messages: each part of a rule becomes the expressions that nft(8) makes of it.
//!
//! An expression works on a register: it loads it, compares it, changes it, stores it. One register
//! is enough for us. Values are in host byte order but for addresses; the bindings turn attributes.

use std::net::IpAddr;

use netlink_bindings::nftables::{
    BitwiseOps, Chained, ChainedFinal, CmpOps, CtKeys, FibFlags, MetaKeys, Nfgenmsg, PayloadBase,
    PushExprListAttrs, Registers, VerdictCode,
};
use netlink_bindings::traits::Pusher;

use super::{Chain, Hook, Mark, Part, Table};

/// No batch of ours has more; a range of sequence numbers for one is that long.
pub const MAX_MESSAGES: u32 = 4096;

/// What the attribute "name" of an interface is compared as. [LNX if.h:IFNAMSIZ]
const INTERFACE_NAME_BYTES: usize = 16;

const REGISTER: u32 = Registers::Reg1 as u32;

/// The batch after which there is this table and nothing else of its name, if that belongs to nobody.
pub fn replace(table: &Table, first_number: u32) -> ChainedFinal<'static> {
    batch(first_number, |batch| {
        // So that the deletion finds something, in any case.
        add_table(batch, table, 0);
        delete_table(batch, table);
        add_all(batch, table, 0);
    })
}

/// The batch that makes the table, which must not be there.
pub fn create(table: &Table, flags: u32, first_number: u32) -> ChainedFinal<'static> {
    batch(first_number, |batch| add_all(batch, table, flags))
}

/// The batch that deletes the table.
pub fn delete(table: &Table, first_number: u32) -> ChainedFinal<'static> {
    batch(first_number, |batch| delete_table(batch, table))
}

fn batch(first_number: u32, fill: impl FnOnce(&mut Chained<'static>)) -> ChainedFinal<'static> {
    // [LNX nfnetlink.h:NFNL_SUBSYS_NFTABLES]
    const NFTABLES: u16 = 10;
    let mut header = Nfgenmsg::new();
    header.set_res_id(NFTABLES);
    let mut batch = Chained::new(first_number);
    batch.request().op_batch_begin_do(&header);
    fill(&mut batch);
    batch.request().op_batch_end_do(&header);
    batch.finalize()
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
        Hook::Postrouting => 4,
    };
    let mut request = batch.request().set_create().op_newchain_do(&header(table));
    let attributes = request
        .encode()
        .push_table_bytes(table.name.as_bytes())
        .push_name_bytes(chain.name.as_bytes())
        .push_type(c"filter");
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
        expressions = push(expressions, part);
    }
    expressions.end_nested().end_nested();
}

type List<P> = PushExprListAttrs<P>;

fn push<P: Pusher>(list: List<P>, part: &Part) -> List<P> {
    match part {
        Part::NotByInterface(name) => {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(INTERFACE_NAME_BYTES, 0);
            compare(load_meta(list, MetaKeys::Iifname), CmpOps::Neq, &padded)
        }
        // [RFC 791 §3.1], [RFC 8200 §3]
        Part::Destination(IpAddr::V4(address)) => {
            compare(load_header(list, 16, 4), CmpOps::Eq, &address.octets())
        }
        Part::Destination(IpAddr::V6(address)) => {
            compare(load_header(list, 24, 16), CmpOps::Eq, &address.octets())
        }
        Part::SourceNotOurs => {
            let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
            compare(load_source_type(list), CmpOps::Neq, &local)
        }
        Part::Udp => {
            let udp = [u8::try_from(libc::IPPROTO_UDP).expect("protocols are numbers of a byte")];
            compare(load_meta(list, MetaKeys::L4Proto), CmpOps::Eq, &udp)
        }
        Part::Marked(mark) => compare_mark(load_meta(list, MetaKeys::Mark), *mark),
        Part::ConnectionMarked(mark) => compare_mark(load_connection_mark(list), *mark),
        Part::SetMark(mark) => {
            store_meta_mark(with_mark(list, *mark, |list| load_meta(list, MetaKeys::Mark)))
        }
        Part::SetConnectionMark(mark) => {
            store_connection_mark(with_mark(list, *mark, load_connection_mark))
        }
        Part::Drop => verdict(list, VerdictCode::Drop),
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

fn load_connection_mark<P: Pusher>(list: List<P>) -> List<P> {
    let expression = list.nested_elem().nested_data_ct();
    expression.push_key(CtKeys::Mark as u32).push_dreg(REGISTER).end_nested().end_nested()
}

fn store_connection_mark<P: Pusher>(list: List<P>) -> List<P> {
    let expression = list.nested_elem().nested_data_ct();
    expression.push_key(CtKeys::Mark as u32).push_sreg(REGISTER).end_nested().end_nested()
}

/// Bytes of the IP header.
fn load_header<P: Pusher>(list: List<P>, offset: u32, length: u32) -> List<P> {
    let expression = list.nested_elem().nested_data_payload();
    expression
        .push_dreg(REGISTER)
        .push_base(PayloadBase::NetworkHeader as u32)
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

fn compare_mark<P: Pusher>(list: List<P>, Mark { value, mask }: Mark) -> List<P> {
    let list = if mask == u32::MAX { list } else { bitwise(list, mask, 0) };
    compare(list, CmpOps::Eq, &(value & mask).to_ne_bytes())
}

/// The mark in the register, together with the bits outside of its mask that `load` finds.
fn with_mark<P: Pusher>(
    list: List<P>,
    Mark { value, mask }: Mark,
    load: impl FnOnce(List<P>) -> List<P>,
) -> List<P> {
    if mask != u32::MAX {
        return bitwise(load(list), !mask, value & mask);
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

/// `(register & mask) ^ flipped`.
fn bitwise<P: Pusher>(list: List<P>, mask: u32, flipped: u32) -> List<P> {
    let expression = list.nested_elem().nested_data_bitwise();
    expression
        .push_sreg(REGISTER)
        .push_dreg(REGISTER)
        .push_len(4)
        .push_op(BitwiseOps::MaskXor as u32)
        .nested_mask()
        .push_value(&mask.to_ne_bytes())
        .end_nested()
        .nested_xor()
        .push_value(&flipped.to_ne_bytes())
        .end_nested()
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
