//! Volumes: directories that outlive containers. (stub, being written)
use crate::layout::Layout;
use std::path::PathBuf;
/// x
pub struct Volumes(Layout);
/// x
pub enum Kind {
    /// n
    Named,
    /// a
    Anonymous,
}
impl Volumes {
    /// x
    pub fn open(l: &Layout) -> Self {
        Volumes(l.clone())
    }
    /// x
    pub fn ensure(&self, name: &str, _: Kind) -> anyhow::Result<PathBuf> {
        let p = self.0.volumes().join(name).join("_data");
        std::fs::create_dir_all(&p)?;
        Ok(p)
    }
    /// x
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_dir_all(self.0.volumes().join(name))?)
    }
}
/// x
pub fn random_name() -> anyhow::Result<String> {
    Ok(crate::container::ContainerId::random()?.to_string())
}
