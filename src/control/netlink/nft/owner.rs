//! Who tables belong to, and with whom they go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::nftables::TableFlags;

use super::{Table, encode};
use crate::control::netlink::NetlinkError;
use crate::sys::SysError;
use crate::sys::netfilter::NetfilterSocket;

/// An owner of tables. They are gone when the last process that holds its descriptor has ended, and
/// nobody else can change them meanwhile, not even by `nft flush ruleset`.
#[derive(Debug)]
pub struct Owner {
    socket: NetfilterSocket,
}

impl Owner {
    /// # Errors
    /// The failing syscall; a kernel without netfilter refuses.
    pub fn new() -> Result<Self, SysError> {
        Ok(Self { socket: NetfilterSocket::open()? })
    }

    /// Makes the table, in place of one of that name that belongs to this owner or to nobody.
    ///
    /// # Errors
    /// A kernel that knows no owners (before 5.12); otherwise as for
    /// [`Netlink::replace_table`](crate::control::netlink::Netlink::replace_table).
    pub fn replace_table(&self, table: &Table) -> Result<(), NetlinkError> {
        // In two transactions: within one, the kernel takes a table of ours and one of nobody for
        // changes of the owner, which it refuses.
        match self.delete_table(table) {
            Err(error) if !error.is_absent() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let batch = encode::create(table, TableFlags::Owner as u32, FIRST_NUMBER);
        self.transact(batch.buf(), || table.add_command())
    }

    /// Deletes the table, as far as this owner may.
    ///
    /// # Errors
    /// No such table ([`NetlinkError::is_absent`]).
    pub fn delete_table(&self, table: &Table) -> Result<(), NetlinkError> {
        let batch = encode::delete(table, FIRST_NUMBER);
        self.transact(batch.buf(), || table.delete_command())
    }

    fn transact(&self, batch: &[u8], action: impl Fn() -> String) -> Result<(), NetlinkError> {
        let answers = self.socket.exchange(batch).map_err(|error| {
            NetlinkError::of_errno(action(), error.errno().unwrap_or(libc::EIO))
        })?;
        // The batch is one transaction: the first message that was refused is the reason.
        match answers.iter().flat_map(|datagram| refusals(datagram)).next() {
            Some(errno) => Err(NetlinkError::of_errno(action(), errno)),
            None => Ok(()),
        }
    }
}

/// From a copy of an owner's descriptor.
impl From<OwnedFd> for Owner {
    fn from(socket: OwnedFd) -> Self {
        Self { socket: socket.into() }
    }
}

impl AsFd for Owner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Every exchange is over before the next begins, so that no answer can be taken for another's.
const FIRST_NUMBER: u32 = 1;

/// The error numbers in the answers of one datagram; acknowledgements have none.
fn refusals(mut datagram: &[u8]) -> Vec<i32> {
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
