//! Who tables belong to, and with whom they go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_bindings::nftables::TableFlags;

use super::{Table, encode, transact};
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

    /// Makes the table, in place of one of that name that belongs to this owner or to nobody. In
    /// place of one of this owner's it is made in one transaction.
    ///
    /// # Errors
    /// A kernel that knows no owners (before 5.12); otherwise as for
    /// [`Netlink::replace_table`](crate::control::netlink::Netlink::replace_table).
    pub fn replace_table(&self, table: &Table) -> Result<(), NetlinkError> {
        let make = || {
            let batch = encode::refill(table, TableFlags::Owner as u32);
            transact(&self.socket, &batch, || table.add_command())
        };
        make().or_else(|_| {
            // Of nobody's, the kernel would have to change the owner, which it refuses; and a chain
            // that has changed is no longer the same.
            match self.delete_table(table) {
                Err(error) if !error.is_absent() => Err(error),
                Ok(()) | Err(_) => make(),
            }
        })
    }

    /// Deletes the table, as far as this owner may.
    ///
    /// # Errors
    /// No such table ([`NetlinkError::is_absent`]).
    pub fn delete_table(&self, table: &Table) -> Result<(), NetlinkError> {
        transact(&self.socket, &encode::delete(table), || table.delete_command())
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
