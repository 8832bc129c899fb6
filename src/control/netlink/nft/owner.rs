//! Who tables belong to, and with whom they go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_bindings::nftables::TableFlags;

use super::{Table, encode, transact};
use crate::control::netlink::{Family, NetlinkError};
use crate::sys::SysError;
use crate::sys::netfilter::NetfilterSocket;

const OWNER: u32 = TableFlags::Owner as u32;

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

    /// Whether the kernel has tables, but knows no owners, as before Linux 5.12. Nothing is changed.
    /// [LNX nf_tables_api.c:nf_tables_newtable]
    pub fn is_unknown(&self) -> bool {
        let name = "hybridwg_owner".to_owned();
        let empty = Table { family: Family::V4, name, chains: Vec::new() };
        let rehearse = |flags| {
            let batch = encode::rehearse(&empty, flags);
            transact(&self.socket, &batch, || empty.add_command())
        };
        // EINVAL or EOPNOTSUPP: which one has changed.
        let is_refused = |error: NetlinkError| error.is_invalid() || error.is_unsupported();
        rehearse(OWNER).is_err_and(is_refused) && rehearse(0).is_ok()
    }

    /// Makes the table, in place of one of that name that belongs to this owner or to nobody, in one
    /// transaction.
    ///
    /// # Errors
    /// A kernel that knows no owners; otherwise as for
    /// [`Netlink::replace_table`](crate::control::netlink::Netlink::replace_table).
    pub fn replace_table(&self, table: &Table) -> Result<(), NetlinkError> {
        let make = |batch: &[u8]| transact(&self.socket, batch, || table.add_command());
        let Err(refused) = make(&encode::replace(table, OWNER)) else { return Ok(()) };
        // What is there and belongs to nobody gets no owner, but lets itself be deleted.
        match make(&encode::replace_present(table, OWNER)) {
            Err(error) if error.is_absent() => Err(refused),
            outcome => outcome,
        }
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
