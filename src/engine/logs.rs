//! stub
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// o
    Stdout,
    /// e
    Stderr,
}
/// x
#[derive(Debug)]
pub struct LogWriter;
impl LogWriter {
    /// x
    pub fn open(_: &std::path::Path, _: &crate::container::LogOptions) -> anyhow::Result<LogWriter> {
        Ok(LogWriter)
    }
    /// x
    pub fn append(&mut self, _: Stream, _: &[u8]) {}
    /// x
    pub fn finish(&mut self) {}
}
