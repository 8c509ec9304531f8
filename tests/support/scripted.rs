//! An HTTP server that does what no decent one does: breaks off, lies, dawdles, sends elsewhere.
//!
//! A test gives a function from request to what is written on the connection. Connections are served by
//! threads started from the test's thread, in whose network namespace they live.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Where a `Range: bytes=N-` begins.
    pub fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    fn length(&self) -> u64 {
        self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// Both ways of a connection, encrypted or not.
pub trait Wire: Read + Write + Send {
    /// How long a read waits.
    fn set_patience(&self, patience: Option<Duration>);
}

impl Wire for TcpStream {
    fn set_patience(&self, patience: Option<Duration>) {
        self.set_read_timeout(patience).unwrap();
    }
}

impl Wire for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn set_patience(&self, patience: Option<Duration>) {
        self.sock.set_patience(patience);
    }
}

/// The connection a request came on. Dropping the answer without a response breaks it off.
pub struct Answer<'a> {
    wire: &'a mut dyn Wire,
    body_left: u64,
    /// Whether only the head of a response was asked for.
    head: bool,
    keep: bool,
}

impl Answer<'_> {
    /// A whole response; the connection stays.
    pub fn send(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) {
        // Unread content would be taken for the next request.
        self.body();
        let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.keep = self.raw(head.as_bytes()) && (self.head || self.raw(body));
    }

    /// Bytes as they are; whether the other side still takes them.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.wire.write_all(bytes).and_then(|()| self.wire.flush()).is_ok()
    }

    /// Waits until the client hangs up, and says nothing.
    pub fn until_left(&mut self) {
        let _ = self.wire.read(&mut [0]);
    }

    /// Hands on what comes from here and from there until both are silent for good; for tunnels of proxies.
    pub fn join(&mut self, there: &mut TcpStream) {
        let mut buffer = [0; 16384];
        let short = Some(Duration::from_millis(20));
        there.set_read_timeout(short).unwrap();
        self.wire.set_patience(short);
        loop {
            for inward in [true, false] {
                let read = if inward { self.wire.read(&mut buffer) } else { there.read(&mut buffer) };
                let written = match read {
                    Ok(0) => return,
                    Ok(count) if inward => there.write_all(&buffer[..count]),
                    Ok(count) => self.wire.write_all(&buffer[..count]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
                    Err(_) => return,
                };
                if written.is_err() {
                    return;
                }
            }
        }
    }

    /// What remains of the request's content.
    pub fn body(&mut self) -> Vec<u8> {
        let left = self.body_left;
        self.some(left)
    }

    /// So many bytes of it.
    pub fn some(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = (&mut *self.wire).take(count.min(self.body_left)).read_to_end(&mut bytes);
        self.body_left -= bytes.len() as u64;
        bytes
    }
}

/// The server; it ends when dropped.
pub struct Scripted {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Listens on a port of 127.0.0.1 that it chooses, without encryption.
    pub fn start(script: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static) -> Scripted {
        Scripted::listen("127.0.0.1", None, script)
    }

    /// With the certificate `server.crt` and `server.key` of a directory, on an address of loopback's device,
    /// which may name its port.
    pub fn start_tls(
        address: &str,
        certificates: &Path,
        script: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static,
    ) -> Scripted {
        Scripted::listen(address, Some(tls(certificates)), script)
    }

    fn listen(
        address: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static,
    ) -> Scripted {
        let place = if address.contains(':') { address.to_owned() } else { format!("{address}:0") };
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped, script) = (Arc::clone(&requests), Arc::clone(&stop), Arc::new(script));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                // Nobody is waited for for ever, whatever a client forgets to close.
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let (seen, tls, script) = (Arc::clone(&seen), tls.clone(), Arc::clone(&script));
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(&mut rustls::StreamOwned::new(connection, stream), &seen, &*script);
                    }
                    None => serve_plain(stream, &seen, &*script),
                });
            }
        });
        Scripted { address, requests, stop, thread: Some(thread) }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests so far have `part` in their target.
    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.target.contains(part)).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_plain(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &dyn Fn(&Request, &mut Answer<'_>)) {
    let mut first = [0];
    // The client asks for TLS first, whose records begin with this byte.
    if stream.peek(&mut first).is_ok_and(|count| count == 1) && first[0] == 0x16 {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    serve(&mut stream, seen, script);
}

fn serve(wire: &mut dyn Wire, seen: &Mutex<Vec<Request>>, script: &dyn Fn(&Request, &mut Answer<'_>)) {
    while let Some(request) = read_request(wire) {
        seen.lock().unwrap().push(request.clone());
        let head = request.method == "HEAD";
        let mut answer = Answer { wire, body_left: request.length(), head, keep: false };
        script(&request, &mut answer);
        if !answer.keep {
            return;
        }
    }
}

fn read_request(wire: &mut dyn Wire) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match wire.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some(Request { method, target, headers: lines.filter_map(pair).collect() })
}

fn tls(directory: &Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(directory.join("server.crt")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}
