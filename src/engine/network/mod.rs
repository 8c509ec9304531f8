//! Networks as users see them: made, listed, removed, joined and left. What a network is stands in
//! [`crate::net`]; who uses it, and when it is made real, is decided here.

pub(in crate::engine) mod claim;
mod connect;
mod create;
pub(in crate::engine) mod plug;
mod publish;
mod remove;
pub(in crate::engine) mod resolve;
mod view;

pub use view::{
    ConfigFromView, ConnectionView, Connections, ContainerOnNetwork, IpamView, NetworkFilter, NetworkListing,
    NetworkSummary, NetworkView, SubnetView, builtin_id,
};

pub(super) use view::id_of;

/// A network that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCreated {
    /// Its id.
    pub id: String,
    /// Things the user should know; not errors.
    pub warnings: Vec<String>,
}
