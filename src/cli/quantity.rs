//! Numbers as people write them: sizes in and out.

/// A size in bytes where `k` is 1024: `64m`, `1.5g`, `64MiB`, `65536` (memory, `--shm-size`).
pub(super) fn binary_size(text: &str) -> Option<u64> {
    size(text, 1024)
}

/// A size in bytes where `k` is 1000 (log sizes).
pub(super) fn decimal_size(text: &str) -> Option<u64> {
    size(text, 1000)
}

fn size(text: &str, base: u64) -> Option<u64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let (prefix, rest) = match unit.chars().next() {
        Some(letter @ ('k' | 'm' | 'g' | 't' | 'p')) => (Some(letter), &unit[1..]),
        _ => (None, unit.as_str()),
    };
    let power = match (prefix, rest) {
        (None, "" | "b") => 0,
        (Some(letter), "" | "b" | "ib") => "kmgtp".find(letter)? as u32 + 1,
        _ => return None,
    };
    let factor = base.checked_pow(power)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes =
        number.parse::<f64>().ok().filter(|_| number.bytes().any(|byte| byte.is_ascii_digit()))? * factor as f64;
    // Below 2^53 every whole number of bytes is exact; above, nobody counts single bytes.
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// A size for people, powers of 1000, three digits: `12.3MB`.
pub(super) fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A size for people, powers of 1000, four digits, as sums are shown: `12.35MB`.
pub(super) fn human_sum(bytes: u64) -> String {
    scaled(bytes, 1000.0, 4, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A size for people, powers of 1024, four digits: `7.753GiB`.
pub(super) fn human_memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// So many significant digits, zeros after the point left out.
fn scaled(bytes: u64, base: f64, digits: i32, units: &[&str]) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    let before = if size < 1.0 { 1 } else { size.log10().floor() as i32 + 1 };
    let decimals = (digits - before).max(0) as usize;
    let text = format!("{size:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("32b", 32),
            ("1k", 1024),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("1 g", 1 << 30),
        ] {
            assert_eq!(binary_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1kk", "1 kb b", ".", "1..5", "99999999999999999999", "1e3", "20000p"] {
            assert_eq!(binary_size(bad), None, "{bad}");
        }
        assert_eq!(decimal_size("10m"), Some(10_000_000));
    }

    #[test]
    fn sizes_are_shown_as_docker_shows_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (12_345_678, "12.3MB"),
            (4_260_000, "4.26MB"),
            (123_456_789, "123MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_sum(12_345_678), "12.35MB");
        assert_eq!(human_memory(8_324_415_488), "7.753GiB");
    }
}
