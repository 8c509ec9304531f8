//! A pair of connected sockets that carries whole messages and descriptors (unix(7),
//! SOCK_SEQPACKET, SCM_RIGHTS). One frame is one JSON document of at most [`MAX_FRAME`] bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Upper bound of a frame; a longer one is cut by the kernel and then does not parse.
pub const MAX_FRAME: usize = 16 * 1024;
/// Upper bound of descriptors in one frame.
const MAX_DESCRIPTORS: usize = 4;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What [`Channel::receive`] found.
#[derive(Debug)]
pub enum Received<T> {
    /// A message with the descriptors that came along.
    Message(T, Vec<OwnedFd>),
    /// The other end is closed: its process ended, or closed it by exec.
    Closed,
    /// Nothing now (non-blocking ends only).
    Nothing,
}

impl Channel {
    /// Two connected ends, close-on-exec.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(a), Channel(b)))
    }

    /// An end that was inherited or accepted.
    pub fn from_descriptor(descriptor: OwnedFd) -> Channel {
        Channel(descriptor)
    }

    /// Connects to the socket at `path`; an error of kind NotFound or ConnectionRefused when nobody listens.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        with_short_path(path, |short| {
            rustix::net::connect(&socket, &SocketAddrUnix::new(short)?)?;
            Ok(())
        })?;
        Ok(Channel(socket))
    }

    /// Sends one message, with descriptors.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // A vanished peer is an error value here, never a SIGPIPE.
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives one message, waiting for it unless the end is non-blocking.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        let mut bytes = vec![0u8; MAX_FRAME];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut reset = false;
        let length = loop {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            });
            match received {
                Ok(message) => break message.bytes,
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                // The other end closed without having read all of ours. The kernel tells this once, and
                // before the last words of the other end, which follow.
                Err(rustix::io::Errno::CONNRESET) if !reset => reset = true,
                Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                Err(error) => return Err(error.into()),
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                descriptors.extend(files);
            }
        }
        if length == 0 {
            return Ok(Received::Closed);
        }
        Ok(Received::Message(serde_json::from_slice(&bytes[..length])?, descriptors))
    }

    /// Makes [`Channel::receive`] return at once. A peer that does not read loses messages rather
    /// than stopping this process.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that accepts [`Channel`]s at a path, mode 0600.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Left by a shim that was killed; only the container's lock holder comes here.
    let _ = std::fs::remove_file(path);
    with_short_path(path, |short| {
        // The socket's own mode becomes the file's: nobody else can connect, not even for an instant.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)?;
        Ok(())
    })?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Accepts one connection, non-blocking; `None` when there is none. An error means that this process
/// or the machine is short of descriptors or memory: the connection stays in the queue.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Channel>> {
    use rustix::io::Errno;
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(connection) => Ok(Some(Channel(connection))),
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// sun_path holds 108 bytes (unix(7)) and data roots can be longer: go through the directory's
/// descriptor.
fn with_short_path(path: &Path, action: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().len() < 100 {
        return action(path);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let held = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&held).to_string());
    action(&short.join(path.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&"one", &[null.as_fd()]).unwrap();
        a.send(&"two", &[]).unwrap();
        drop(a);
        let Received::Message(text, files) = b.receive::<String>().unwrap() else { panic!() };
        assert_eq!((text.as_str(), files.len()), ("one", 1));
        let Received::Message(text, files) = b.receive::<String>().unwrap() else { panic!() };
        assert_eq!((text.as_str(), files.len()), ("two", 0));
        assert!(matches!(b.receive::<String>().unwrap(), Received::Closed));
    }

    #[test]
    fn last_words_arrive_though_ours_were_not_read() {
        let (a, b) = Channel::pair().unwrap();
        b.send(&"never read", &[]).unwrap();
        a.send(&"last words", &[]).unwrap();
        drop(a);
        let Received::Message(text, _) = b.receive::<String>().unwrap() else { panic!() };
        assert_eq!(text, "last words");
        assert!(matches!(b.receive::<String>().unwrap(), Received::Closed));
    }

    #[test]
    fn long_paths_work_and_nobody_else_may_connect() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("shim.sock");
        let listener = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = Channel::connect(&path).unwrap();
        let server = accept(listener.as_fd()).unwrap().unwrap();
        client.send(&1, &[]).unwrap();
        assert!(matches!(server.receive::<i32>().unwrap(), Received::Message(1, _)));
    }
}
