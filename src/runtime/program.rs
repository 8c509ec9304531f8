//! What kind of program a file is, told from its first bytes as the kernel's loaders tell it (elf(5), execve(2)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read of a file's beginning.
const HEAD: usize = 4096;
/// The kernel looks for the end of a `#!` line within this many bytes (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: usize = 256;
/// Program headers looked at; real programs have about a dozen.
const HEADERS: u16 = 128;
/// Longest loader name accepted, as in the kernel (`PATH_MAX`).
const LOADER: u64 = 4096;
/// `PT_INTERP`: the program header that names the loader.
const PT_INTERP: u64 = 3;

/// A file that was asked to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// Nothing in it.
    Empty,
    /// Begins with `#!`; the interpreter as the kernel reads it, a carriage return included.
    Script(Vec<u8>),
    /// A `#!` whose line has no interpreter, or does not end where the kernel still looks.
    BadScript,
    /// Begins with a byte order mark and then `#!`, which the kernel does not take for one.
    MarkedScript,
    /// An ELF file.
    Elf(Elf),
    /// ELF magic, but the rest of the header is cut short or contradicts itself.
    BadElf,
    /// A program of another system (`Windows`, `macOS`).
    Foreign(&'static str),
    /// Plain text.
    Text,
    /// Anything else.
    Data,
}

/// What matters of an ELF header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elf {
    /// 32 or 64.
    pub(super) bits: u8,
    /// `e_machine`.
    pub(super) machine: u16,
    /// `e_type` is that of an object file: compiled, not linked.
    pub(super) unlinked: bool,
    /// The loader in `PT_INTERP`; `None` for a static program.
    pub(super) loader: Option<Vec<u8>>,
}

impl Program {
    /// Looks at `file`; reads some thousand bytes whatever the file says.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let mut head = vec![0; HEAD];
        let length = read_at(file, &mut head, 0)?;
        head.truncate(length);
        Ok(match head.as_slice() {
            [] => Program::Empty,
            [b'#', b'!', line @ ..] => script(line),
            [0xef, 0xbb, 0xbf, b'#', b'!', ..] => Program::MarkedScript,
            [0x7f, b'E', b'L', b'F', ..] => Elf::parse(file, &head).map_or(Program::BadElf, Program::Elf),
            [b'M', b'Z', ..] => Program::Foreign("Windows"),
            [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => Program::Foreign("macOS"),
            _ if is_text(&head) => Program::Text,
            _ => Program::Data,
        })
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A `#!` line as `binfmt_script` takes it apart: blanks are spaces and tabs, nothing else.
fn script(line: &[u8]) -> Program {
    let seen = &line[..line.len().min(SCRIPT_HEAD - 2)];
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = seen.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let cut_short = line.len() == SCRIPT_HEAD - 2;
    let start = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
    let rest = &line[start..];
    let end = rest.iter().position(|byte| is_blank(byte) || *byte == 0);
    if rest.is_empty() || (cut_short && end.is_none()) {
        return Program::BadScript;
    }
    Program::Script(rest[..end.unwrap_or(rest.len())].to_vec())
}

fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two at the end of what was read.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or(""),
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x0c' | '\x1b'))
}

/// Numbers in a file's own byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn number(&self, offset: usize, width: usize) -> Option<u64> {
        let field = self.bytes.get(offset..offset.checked_add(width)?)?;
        let shift = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.big_endian { field.iter().fold(0, shift) } else { field.iter().rev().fold(0, shift) })
    }

    fn half(&self, offset: usize) -> Option<u16> {
        self.number(offset, 2).map(|value| value as u16)
    }
}

impl Elf {
    /// `None` when the header is no ELF header after all.
    fn parse(file: &File, head: &[u8]) -> Option<Self> {
        let bits = match head.get(4)? {
            1 => 32,
            2 => 64,
            _ => return None,
        };
        let big_endian = match head.get(5)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let fields = Fields { bytes: head, big_endian };
        let kind = fields.half(16)?;
        let machine = fields.half(18)?;
        let (table, size, count, entry) = if bits == 64 {
            (fields.number(32, 8)?, fields.half(54)?, fields.half(56)?, 56)
        } else {
            (fields.number(28, 4)?, fields.half(42)?, fields.half(44)?, 32)
        };
        let unlinked = kind == 1;
        // ET_EXEC and ET_DYN have program headers, or the kernel would not run them.
        if !unlinked && (!matches!(kind, 2 | 3) || count == 0 || size != entry) {
            return None;
        }
        let mut elf = Elf { bits, machine, unlinked, loader: None };
        let mut header = vec![0; usize::from(entry)];
        for index in 0..if unlinked { 0 } else { count.min(HEADERS) } {
            let offset = table.checked_add(u64::from(index) * u64::from(entry))?;
            if read_at(file, &mut header, offset).ok()? < header.len() {
                return None;
            }
            let fields = Fields { bytes: &header, big_endian };
            if fields.number(0, 4)? == PT_INTERP {
                let (at, length) = if bits == 64 {
                    (fields.number(8, 8)?, fields.number(32, 8)?)
                } else {
                    (fields.number(4, 4)?, fields.number(16, 4)?)
                };
                let mut name = vec![0; length.min(LOADER) as usize];
                let length = read_at(file, &mut name, at).ok()?;
                name.truncate(length);
                elf.loader = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty()).map(<[u8]>::to_vec);
                break;
            }
        }
        Some(elf)
    }

    /// The machine the program is for (`x86-64`, `aarch64`, …).
    pub(super) fn machine_name(&self) -> String {
        let known = MACHINES.iter().find(|(number, ..)| *number == self.machine);
        known.map_or_else(|| format!("machine type {}", self.machine), |(_, name, _)| (*name).to_owned())
    }

    /// Whether the kernel says it is `uname`'s machine (`uname -m`); true when that is not known here.
    pub(super) fn is_for(&self, uname: &str) -> bool {
        match MACHINES.iter().find(|(_, _, machine)| *machine == uname) {
            Some((number, ..)) => *number == self.machine,
            None => true,
        }
    }

    /// A 32-bit program for the 32-bit side of this very machine, which needs no emulator.
    pub(super) fn is_compatible(&self) -> bool {
        (cfg!(target_arch = "x86_64") && self.machine == 3) || (cfg!(target_arch = "aarch64") && self.machine == 40)
    }
}

/// `e_machine`, its name, and what `uname -m` says on such a machine.
const MACHINES: [(u16, &str, &str); 12] = [
    (62, "x86-64", "x86_64"),
    (183, "aarch64 (arm64)", "aarch64"),
    (3, "i386", "i686"),
    (40, "arm", "armv7l"),
    (243, "riscv", "riscv64"),
    (21, "ppc64", "ppc64le"),
    (20, "ppc", "ppc"),
    (22, "s390x", "s390x"),
    (8, "mips", "mips64"),
    (258, "loongarch", "loongarch64"),
    (43, "sparc64", "sparc64"),
    (15, "parisc", "parisc"),
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A 64-bit little-endian header for `machine` with one program header that names `loader`.
    pub(in crate::runtime) fn elf64(machine: u16, loader: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        bytes[6] = 1;
        bytes[16] = 2;
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[20] = 1;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[52] = 64;
        bytes[64] = PT_INTERP as u8;
        bytes[72] = 120;
        let length = loader.len() as u64 + 1;
        bytes[96..104].copy_from_slice(&length.to_le_bytes());
        bytes.extend(loader.bytes());
        bytes.push(0);
        bytes
    }

    fn of(bytes: &[u8]) -> Program {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Program::of(&file).unwrap()
    }

    #[test]
    fn first_lines_are_read_as_the_kernel_does() {
        assert_eq!(of(b"#!/bin/sh\necho"), Program::Script(b"/bin/sh".to_vec()));
        assert_eq!(of(b"#! \t/usr/bin/env bash\n"), Program::Script(b"/usr/bin/env".to_vec()));
        assert_eq!(of(b"#!/bin/sh\r\necho\r\n"), Program::Script(b"/bin/sh\r".to_vec()));
        assert_eq!(of(b"#!/bin/sh"), Program::Script(b"/bin/sh".to_vec()));
        assert_eq!(of(b"#!\n/bin/sh"), Program::BadScript);
        assert_eq!(of(b"#!"), Program::BadScript);
        assert_eq!(of(format!("#!/{}\n", "x".repeat(300)).as_bytes()), Program::BadScript);
        assert_eq!(of(format!("#!/bin/sh {}\n", "x".repeat(300)).as_bytes()), Program::Script(b"/bin/sh".to_vec()));
        assert_eq!(of(b"\xef\xbb\xbf#!/bin/sh\n"), Program::MarkedScript);
    }

    #[test]
    fn what_is_no_program_is_told_apart() {
        assert_eq!(of(b""), Program::Empty);
        assert_eq!(of("echo héllo\n".repeat(1000).as_bytes()), Program::Text);
        assert_eq!(of(b"MZ\x90\0"), Program::Foreign("Windows"));
        assert_eq!(of(&[0xcf, 0xfa, 0xed, 0xfe, 7, 0, 0, 1]), Program::Foreign("macOS"));
        assert_eq!(of(&[0x1f, 0x8b, 8, 0]), Program::Data);
    }

    #[test]
    fn elf_headers_give_machine_and_loader() {
        let elf = |machine, loader: Option<&str>| Elf {
            bits: 64,
            machine,
            unlinked: false,
            loader: loader.map(|name| name.as_bytes().to_vec()),
        };
        assert_eq!(of(&elf64(62, "/lib/ld.so")), Program::Elf(elf(62, Some("/lib/ld.so"))));
        assert_eq!(of(&elf64(183, "")), Program::Elf(elf(183, None)));
        let own = Program::of(&File::open("/proc/self/exe").unwrap()).unwrap();
        let Program::Elf(own) = own else { panic!("{own:?}") };
        let machine = rustix::system::uname().machine().to_str().unwrap().to_owned();
        assert!(own.is_for(&machine), "{own:?} on {machine}");
    }

    #[test]
    fn damaged_headers_neither_panic_nor_pass() {
        let whole = elf64(62, "/lib/ld.so");
        for length in 4..64 {
            assert_eq!(of(&whole[..length]), Program::BadElf, "{length}");
        }
        // Every byte of the header set to its extremes: whatever comes out, it comes out.
        for index in 4..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[index] = value;
                of(&bytes);
            }
        }
    }
}
