//! As much of D-Bus as asking systemd for a scope takes: method calls, their answers and signals, over a blocking
//! socket. Source: the D-Bus specification (dbus.freedesktop.org), "Type system", "Message protocol",
//! "Authentication protocol". Why not a library: `docs/cgroups.md`, "The systemd
//! driver".

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long systemd may take for an answer: as long as libdbus and sd-bus wait.
const PATIENCE: Duration = Duration::from_secs(25);
/// The specification's bound on a message, bytes.
const LONGEST: usize = 1 << 27;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Codes of header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The connection failed.
    Connection(io::Error),
    /// The other side says no.
    Refused {
        /// `org.freedesktop.systemd1.NoSuchUnit`
        name: String,
        /// For people.
        text: String,
    },
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        CallError::Connection(error)
    }
}

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Boolean(bool),
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    /// An array of 32-bit numbers.
    Numbers(Vec<u32>),
    /// An array of two strings each.
    Pairs(Vec<(String, String)>),
}

/// Marshals what a message holds, little-endian. Each basic type is aligned to its size, counted from the start.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn number32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn number64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A string, or the path of an object.
    pub(super) fn text(&mut self, text: &str) {
        self.number32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.byte(0);
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.number32(u32::from(value));
    }

    fn signature(&mut self, text: &str) {
        self.byte(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.byte(0);
    }

    /// An array of what begins at multiples of `alignment`. Its length counts neither itself nor the gap behind it.
    pub(super) fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Body)) {
        self.number32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Boolean(value) => {
                self.signature("b");
                self.boolean(*value);
            }
            Value::Number(value) => {
                self.signature("t");
                self.number64(*value);
            }
            Value::Text(value) => {
                self.signature("s");
                self.text(value);
            }
            Value::Bytes(values) => {
                self.signature("ay");
                self.array(1, |body| body.bytes.extend(values));
            }
            Value::Numbers(values) => {
                self.signature("au");
                self.array(4, |body| values.iter().for_each(|value| body.number32(*value)));
            }
            Value::Pairs(pairs) => {
                self.signature("a(ss)");
                self.array(8, |body| {
                    for (first, second) in pairs {
                        body.align(8);
                        body.text(first);
                        body.text(second);
                    }
                });
            }
        }
    }

    /// `a(sv)`: names and values.
    pub(super) fn properties(&mut self, list: &[(&str, Value)]) {
        self.array(8, |body| {
            for (name, value) in list {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }
}

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

impl Method<'_> {
    /// The whole message.
    fn call(&self, serial: u32, signature: &str, body: &Body) -> Vec<u8> {
        let mut message = Body::default();
        message.bytes.extend([b'l', METHOD_CALL, 0, 1]);
        message.number32(body.bytes.len() as u32);
        message.number32(serial);
        message.array(8, |fields| {
            for (code, kind, text) in [
                (field::PATH, "o", self.path),
                (field::INTERFACE, "s", self.interface),
                (field::MEMBER, "s", self.member),
                (field::DESTINATION, "s", self.destination),
            ] {
                fields.align(8);
                fields.byte(code);
                fields.signature(kind);
                fields.text(text);
            }
            if !signature.is_empty() {
                fields.align(8);
                fields.byte(field::SIGNATURE);
                fields.signature("g");
                fields.signature(signature);
            }
        });
        message.align(8);
        message.bytes.extend(&body.bytes);
        message.bytes
    }
}

/// An answer, or a signal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    kind: u8,
    reply_to: u32,
    error: String,
    /// The signal's name.
    pub(super) member: String,
    body: Vec<u8>,
}

impl Message {
    /// What the message holds, in order.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }

    /// Understands a whole message; other header fields are passed over.
    fn parse(bytes: &[u8], header: &Header) -> Option<Message> {
        let mut message = Message { kind: header.kind, ..Message::default() };
        let mut reader = Reader { bytes: bytes.get(..header.fields_end)?, at: 16 };
        while reader.at < header.fields_end {
            reader.align(8);
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, kind) {
                (field::REPLY_SERIAL, "u") => message.reply_to = reader.number32()?,
                (field::ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
                (field::MEMBER, "s") => message.member = reader.text()?.to_owned(),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number32()?),
                _ => return None,
            }
        }
        message.body = bytes.get(header.body_start()..)?.to_vec();
        Some(message)
    }
}

/// The fixed part of a message, its first 16 bytes.
struct Header {
    kind: u8,
    body: usize,
    /// Where the header fields end, without the gap behind them.
    fields_end: usize,
}

impl Header {
    /// `None`: big-endian, or no message at all.
    fn parse(bytes: &[u8; 16]) -> Option<Header> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let header = Header { kind: bytes[1], body: number(4)?, fields_end: 16 + number(12)? };
        let sane = bytes[0] == b'l' && header.body <= LONGEST && header.fields_end <= LONGEST;
        sane.then_some(header)
    }

    fn body_start(&self) -> usize {
        self.fields_end.next_multiple_of(8)
    }
}

/// Reads marshalled values.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn number32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A string, or the path of an object.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.number32()? as usize;
        let text = self.take(length)?;
        self.byte()?;
        str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        self.byte()?;
        str::from_utf8(text).ok()
    }
}

/// A connection on which this user is known.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects and says who we are (`EXTERNAL`: the kernel vouches for it).
    pub(super) fn open(socket: &Path) -> io::Result<Connection> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        // BEGIN goes along, and the first message only after the answer: a message that systemd reads together with
        // BEGIN lies in its buffer until another one comes.
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").as_bytes())?;
        // Byte by byte: one line, and what follows it would be messages already.
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK") {
            let text = format!("it does not let us in: {}", String::from_utf8_lossy(&line).trim());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Connection { stream, serial: 0, signals: VecDeque::new() })
    }

    /// Calls a method and waits for its answer. Signals that come meanwhile are kept for [`Self::signal`].
    pub(super) fn call(&mut self, method: &Method<'_>, signature: &str, body: &Body) -> Result<Message, CallError> {
        self.serial += 1;
        self.stream.write_all(&method.call(self.serial, signature, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == self.serial => return Ok(message),
                ERROR if message.reply_to == self.serial => {
                    let text = message.reader().text().unwrap_or_default().to_owned();
                    return Err(CallError::Refused { name: message.error, text });
                }
                _ => self.signals.push_back(message),
            }
        }
    }

    /// The next signal; other messages nobody waits for may be among them.
    pub(super) fn signal(&mut self) -> io::Result<Message> {
        match self.signals.pop_front() {
            Some(message) => Ok(message),
            None => self.receive(),
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let garbage = || io::Error::new(io::ErrorKind::InvalidData, "a message that is not understood");
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        let header = Header::parse(&fixed).ok_or_else(garbage)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(header.body_start() + header.body, 0);
        self.stream.read_exact(&mut bytes[16..])?;
        Message::parse(&bytes, &header).ok_or_else(garbage)
    }
}

#[cfg(test)]
#[path = "dbus_tests.rs"]
mod tests;
