//! The process's own sockets, found through `/proc/self/fd`: tiny_http does
//! not hand out those of its connections.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use socket2::Socket;

/// The process's table of descriptors.
pub(super) struct Descriptors {
    /// Open for good: when no descriptor is left is just when it is needed.
    folder: OwnedFd,
    list: Dir,
    /// Given up for a moment where a descriptor is needed.
    reserve: Option<OwnedFd>,
}

impl Descriptors {
    pub(super) fn open() -> io::Result<Self> {
        let folder = rustix::fs::open(
            "/proc/self/fd",
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            list: Dir::read_from(&folder)?,
            reserve: rustix::io::fcntl_dupfd_cloexec(&folder, 0).ok(),
            folder,
        })
    }

    /// Every socket: its inode, and a descriptor of it.
    pub(super) fn sockets(&mut self) -> HashMap<u64, RawFd> {
        let mut sockets = HashMap::new();
        self.list.rewind();
        while let Some(Ok(entry)) = self.list.next() {
            let Some(descriptor) = entry.file_name().to_str().ok().and_then(|n| n.parse().ok())
            else {
                continue;
            };
            // Through the link, which needs no descriptor of its own.
            match rustix::fs::statat(&self.folder, entry.file_name(), AtFlags::empty()) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {
                    sockets.entry(stat.st_ino).or_insert(descriptor);
                }
                _ => {}
            }
        }
        sockets
    }

    /// How many more the process may open.
    pub(super) fn free(&mut self) -> usize {
        // Without a number there is no limit.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.list.rewind();
        // The folder's own two names count as well: better two too few.
        let links = std::iter::from_fn(|| self.list.next());
        let open = links.take_while(Result::is_ok).count();
        usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(open)
    }

    /// How many threads the process has; 0 where that is not known.
    pub(super) fn threads(&self) -> usize {
        // Each is a folder in that folder, whose name and `.` are links as well.
        rustix::fs::statat(&self.folder, "../task", AtFlags::empty())
            .ok()
            .and_then(|stat| usize::try_from(stat.st_nlink).ok())
            .map_or(0, |links| links.saturating_sub(2))
    }

    /// This end's address and the other's, of a socket that is connected.
    pub(super) fn ends(
        &mut self,
        descriptor: RawFd,
        inode: u64,
    ) -> Option<(SocketAddr, SocketAddr)> {
        self.with(descriptor, inode, |socket| {
            let local = socket.local_addr().ok()?.as_socket()?;
            Some((local, socket.peer_addr().ok()?.as_socket()?))
        })
    }

    /// Ends a connection, one way or both. Its owner learns of it as of a peer
    /// that went.
    pub(super) fn shut(&mut self, descriptor: RawFd, inode: u64, how: Shutdown) {
        let _ = self.with(descriptor, inode, |socket| socket.shutdown(how).ok());
    }

    /// Ends a connection at once, with all that has come and is not read: after
    /// a shutdown that would still be read to its end.
    pub(super) fn abort(&mut self, descriptor: RawFd, inode: u64) {
        let _ = self.with(descriptor, inode, |socket| {
            // Wakes who waits for it, whom some kernels do not disconnect.
            let _ = socket.shutdown(Shutdown::Both);
            rustix::net::connect_unspec(socket.as_fd()).ok()
        });
    }

    /// Works with a descriptor's duplicate, which nobody else closes, where it
    /// still is that socket.
    fn with<T>(
        &mut self,
        descriptor: RawFd,
        inode: u64,
        work: impl FnOnce(&Socket) -> Option<T>,
    ) -> Option<T> {
        self.reserve = None;
        let duplicate = rustix::io::fcntl_dupfd_cloexec(borrowed(descriptor), 0).ok();
        let done = duplicate.and_then(|socket| {
            let same = rustix::fs::fstat(&socket).ok()?.st_ino == inode;
            same.then(|| work(&Socket::from(socket)))?
        });
        self.reserve = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0).ok();
        done
    }
}

/// A descriptor that some other thread owns and may close meanwhile.
#[allow(
    unsafe_code,
    reason = "tiny_http keeps its sockets to itself, a socket in /proc/self/fd cannot be opened, and \
              pidfd_getfd, the safe way, is a call that the units' filter forbids for good reason"
)]
fn borrowed(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is given to system calls alone. Where it was closed they say
    // EBADF; where it is another file by now, the inode tells.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

/// Where `struct tcp_info` of linux/tcp.h has `tcpi_bytes_received`.
const BYTES_RECEIVED: std::ops::Range<usize> = 128..136;

/// How many bytes have come over a TCP connection; 0 where that is not known.
#[allow(
    unsafe_code,
    reason = "rustix and socket2 do not ask for TCP_INFO; nix's sockopt_impl! would write the same \
              block here, unseen, and panic where the kernel's answer has another length"
)]
pub(super) fn bytes_received(descriptor: RawFd) -> u64 {
    let mut info = [0_u8; BYTES_RECEIVED.end];
    let mut length = info.len() as nix::libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which has
    // as many, and says in `length` how many. A wrong descriptor is an error.
    let failed = unsafe {
        nix::libc::getsockopt(
            descriptor,
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let written = info.get(BYTES_RECEIVED).filter(|_| {
        failed == 0 && usize::try_from(length).is_ok_and(|length| length >= BYTES_RECEIVED.end)
    });
    written
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn every_thread_is_counted() {
        const MORE: usize = 50;
        let descriptors = Descriptors::open().unwrap();
        let there = Barrier::new(MORE + 1);
        thread::scope(|scope| {
            for _ in 0..MORE {
                scope.spawn(|| {
                    there.wait();
                    there.wait();
                });
            }
            there.wait();
            let counted = descriptors.threads();
            there.wait();
            // Those of other tests come and go.
            assert!((MORE + 1..2 * MORE).contains(&counted), "{counted}");
        });
    }
}
