//! A name server of the outside world: answers each question for an address with the same one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use super::host::Namespace;

/// It runs until it is dropped.
pub struct NameServer {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// On port 53 of `address`; every name is at `answer`.
    #[track_caller]
    pub fn at(namespace: &Namespace, address: Ipv4Addr, answer: Ipv4Addr) -> NameServer {
        let (reader, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (ready, is_ready) = mpsc::channel();
        let (namespace, asked) = (namespace.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            namespace.enter();
            let address = SocketAddr::from((address, 53));
            let udp = UdpSocket::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
            let tcp = TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
            ready.send(()).unwrap();
            serve(&udp, &tcp, &reader, answer, &counter);
        });
        is_ready.recv().expect("the name server listens");
        NameServer { stop: Some(stop), thread: Some(thread), asked }
    }

    /// Questions that it has had.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(udp: &UdpSocket, tcp: &TcpListener, stop: &OwnedFd, at: Ipv4Addr, asked: &AtomicUsize) {
    loop {
        let mut events =
            [PollFd::new(udp, PollFlags::IN), PollFd::new(tcp, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        poll(&mut events, None).unwrap();
        let ready = events.each_ref().map(|event| !event.revents().is_empty());
        if ready[2] {
            return;
        }
        let mut buffer = [0; 512];
        if ready[0]
            && let Ok((count, from)) = udp.recv_from(&mut buffer)
            && let Some(answer) = answer(&buffer[..count], at)
        {
            asked.fetch_add(1, Ordering::SeqCst);
            let _ = udp.send_to(&answer, from);
        }
        if ready[1]
            && let Ok((mut stream, _)) = tcp.accept()
        {
            let mut length = [0; 2];
            let query = stream.read_exact(&mut length).ok().and_then(|()| {
                let query = &mut buffer[..usize::from(u16::from_be_bytes(length)).min(512)];
                stream.read_exact(query).ok().map(|()| query.to_vec())
            });
            if let Some(answer) = query.and_then(|query| answer(&query, at)) {
                asked.fetch_add(1, Ordering::SeqCst);
                let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
                framed.extend(answer);
                let _ = stream.write_all(&framed);
            }
        }
    }
}

/// RFC 1035, section 4: the header and the question again, and one record for an address (A);
/// nothing for other types.
fn answer(query: &[u8], at: Ipv4Addr) -> Option<Vec<u8>> {
    let name = query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(12..12 + name + 5)?;
    let is_address = question[name + 1..name + 3] == [0, 1];
    let mut message = query[..2].to_vec();
    message.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    message.extend(question);
    if is_address {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(at.octets());
    }
    Some(message)
}
