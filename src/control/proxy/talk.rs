//! What a client says before its connection is carried: read until it makes sense, within bounds.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::way::Client;

/// Bytes read at once.
const PIECE: usize = 4096;

/// Why a client is not listened to any further.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("it hung up")]
    Gone(#[from] io::Error),
    #[error("it said what makes no sense")]
    Nonsense,
}

/// A client that is still talking to us. What it says may be a password, and is wiped.
#[derive(Debug)]
pub struct Talk<C> {
    pub stream: C,
    /// Read and not yet taken.
    said: Zeroizing<Vec<u8>>,
}

impl<C: Client> Talk<C> {
    pub fn new(stream: C) -> Self {
        // Full size at once, because growing would leave copies behind.
        Self { stream, said: Zeroizing::new(Vec::with_capacity(2 * PIECE)) }
    }

    /// Waits until `parse` understands the beginning of what is said, at most `most` bytes of it, and
    /// takes that.
    ///
    /// # Errors
    /// The client hangs up first, or `parse` says no.
    pub async fn understand<T, E: From<End>>(
        &mut self,
        most: usize,
        mut parse: impl FnMut(&[u8]) -> Result<Option<(T, usize)>, E>,
    ) -> Result<T, E> {
        loop {
            if let Some((understood, length)) = parse(&self.said)? {
                self.said.drain(..length);
                return Ok(understood);
            }
            if self.said.len() >= most {
                return Err(End::Nonsense.into());
            }
            self.hear().await?;
        }
    }

    /// The first byte, which stays.
    ///
    /// # Errors
    /// The client hangs up first.
    pub async fn first(&mut self) -> Result<u8, End> {
        loop {
            match self.said.first() {
                Some(&first) => return Ok(first),
                None => self.hear().await?,
            }
        }
    }

    async fn hear(&mut self) -> Result<(), End> {
        let mut piece = Zeroizing::new([0; PIECE]);
        let length = self.stream.read(&mut *piece).await?;
        if length == 0 {
            return Err(End::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        self.said.extend_from_slice(&piece[..length]);
        Ok(())
    }

    /// # Errors
    /// The client has hung up.
    pub async fn say(&mut self, bytes: &[u8]) -> Result<(), End> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Says `bytes`, and that it is all. What the client still says is heard for a moment: with it
    /// unread, the kernel would take back what was said.
    pub async fn farewell(mut self, bytes: &[u8]) {
        const MOMENT: std::time::Duration = std::time::Duration::from_secs(1);
        let leave = async {
            self.stream.write_all(bytes).await?;
            self.stream.shutdown().await?;
            let mut piece = [0; PIECE];
            while self.stream.read(&mut piece).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        drop(tokio::time::timeout(MOMENT, leave).await);
    }

    /// The connection, and what was said beyond what was taken.
    pub fn into_parts(self) -> (C, Vec<u8>) {
        (self.stream, self.said.to_vec())
    }
}
