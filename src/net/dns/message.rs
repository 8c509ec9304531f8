//! Reading queries and building answers (RFC 1035; EDNS: RFC 6891). Messages of others that are only passed on are
//! looked at no further than their question.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, EmitAndCount, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

use super::sockets::MAX_DATAGRAM;

/// Seconds for which our own answers hold; Docker's.
pub(super) const TIME_TO_LIVE: u32 = 600;
/// Bytes of a UDP message that everybody takes (RFC 1035, 2.3.4).
const PLAIN_LIMIT: usize = 512;
/// Bytes of a query that we take; also what we say in EDNS.
pub(super) const MAX_QUERY: usize = 4096;
/// Bytes of a message over TCP.
pub(super) const MAX_MESSAGE: usize = 65535;
/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;

/// What has arrived from a client.
pub(super) enum Arrival {
    /// Nothing that may be answered: too short, or itself an answer.
    Noise,
    /// Not to be looked into any further; what to say to it.
    Refused(Vec<u8>),
    /// A question.
    Asked(Question),
}

/// The question of a query.
#[derive(Debug)]
pub(super) struct Question {
    /// As asked, letter case included.
    query: Query,
    metadata: Metadata,
    edns: Option<Edns>,
    /// Where the question section ends in the message.
    pub(super) end: usize,
}

/// Which records answer a question about one of our names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// How large an answer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// What the client says in EDNS, else 512 bytes.
    Datagram,
    /// 65535 bytes.
    Stream,
}

/// Reads what a client has sent.
pub(super) fn read(bytes: &[u8]) -> Arrival {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(Header { metadata, counts }) = Header::read(&mut decoder) else { return Arrival::Noise };
    if metadata.message_type != MessageType::Query {
        return Arrival::Noise;
    }
    if metadata.op_code != OpCode::Query {
        return Arrival::Refused(bare(&metadata, ResponseCode::NotImp));
    }
    let malformed = || Arrival::Refused(bare(&metadata, ResponseCode::FormErr));
    if counts.queries != 1 || bytes.len() > MAX_QUERY {
        return malformed();
    }
    let Ok(query) = Query::read(&mut decoder) else { return malformed() };
    let mut question = Question { query, metadata, edns: None, end: decoder.index() };
    // A query holds nothing else, so that EDNS comes first: the root's name, then its type. Other records (signatures)
    // are not our business.
    if counts.answers == 0
        && counts.authorities == 0
        && counts.additionals > 0
        && bytes[question.end..].starts_with(&OPT)
    {
        match Record::<RData>::read(&mut decoder) {
            Ok(record) => question.edns = Some(Edns::from(&record)),
            Err(_) => return malformed(),
        }
    }
    if question.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Arrival::Refused(question.failure(ResponseCode::BADVERS));
    }
    Arrival::Asked(question)
}

/// How an OPT record begins: the root as its name, and type 41.
const OPT: [u8; 3] = [0, 0, 41];

impl Question {
    /// The name in lower case without the final dot; `None` for one that no container has (RFC 1035's labels may hold
    /// any bytes, dots included).
    pub(super) fn name(&self) -> Option<String> {
        let mut name = String::new();
        for label in self.query.name().iter() {
            if !name.is_empty() {
                name.push('.');
            }
            for &byte in label {
                if !byte.is_ascii_graphic() || byte == b'.' {
                    return None;
                }
                name.push(byte.to_ascii_lowercase() as char);
            }
        }
        Some(name).filter(|name| !name.is_empty())
    }

    /// The class is the Internet's; ours hold nothing of others.
    pub(super) fn is_internet(&self) -> bool {
        self.query.query_class() == DNSClass::IN
    }

    /// Which addresses are asked for; neither for every other type.
    pub(super) fn families(&self) -> Families {
        let kind = self.query.query_type();
        Families {
            ipv4: matches!(kind, RecordType::A | RecordType::ANY),
            ipv6: matches!(kind, RecordType::AAAA | RecordType::ANY),
        }
    }

    /// The address whose name is asked for (RFC 1035, 3.5; RFC 3596, 2.5).
    pub(super) fn address(&self) -> Option<IpAddr> {
        if self.query.query_type() != RecordType::PTR {
            return None;
        }
        let network = self.query.name().parse_arpa_name().ok()?;
        (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
    }

    /// Bytes that an answer may have.
    pub(super) fn limit(&self, transport: Transport) -> usize {
        match transport {
            Transport::Stream => MAX_MESSAGE,
            Transport::Datagram => self
                .edns
                .as_ref()
                .map_or(PLAIN_LIMIT, |edns| usize::from(edns.max_payload()).clamp(PLAIN_LIMIT, MAX_DATAGRAM)),
        }
    }

    /// An answer with these addresses, as many of them as `limit` allows. (Some clients use what is in a truncated
    /// answer and never ask again by TCP, so that it should hold something.)
    pub(super) fn addresses(&self, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        let mut room = limit.saturating_sub(self.overhead());
        let fits = |address: &&IpAddr| {
            let length = RECORD + if address.is_ipv4() { 4 } else { 16 };
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        };
        let count = addresses.iter().take_while(fits).count();
        let mut reply = self.reply(ResponseCode::NoError);
        reply.metadata.truncation = count < addresses.len();
        let mut bytes = Vec::with_capacity(limit.min(self.overhead() + addresses.len() * (RECORD + 16)));
        let written = emit_message_parts(
            &reply.metadata,
            &mut reply.queries.iter(),
            &mut Addresses(&addresses[..count]),
            &mut std::iter::empty::<&Record>(),
            &mut std::iter::empty::<&Record>(),
            reply.edns.as_ref(),
            None,
            &mut BinEncoder::new(&mut bytes),
        );
        if written.is_ok() { bytes } else { Vec::new() }
    }

    /// An answer that an address has this name. `None` when it cannot be written as one.
    pub(super) fn pointer(&self, name: &str, limit: usize) -> Option<Vec<u8>> {
        let mut name = Name::from_ascii(name).ok()?;
        name.set_fqdn(true);
        let mut message = self.reply(ResponseCode::NoError);
        if self.overhead() + RECORD + name.len() < limit {
            let data = RData::PTR(PTR(name));
            message.add_answer(Record::from_rdata(self.query.name().clone(), TIME_TO_LIVE, data));
        } else {
            message.metadata.truncation = true;
        }
        Some(encode(&message))
    }

    /// An answer that says what went wrong.
    pub(super) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        encode(&self.reply(code))
    }

    /// An answer without any records, to come back by TCP for them.
    pub(super) fn truncated(&self) -> Vec<u8> {
        let mut message = self.reply(ResponseCode::NoError);
        message.metadata.truncation = true;
        encode(&message)
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut message = empty(&self.metadata, code);
        message.add_query(self.query.clone());
        if let Some(asked) = &self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_QUERY as u16);
            edns.set_version(0);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        message
    }

    /// Bytes of an answer besides its records.
    fn overhead(&self) -> usize {
        // The record of EDNS: name, type, class, TTL, length.
        self.end + if self.edns.is_some() { 11 } else { 0 }
    }
}

/// Bytes of a record without its data: a pointer to the question's name, type, class, TTL, length.
const RECORD: usize = 12;

/// Address records of the name in the question. hickory's own writing of records gives up shortening names after a
/// hundred of them.
struct Addresses<'a>(&'a [IpAddr]);

impl EmitAndCount for Addresses<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        for address in self.0 {
            let (kind, data) = match *address {
                IpAddr::V4(address) => (RecordType::A, RData::A(A(address))),
                IpAddr::V6(address) => (RecordType::AAAA, RData::AAAA(AAAA(address))),
            };
            encoder.emit_u16(QUESTION_NAME)?;
            kind.emit(encoder)?;
            DNSClass::IN.emit(encoder)?;
            encoder.emit_u32(TIME_TO_LIVE)?;
            encoder.emit_u16(if address.is_ipv4() { 4 } else { 16 })?;
            data.emit(encoder)?;
        }
        Ok(self.0.len())
    }
}

/// A pointer to the name in the question (RFC 1035, 4.1.4), which follows the header.
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

/// An answer without question or records.
fn empty(asked: &Metadata, code: ResponseCode) -> Message {
    let mut message = Message::new(asked.id, MessageType::Response, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message
}

fn bare(asked: &Metadata, code: ResponseCode) -> Vec<u8> {
    encode(&empty(asked, code))
}

/// Nothing we build is too long or has a name that came from elsewhere than a message; if it had, it would be silence.
fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

/// What a server's message is to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer to something else: to be ignored.
    Foreign,
    /// The server cannot or will not answer; another one may.
    Failure,
    /// The answer.
    Answer,
}

/// Judges `answer`, which has come from the server that `query` was sent to (its question ends at `end`).
pub(super) fn judge(query: &[u8], end: usize, answer: &[u8]) -> Verdict {
    let (Some(header), Some(question)) = (answer.get(..HEADER), query.get(HEADER..end)) else {
        return Verdict::Foreign;
    };
    let (is_answer, operation, code) = (header[2] & 0x80 != 0, header[2] >> 3 & 0xf, header[3] & 0xf);
    if header[..2] != query[..2] || !is_answer || operation != 0 {
        return Verdict::Foreign;
    }
    let failed = matches!(code, SERVER_FAILURE | REFUSED);
    match header[4..6] {
        [0, 1] => {
            // Letters may come back in another case; type and class are numbers.
            let (name, numbers) = question.split_at(question.len().saturating_sub(4));
            let same = answer.get(HEADER..end).is_some_and(|other| {
                let (other_name, other_numbers) = other.split_at(name.len());
                other_name.eq_ignore_ascii_case(name) && other_numbers == numbers
            });
            match (same, failed) {
                (false, _) => Verdict::Foreign,
                (true, true) => Verdict::Failure,
                (true, false) => Verdict::Answer,
            }
        }
        // Some servers leave the question out when they fail.
        [0, 0] if code != 0 => {
            if failed {
                Verdict::Failure
            } else {
                Verdict::Answer
            }
        }
        _ => Verdict::Foreign,
    }
}

/// `RCODE`s (RFC 1035, 4.1.1).
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// Makes a server's answer the answer to the client's query: its id, and its letters in the question.
pub(super) fn readdress(answer: &mut [u8], query: &[u8], end: usize, id: [u8; 2]) {
    answer[..2].copy_from_slice(&id);
    if answer[4..6] == [0, 1] {
        answer[HEADER..end].copy_from_slice(&query[HEADER..end]);
    }
}
