//! A descriptor that goes from one process to another beside bytes on a Unix stream socket. unix(7)

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::SysError;

/// Sends `bytes`, and `passed` with the first of them. Returns how many bytes went.
///
/// # Errors
/// The failing syscall, as on a socket without room.
pub fn send(socket: impl AsFd, bytes: &[u8], passed: BorrowedFd<'_>) -> Result<usize, SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [passed];
    // There is room for one.
    let _pushed = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        .map_err(|e| SysError::new("sendmsg(SCM_RIGHTS)", e))
}

/// Receives into `bytes`. Returns how many came, and the descriptor that came with them.
///
/// # Errors
/// The failing syscall.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|e| SysError::new("recvmsg(SCM_RIGHTS)", e))?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, passed))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_the_bytes_and_without_one_the_bytes_alone() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert_eq!(send(&here, b"take it", writer.as_fd()).unwrap(), 7);
        drop(writer);
        let mut buffer = [0; 16];
        let (length, passed) = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"take it");
        File::from(passed.unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        (&here).write_all(b"no").unwrap();
        let (length, passed) = receive(&there, &mut buffer).unwrap();
        assert_eq!((length, passed.is_none()), (2, true));
    }
}
