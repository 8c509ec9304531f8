//! Names for containers that were given none: an adjective and a scientist's surname.
//!
//! A hundred of each make ten thousand; whoever claims the name retries with [`Attempt::Again`],
//! which appends a digit, so that a machine full of containers still finds a free one.

/// Whether the name before this one turned out to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// No name has been tried.
    First,
    /// A name was taken: the next ends in a random digit.
    Again,
}

const ADJECTIVES: [&str; 104] = [
    "able", "agile", "amber", "ample", "apt", "azure", "bold", "brave", "breezy", "bright", "brisk", "bubbly", "calm",
    "candid", "careful", "cheerful", "civil", "clear", "clever", "cosy", "crisp", "curious", "daring", "dapper",
    "deft", "direct", "dreamy", "eager", "early", "earnest", "easy", "elated", "epic", "even", "exact", "fair",
    "famous", "fancy", "fearless", "fine", "fluent", "fond", "frank", "fresh", "friendly", "frosty", "funny",
    "gallant", "gentle", "gifted", "glad", "gleaming", "golden", "graceful", "grand", "handy", "happy", "hardy",
    "hearty", "honest", "humble", "jolly", "jovial", "keen", "kind", "lively", "loyal", "lucid", "lucky", "merry",
    "mild", "modest", "neat", "nimble", "noble", "novel", "patient", "peaceful", "placid", "plucky", "polite", "prime",
    "proud", "quick", "quiet", "rapid", "robust", "rosy", "serene", "sharp", "silent", "silver", "smart", "solid",
    "steady", "sturdy", "sunny", "swift", "tender", "tidy", "vivid", "warm", "wise", "witty",
];

const SURNAMES: [&str; 104] = [
    "abel",
    "agnesi",
    "ampere",
    "anning",
    "archimedes",
    "avogadro",
    "babbage",
    "bardeen",
    "becquerel",
    "bell",
    "bohr",
    "boltzmann",
    "boole",
    "born",
    "bose",
    "boyle",
    "brahe",
    "cantor",
    "carson",
    "cauchy",
    "cavendish",
    "cerf",
    "chandrasekhar",
    "chatelet",
    "copernicus",
    "coulomb",
    "crick",
    "curie",
    "dalton",
    "darwin",
    "descartes",
    "dijkstra",
    "dirac",
    "doppler",
    "eddington",
    "edison",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "hawking",
    "heisenberg",
    "herschel",
    "hertz",
    "hilbert",
    "hodgkin",
    "hooke",
    "hopper",
    "hubble",
    "humboldt",
    "huygens",
    "hypatia",
    "jemison",
    "johnson",
    "joule",
    "kelvin",
    "kepler",
    "khayyam",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "lavoisier",
    "leibniz",
    "linnaeus",
    "lovelace",
    "maxwell",
    "mayer",
    "mcclintock",
    "meitner",
    "mendel",
    "mendeleev",
    "mirzakhani",
    "morse",
    "napier",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "pauli",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "rubin",
    "rutherford",
    "sagan",
    "shannon",
    "turing",
    "volta",
];

/// A random `adjective_surname`.
///
/// # Errors
/// The kernel's random source cannot be read.
pub fn random_name(attempt: Attempt) -> std::io::Result<String> {
    let mut bytes = [0u8; 5];
    crate::sys::random::fill(&mut bytes)?;
    let [a, b, c, d, digit] = bytes;
    let adjective = ADJECTIVES[usize::from(u16::from_le_bytes([a, b])) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(u16::from_le_bytes([c, d])) % SURNAMES.len()];
    Ok(match attempt {
        Attempt::First => format!("{adjective}_{surname}"),
        Attempt::Again => format!("{adjective}_{surname}{}", digit % 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_distinct_and_every_name_is_valid() {
        let distinct: HashSet<_> = ADJECTIVES.iter().chain(&SURNAMES).collect();
        assert_eq!(distinct.len(), ADJECTIVES.len() + SURNAMES.len());
        for word in distinct {
            assert!(word.len() > 1 && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
        for attempt in [Attempt::First, Attempt::Again] {
            crate::container::names::validate(&random_name(attempt).unwrap()).unwrap();
        }
    }

    #[test]
    fn names_differ_and_a_retry_ends_in_a_digit() {
        let names: HashSet<_> = (0..100).map(|_| random_name(Attempt::First).unwrap()).collect();
        assert!(names.len() > 80, "{} of 100 names differ", names.len());
        assert!(random_name(Attempt::Again).unwrap().ends_with(|c: char| c.is_ascii_digit()));
    }
}
