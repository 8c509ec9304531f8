//! The files of one log: found as one consistent set while a writer may be rotating them, and read
//! by lines, forwards and backwards, in memory that no file can stretch.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Bytes read at once, and the longest line that is looked at: twice what a record can take.
const BLOCK: usize = 256 * 1024;
/// Bytes read at once when reading backwards, usually for a few lines only.
const BLOCK_BACK: usize = 64 * 1024;

/// The path of the file that was rotated `number` rotations ago.
pub(in crate::engine) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// One file of the log, held open so that rotation cannot take it from us.
#[derive(Debug)]
pub(in crate::engine) struct LogFile {
    pub(in crate::engine) file: File,
    /// Device and inode: which file it is, whatever its name has become.
    pub(in crate::engine) identity: (u64, u64),
    /// Bytes in it when it was opened.
    pub(in crate::engine) length: u64,
}

/// Which file has the name `path` now; `None` for none.
pub(in crate::engine) fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("inspect log {}", path.display())),
    }
}

/// Times the files are listed anew because the writer rotated meanwhile: less than a second of a writer that does
/// nothing else, on a machine that gives us little time.
const ROTATIONS: usize = 10_000;

/// Opens all files of the log at `path`, oldest first. There may be none.
pub(in crate::engine) fn open_all(path: &Path) -> Result<Vec<LogFile>> {
    for _ in 0..ROTATIONS {
        let before = identity(path)?;
        let files = open_listed(path)?;
        // Each rotation gives the name to another file, by way of none. Two of them between two of
        // our looks would show a newer file under an older number.
        let still = before.is_some() && identity(path)? == before;
        if still || files.is_empty() {
            return Ok(files);
        }
    }
    open_listed(path)
}

fn open_listed(path: &Path) -> Result<Vec<LogFile>> {
    let mut listed = numbers(path)?;
    let mut files: Vec<LogFile> = Vec::new();
    // From the newest on: rotation only moves files further along this way, so none is missed, and
    // one that is met twice is known by its inode, which cannot be reused while we hold it open.
    let mut number = Some(0);
    while let Some(current) = number {
        listed.remove(&current);
        let name = if current == 0 { path.to_owned() } else { rotated(path, current) };
        let opened = File::open(&name).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        number = match opened {
            Ok((file, metadata)) => {
                let identity = (metadata.dev(), metadata.ino());
                if files.iter().all(|known| known.identity != identity) {
                    files.push(LogFile { file, identity, length: metadata.len() });
                }
                // A file may have moved to a number that was not there when we listed.
                current.checked_add(1)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => listed.first().copied(),
            Err(error) => return Err(error).with_context(|| format!("open log {}", name.display())),
        };
    }
    files.reverse();
    Ok(files)
}

/// The numbers of rotated files there are.
fn numbers(path: &Path) -> Result<BTreeSet<u32>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(BTreeSet::new()) };
    let prefix = format!("{}.", name.display());
    let mut numbers = BTreeSet::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        numbers.extend(number.filter(|&number| number > 0));
    }
    Ok(numbers)
}

/// Lines of a file from an offset on. Only whole lines come out: what has no newline yet is left
/// where it is and looked for again next time, because a writer may take back a torn record.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// The part of the buffer that was not handed out.
    start: usize,
    end: usize,
    /// Where in the file `start` lies.
    offset: u64,
    /// Within a line that is too long to look at.
    skipping: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        Lines { buffer: Vec::new(), start: 0, end: 0, offset: 0, skipping: false }
    }

    /// Where in the file the next line begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes to `offset`, perhaps of another file.
    pub(super) fn seek(&mut self, offset: u64) {
        (self.start, self.end, self.offset, self.skipping) = (0, 0, offset, false);
    }

    /// The next whole line, its newline included, ending before `limit` bytes of the file; `None` at
    /// the end as it is now.
    pub(super) fn next(&mut self, file: &File, limit: u64) -> io::Result<Option<&[u8]>> {
        if self.buffer.is_empty() {
            self.buffer.resize(BLOCK, 0);
        }
        // What of the buffer is known to hold no newline.
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.start + searched..self.end]) {
                let line = self.start..self.start + searched + at + 1;
                searched = 0;
                self.start = line.end;
                self.offset += line.len() as u64;
                if !std::mem::take(&mut self.skipping) {
                    return Ok(Some(&self.buffer[line]));
                }
                continue;
            }
            searched = self.end - self.start;
            if searched == BLOCK {
                self.offset += BLOCK as u64;
                (self.start, self.end, searched, self.skipping) = (0, 0, 0, true);
            } else if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, searched);
            }
            let position = self.offset + searched as u64;
            let room = (BLOCK - searched).min(usize::try_from(limit.saturating_sub(position)).unwrap_or(usize::MAX));
            let count = read_at(file, &mut self.buffer[self.end..self.end + room], position)?;
            if count == 0 {
                self.end = self.start;
                return Ok(None);
            }
            self.end += count;
        }
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lines of a file from its end backwards.
#[derive(Debug)]
pub(in crate::engine) struct LinesBack<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were not handed out.
    end: usize,
    /// Where in the file the buffer begins.
    offset: u64,
    /// The line that ends at `end` was too long to look at and is thrown away already.
    skipping: bool,
}

impl<'a> LinesBack<'a> {
    /// From the byte before `length`.
    pub(in crate::engine) fn new(file: &'a File, length: u64) -> Self {
        LinesBack { file, buffer: Vec::new(), end: 0, offset: length, skipping: false }
    }

    /// The line before, with its newline (the last of the file may have none), and where in the file
    /// it begins; `None` before the first.
    pub(in crate::engine) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            let inside = self.end.saturating_sub(1);
            let start = match self.buffer[..inside].iter().rposition(|&byte| byte == b'\n') {
                Some(at) => at + 1,
                None if self.offset == 0 && self.end == 0 => return Ok(None),
                None if self.offset == 0 => 0,
                None => {
                    self.fill()?;
                    continue;
                }
            };
            let line = start..self.end;
            self.end = start;
            if !std::mem::take(&mut self.skipping) {
                return Ok(Some((self.offset + start as u64, &self.buffer[line])));
            }
        }
    }

    /// Puts the block before in front of what is left.
    fn fill(&mut self) -> io::Result<()> {
        if self.end > BLOCK {
            // Its last byte stays, to mark that there is a line.
            (self.end, self.skipping) = (1, true);
        }
        let count = usize::try_from(self.offset).unwrap_or(usize::MAX).min(BLOCK_BACK);
        self.offset -= count as u64;
        self.buffer.resize(self.buffer.len().max(self.end + count), 0);
        self.buffer.copy_within(..self.end, count);
        self.end += count;
        let mut filled = 0;
        while filled < count {
            match read_at(self.file, &mut self.buffer[filled..count], self.offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        // A writer may have taken back a torn record since we looked: that is a damaged line.
        self.buffer[filled..count].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(contents: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, contents).unwrap();
        let file = File::open(&path).unwrap();
        let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
        let mut lines = Lines::new();
        while let Some(line) = lines.next(&file, u64::MAX).unwrap() {
            forwards.push(line.to_vec());
        }
        let mut lines = LinesBack::new(&file, contents.len() as u64);
        while let Some((offset, line)) = lines.next().unwrap() {
            assert_eq!(&contents[offset as usize..offset as usize + line.len()], line);
            backwards.insert(0, line.to_vec());
        }
        (forwards, backwards)
    }

    #[test]
    fn both_ways_give_the_same_lines_and_leave_out_those_too_long() {
        let long = [vec![b'x'; 5 * BLOCK], b"\n".to_vec()].concat();
        for lengths in [vec![0, 1, 2], vec![BLOCK_BACK - 1, BLOCK_BACK, 3, BLOCK - 1], vec![100; 9000]] {
            let lines: Vec<Vec<u8>> = lengths.iter().map(|&n| [vec![b'y'; n], b"\n".to_vec()].concat()).collect();
            assert_eq!(both_ways(&lines.concat()), (lines.clone(), lines.clone()));
            for at in [0, 1, lines.len()] {
                let mut with_long = lines.clone();
                with_long.insert(at, long.clone());
                assert_eq!(both_ways(&with_long.concat()), (lines.clone(), lines.clone()), "at {at}");
            }
        }
        assert_eq!(both_ways(b""), (vec![], vec![]));
        assert_eq!(both_ways(b"a\nb"), (vec![b"a\n".to_vec()], vec![b"a\n".to_vec(), b"b".to_vec()]));
    }

    #[test]
    fn gaps_in_the_numbers_hide_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (name, text) in [("log", "c"), ("log.2", "bb"), ("log.10", "aaa"), ("log.x", "?"), ("log.0", "?")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let lengths: Vec<u64> = open_all(&path).unwrap().iter().map(|file| file.length).collect();
        assert_eq!(lengths, [3, 2, 1]);
    }
}
