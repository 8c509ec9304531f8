//! One record: its JSON written without a serialiser and, when it is in exactly the layout we
//! write, read without a parser. Everything else (files written by Docker) goes through serde_json.

use std::borrow::Cow;
use std::io::Write;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Stream, base64};

/// A time in the one form `2026-11-21T06:50:12.123456789Z`: sorts as text, always this long.
pub(super) type Stamp = [u8; 30];

/// Most bytes by which a record is longer than its escaped text.
const FRAME: usize = 128;

const HEAD: &[u8] = br#"{"log":""#;
const TIME: &[u8] = br#","time":""#;
const TAIL: &[u8] = br#""}"#;

/// Formats a time; what lies outside the years 0 to 9999 becomes the nearest that does not.
pub(super) fn stamp(time: Timestamp) -> Stamp {
    let mut text = [0u8; 30];
    // `-` or `+` before the year, or a longer one, would not fit and would sort wrongly.
    let _ = write!(text.as_mut_slice(), "{time:.9}");
    if is_stamp(&text) {
        text
    } else if time < Timestamp::UNIX_EPOCH {
        *b"0000-01-01T00:00:00.000000000Z"
    } else {
        *b"9999-12-31T23:59:59.999999999Z"
    }
}

fn is_stamp(text: &Stamp) -> bool {
    text.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        19 => *byte == b'.',
        29 => *byte == b'Z',
        _ => byte.is_ascii_digit(),
    })
}

/// How a piece of output goes into a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// ASCII with nothing to escape.
    Plain,
    /// UTF-8 with something to escape, or not ASCII.
    Escaped,
    /// Not UTF-8: needs `raw`.
    Binary,
}

/// A piece of output about to be written, its newline split off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    body: &'a [u8],
    newline: bool,
    text: Text,
}

impl<'a> Piece<'a> {
    /// Looks at what a record shall hold: one line with its newline, or a part of one without.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let (body, newline) = match bytes.split_last() {
            Some((b'\n', body)) => (body, true),
            _ => (bytes, false),
        };
        let text = if is_plain(body) {
            Text::Plain
        } else if std::str::from_utf8(body).is_ok() {
            Text::Escaped
        } else {
            Text::Binary
        };
        Piece { body, newline, text }
    }

    /// Most bytes the record can take.
    pub(super) fn bound(&self) -> usize {
        let length = self.body.len();
        FRAME
            + match self.text {
                Text::Plain => length,
                Text::Escaped => length * 6,
                Text::Binary => length * 6 + length.div_ceil(3) * 4 + 4,
            }
    }

    /// Appends the record, its line end included.
    pub(super) fn encode(&self, out: &mut Vec<u8>, stream: Stream, time: &Stamp) {
        out.extend_from_slice(HEAD);
        match self.text {
            Text::Plain => out.extend_from_slice(self.body),
            Text::Escaped => escape(out, self.body),
            Text::Binary => {
                for chunk in self.body.utf8_chunks() {
                    escape(out, chunk.valid().as_bytes());
                    if !chunk.invalid().is_empty() {
                        out.extend_from_slice("\u{fffd}".as_bytes());
                    }
                }
            }
        }
        out.extend_from_slice(match (self.newline, stream) {
            (true, Stream::Stdout) => br#"\n","stream":"stdout""#,
            (true, Stream::Stderr) => br#"\n","stream":"stderr""#,
            (false, Stream::Stdout) => br#"","stream":"stdout""#,
            (false, Stream::Stderr) => br#"","stream":"stderr""#,
        });
        if self.text == Text::Binary {
            // Without the newline, which `log` tells just as well.
            out.extend_from_slice(br#","raw":""#);
            base64::encode(out, self.body);
            out.push(b'"');
        }
        out.extend_from_slice(TIME);
        out.extend_from_slice(time);
        out.extend_from_slice(b"\"}\n");
    }
}

/// ASCII with nothing to escape. As signed bytes, all above 127 and all controls are below a space.
fn is_plain(bytes: &[u8]) -> bool {
    !any(bytes, |byte| (byte as i8) < 0x20 || byte == b'"' || byte == b'\\')
}

/// Whether a byte satisfies `test`, looking at many bytes at once.
fn any(bytes: &[u8], test: impl Fn(u8) -> bool + Copy) -> bool {
    // Without a branch inside the block the compiler turns this into vector instructions.
    let block = |block: &[u8; 32]| block.iter().fold(false, |found, &byte| found | test(byte));
    match bytes.last_chunk::<32>() {
        // The last block overlaps the one before it, which is cheaper than a loop over the rest.
        Some(last) => bytes.as_chunks::<32>().0.iter().any(block) || block(last),
        None => bytes.iter().any(|&byte| test(byte)),
    }
}

/// Appends UTF-8 as the inside of a JSON string (RFC 8259, section 7).
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Where it came from.
    pub(super) stream: Stream,
    /// When it was read from the container.
    pub(super) time: Stamp,
    /// The output, exactly as it was.
    pub(super) text: &'a [u8],
}

impl Record<'_> {
    /// Ends a line of output.
    pub(super) fn ends_line(&self) -> bool {
        self.text.last() == Some(&b'\n')
    }
}

/// Reads one line of the log file; `None` when it is damaged. `scratch` is memory to unescape into.
pub(super) fn parse<'a>(line: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<Record<'a>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let Some((body, stream, time)) = split(line) else { return parse_any(line, scratch) };
    if special(body).is_none() {
        return Some(Record { stream, time, text: body });
    }
    scratch.clear();
    match unescape(scratch, body) {
        Some(()) => Some(Record { stream, time, text: scratch }),
        None => parse_any(line, scratch),
    }
}

/// Takes our own layout apart from both ends. The body is still escaped; when it holds no bare
/// quote, this was the only way to read the line.
fn split(line: &[u8]) -> Option<(&[u8], Stream, Stamp)> {
    let (rest, time) = line.strip_prefix(HEAD)?.strip_suffix(TAIL)?.split_last_chunk::<30>()?;
    let rest = rest.strip_suffix(TIME)?;
    let (body, stream) = match rest.strip_suffix(br#"","stream":"stdout""#) {
        Some(body) => (body, Stream::Stdout),
        None => (rest.strip_suffix(br#"","stream":"stderr""#)?, Stream::Stderr),
    };
    is_stamp(time).then_some((body, stream, *time))
}

/// Where the first byte of a JSON string's inside is that does not stand for itself.
fn special(body: &[u8]) -> Option<usize> {
    memchr::memchr2(b'"', b'\\', body)
}

/// Appends what the inside of a JSON string stands for; `None` for a bare quote, a bad escape or one
/// that we do not write (surrogates).
fn unescape(out: &mut Vec<u8>, body: &[u8]) -> Option<()> {
    let mut rest = body;
    while let Some(at) = special(rest) {
        out.extend_from_slice(&rest[..at]);
        let (&[first, second], after) = rest[at..].split_first_chunk::<2>()?;
        if first == b'"' {
            return None;
        }
        rest = after;
        out.push(match second {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => second,
            b'u' => {
                let (digits, after) = rest.split_first_chunk::<4>()?;
                rest = after;
                let code =
                    digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))?;
                let mut utf8 = [0; 4];
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    out.extend_from_slice(rest);
    Some(())
}

/// A record as any program may have written it.
#[derive(Deserialize)]
struct Foreign<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
}

/// Reads a record in any layout.
fn parse_any<'a>(line: &[u8], scratch: &'a mut Vec<u8>) -> Option<Record<'a>> {
    let foreign: Foreign<'_> = serde_json::from_slice(line).ok()?;
    let stream = if foreign.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    let time = stamp(foreign.time.parse().ok()?);
    scratch.clear();
    if foreign.raw.is_some_and(|raw| base64::decode(scratch, raw.as_bytes()).is_some()) {
        if foreign.log.ends_with('\n') {
            scratch.push(b'\n');
        }
    } else {
        scratch.clear();
        scratch.extend_from_slice(foreign.log.as_bytes());
    }
    Some(Record { stream, time, text: scratch })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEN: &Stamp = b"2026-11-21T06:50:12.123456789Z";

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let piece = Piece::new(bytes);
        piece.encode(&mut out, Stream::Stderr, WHEN);
        assert!(out.len() <= piece.bound(), "{} of {}", out.len(), piece.bound());
        out
    }

    #[test]
    fn the_layout_is_dockers() {
        assert_eq!(
            encoded(b"text\n"),
            b"{\"log\":\"text\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-21T06:50:12.123456789Z\"}\n"
        );
    }

    #[test]
    fn every_byte_survives_at_every_place_and_any_json_reader_gets_the_text() {
        for byte in 0..=255u8 {
            for length in [0, 1, 31, 32, 33, 70] {
                for at in [0, length / 2, length] {
                    let mut bytes = vec![b'x'; length];
                    bytes.insert(at, byte);
                    let line = encoded(&bytes);
                    let record = Record { stream: Stream::Stderr, time: *WHEN, text: &bytes };
                    assert_eq!(parse(&line, &mut Vec::new()), Some(record));
                    let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
                    assert_eq!(json["log"], *String::from_utf8_lossy(&bytes));
                    assert_eq!(json.get("raw").is_some(), byte >= 0x80);
                }
            }
        }
    }

    #[test]
    fn the_bound_holds_for_the_worst_pieces() {
        for bytes in [[0u8; 4096], [0xff; 4096], [b'"'; 4096], std::array::from_fn(|i| (i % 2 * 0x80) as u8)] {
            encoded(&bytes);
        }
    }

    #[test]
    fn foreign_layouts_are_understood() {
        let mut scratch = Vec::new();
        let line =
            br#"{"log":"a\ud83d\ude00\n","stream":"stdout","attrs":{"tag":"x"},"time":"2024-01-02T03:04:05.12Z"}"#;
        let record = parse(line, &mut scratch).unwrap();
        assert_eq!((record.text, record.stream), ("a\u{1f600}\n".as_bytes(), Stream::Stdout));
        assert_eq!(&record.time, b"2024-01-02T03:04:05.120000000Z");
        let line = br#"{"time":"2024-01-02T03:04:05+01:00","stream":"stderr","log":"\u00e4"}"#;
        let record = parse(line, &mut scratch).unwrap();
        assert_eq!((record.text, record.stream), ("ä".as_bytes(), Stream::Stderr));
        assert_eq!(&record.time, b"2024-01-02T02:04:05.000000000Z");
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_short_way_reads_what_the_parser_reads(
            text in r#"[a"\\\n,:{}]{0,12}"#,
            edits in proptest::collection::vec((proptest::num::usize::ANY, r#"[ -~]?"#), 0..4),
        ) {
            let mut line = encoded(text.as_bytes());
            line.pop();
            for (at, replacement) in edits {
                let at = at % line.len();
                line.splice(at..at + 1, replacement.bytes());
            }
            let (mut short, mut long) = (Vec::new(), Vec::new());
            match (parse(&line, &mut short), parse_any(&line, &mut long)) {
                // The short way takes the digits of a time as they are.
                (Some(record), None) => assert!(std::str::from_utf8(&record.time).unwrap().parse::<Timestamp>().is_err()),
                (short, long) => assert_eq!(short, long),
            }
        }
    }

    #[test]
    fn damaged_lines_are_none() {
        let whole = encoded(b"say \"hi\" \xff\n");
        for length in 0..whole.len() - 2 {
            assert_eq!(parse(&whole[..length], &mut Vec::new()), None, "{length}");
        }
        for bad in [
            r#"{"log":"a"b","stream":"stdout","time":"2024-01-02T03:04:05.123456789Z"}"#,
            r#"{"log":"a\","stream":"stdout","time":"2024-01-02T03:04:05.123456789Z"}"#,
            r#"{"log":"a\q","stream":"stdout","time":"2024-01-02T03:04:05.123456789Z"}"#,
            r#"{"log":"a","stream":"stdout","time":"yesterday"}"#,
            "\0\0\0",
        ] {
            assert_eq!(parse(bad.as_bytes(), &mut Vec::new()), None, "{bad}");
        }
    }

    #[test]
    fn times_outside_four_digit_years_still_sort() {
        assert_eq!(&stamp(Timestamp::MIN), b"0000-01-01T00:00:00.000000000Z");
        assert_eq!(&stamp(Timestamp::UNIX_EPOCH), b"1970-01-01T00:00:00.000000000Z");
        assert!(stamp(Timestamp::MAX) > *WHEN);
    }
}
