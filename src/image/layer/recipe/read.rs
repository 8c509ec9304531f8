//! Recipes as they are read: a tar, told again.
//!
//! A recipe may be damaged. Every number is checked before it is used, and nothing is allocated by what one says.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use flate2::Crc;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::{
    BLOCK_OP, CLASS_SHIFT, COMPUTED, Class, END, FILE, MAGIC, MAX_PATH, OFFSET, OPERATION, PATH_IN_RECORDS,
    PATH_IS_GIVEN, PATH_SHIFT, Previous, RAW, ZEROS, checksum_field, invalid, path_in,
};
use crate::error::Failure;
use crate::image::tar::header::{BLOCK, CHECKSUM, shown};

const BUFFER: usize = 64 << 10;

/// Where a recipe may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// At its END, whose length and checksum are right.
    Sealed,
    /// After any operation.
    Anywhere,
}

/// Reads a tar from a recipe and the files that it speaks of.
pub(super) struct Teller {
    recipe: Recipe,
    root: OwnedFd,
    ending: Ending,
    previous: Box<Previous>,
    told: u64,
    now: Now,
    /// The last file, which is likely to be the next one's as well when it has holes.
    last: Option<(Vec<u8>, File)>,
}

/// The operation that is putting out bytes.
enum Now {
    Between,
    Raw(u64),
    Zeros(u64),
    /// A block, of which so many bytes are out.
    Block(Box<[u8; BLOCK]>, usize),
    File {
        position: u64,
        left: u64,
        crc: Crc,
        expected: u32,
    },
    Ended,
}

/// The numbers and bytes that a recipe consists of.
struct Recipe(BufReader<File>);

impl Recipe {
    fn exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid("the layer's recipe is cut short"),
            _ => error,
        })
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let digits = u64::from(byte & 0x7f);
            if digits << shift >> shift != digits {
                break;
            }
            value |= digits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    /// A number that must be below `limit`.
    fn index(&mut self, limit: usize) -> io::Result<usize> {
        usize::try_from(self.number()?).ok().filter(|value| *value < limit).ok_or_else(damaged)
    }

    fn crc(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn damaged() -> io::Error {
    invalid("the layer's recipe is damaged")
}

/// Compares the checksum at the end of a recipe, before anything that it says is believed.
fn check(mut recipe: &File) -> io::Result<()> {
    let length = recipe.metadata()?.len();
    let mut left = length.checked_sub(4).ok_or_else(damaged)?;
    let mut crc = Crc::new();
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        recipe.read_exact(&mut buffer[..wanted])?;
        crc.update(&buffer[..wanted]);
        left -= wanted as u64;
    }
    let mut expected = [0; 4];
    recipe.read_exact(&mut expected)?;
    recipe.rewind()?;
    if u32::from_le_bytes(expected) == crc.sum() { Ok(()) } else { Err(damaged()) }
}

impl Teller {
    pub(super) fn new(recipe: File, root: OwnedFd, ending: Ending) -> Result<Teller> {
        if ending == Ending::Sealed {
            check(&recipe).context("read recipe of the layer")?;
        }
        let mut recipe = Recipe(BufReader::with_capacity(BUFFER, recipe));
        let mut magic = [0; MAGIC.len()];
        recipe.exact(&mut magic).context("read recipe of the layer")?;
        if magic != MAGIC {
            return Err(Failure::engine("the layer's recipe is damaged, or of a newer mydocker")
                .with_hint("remove the image and pull or load it again")
                .into());
        }
        let previous = Box::new([[0; BLOCK]; 3]);
        Ok(Teller { recipe, root, ending, previous, told: 0, now: Now::Between, last: None })
    }

    /// Takes the next operation.
    fn advance(&mut self) -> io::Result<()> {
        if self.ending == Ending::Anywhere && self.recipe.0.fill_buf()?.is_empty() {
            self.now = Now::Ended;
            return Ok(());
        }
        let first = self.recipe.byte()?;
        let (length, now) = match first & OPERATION {
            RAW => {
                let length = self.recipe.number()?;
                (length, Now::Raw(length))
            }
            ZEROS => {
                let length = self.recipe.number()?;
                (length, Now::Zeros(length))
            }
            BLOCK_OP => (BLOCK as u64, Now::Block(Box::new(self.block(first)?), 0)),
            FILE => self.file(first)?,
            END if first == END => return self.end(),
            _ => return Err(damaged()),
        };
        self.told = self.told.checked_add(length).ok_or_else(damaged)?;
        self.now = now;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let told = self.recipe.number()?;
        self.recipe.crc()?;
        if told != self.told || !self.recipe.0.fill_buf()?.is_empty() {
            return Err(damaged());
        }
        self.now = Now::Ended;
        Ok(())
    }

    fn block(&mut self, first: u8) -> io::Result<[u8; BLOCK]> {
        let class = usize::from(first >> CLASS_SHIFT & 0b11);
        let mut block = *self.previous.get(class).ok_or_else(damaged)?;
        let mut at = 0;
        while at < BLOCK {
            at += self.recipe.index(BLOCK - at + 1)?;
            if at < BLOCK {
                let length = self.recipe.index(BLOCK - at + 1)?;
                // Each round but the last says something: else this would not end.
                if length == 0 {
                    return Err(damaged());
                }
                self.recipe.exact(&mut block[at..at + length])?;
                at += length;
            }
        }
        if first & COMPUTED != 0 {
            let field = checksum_field(&block);
            block[CHECKSUM].copy_from_slice(&field);
        }
        self.previous[class] = block;
        Ok(block)
    }

    fn file(&mut self, first: u8) -> io::Result<(u64, Now)> {
        let path = match first >> PATH_SHIFT & 0b11 {
            PATH_IN_RECORDS => {
                let start = self.recipe.index(BLOCK)?;
                let length = self.recipe.index(BLOCK - start + 1)?;
                self.previous[Class::Records as usize][start..start + length].to_vec()
            }
            PATH_IS_GIVEN => {
                let mut path = vec![0; self.recipe.index(MAX_PATH + 1)?];
                self.recipe.exact(&mut path)?;
                path
            }
            place => path_in(&self.previous, place),
        };
        let position = if first & OFFSET == 0 { 0 } else { self.recipe.number()? };
        let left = self.recipe.number()?;
        let expected = self.recipe.crc()?;
        if self.last.as_ref().is_none_or(|(known, _)| *known != path) {
            let file = self.open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("open {} of the layer: {error}", shown(&path)))
            })?;
            self.last = Some((path, file));
        }
        Ok((left, Now::File { position, left, crc: Crc::new(), expected }))
    }

    fn open(&self, path: &[u8]) -> io::Result<File> {
        // Not to wait for the other end should a fifo stand where a file did.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = |extra| {
            loop {
                match openat2(self.root.as_fd(), path, flags | extra, Mode::empty(), resolve) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => return other,
                }
            }
        };
        let file = match open(OFlags::NOATIME) {
            // Allowed to the owner and to who may act as such (open(2)).
            Err(Errno::PERM) => open(OFlags::empty())?,
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(invalid("it is no regular file any more"));
        }
        Ok(file.into())
    }

    /// Reads from the file that is being told.
    fn read_file(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let (Now::File { position, left, crc, expected }, Some((path, file))) = (&mut self.now, &self.last) else {
            return Err(damaged());
        };
        let wanted = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let count = file.read_at(&mut buffer[..wanted], *position)?;
        if count == 0 && wanted > 0 {
            return Err(invalid(format!("{} of the layer is shorter than it was", shown(path))));
        }
        crc.update(&buffer[..count]);
        *position = position.checked_add(count as u64).ok_or_else(damaged)?;
        *left -= count as u64;
        if *left == 0 {
            if crc.sum() != *expected {
                return Err(invalid(format!("{} of the layer is not as it was unpacked", shown(path))));
            }
            self.now = Now::Between;
        }
        Ok(count)
    }
}

impl Read for Teller {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // Small pieces together: who reads much at a time must not get it header by header.
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let within = |left: u64| rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            filled += match &mut self.now {
                Now::Ended => break,
                Now::Between => {
                    self.advance()?;
                    0
                }
                Now::Raw(0) | Now::Zeros(0) => {
                    self.now = Now::Between;
                    0
                }
                Now::Raw(left) => {
                    let count = within(*left);
                    *left -= count as u64;
                    self.recipe.exact(&mut rest[..count])?;
                    count
                }
                Now::Zeros(left) => {
                    let count = within(*left);
                    *left -= count as u64;
                    rest[..count].fill(0);
                    count
                }
                Now::Block(block, out) => {
                    let count = within((BLOCK - *out) as u64);
                    rest[..count].copy_from_slice(&block[*out..*out + count]);
                    *out += count;
                    if *out == BLOCK {
                        self.now = Now::Between;
                    }
                    count
                }
                Now::File { .. } => self.read_file(rest)?,
            };
        }
        Ok(filled)
    }
}
