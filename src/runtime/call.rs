//! System calls that failed, by name.

use crate::error::without_numbers;

/// A failed system call with its name, for `--explain`; reads as the bare reason.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(*.errno))]
pub struct CallFailed {
    /// The system call.
    pub call: &'static str,
    /// Its error number.
    pub errno: i32,
}

fn describe(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    // The reason alone, lower case.
    let text = without_numbers(&text);
    let mut characters = text.chars();
    characters.next().map(|c| c.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// Names the system call of a result.
pub trait Call<T> {
    /// The same result, knowing which call failed.
    fn call(self, name: &'static str) -> Result<T, CallFailed>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, name: &'static str) -> Result<T, CallFailed> {
        self.map_err(|errno| CallFailed { call: name, errno: errno.raw_os_error() })
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call(self, name: &'static str) -> Result<T, CallFailed> {
        self.map_err(|error| CallFailed { call: name, errno: error.raw_os_error().unwrap_or(libc::EIO) })
    }
}
