//! The keys with which a user leaves a container without ending it.

/// Recognises the detach sequence; bytes that begin it are held back until it is clear.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Looks for `keys`; none when they are empty.
    pub fn new(keys: Vec<u8>) -> DetachKeys {
        DetachKeys { keys, matched: 0 }
    }

    /// There is a sequence to look for.
    pub fn any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What has been typed of the sequence and not been passed on.
    pub fn held_back(&self) -> &[u8] {
        &self.keys[..self.matched]
    }

    /// Appends what is to be passed on to `out`; true when the sequence is complete.
    pub fn filter(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(bytes);
            return false;
        }
        for &byte in bytes {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0]);
            if self.matched == 0 {
                out.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_keys(keys: &[u8], chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detach = DetachKeys::new(keys.to_vec());
        let mut out = Vec::new();
        let done = chunks.iter().any(|chunk| detach.filter(chunk, &mut out));
        (out, done)
    }

    #[test]
    fn detach_keys_are_found_across_reads_and_never_swallow_others() {
        assert_eq!(type_keys(b"\x10\x11", &[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(type_keys(b"\x10\x11", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(type_keys(b"\x10\x11", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(type_keys(b"", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
