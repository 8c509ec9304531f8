//! The order in which people count: `n2` before `n10`.

use std::cmp::Ordering;

/// Compares texts with the numbers in them taken as numbers.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        let ordering = match (digits(left), digits(right)) {
            (0, _) | (_, 0) => match (left.first(), right.first()) {
                // Texts that differ in leading zeros only are still told apart.
                (None, None) => return a.cmp(b),
                (x, y) if x == y => {
                    (left, right) = (&left[1..], &right[1..]);
                    continue;
                }
                (x, y) => return x.cmp(&y),
            },
            (m, n) => {
                let ordering = number(&left[..m]).cmp(&number(&right[..n]));
                (left, right) = (&left[m..], &right[n..]);
                ordering
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Of any length: first by how many digits there are, then by them.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_numbers() {
        let mut names =
            ["n10", "n2", "n", "a", "n02", "b1c10", "b1c9", "", "n184467440737095516160", "80/tcp", "443/tcp"];
        names.sort_by(|a, b| super::order(a, b));
        assert_eq!(
            names,
            ["", "80/tcp", "443/tcp", "a", "b1c9", "b1c10", "n", "n02", "n2", "n10", "n184467440737095516160"]
        );
    }
}
