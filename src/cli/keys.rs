//! `--detach-keys`: `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`.

/// The bytes of a key sequence; the error says which key is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, String> {
    text.split(',').map(|key| code(key).ok_or_else(|| format!("unknown key {key:?}"))).collect()
}

fn code(key: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    };
    let Some(letter) = key.strip_prefix("ctrl-") else { return single(key) };
    match single(letter)? {
        letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' => Some(0),
        mark @ b'['..=b'_' => Some(mark - b'[' + 27),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_become_bytes() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", vec![16, 17]),
            ("a", vec![b'a']),
            ("ctrl-@", vec![0]),
            ("ctrl-[", vec![27]),
            ("ctrl-\\,ctrl-],ctrl-^,ctrl-_", vec![28, 29, 30, 31]),
            ("ctrl-a,x,Y", vec![1, b'x', b'Y']),
        ] {
            assert_eq!(super::parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "ctrl-", "ctrl-aa", "ctrl-A", "ab", "a,,b", "ctrl-ä"] {
            assert!(super::parse(bad).is_err(), "{bad}");
        }
    }
}
